//! Tools in templates that know them and in such that do not, and what else a prompt may carry.

use serde_json::json;

use super::tests::tokenizer;
use super::*;
use crate::tools::{self, ToolFormat};

/// Short forms of what the templates of three families do with tools.
const LLAMA: &str = "{{ bos_token }}{% if tools is not none %}{{ 'Respond with {\"name\": function name, \"parameters\": ..}' }}{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}{% endif %}{% for message in messages %}{% if 'tool_calls' in message %}{% set call = message.tool_calls[0].function %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n{\"name\": \"' + call.name + '\", \"parameters\": ' }}{{ call.arguments | tojson }}{{ '}<|eot_id|>' }}{% elif message.role == 'tool' or message.role == 'ipython' %}{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}{{ message.content }}{{ '<|eot_id|>' }}{% else %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";
const TEXT_ARGUMENTS: &str = "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}{% for m in messages %}{% if m.tool_calls %}<tool_call>{{ m.tool_calls[0].function.name + ' ' + m.tool_calls[0].function.arguments }}{% else %}{{ m.role + '=' + m.content }}{% endif %}|{% endfor %}";
const NO_SYSTEM: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>", "test").unwrap()
}

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}})
}

/// A question, a call, its result.
fn conversation() -> ChatPrompt {
    let call = ToolCall {
        id: Some("call00001".to_owned()),
        name: "weather".to_owned(),
        arguments: json!({"city": "Oslo"}),
    };
    ChatPrompt {
        tools: vec![weather()],
        ..ChatPrompt::new(vec![
            ChatMessage::user("Rain?"),
            ChatMessage { tool_calls: vec![call], ..ChatMessage::assistant("") },
            ChatMessage::tool("call00001", "yes"),
        ])
    }
}

#[test]
fn what_templates_can_is_found_out() {
    let bitnet = ChatTemplate::bitnet_2b();
    assert!(!bitnet.supports_tools() && bitnet.abilities().system);
    assert_eq!(bitnet.tool_format(), ToolFormat::Tagged);
    let llama = template(LLAMA);
    let can = Abilities { system: true, tools: true, calls: true, results: true, arguments_as_text: false };
    assert_eq!((llama.abilities(), llama.tool_format()), (can, ToolFormat::Json));
    let text = template(TEXT_ARGUMENTS);
    assert_eq!(text.abilities(), Abilities { arguments_as_text: true, ..can });
    assert!(!template(NO_SYSTEM).abilities().system);
    let known =
        |template: &ChatTemplate| ["user", "tool", "ipython", "critic"].map(|role| template.knows_role(role));
    assert_eq!(known(&llama), [true, true, true, false]);
    assert_eq!(known(&bitnet), [true, true, false, false]);
}

#[test]
fn templates_that_know_tools_see_them_as_they_are() {
    let rendered = template(LLAMA).render_prompt(&conversation()).unwrap();
    assert!(rendered.starts_with("<s>Respond with"), "{rendered}");
    assert!(rendered.contains("        \"name\": \"weather\""), "{rendered}");
    let end = "user<|end_header_id|>\n\nRain?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n\
        {\"name\": \"weather\", \"parameters\": {\"city\": \"Oslo\"}}<|eot_id|>\
        <|start_header_id|>ipython<|end_header_id|>\n\nyes<|eot_id|>\
        <|start_header_id|>assistant<|end_header_id|>\n\n";
    assert!(rendered.ends_with(end), "{rendered}");
    let rendered = template(TEXT_ARGUMENTS).render_prompt(&conversation()).unwrap();
    assert_eq!(rendered, "weather;user=Rain?|<tool_call>weather {\"city\":\"Oslo\"}|tool=yes|");
}

#[test]
fn other_templates_see_words() {
    let rendered = ChatTemplate::bitnet_2b().render_prompt(&conversation()).unwrap();
    let instructions = tools::instructions(&[weather()]);
    let expected = format!(
        "System: {instructions}<|eot_id|>User: Rain?<|eot_id|>Assistant: <tool_call>\n\
         {{\"name\":\"weather\",\"arguments\":{{\"city\":\"Oslo\"}}}}\n</tool_call><|eot_id|>\
         User: <tool_response>\nyes\n</tool_response><|eot_id|>Assistant: "
    );
    assert_eq!(rendered, expected);
    // What is there already stays, and turns take turns.
    let mut prompt = conversation();
    prompt.messages.insert(0, ChatMessage::system("Be brief."));
    prompt
        .messages
        .push(ChatMessage { name: Some("weather".to_owned()), ..ChatMessage::tool("call00002", "no") });
    prompt.messages.push(ChatMessage::user("Well?"));
    let rendered = template("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}");
    let rendered = rendered.render_prompt(&prompt).unwrap();
    assert!(rendered.starts_with("[system]Be brief.\n\nYou can call"), "{rendered}");
    let end = "[user]<tool_response>\nyes\n</tool_response>\n\
        <tool_response>\nweather: no\n</tool_response>\nWell?";
    assert!(rendered.ends_with(end), "{rendered}");
}

