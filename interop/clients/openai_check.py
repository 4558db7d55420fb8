"""OpenAI's official Python client against a running server: BASE=http://127.0.0.1:PORT python openai_check.py"""

import json
import os

import openai

BASE = os.environ["BASE"]
MODEL = os.environ.get("MODEL", "bitnet-tiny")
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0)
MESSAGES = [{"role": "user", "content": "Tell me of the sea."}]
COMMON = dict(model=MODEL, messages=MESSAGES, max_tokens=24, seed=5, temperature=0.8)
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "name": {"enum": ["Ann", "Bob"]}},
    "required": ["age", "name"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
    },
}


def chat():
    whole = client.chat.completions.create(**COMMON)
    choice = whole.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **COMMON))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == choice.message.content
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert not chunks[-1].choices and len({c.id for c in chunks}) == 1
    two = client.chat.completions.create(n=2, **COMMON)
    assert [c.index for c in two.choices] == [0, 1]


def logprobs():
    told = client.chat.completions.create(logprobs=True, top_logprobs=3, **COMMON)
    content = told.choices[0].logprobs.content
    assert len(content) == told.usage.completion_tokens and all(len(token.top_logprobs) == 3 for token in content)
    assert all(token.logprob <= 0 for token in content)


def schema():
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    fitted = client.chat.completions.create(**dict(COMMON, max_tokens=200), response_format=form)
    value = json.loads(fitted.choices[0].message.content)
    assert value["age"] <= 99 and value["name"] in ("Ann", "Bob"), value


def tools():
    asked = dict(COMMON, max_tokens=120, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}})
    called = client.chat.completions.create(**asked)
    call = called.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    arguments = ""
    for chunk in client.chat.completions.create(stream=True, **asked):
        for part in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            arguments += part.function.arguments or ""
    assert json.loads(arguments) == json.loads(call.function.arguments)
    turns = MESSAGES + [
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    assert client.chat.completions.create(**dict(COMMON, messages=turns, tools=[TOOL])).choices


def rest():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    asked = dict(model=MODEL, prompt="Once upon a time", max_tokens=16, seed=3)
    text = client.completions.create(**asked).choices[0].text
    assert text == "".join(c.choices[0].text for c in client.completions.create(stream=True, **asked) if c.choices)
    vectors = client.embeddings.create(model=MODEL, input=["the sea", "a ship"]).data
    assert len(vectors) == 2 and len(vectors[0].embedding) == len(vectors[1].embedding) > 0
    asked = dict(model=MODEL, input="Tell me of the sea.", max_output_tokens=24)
    assert client.responses.create(**asked).output_text
    names = [event.type for event in client.responses.create(stream=True, **asked)]
    assert names[0] == "response.created" and "response.output_text.delta" in names, names


def errors():
    for body in ({"messages": [{"role": "wizard", "content": "x"}]}, {"messages": [{"role": "user", "content": "word " * 3000}]}):
        try:
            client.chat.completions.create(**dict(COMMON, **body))
        except openai.BadRequestError as error:
            assert error.body["message"], error
        else:
            raise AssertionError("not refused")


for check in (chat, logprobs, schema, tools, rest, errors):
    check()
print(f"openai {openai.__version__} (Python): ok")
