//! [`TextError`]: everything that can go wrong between text and tokens. Messages name the file, the field, the
//! offending value and what to do.

/// What this crate's functions return.
pub type Result<T, E = TextError> = std::result::Result<T, E>;

/// A failure while reading a tokenizer or template, encoding text or rendering a chat.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The file is not JSON, or not of the shape that its kind demands.
    #[error("{origin}: cannot be read as {expected}: {message}; the file is damaged or of another kind")]
    Json {
        /// The file's name.
        origin: String,
        /// What was expected, such as "a tokenizer.json".
        expected: &'static str,
        /// The parser's message, with line and column.
        message: String,
    },

    /// A field holds a value that contradicts the rest of the file.
    #[error("{origin}: {field}: {problem}")]
    Invalid {
        /// The file's name.
        origin: String,
        /// The field, with an index where it is a list.
        field: String,
        /// What is wrong with it, with the offending value.
        problem: String,
    },

    /// The GGUF names a pre-tokenizer whose splitting rule is not known.
    #[error(
        "{origin}: tokenizer.ggml.pre is \"{name}\", which is not known (known: {known}); \
         put the model's tokenizer.json beside the file and use that"
    )]
    UnknownPreTokenizer {
        /// The file's name.
        origin: String,
        /// The name in the file.
        name: String,
        /// All names that are known, separated by commas.
        known: String,
    },

    /// The file is sound but uses something that is not supported.
    #[error("{origin}: {field} {value} is not supported; {remedy}")]
    Unsupported {
        /// The file's name.
        origin: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What to do instead.
        remedy: &'static str,
    },

    /// A [`Segment::Special`](crate::Segment::Special) spells no token of the vocabulary.
    #[error(
        "\"{spelling}\" is not a token of this vocabulary; check that template and tokenizer belong together"
    )]
    UnknownToken {
        /// The spelling asked for.
        spelling: String,
    },

    /// The vocabulary has no token for a part of the text and no unknown token either.
    #[error("the vocabulary has no token for {what} and no unknown token; remove it from the text")]
    Unencodable {
        /// The part of the text.
        what: String,
    },

    /// The text is longer than the encoder can index.
    #[error("the text has {bytes} bytes, more than the {limit} that can be encoded at once; split it")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The largest length in bytes.
        limit: usize,
    },

    /// The `tokenizers` library refused the text.
    #[error("the text cannot be encoded: {message}")]
    Encode {
        /// The library's message.
        message: String,
    },

    /// A chat template does not compile, or fails on these messages.
    #[error("{origin}: {}{message}", LineNumber(*line))]
    Template {
        /// Where the template came from.
        origin: String,
        /// The line of the template, from 1, where it is known.
        line: Option<usize>,
        /// What is wrong, or what the template itself raised.
        message: String,
    },
}

impl TextError {
    pub(crate) fn invalid(origin: &str, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { origin: origin.to_owned(), field: field.into(), problem: problem.into() }
    }
}

/// `line N: ` or nothing.
struct LineNumber(Option<usize>);

impl std::fmt::Display for LineNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}
