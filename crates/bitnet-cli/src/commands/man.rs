//! `bitnet man`: manual pages, made of the command line itself.

use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

use crate::args::{self, ManArgs};
use crate::error::CliError;
use crate::nearest::nearest;
use crate::output::{self, Notes};

pub(super) fn run(args: &ManArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let mut root = args::command().disable_help_subcommand(true);
    root.build();
    let Some(folder) = &args.output else {
        output::result(&page(find(&root, &args.command)?)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let count = write(&root, folder)?;
    notes.say(&format!("wrote {count} pages to {}", folder.display()));
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(root: &'a Command, words: &[String]) -> Result<&'a Command, CliError> {
    let mut command = root;
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| {
            let error = CliError::usage(format!("there is no command `{word}`"));
            match nearest(word, command.get_subcommands().map(Command::get_name)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })?;
    }
    Ok(command)
}

/// Writes the pages of a command and all below it; gives their number.
fn write(command: &Command, folder: &Path) -> Result<usize, CliError> {
    let name = Man::new(command.clone()).get_filename();
    output::write_file_in_folder(&folder.join(name), page(command)?.as_bytes())?;
    let mut count = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        count += write(sub, folder)?;
    }
    Ok(count)
}

fn page(command: &Command) -> Result<String, CliError> {
    let man = Man::new(command.clone()).manual("BitNet-Rust");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let mut text = String::from_utf8_lossy(&out).into_owned();
    if let Some(after) = command.get_after_help() {
        text += &format!(".SH NOTES\n.nf\n{}\n.fi\n", verbatim(&after.to_string()));
    }
    text += ".SH \"EXIT STATUS\"\n.TP\n0\nIt is done.\n.TP\n1\nIt failed; standard error says why.\n.TP\n2\nIt was asked for \
             wrongly: a flag, a setting.\n.TP\n3\nSome rows of a batch failed; the others are \
             done.\n.TP\n130\nIt was interrupted.\n";
    text += ".SH FILES\n.TP\n\\fI~/.config/bitnet/config.toml\\fR\nDefaults of flags; see bitnet\\-config(1). BITNET_CONFIG \
             names another file.\n";
    Ok(text)
}

/// Text as it is: nothing in it is an order to roff.
fn verbatim(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = escaped.lines().map(|line| match line.chars().next() {
        Some('.' | '\'') => format!("\\&{line}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_order() {
        assert_eq!(verbatim(".SH x\n'y\na\\b --c"), "\\&.SH x\n\\&'y\na\\eb \\-\\-c");
    }
}
