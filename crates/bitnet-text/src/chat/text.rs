//! [`TextTemplate`]: a text with holes, filled from the fields of a row.

use std::collections::BTreeSet;

use minijinja::value::{Rest, Serde, Value as Filled};
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior, escape_formatter};
use serde_json::{Map, Value};

use super::{FUEL, NAME, filters, template_error};
use crate::error::Result;

/// A Jinja template over the fields of a row, such as `Question: {{question}}`. It knows what chat templates know; a field
/// that a row does not have is an error, but in an `if`. A field that is null prints nothing, as an empty cell of a table
/// does; chat templates print `None`, as Python does.
#[derive(Clone)]
pub struct TextTemplate {
    environment: Environment<'static>,
    origin: String,
}

impl std::fmt::Debug for TextTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTemplate").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl TextTemplate {
    /// Compiles a template. `origin` is where it came from, for messages.
    ///
    /// # Errors
    /// [`TextError::Template`](crate::TextError::Template) with the line that is wrong.
    pub fn new(source: &str, origin: &str) -> Result<Self> {
        let mut environment = filters::text_environment();
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let_null_be_empty(&mut environment);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| template_error(origin, &error))?;
        // Filters and functions are looked up only when they are used.
        let tried = environment.get_template(NAME).and_then(|template| template.render(()));
        match tried {
            Err(error) if is_unknown(error.kind()) => Err(template_error(origin, &error)),
            _ => Ok(Self { environment, origin: origin.to_owned() }),
        }
    }

    /// The fields that it names.
    pub fn names(&self) -> BTreeSet<String> {
        let template = self.environment.get_template(NAME);
        template
            .map(|template| template.undeclared_variables(false).into_iter().collect())
            .unwrap_or_default()
    }

    /// The text for a row.
    ///
    /// # Errors
    /// [`TextError::Template`](crate::TextError::Template) if it asks for what the row does not have.
    pub fn render(&self, row: &Map<String, Value>) -> Result<String> {
        let template = self.environment.get_template(NAME);
        template
            .and_then(|template| template.render(Serde(row)))
            .map_err(|error| template_error(&self.origin, &error))
    }
}

/// Makes null print nothing, also behind the filters that are most often put to fields.
fn let_null_be_empty(environment: &mut Environment<'static>) {
    use minijinja::filters::{capitalize, lower, title, trim, upper};
    environment.set_formatter(|out, state, value| match value.is_none() {
        true => Ok(()),
        false => escape_formatter(out, state, value),
    });
    let filters = [
        ("capitalize", Filled::from_function(capitalize)),
        ("lower", Filled::from_function(lower)),
        ("title", Filled::from_function(title)),
        ("trim", Filled::from_function(trim)),
        ("upper", Filled::from_function(upper)),
    ];
    for (name, filter) in filters {
        environment.add_filter(name, move |state: &mut State, value: Filled, rest: Rest<Filled>| {
            if value.is_none() {
                return Ok(Filled::from(""));
            }
            filter.call(state, &[&[value], &rest[..]].concat())
        });
    }
}

/// Whether something is called that there is not.
fn is_unknown(kind: ErrorKind) -> bool {
    use ErrorKind::{TemplateNotFound, UnknownFilter, UnknownFunction, UnknownTest};
    matches!(kind, UnknownFilter | UnknownFunction | UnknownTest | TemplateNotFound)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str) -> Result<String> {
        let row = json!({"question": "Is <this> \"it\"?\n", "choices": ["yes", "no"], "n": 3});
        TextTemplate::new(source, "--template")?.render(row.as_object().expect("an object"))
    }

    #[test]
    fn fields_stand_where_the_template_says() {
        assert_eq!(render("Q: {{question}}A:\n").unwrap(), "Q: Is <this> \"it\"?\nA:\n");
        assert_eq!(
            render("{% for c in choices %}{{loop.index}}. {{c}} {% endfor %}{{n}}").unwrap(),
            "1. yes 2. no 3"
        );
        assert_eq!(render("{% if hint %}{{hint}}{% endif %}x").unwrap(), "x");
    }

    #[test]
    fn null_prints_nothing() {
        let row = json!({"a": null, "b": [null, 1], "c": {"d": null}});
        let render = |source: &str| {
            TextTemplate::new(source, "--template").unwrap().render(row.as_object().unwrap()).unwrap()
        };
        assert_eq!(render("<{{a}}|{{ c.d }}|{% for x in b %}{{x}},{% endfor %}>"), "<||,1,>");
        // It is still null for what looks at it.
        assert_eq!(render("{% if a is none %}{{ a|default('-', true) }}{% endif %}"), "-");
        assert_eq!(render("{{ a|tojson }} {{ b|tojson }}"), "null [null, 1]");
        assert_eq!(render("<{{ a|upper }}|{{ a|trim }}|{{ a|trim('x')|title }}>"), "<||>");
        assert_eq!(render("{{ 'ab a'|title }}{{ 'xabx'|trim('x')|upper }}"), "Ab AAB");
    }

    #[test]
    fn what_a_row_lacks_is_an_error() {
        let error = render("Q: {{questoin}}").unwrap_err().to_string();
        assert!(error.contains("--template") && error.contains("undefined"), "{error}");
        assert!(TextTemplate::new("{{ question|shout }}", "t").is_err(), "there is no such filter");
        let names =
            TextTemplate::new("{{b}} {{a.x}} {% for c in a %}{{c}}{% endfor %}", "t").unwrap().names();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(render("{{").unwrap_err().to_string().contains("--template"));
        assert!(
            render("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}")
                .is_err()
        );
    }
}
