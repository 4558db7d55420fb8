//! Whether two tokenizers and templates do the same: on texts that are hard to split, on every token of the vocabulary
//! by itself, and on a conversation.

use bitnet_model::load::LoadedModel;
use bitnet_text::{ChatMessage, EncodeOptions, Tokenizer};

use crate::error::{ConvertError, Result};
use crate::report::TextCheck;

/// Texts that tokenizers disagree about if anything is wrong with one of them.
const TEXTS: &[&str] = &[
    "",
    " ",
    "  ",
    "\n",
    "\t\t x\r\n\r\n  y \n",
    "Hello, world!",
    " leading and trailing ",
    "a   b    c\u{a0}d\u{3000}e",
    "I'LL we'll DON'T it's o'clock ''' 'tis",
    "1 12 123 1234 12345678901234567890 3.14159 1,000,000.00 ½ ٣٤٥",
    "snake_case camelCase kebab-case x+=1; if (a&&b) { return !c; } /* c */ // \"s\"",
    "\n\n\n\nParagraph.\n\n    indented\n\tTabbed\n",
    "Größe, naïve café, Zürich, ſtraße, İstanbul, ΑΒΓ αβγ, Привет, мир!",
    "你好，世界。 こんにちは 안녕하세요 ภาษาไทย हिन्दी العربية עברית",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 🚀🚀",
    "ﬁ ﬂ Å Ω ⅷ ①",
    "\u{0}\u{1}\u{7f}\u{200b}\u{feff}\u{fffd}\u{10ffff}",
    "https://example.com/a?b=c&d=%20#e user@example.org C:\\dir\\file.txt ~/.config",
    "<|notatoken|> <s> </s> <unk> [INST] <0x41> <0xZZ> ▁x ▁▁ Ġx [PAD1]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "................................ ---------------- ================ ################",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
];

/// Texts that a normaliser would change; files without one encode them as they are.
const UNNORMALISED: &[&str] =
    &["e\u{301} o\u{308} A\u{30a}", "\u{1100}\u{1161}\u{11a8}", "\u{212b} \u{2126}"];

/// Compares how two models read. `notes` are what the conversion said about losses.
///
/// # Errors
/// [`ConvertError::Mismatch`] with the first text that differs.
pub(crate) fn compare(
    source: &LoadedModel,
    output: &LoadedModel,
    notes: &mut Vec<String>,
) -> Result<Option<TextCheck>> {
    let (Some(left), Some(right)) = (&source.tokenizer, &output.tokenizer) else {
        if source.tokenizer.is_some() {
            let why = output.tokenizer_note.clone().unwrap_or_default();
            return Err(ConvertError::mismatch(format!("the output has no usable tokenizer: {why}")));
        }
        compare_stops(source, output, notes);
        return Ok(None);
    };
    let mut check = TextCheck::default();
    let normalised = notes.iter().any(|note| note.contains("into the form NF"));
    let unnormalised = if normalised { &[] } else { UNNORMALISED };
    for text in TEXTS.iter().chain(unnormalised) {
        for options in [EncodeOptions::PLAIN, EncodeOptions::PROMPT] {
            same(left, right, text, options, &mut check)?;
        }
    }
    every_token(left, right, &mut check)?;
    compare_templates(source, output, &mut check)?;
    compare_stops(source, output, notes);
    Ok(Some(check))
}

fn same(
    left: &Tokenizer,
    right: &Tokenizer,
    text: &str,
    options: EncodeOptions,
    check: &mut TextCheck,
) -> Result<()> {
    // A text that a vocabulary cannot express must be refused by both.
    let (a, b) = (left.encode(text, options).ok(), right.encode(text, options).ok());
    if a != b {
        let show = |ids: &Option<Vec<u32>>| match ids {
            Some(ids) => format!("{ids:?}"),
            None => "nothing".to_owned(),
        };
        let text = text.escape_debug();
        return Err(ConvertError::mismatch(format!(
            "the text \"{text}\" is encoded as {} by the original and as {} by the output",
            show(&a),
            show(&b)
        )));
    }
    check.texts += 1;
    check.tokens += a.map_or(0, |ids| ids.len() as u64);
    Ok(())
}

/// Each token by itself: ordinary ones as text, control tokens as a template writes them.
fn every_token(left: &Tokenizer, right: &Tokenizer, check: &mut TextCheck) -> Result<()> {
    for id in 0..left.vocab_size() as u32 {
        let Some(bytes) = left.token_bytes(id) else { continue };
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        if left.is_special(id) != right.is_special(id) && !text.starts_with("<|") {
            let text = text.escape_debug();
            return Err(ConvertError::mismatch(format!(
                "token {id} \"{text}\" is a control token in one model only"
            )));
        }
        let control = left.is_special(id) || text.starts_with("<|");
        let options = if control { EncodeOptions::TEMPLATE } else { EncodeOptions::PLAIN };
        same(left, right, text, options, check)?;
    }
    Ok(())
}

fn compare_templates(source: &LoadedModel, output: &LoadedModel, check: &mut TextCheck) -> Result<()> {
    let (Some(left), Some(right)) = (&source.chat_template, &output.chat_template) else {
        return match source.chat_template {
            Some(_) => Err(ConvertError::mismatch("the output has no chat template")),
            None => Ok(()),
        };
    };
    let (Some(a), Some(b)) = (&source.tokenizer, &output.tokenizer) else { return Ok(()) };
    let messages =
        [ChatMessage::user("What is  1+1?\n"), ChatMessage::assistant(" Two."), ChatMessage::user("Really?")];
    for count in [1, 3] {
        let encode = |template: &bitnet_text::ChatTemplate, tokenizer: &Tokenizer| {
            template.encode(tokenizer, &messages[..count], true).map_err(|error| error.to_string())
        };
        let (left, right) = (encode(left, a), encode(right, b));
        // Templates may refuse a conversation; what they say names their origin.
        if left.is_ok() != right.is_ok() || left.is_ok() && left != right {
            return Err(ConvertError::mismatch(format!(
                "a conversation is encoded as {left:?} by the original and as {right:?} by the output"
            )));
        }
        check.conversations += 1;
    }
    Ok(())
}

/// Stop tokens cannot all be told in every form; what is lost is said.
fn compare_stops(source: &LoadedModel, output: &LoadedModel, notes: &mut Vec<String>) {
    let stops = &output.generation.stop_tokens;
    let lost: Vec<String> = source
        .generation
        .stop_tokens
        .iter()
        .filter(|id| !stops.contains(id))
        .map(|&id| match source.tokenizer.as_ref().and_then(|t| t.token_str(id)) {
            Some(text) => format!("{id} {text}"),
            None => id.to_string(),
        })
        .collect();
    if !lost.is_empty() {
        notes.push(format!("stop tokens that the output cannot name: {}", lost.join(", ")));
    }
}
