//! `bitnet reference`: the pages of the book about the command line, and whether a command line can be.
//!
//! Pages are made of what clap knows, so that they cannot tell of a flag that is not there.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use crate::args::{self, ReferenceAction, ReferenceArgs};
use crate::error::CliError;
use crate::output::{self, Notes};

pub(super) fn run(args: &ReferenceArgs, notes: Notes) -> Result<ExitCode, CliError> {
    match &args.action {
        ReferenceAction::Write { output } => {
            let mut root = args::command().disable_help_subcommand(true);
            root.build();
            let count = write(&root, output)?;
            notes.say(&format!("wrote {count} pages to {}", output.display()));
            Ok(ExitCode::SUCCESS)
        }
        ReferenceAction::Check { words } => check(words),
    }
}

/// Reads a command line as the program would, and does no more.
fn check(words: &[std::ffi::OsString]) -> Result<ExitCode, CliError> {
    let all = std::iter::once("bitnet".into()).chain(words.iter().cloned());
    match args::command().try_get_matches_from(args::with_llama_spellings(all)) {
        Err(error) if error.use_stderr() => error.exit(),
        // Help and version are answers too.
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes the page of a command and of all below it; gives their number.
fn write(command: &Command, folder: &Path) -> Result<usize, CliError> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    output::write_file_in_folder(&folder.join(format!("{name}.md")), page(command).as_bytes())?;
    let mut count = 1;
    for sub in subcommands(command) {
        count += write(sub, folder)?;
    }
    Ok(count)
}

fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

fn page(command: &Command) -> String {
    let title = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut out = format!(
        "# {title}\n\n<!-- Generated from the code by `cargo xtask book`; changes here are lost. -->\n\n"
    );
    if let Some(about) = command.get_about() {
        let _ = writeln!(out, "{}.\n", about.to_string().trim_end_matches('.'));
    }
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(out, "```text\n{}\n```", usage.trim());
    let aliases: Vec<String> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        let _ = writeln!(out, "\nAlso called {}.", aliases.join(", "));
    }
    if subcommands(command).next().is_some() {
        out += "\n## Commands\n\n";
    }
    for sub in subcommands(command) {
        let file = sub.get_display_name().unwrap_or_else(|| sub.get_name());
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "- [`{}`]({file}.md): {}", sub.get_name(), escaped(&about));
    }
    arguments(command, &mut out);
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(out, "\n## Examples and notes\n\n```text\n{}\n```", after.to_string().trim_end());
    }
    out
}

/// Positional arguments, then flags by the headings of `--help`.
fn arguments(command: &Command, out: &mut String) {
    let shown: Vec<&Arg> =
        command.get_arguments().filter(|arg| !arg.is_hide_set() && !is_help(arg)).collect();
    let mut headings: Vec<&str> = Vec::new();
    for arg in &shown {
        let heading = heading(arg);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    // What stands behind no heading comes first, as in --help.
    headings.sort_by_key(|heading| match *heading {
        "Arguments" => 0,
        "Options" => 1,
        _ => 2,
    });
    for title in headings {
        let _ = writeln!(out, "\n## {title}\n");
        for arg in shown.iter().filter(|arg| heading(arg) == title) {
            let _ = writeln!(out, "- {}", item(arg));
        }
    }
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn heading(arg: &Arg) -> &str {
    arg.get_help_heading().unwrap_or(if arg.is_positional() { "Arguments" } else { "Options" })
}

/// One argument: how it is written, what it does, what it may be.
fn item(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>")).collect();
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let values = if takes { values.join(" ") } else { String::new() };
    let mut spellings: Vec<String> = arg.get_short().map(|short| format!("-{short}")).into_iter().collect();
    spellings.extend(arg.get_long().map(|long| format!("--{long}")));
    spellings.extend(arg.get_visible_aliases().unwrap_or_default().iter().map(|alias| format!("--{alias}")));
    let written = if spellings.is_empty() { values } else { format!("{} {values}", spellings.join(", ")) };
    let help = arg.get_help().map(|help| help.to_string().replace('\n', " ")).unwrap_or_default();
    let mut text = format!("`{}`: {}", written.trim(), escaped(&help));
    let possible = arg.get_possible_values();
    if takes && !possible.is_empty() && !arg.is_hide_possible_values_set() {
        let names: Vec<String> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let _ = write!(text, "; one of {}", names.join(", "));
    }
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if takes && !defaults.is_empty() {
        let _ = write!(text, "; by default {}", defaults.join(", "));
    }
    if let Some(env) = arg.get_env() {
        let _ = write!(text, "; environment variable `{}`", env.to_string_lossy());
    }
    text
}

/// Text in which nothing is Markdown.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut code = false;
    for c in text.chars() {
        code ^= c == '`';
        if !code && matches!(c, '*' | '_' | '<' | '>' | '[' | ']' | '|') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands in the examples of a help text, as words.
    fn examples(help: &str) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for line in help.lines() {
            // What stands behind two blanks explains.
            let line = line.trim_start();
            let line = line.split("   ").next().unwrap_or(line);
            for part in line.split(" | ") {
                let words = shlex::split(part.trim()).unwrap_or_default();
                let own = words.iter().skip_while(|word| word.contains('=') && !word.starts_with('-'));
                let mut own = own.cloned().peekable();
                if own.peek().is_some_and(|word| word == "bitnet") {
                    found.push(own.take_while(|word| !matches!(word.as_str(), ">" | ">>" | "&&")).collect());
                }
            }
        }
        found
    }

    fn walk(command: &Command, visit: &mut dyn FnMut(&Command)) {
        visit(command);
        for sub in subcommands(command).filter(|sub| sub.get_name() != "help") {
            walk(sub, visit);
        }
    }

    #[test]
    fn every_command_has_examples_that_can_be() {
        let mut root = args::command();
        root.build();
        let mut wrong = Vec::new();
        walk(&root, &mut |command| {
            let name = command.get_bin_name().unwrap_or_default().to_owned();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = examples(&after);
            if !after.starts_with("Examples:") || !after.contains(&name) {
                wrong.push(format!("`{name} --help` has no examples"));
            }
            for words in own {
                let words = args::with_llama_spellings(words.into_iter().map(Into::into));
                match args::command().try_get_matches_from(words) {
                    Err(error) if error.use_stderr() => wrong.push(format!("{name}: {error}")),
                    _ => {}
                }
            }
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn examples_are_found_in_help() {
        let help = "Examples:\n  bitnet a \"b c\"     text\n  A=1 bitnet d > e\n  cat f | bitnet g -\n\nbitnet-tiny is here";
        assert_eq!(
            examples(help),
            [vec!["bitnet", "a", "b c"], vec!["bitnet", "d"], vec!["bitnet", "g", "-"]]
        );
    }

    #[test]
    fn pages_tell_all_flags() {
        let mut root = args::command();
        root.build();
        let page = page(root.find_subcommand("generate").unwrap());
        for part in [
            "# bitnet generate",
            "- `-t, --threads <N>`: ",
            "environment variable `BITNET_THREADS`",
            "## Sampling (defaults: the model's)",
            "`--temp, --temperature <T>`",
            "one of `group128`",
            "bitnet generate \"Once upon a time\"",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!(escaped("a <b> `<c>` x_y"), "a \\<b\\> `<c>` x\\_y");
    }
}