#[test]
fn ids_are_as_mistral_wants_them() {
    let source = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}{% if m.tool_calls %}{{ '[TOOL_CALLS]' }}{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('id') }}{% endif %}{{ c.id + c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% elif m.role == 'tool' %}={{ m.tool_call_id }}{{ m.content }}{% endif %}{% endfor %}";
    let mut prompt = conversation();
    for (given, id) in [("call_0123456789abcdef", "789abcdef"), ("1", "000000001")] {
        prompt.messages[1].tool_calls[0].id = Some(given.to_owned());
        prompt.messages[2].tool_call_id = Some(given.to_owned());
        let rendered = template(source).render_prompt(&prompt).unwrap();
        assert_eq!(rendered, format!("weather[TOOL_CALLS]{id}weather{{\"city\": \"Oslo\"}}={id}yes"));
    }
}

#[test]
fn system_messages_find_a_place() {
    let messages = vec![ChatMessage::system("A"), ChatMessage::system("B"), ChatMessage::user("C")];
    let rendered = template(NO_SYSTEM).render_prompt(&ChatPrompt::new(messages.clone())).unwrap();
    assert_eq!(rendered, "[user]A\n\nB\n\nC");
    let rendered = template(NO_SYSTEM).render_prompt(&ChatPrompt::new(messages[..1].to_vec())).unwrap();
    assert_eq!(rendered, "[user]A");
    assert!(template(NO_SYSTEM).render(&messages, true).unwrap_err().to_string().ends_with("no system role"));
}

#[test]
fn a_turn_is_continued() {
    let turns = |last: &str| {
        let messages = vec![ChatMessage::user("Hi"), ChatMessage::assistant(last)];
        ChatPrompt { continue_final: true, ..ChatPrompt::new(messages) }
    };
    let bitnet = ChatTemplate::bitnet_2b();
    for last in ["Once upon", "Once ", "<|eot_id|>"] {
        let rendered = bitnet.render_prompt(&turns(last)).unwrap();
        assert_eq!(rendered, format!("User: Hi<|eot_id|>Assistant: {last}"));
        let tokens = bitnet.encode_prompt(&tokenizer(), &turns(last)).unwrap();
        assert_eq!(tokens.iter().filter(|&&token| token == 265).count(), 1, "{last}");
    }
    let wrong = ChatPrompt { continue_final: true, ..ChatPrompt::new(vec![ChatMessage::user("Hi")]) };
    let error = bitnet.render_prompt(&wrong).unwrap_err().to_string();
    assert!(error.contains("only be continued if it is the assistant's"), "{error}");
    let silent = template("x").render_prompt(&turns("y")).unwrap_err().to_string();
    assert!(silent.contains("leaves out the turn"), "{silent}");
}

#[test]
fn variables_reach_the_template_but_not_those_it_has() {
    let mut prompt = ChatPrompt::new(vec![ChatMessage::user("Hi")]);
    prompt.kwargs.insert("enable_thinking".to_owned(), json!(false));
    prompt.kwargs.insert("date".to_owned(), json!("<|eot_id|>"));
    let source = "{{ enable_thinking }} {{ date }} {{ messages[0].content }}";
    assert_eq!(template(source).render_prompt(&prompt).unwrap(), "False <|eot_id|> Hi");
    let tokens = template(source).encode_prompt(&tokenizer(), &prompt).unwrap();
    assert!(!tokens.contains(&265), "{tokens:?}");
    prompt.kwargs.insert("messages".to_owned(), json!([]));
    let error = template(source).render_prompt(&prompt).unwrap_err().to_string();
    assert!(error.contains("the variable messages cannot be set"), "{error}");
}

#[test]
fn without_anything_special_prompts_are_the_same_as_before() {
    let messages =
        vec![ChatMessage::system("S"), ChatMessage::user("a<|eot_id|>b"), ChatMessage::assistant("c ")];
    let bitnet = ChatTemplate::bitnet_2b();
    assert_eq!(
        bitnet.encode_prompt(&tokenizer(), &ChatPrompt::new(messages.clone())).unwrap(),
        bitnet.encode(&tokenizer(), &messages, true).unwrap()
    );
}
