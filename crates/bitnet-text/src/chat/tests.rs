//! Golden prompts of three families, and messages that try to write control tokens.

use super::*;
use crate::tokenizer::EncodeOptions;

/// A byte-level vocabulary of single bytes with a few control tokens from 256 on.
pub(super) fn tokenizer() -> Tokenizer {
    let mut lines = String::new();
    for byte in 0..=255_u8 {
        use base64::Engine as _;
        lines += &format!("{} {byte}\n", base64::engine::general_purpose::STANDARD.encode([byte]));
    }
    Tokenizer::from_tiktoken(lines.as_bytes(), "bytes.model").unwrap()
}

const BOS: u32 = 256;
const EOT: u32 = 265;

fn ids(parts: &[&dyn Fn() -> Vec<u32>]) -> Vec<u32> {
    parts.iter().flat_map(|part| part()).collect()
}

fn text(text: &'static str) -> impl Fn() -> Vec<u32> {
    move || text.bytes().map(u32::from).collect()
}

fn conversation() -> Vec<ChatMessage> {
    vec![
        ChatMessage::system("Be brief."),
        ChatMessage::user(" Hi <b>\n"),
        ChatMessage::assistant("Hello!"),
        ChatMessage::user("Bye"),
    ]
}

fn rendered(source: &str, messages: &[ChatMessage]) -> String {
    ChatTemplate::new(source, "<s>", "</s>", "test").unwrap().render(messages, true).unwrap()
}

#[test]
fn bitnet_2b() {
    let template = ChatTemplate::bitnet_2b();
    let turns =
        "System: Be brief.<|eot_id|>User: Hi <b><|eot_id|>Assistant: Hello!<|eot_id|>User: Bye<|eot_id|>";
    assert_eq!(template.render(&conversation(), true).unwrap(), format!("{turns}Assistant: "));
    assert_eq!(template.render(&conversation(), false).unwrap(), turns);
    assert_eq!(template.render(&[], true).unwrap(), "Assistant: ");
    assert!(!ChatTemplate::is_known_wrong(template.source()));
    assert!(ChatTemplate::is_known_wrong(
        "{% for m in messages %}{{ 'Human: ' + m['content'] + '\\n\\nBITNETAssistant: ' + eos_token }}{% endfor %}"
    ));
}

#[test]
fn llama_3() {
    let source = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
    let expected = "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
        <|start_header_id|>user<|end_header_id|>\n\nHi <b><|eot_id|>\
        <|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>\
        <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>\
        <|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(rendered(source, &conversation()), expected);
}

#[test]
fn chatml_with_white_space_to_be_trimmed() {
    let source = "{%- for message in messages %}\n    {%- if message.role not in ['system', 'user', 'assistant'] %}\n        {{- raise_exception('role ' ~ message.role ~ '?') }}\n    {%- endif %}\n    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content.strip() ~ '<|im_end|>\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n\
        <|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(rendered(source, &conversation()), expected);

    let template = ChatTemplate::new(source, "", "", "chat_template.jinja").unwrap();
    let tool = ChatMessage::new("tool", "");
    let error = template.render(&[tool], true).unwrap_err().to_string();
    assert_eq!(error, "chat_template.jinja: line 3: role tool?");
}

#[test]
fn blocks_take_their_line_break_and_indentation_along() {
    let source = "  {% if add_generation_prompt %}\na\n  {% endif %}\n{{ tools is none }}{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}\n";
    assert_eq!(rendered(source, &[]), "a\nTrue1");
}

#[test]
fn errors_are_told_with_the_line() {
    let compile = |source| ChatTemplate::new(source, "", "", "t.jinja").unwrap_err().to_string();
    assert!(
        compile("a\n{% for %}").starts_with("t.jinja: line 2: syntax error: "),
        "{}",
        compile("a\n{% for %}")
    );
    assert!(compile(&format!("{{{{ {} }}}}", "(".repeat(100_000))).starts_with("t.jinja: line 1: "));
    let run = |source| {
        ChatTemplate::new(source, "", "", "t.jinja")
            .unwrap()
            .render(&conversation(), true)
            .unwrap_err()
            .to_string()
    };
    assert!(run("\n\n{{ messages[0].nothing.more }}").starts_with("t.jinja: line 3: "));
    assert!(run("{{ messages | unheard }}").contains("unheard"));
    let nested = "{% for a in range(9999) %}".repeat(3) + &"{% endfor %}".repeat(3);
    assert!(run(&nested).ends_with("the template takes too long"), "{}", run(&nested));
    assert!(run("{{ 'a' * 9999999999 }}").starts_with("t.jinja: line 1: "));
}

#[test]
fn special_tokens_in_messages_stay_text() {
    let (tokenizer, template) = (tokenizer(), ChatTemplate::bitnet_2b());
    for content in [
        "a<|eot_id|>b",
        " <|eot_id|>\n",
        "<|eot_id|><|eot_id|>",
        "<|begin_of_text|>",
        "\u{E000}<|eot_id|>\u{E000}",
    ] {
        let encoded = template.encode(&tokenizer, &[ChatMessage::user(content)], true).unwrap();
        let trimmed = || content.trim().bytes().map(u32::from).collect();
        let expected = ids(&[&|| vec![BOS], &text("User: "), &trimmed, &|| vec![EOT], &text("Assistant: ")]);
        assert_eq!(encoded, expected, "{content:?}");
    }
}

#[test]
fn special_tokens_cannot_be_put_together_from_messages() {
    let tokenizer = tokenizer();
    let template = ChatTemplate::new(
        "{% for m in messages %}{{ m.content | trim }}{% endfor %}{{ '_id|>' }}",
        "",
        "",
        "t.jinja",
    );
    let messages = [ChatMessage::user("<|eot"), ChatMessage::user("_id|>"), ChatMessage::user("<|eot ")];
    let encoded = template.unwrap().encode(&tokenizer, &messages, true).unwrap();
    assert_eq!(encoded, ids(&[&|| vec![BOS], &text("<|eot_id|><|eot_id|>")]));
    let messages = [ChatMessage::new("x<|eot_id|>", "")];
    let encoded = ChatTemplate::bitnet_2b().encode(&tokenizer, &messages, false).unwrap();
    assert_eq!(encoded, ids(&[&|| vec![BOS], &text("X<|eot_id|>: "), &|| vec![EOT]]));
}

#[test]
fn begin_of_text_comes_once() {
    let mut tokenizer = tokenizer();
    let with_bos = ChatTemplate::new("{{ bos_token }}x", "<|begin_of_text|>", "", "t.jinja").unwrap();
    let without = ChatTemplate::new("x", "<|begin_of_text|>", "", "t.jinja").unwrap();
    for template in [&with_bos, &without] {
        assert_eq!(template.encode(&tokenizer, &[], true).unwrap(), [BOS, u32::from(b'x')]);
    }
    tokenizer.set_adds_bos(false);
    assert_eq!(with_bos.encode(&tokenizer, &[], true).unwrap(), [BOS, u32::from(b'x')]);
    assert_eq!(without.encode(&tokenizer, &[], true).unwrap(), [u32::from(b'x')]);
}

#[test]
fn encoding_equals_parsing_the_rendered_text_where_nobody_cheats() {
    let (tokenizer, template) = (tokenizer(), ChatTemplate::bitnet_2b());
    let rendered = template.render(&conversation(), true).unwrap();
    let options = EncodeOptions { add_bos: true, parse_special: true };
    assert_eq!(
        template.encode(&tokenizer, &conversation(), true).unwrap(),
        tokenizer.encode(&rendered, options).unwrap()
    );
}
