//! [`SamplerOrder`]: which steps of sampling act, and in which order.

use std::fmt;
use std::str::FromStr;

use crate::error::ParameterError;

/// A step of sampling; its doc at the parameter that governs it in [`SamplingParams`](super::SamplingParams).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Repetition, presence and frequency penalty.
    Penalties,
    /// The penalty on repeated sequences.
    Dry,
    /// The cut at a number of standard deviations below the best logit.
    TopNSigma,
    /// The cut at a number of tokens.
    TopK,
    /// The cut to tokens of typical information.
    TypicalP,
    /// The cut at a summed probability.
    TopP,
    /// The cut at a share of the best token's probability.
    MinP,
    /// The removal of the most probable tokens.
    Xtc,
    /// The division by the temperature, fixed or dynamic.
    Temperature,
}

impl Step {
    /// All, in the order of llama.cpp.
    pub const ALL: [Self; 9] = [
        Self::Penalties,
        Self::Dry,
        Self::TopNSigma,
        Self::TopK,
        Self::TypicalP,
        Self::TopP,
        Self::MinP,
        Self::Xtc,
        Self::Temperature,
    ];

    /// Its name, as llama.cpp has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Penalties => "penalties",
            Self::Dry => "dry",
            Self::TopNSigma => "top_n_sigma",
            Self::TopK => "top_k",
            Self::TypicalP => "typ_p",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::Xtc => "xtc",
            Self::Temperature => "temperature",
        }
    }

    /// Its letter in the short form of an order, as llama.cpp has it.
    pub fn letter(self) -> char {
        match self {
            Self::Penalties => 'e',
            Self::Dry => 'd',
            Self::TopNSigma => 's',
            Self::TopK => 'k',
            Self::TypicalP => 'y',
            Self::TopP => 'p',
            Self::MinP => 'm',
            Self::Xtc => 'x',
            Self::Temperature => 't',
        }
    }

    /// The step of a name, with the spellings that go around.
    fn of_name(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        let name = match name.as_str() {
            "temp" => "temperature",
            "typical" | "typical_p" | "typ" => "typ_p",
            "nucleus" => "top_p",
            "top_nsigma" => "top_n_sigma",
            other => other,
        };
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

/// Steps of sampling in the order in which they act, each at most once. A step that is not listed does not act,
/// whatever its parameters say; one whose parameters say nothing does nothing.
///
/// The default is that of Hugging Face's generation, where the temperature acts before the cuts:
/// `penalties;dry;top_n_sigma;temperature;top_k;typ_p;top_p;min_p;xtc`. [`LLAMA`](Self::LLAMA) has it at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SamplerOrder {
    /// The first `len` count; the others are [`Step::Penalties`].
    steps: [Step; 9],
    len: usize,
}

impl SamplerOrder {
    /// The default of llama.cpp.
    pub const LLAMA: Self = Self { steps: Step::ALL, len: 9 };

    /// The default.
    pub const DEFAULT: Self = Self {
        steps: [
            Step::Penalties,
            Step::Dry,
            Step::TopNSigma,
            Step::Temperature,
            Step::TopK,
            Step::TypicalP,
            Step::TopP,
            Step::MinP,
            Step::Xtc,
        ],
        len: 9,
    };

    /// An order of these steps.
    ///
    /// # Errors
    /// [`ParameterError`] if one occurs twice.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Result<Self, ParameterError> {
        let mut order = Self { steps: [Step::Penalties; 9], len: 0 };
        for step in steps {
            if order.steps().contains(&step) {
                return Err(refused(step.name(), "each step at most once"));
            }
            order.steps[order.len] = step;
            order.len += 1;
        }
        Ok(order)
    }

    /// Reads the short form, a letter for each step: `edskypmxt` is [`LLAMA`](Self::LLAMA).
    ///
    /// # Errors
    /// [`ParameterError`] for a letter that is none or occurs twice.
    pub fn from_letters(text: &str) -> Result<Self, ParameterError> {
        let step = |letter: char| {
            let found = Step::ALL.into_iter().find(|step| step.letter() == letter);
            found.ok_or_else(|| refused(&letter.to_string(), "letters of \"edskypmxt\", each at most once"))
        };
        Self::new(text.chars().map(step).collect::<Result<Vec<_>, _>>()?)
    }

    /// The steps, first to last.
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.len]
    }
}

fn refused(value: &str, allowed: &'static str) -> ParameterError {
    ParameterError { name: "samplers", value: format!("{value:?}"), allowed }
}

impl Default for SamplerOrder {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FromStr for SamplerOrder {
    type Err = ParameterError;

    /// Reads names between semicolons (or commas); an empty text is an order without steps.
    fn from_str(text: &str) -> Result<Self, ParameterError> {
        let names = text.split([';', ',']).filter(|name| !name.trim().is_empty());
        let step = |name: &str| {
            let allowed = "names of penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";
            Step::of_name(name).ok_or_else(|| refused(name, allowed))
        };
        Self::new(names.map(step).collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for SamplerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps().iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ";" }, step.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for SamplerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_written() {
        let llama = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";
        assert_eq!(llama.parse(), Ok(SamplerOrder::LLAMA));
        assert_eq!(SamplerOrder::LLAMA.to_string(), llama);
        assert_eq!(SamplerOrder::from_letters("edskypmxt"), Ok(SamplerOrder::LLAMA));
        assert_eq!(SamplerOrder::DEFAULT.to_string().parse(), Ok(SamplerOrder::DEFAULT));
        let few: SamplerOrder = " Top-K; temp,nucleus;".parse().unwrap();
        assert_eq!(few.steps(), [Step::TopK, Step::Temperature, Step::TopP]);
        assert_eq!(Ok(few), SamplerOrder::from_letters("ktp"));
        assert_eq!("".parse::<SamplerOrder>().unwrap().steps(), []);
    }

    #[test]
    fn unknown_and_double_steps_are_named() {
        for text in ["top_k;top_x", "top_k;dry;top_k"] {
            let error = text.parse::<SamplerOrder>().unwrap_err();
            assert!(error.name == "samplers" && error.value.contains("top_"), "{error}");
        }
        assert!(SamplerOrder::from_letters("kk").is_err() && SamplerOrder::from_letters("kz").is_err());
    }
}
