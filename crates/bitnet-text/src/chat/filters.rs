//! What `transformers` adds to Jinja for chat templates: white space as with `trim_blocks` and `lstrip_blocks`, Python's
//! methods on strings and maps, `raise_exception`, `strftime_now`, and a `tojson` that writes what Python's `json.dumps`
//! writes.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::{SyntaxConfig, SyntaxConfigBuilder};
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use regex::Regex;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// The kind of the errors that a template raises itself.
pub(super) const RAISED: ErrorKind = ErrorKind::InvalidOperation;

/// An environment in which chat templates work.
pub(super) fn environment() -> Environment<'static> {
    environment_of(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true))
}

/// The same for texts, whose last line break counts.
pub(super) fn text_environment() -> Environment<'static> {
    environment_of(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true))
}

fn environment_of(syntax: &mut SyntaxConfigBuilder) -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = syntax.build();
    environment.set_syntax(syntax.expect("the delimiters are the default ones"));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(RAISED, message))
    });
    environment.add_function("strftime_now", |format: String| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        format_time(&format, seconds)
    });
    environment
}

/// The template without the tags that mark answers for training. They become an `if` that is always true, which
/// treats the white space around it in the same way.
pub(super) fn without_generation_tags(source: &str) -> String {
    let tag =
        Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a constant that a test compiles");
    let replaced = tag.replace_all(source, |found: &regex::Captures<'_>| {
        let body = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {body} {}%}}", &found[1], &found[3])
    });
    replaced.into_owned()
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands the arguments of a filter over by value")]
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // The other arguments that templates pass are Python's defaults.
    for name in ["ensure_ascii", "separators", "sort_keys"] {
        options.get::<Option<Value>>(name)?;
    }
    options.assert_all_used()?;
    if let Some(indent) = indent.filter(|&indent| indent > 16) {
        return Err(Error::new(RAISED, format!("tojson cannot indent by {indent}; 16 is the most")));
    }
    let mut json = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Spaced)),
        Some(indent) => {
            let spaces = " ".repeat(indent);
            let pretty = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, pretty))
        }
    };
    let failed = |error: &dyn std::fmt::Display| Error::new(RAISED, format!("tojson: {error}"));
    written.map_err(|error| failed(&error))?;
    String::from_utf8(json).map(Value::from).map_err(|error| failed(&error))
}

/// JSON on one line with a space after `,` and `:`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        CompactFormatter.begin_object_value(writer)?;
        writer.write_all(b" ")
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Formats a time in UTC, given in seconds from 1970 on, with the directives of `strftime` that templates use.
fn format_time(format: &str, seconds: u64) -> Result<String, Error> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let month_name = MONTHS[(month - 1) as usize % 12];
    let weekday = WEEKDAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('B') => out.push_str(month_name),
            Some('b') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('Z') => out.push_str("UTC"),
            Some('%') => out.push('%'),
            other => {
                let directive: String = other.into_iter().collect();
                return Err(Error::new(RAISED, format!("strftime_now does not know %{directive}")));
            }
        }
    }
    Ok(out)
}

/// Year, month and day of a day counted from 1 January 1970, in the Gregorian calendar. Counts in years that begin in
/// March, so that the leap day is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let from_march_0000 = days + 719_468;
    let (era, day_of_era) = (from_march_0000 / 146_097, from_march_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        let context = serde_json::json!({"value": {"b": "<é & \"x\">", "a": [1, 2.5, null, true, [], {}]}});
        environment().render_str(source, minijinja::value::Serde(&context)).unwrap()
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        assert_eq!(
            render("{{ value | tojson }}"),
            r#"{"b": "<é & \"x\">", "a": [1, 2.5, null, true, [], {}]}"#
        );
        assert_eq!(render("{{ value.a[:2] | tojson(indent=2) }}"), "[\n  1,\n  2.5\n]");
        assert_eq!(render("{{ value.a[:2] | tojson(ensure_ascii=False) }}"), "[1, 2.5]");
    }

    #[test]
    fn times_in_utc() {
        let formatted = |format, seconds| format_time(format, seconds).unwrap();
        assert_eq!(formatted("%d %b %Y, %A %H:%M:%S %Z %%", 0), "01 Jan 1970, Thursday 00:00:00 UTC %");
        assert_eq!(formatted("%a %d %B %y %I %p", 951_782_400 + 13 * 3_600), "Tue 29 February 00 01 PM");
        assert_eq!(formatted("%Y-%m-%d", 1_735_689_599), "2024-12-31");
        assert_eq!(formatted("%Y-%m-%d", 4_107_542_400), "2100-03-01");
        assert!(format_time("%Q", 0).unwrap_err().to_string().contains("%Q"));
        assert!(format_time("%", 0).is_err());
    }

    #[test]
    fn generation_tags_leave_their_white_space_rules() {
        let source = "a {%- generation -%} b {% endgeneration %}\nc";
        let expected = "a {%- if true -%} b {% endif %}\nc";
        assert_eq!(without_generation_tags(source), expected);
        assert_eq!(render(&without_generation_tags(source)), "ab c");
    }
}
