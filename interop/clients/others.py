"""The official Python clients of ollama and Anthropic against a running server: BASE=http://127.0.0.1:PORT python others.py"""

import json
import os
import sys

BASE = os.environ.get("BASE", sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
MODEL = os.environ.get("MODEL", "bitnet-tiny")
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "maximum": 99}, "name": {"enum": ["Ann", "Bob"]}},
    "required": ["age", "name"],
    "additionalProperties": False,
}


def check_ollama():
    import ollama

    client = ollama.Client(host=BASE)
    names = [m.model for m in client.list().models]
    assert f"{MODEL}:latest" in names, names
    shown = client.show(MODEL)
    assert shown.details.parameter_size and shown.modelinfo["general.architecture"], shown
    assert "completion" in shown.capabilities
    options = {"num_predict": 24, "seed": 5, "temperature": 0.8}
    messages = [{"role": "user", "content": "Tell me of the sea."}]

    whole = client.chat(model=MODEL, messages=messages, options=options)
    assert whole.done and whole.message.role == "assistant" and whole.message.content
    assert whole.eval_count > 0 and whole.prompt_eval_count > 0 and whole.total_duration > 0
    parts = list(client.chat(model=MODEL, messages=messages, options=options, stream=True))
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert parts[-1].done and parts[-1].done_reason == whole.done_reason

    text = client.generate(model=MODEL, prompt="Tell me of the sea.", options=options)
    assert text.response == whole.message.content and text.context
    chunks = list(client.generate(model=MODEL, prompt="Tell me of the sea.", options=options, stream=True))
    assert "".join(c.response for c in chunks) == text.response
    more = client.generate(model=MODEL, prompt="And then?", context=text.context, options=options)
    assert more.prompt_eval_count > text.prompt_eval_count

    fitted = client.chat(model=MODEL, messages=messages, format=SCHEMA, options={"num_predict": 200, "seed": 5})
    value = json.loads(fitted.message.content)
    assert value["age"] <= 99 and value["name"] in ("Ann", "Bob"), value

    def weather(city: str) -> str:
        """Tells the weather.

        Args:
          city: The city
        """
        return f"rain in {city}"

    with_tools = client.chat(model=MODEL, messages=messages, tools=[weather], options=options)
    assert with_tools.message.role == "assistant"
    turns = messages + [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]},
        {"role": "tool", "tool_name": "weather", "content": "rain"},
    ]
    assert client.chat(model=MODEL, messages=turns, tools=[weather], options=options).done

    logged = client.chat(model=MODEL, messages=messages, options=options, logprobs=True, top_logprobs=2)
    assert len(logged.logprobs) == logged.eval_count and len(logged.logprobs[0].top_logprobs) == 2

    embedded = client.embed(model=MODEL, input=["the sea", "a ship"])
    assert len(embedded.embeddings) == 2 and abs(sum(x * x for x in embedded.embeddings[0]) - 1) < 1e-3
    assert len(client.embeddings(model=MODEL, prompt="the sea").embedding) == len(embedded.embeddings[0])
    assert [m.model for m in client.ps().models] == [f"{MODEL}:latest"]
    for call in (lambda: client.pull("x"), lambda: client.chat(model=MODEL, messages=[{"role": "robot", "content": "x"}])):
        try:
            call()
            raise AssertionError("not refused")
        except ollama.ResponseError as error:
            assert error.status_code in (400, 501), error
    print("ollama: ok")


def check_anthropic():
    import anthropic

    client = anthropic.Anthropic(base_url=BASE, api_key=os.environ.get("KEY", "none"), max_retries=0)
    messages = [{"role": "user", "content": "Tell me of the sea."}]
    common = dict(model=MODEL, max_tokens=24, messages=messages, extra_body={"seed": 5, "temperature": 0.8})

    whole = client.messages.create(**common)
    assert whole.role == "assistant" and whole.content[0].type == "text" and whole.content[0].text
    assert whole.stop_reason in ("end_turn", "max_tokens") and whole.usage.output_tokens > 0
    with client.messages.stream(**common) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens
    names = [event.type for event in client.messages.create(stream=True, **common)]
    assert names[0] == "message_start" and names[-1] == "message_stop", names

    counted = client.messages.count_tokens(model=MODEL, messages=messages, system="Be brief.")
    used = client.messages.create(system="Be brief.", **common).usage
    assert counted.input_tokens == used.input_tokens + used.cache_read_input_tokens
    again = client.messages.create(system="Be brief.", **common).usage
    assert again.cache_read_input_tokens > 0

    tool = {
        "name": "weather",
        "description": "tells the weather",
        "input_schema": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
    }
    forced = dict(common, max_tokens=120, tools=[tool], tool_choice={"type": "tool", "name": "weather"})
    called = client.messages.create(**forced)
    call = next(block for block in called.content if block.type == "tool_use")
    assert call.name == "weather" and call.input["city"] in ("Oslo", "Rome"), called
    with client.messages.stream(**forced) as stream:
        streamed = stream.get_final_message()
    assert next(b for b in streamed.content if b.type == "tool_use").input == call.input
    assert streamed.stop_reason == called.stop_reason
    turns = messages + [
        {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]},
    ]
    answered = client.messages.create(**dict(common, messages=turns, tools=[tool]))
    assert answered.role == "assistant"

    fitted = client.messages.create(
        **dict(common, max_tokens=200, extra_body={"seed": 5, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}})
    )
    value = json.loads(fitted.content[0].text)
    assert value["age"] <= 99 and value["name"] in ("Ann", "Bob"), value

    for body in (dict(common, max_tokens=0), dict(common, messages=[{"role": "robot", "content": "x"}])):
        try:
            client.messages.create(**body)
            raise AssertionError("not refused")
        except anthropic.BadRequestError as error:
            assert error.body["error"]["type"] == "invalid_request_error", error.body
    print("anthropic: ok")


if __name__ == "__main__":
    check_ollama()
    check_anthropic()
