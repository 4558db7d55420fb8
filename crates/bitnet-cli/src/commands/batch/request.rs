//! [`Requests`]: from rows to requests.

use bitnet_inference::{ChatMessage, GenerateRequest, InferenceEngine, Prompt};
use bitnet_server::offline;
use serde_json::{Map, Value, json};

use super::input::{Content, Row};
use super::survey::Fields;
use super::template::Template;
use crate::args::BatchArgs;
use crate::commands::{constraint, generate};
use crate::error::CliError;

/// Names that every template may use: the row's number and its file.
pub(super) const ALWAYS: [&str; 2] = ["row", "file"];

/// Makes the requests of a run.
#[derive(Debug)]
pub(super) struct Requests {
    /// What flags say, for every row.
    base: GenerateRequest,
    template: Option<Template>,
    chat: bool,
    raw: bool,
    system: Option<String>,
    row_settings: bool,
    seed: u64,
}

/// A row that can be computed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) request: GenerateRequest,
    /// Whether white space at the beginning of the text is left out.
    pub(super) trims: bool,
}

/// A row as a request, and its prompt as far as there is one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prepared {
    pub(super) prompt: Option<String>,
    pub(super) task: Result<Task, String>,
}

impl Requests {
    /// Reads flags and files that they name; `max_tokens` and `seed` are set by [`begin`](Self::begin).
    ///
    /// # Errors
    /// A template or constraint that is none.
    pub(super) fn new(args: &BatchArgs) -> Result<Self, CliError> {
        let prompt = &args.prompt;
        let source = match (&prompt.template, &prompt.template_file) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(path)) => Some(generate::read(path)?),
            (None, None) => None,
        };
        let mut base = GenerateRequest {
            sampling: args.sampling.overrides(),
            stop: prompt.stop.clone(),
            ignore_eos: prompt.ignore_eos,
            constraint: constraint::constraint(&args.constraint)?,
            ..GenerateRequest::new(Prompt::text(""))
        };
        args.sampling.complete(&mut base);
        // Every row has a seed of its own.
        base.sampling.seed = None;
        Ok(Self {
            base,
            template: source.as_deref().map(Template::new).transpose()?,
            chat: prompt.chat || prompt.system.is_some(),
            raw: prompt.raw,
            system: prompt.system.clone(),
            row_settings: !prompt.no_row_settings,
            seed: 0,
        })
    }

    /// Whether prompts are made by a template.
    pub(super) fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// Checks what is known of the rows' fields.
    ///
    /// # Errors
    /// If the template names other ones, or if no column is the prompt.
    pub(super) fn check(&self, fields: &Fields) -> Result<(), CliError> {
        match (fields, &self.template) {
            (Fields::Columns(columns), Some(template)) => template.check(columns),
            (Fields::Columns(columns), None)
                if !columns.is_empty() && prompt_column(columns.iter().map(String::as_str)).is_none() =>
            {
                Err(CliError::usage(format!(
                    "no column is called `prompt`; there are: {}",
                    columns.join(", ")
                ))
                .hint("say how a row becomes a prompt: --template \"... {{column}} ...\""))
            }
            (Fields::None, Some(template)) => template.check(&["text".to_owned()]),
            _ => Ok(()),
        }
    }

    /// Sets what is known once the model is there, and tries the flags: what is wrong with them is wrong with every row.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn begin(
        &mut self,
        args: &BatchArgs,
        engine: &InferenceEngine,
        seed: u64,
    ) -> Result<(), CliError> {
        self.base.max_tokens = generate::max_tokens(args.prompt.predict, engine);
        self.seed = seed;
        let prompt = if self.chat { self.conversation(None, "x") } else { Prompt::text("x") };
        let probe = GenerateRequest { prompt, max_tokens: Some(1), ..self.base.clone() };
        engine.generate_blocking(&probe)?;
        Ok(())
    }

    /// What decides about texts, for the header of a journal.
    pub(super) fn settings(&self, args: &BatchArgs) -> Value {
        let base = &self.base;
        json!({
            "template": self.template.as_ref().map(Template::source),
            "chat": self.chat,
            "raw": self.raw,
            "system": self.system,
            "row_settings": self.row_settings,
            "predict": format!("{:?}", args.prompt.predict),
            "stop": base.stop,
            "ignore_eos": base.ignore_eos,
            "sampling": format!("{:?}", base.sampling),
            "logit_bias": format!("{:?}", base.logit_bias),
            "banned": base.banned,
            "dry_sequence_breakers": base.dry_sequence_breakers,
            "constraint": format!("{:?}", base.constraint),
        })
    }

    /// The request of a row.
    pub(super) fn prepare(&self, row: &Row, engine: &InferenceEngine) -> Prepared {
        let content = match &row.content {
            Ok(content) => content,
            Err(error) => return Prepared { prompt: None, task: Err(error.clone()) },
        };
        if let (Content::Object(fields), None) = (content, &self.template)
            && fields.contains_key("messages")
        {
            let prompt = fields["messages"]
                .as_array()
                .and_then(|list| list.last()?["content"].as_str().map(str::to_owned));
            return Prepared { prompt, task: self.of_messages(row, fields, engine) };
        }
        match self.text(row, content) {
            Err(error) => Prepared { prompt: None, task: Err(error) },
            Ok(text) => {
                let task = self.of_text(row, content, &text);
                Prepared { prompt: Some(text), task }
            }
        }
    }

    /// The text of a row's prompt.
    fn text(&self, row: &Row, content: &Content) -> Result<String, String> {
        let fields = match (content, &self.template) {
            (Content::Text(text), None) => return Ok(text.clone()),
            (Content::Text(text), Some(_)) => Map::from_iter([("text".to_owned(), json!(text))]),
            (Content::Object(fields) | Content::Record(fields), _) => fields.clone(),
        };
        match &self.template {
            Some(template) => {
                let mut all = fields;
                for (name, value) in ALWAYS.into_iter().zip([json!(row.number), json!(row.file)]) {
                    all.entry(name).or_insert(value);
                }
                template.render(&all)
            }
            None => {
                let names = || fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let Some(column) = prompt_column(fields.keys().map(String::as_str)) else {
                    return Err(format!(
                        "it has no `prompt`, and there is no template; there are: {}",
                        names()
                    ));
                };
                fields[column].as_str().map(str::to_owned).ok_or_else(|| format!("{column} is no string"))
            }
        }
    }

    fn of_text(&self, row: &Row, content: &Content, text: &str) -> Result<Task, String> {
        let mut request = self.base.clone();
        let mut system = None;
        if let Content::Object(fields) = content
            && self.row_settings
        {
            let own = self.settings_of(fields);
            offline::apply(&own, &mut request).map_err(|error| error.message)?;
            system = match own.get("system") {
                None | Some(Value::Null) => None,
                Some(_) if self.raw => return Err("system is only possible without --raw".to_owned()),
                Some(Value::String(system)) => Some(system.as_str().to_owned()),
                Some(_) => return Err("system must be a string".to_owned()),
            };
        }
        let is_chat = self.chat || system.is_some();
        request.prompt =
            if is_chat { self.conversation(system.as_deref(), text) } else { Prompt::text(text) };
        Ok(self.task(row, request, is_chat))
    }

    fn of_messages(
        &self,
        row: &Row,
        fields: &Map<String, Value>,
        engine: &InferenceEngine,
    ) -> Result<Task, String> {
        let mut messages = offline::conversation(engine, fields).map_err(|error| error.message)?;
        if let Some(system) = &self.system
            && messages.iter().all(|message| message.role != "system")
        {
            messages.insert(0, ChatMessage::system(system));
        }
        let mut request = GenerateRequest { prompt: Prompt::Chat(messages), ..self.base.clone() };
        if self.row_settings {
            offline::apply(fields, &mut request).map_err(|error| error.message)?;
        }
        Ok(self.task(row, request, true))
    }

    /// The fields of a row that may set something: those that are no data of the template.
    fn settings_of(&self, fields: &Map<String, Value>) -> Map<String, Value> {
        let is_data = |name: &str| self.template.as_ref().is_some_and(|template| template.names(name));
        fields
            .iter()
            .filter(|(name, _)| !is_data(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    fn conversation(&self, system: Option<&str>, text: &str) -> Prompt {
        let system = system.or(self.system.as_deref());
        Prompt::Chat(system.map(ChatMessage::system).into_iter().chain([ChatMessage::user(text)]).collect())
    }

    fn task(&self, row: &Row, mut request: GenerateRequest, is_chat: bool) -> Task {
        request.sampling.seed.get_or_insert_with(|| row_seed(self.seed, row.number));
        // As `bitnet generate` does: templates have white space at the end, but constraints mean what they say.
        let trims = is_chat && request.constraint.is_none();
        Task { request, trims }
    }
}

/// The column that is the prompt where there is no template.
fn prompt_column<'a>(columns: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let columns: Vec<&str> = columns.collect();
    match columns.as_slice() {
        [only] => Some(only),
        several => {
            ["prompt", "text"].into_iter().find_map(|name| several.iter().find(|c| **c == name)).copied()
        }
    }
}

/// The seed of a row: well mixed, so that neighbours draw nothing alike, and small enough for numbers of JSON.
pub(super) fn row_seed(seed: u64, row: u64) -> u64 {
    mixed(seed, row) >> 11
}

/// SplitMix64 of a run's seed at a row.
pub(super) fn mixed(seed: u64, row: u64) -> u64 {
    let mut z = seed.wrapping_add(row.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
