"""OpenAI's official Python client against a running server: python openai_check.py http://127.0.0.1:8080"""
import base64, json, struct, sys
import openai
from openai import OpenAI
from pydantic import BaseModel

base = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
ask = [{"role": "user", "content": "Tell me a story about a dog."}]


def check_models():
    models = client.models.list()
    assert models.data[0].id and models.data[0].object == "model"
    assert client.models.retrieve(models.data[0].id).id == models.data[0].id
    try:
        client.models.retrieve("nothing/like-this")
        raise SystemExit("a model that is not there was found")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.code
    return models.data[0].id


def check_chat(model):
    whole = client.chat.completions.create(model=model, messages=ask, seed=3, max_tokens=40, temperature=0.8)
    text = whole.choices[0].message.content
    assert text and whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = client.chat.completions.create(model=model, messages=ask, seed=3, max_tokens=40, temperature=0.8, stream=True,
                                            stream_options={"include_usage": True})
    pieces, usage = [], None
    for chunk in stream:
        usage = chunk.usage or usage
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
    assert "".join(pieces) == text, ("".join(pieces), text)
    assert len(pieces) > 3 and usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens > 0, usage
    two = client.chat.completions.create(model=model, messages=ask, n=2, max_tokens=5, seed=1, stop=["zzz"], logit_bias={"5": -100},
                                         presence_penalty=0.5, frequency_penalty=0.5, top_p=0.9, user="u")
    assert [c.index for c in two.choices] == [0, 1]
    # The helper that assembles a stream.
    seen = ""
    with client.chat.completions.stream(model=model, messages=ask, seed=3, max_tokens=40, temperature=0.8) as events:
        for event in events:
            if event.type == "content.delta":
                seen += event.delta
    assert seen == text


def check_logprobs(model):
    told = client.chat.completions.create(model=model, messages=ask, max_tokens=8, logprobs=True, top_logprobs=3)
    content = told.choices[0].logprobs.content
    assert len(content) == told.usage.completion_tokens
    assert all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in content)
    assert b"".join(bytes(t.bytes) for t in content).decode(errors="replace").strip() == told.choices[0].message.content.strip()
    older = client.completions.create(model=model, prompt="Once upon a time", max_tokens=6, logprobs=2, echo=False)
    lists = older.choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset) == 6


def check_completions(model):
    whole = client.completions.create(model=model, prompt=["Once upon a time", "The sky is"], max_tokens=10, seed=1, echo=True)
    assert [c.text.startswith(p) for c, p in zip(whole.choices, ["Once upon a time", "The sky is"])] == [True, True]
    texts = ["", ""]
    for chunk in client.completions.create(model=model, prompt=["Once upon a time", "The sky is"], max_tokens=10, seed=1, echo=True, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [c.text for c in whole.choices]
    assert client.completions.create(model=model, prompt=[1, 2, 3], max_tokens=2, best_of=3).choices[0].text is not None


TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"type": "string", "enum": ["C", "F"]}},
    "required": ["city", "unit"]}}}


def check_tools(model):
    question = [{"role": "user", "content": "How is the weather in Oslo?"}]
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        told = client.chat.completions.create(model=model, messages=question, tools=[TOOL], tool_choice=choice, seed=2, max_tokens=80)
        call = told.choices[0].message.tool_calls[0]
        arguments = json.loads(call.function.arguments)
        assert told.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather"
        assert arguments["unit"] in ("C", "F") and isinstance(arguments["city"], str)
    streamed, name = "", None
    for chunk in client.chat.completions.create(model=model, messages=question, tools=[TOOL], tool_choice=named, seed=2, max_tokens=80, stream=True):
        for part in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            name = part.function.name or name
            streamed += part.function.arguments or ""
    assert name == "get_weather" and json.loads(streamed) == arguments, (streamed, arguments)
    # The call and its result go back.
    messages = question + [told.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "3 degrees, rain"}]
    after = client.chat.completions.create(model=model, messages=messages, tools=[TOOL], max_tokens=20)
    assert after.choices[0].message.content is not None


class Dog(BaseModel):
    name: str
    age: int
    friendly: bool


def check_schema(model):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 30}},
              "required": ["name", "age"], "additionalProperties": False}
    told = client.chat.completions.create(model=model, messages=ask, max_tokens=60, seed=1,
                                          response_format={"type": "json_schema", "json_schema": {"name": "dog", "schema": schema, "strict": True}})
    assert set(json.loads(told.choices[0].message.content)) == {"name", "age"}
    told = client.chat.completions.create(model=model, messages=ask, max_tokens=60, response_format={"type": "json_object"})
    assert told.choices[0].message.content.startswith("{")
    for seed in range(20):
        try:
            dog = client.chat.completions.parse(model=model, messages=ask, response_format=Dog, max_tokens=80, seed=seed, temperature=0.3).choices[0].message.parsed
            assert isinstance(dog, Dog)
            return
        except openai.LengthFinishReasonError:
            pass  # A small model may write a name that is longer than the limit.
    raise SystemExit("no answer was parsed")


def check_embeddings(model):
    texts = ["Once upon a time", "The sky is blue"]
    # The client asks for base64 by itself and decodes it.
    told = client.embeddings.create(model=model, input=texts)
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    for a, b in zip(told.data, floats.data):
        assert max(abs(x - y) for x, y in zip(a.embedding, b.embedding)) < 1e-6
    assert len(client.embeddings.create(model=model, input=texts[0], dimensions=32).data[0].embedding) == 32
    assert len(client.embeddings.create(model=model, input=[[1, 2, 3], [4]]).data) == 2
    assert told.usage.prompt_tokens > 0


def check_responses(model):
    whole = client.responses.create(model=model, input="Tell me a story.", instructions="Be brief.", max_output_tokens=30, temperature=0.8, extra_body={"seed": 4})
    assert whole.output_text and whole.status in ("completed", "incomplete") and whole.usage.output_tokens > 0
    names, text = [], ""
    for event in client.responses.create(model=model, input="Tell me a story.", instructions="Be brief.", max_output_tokens=30, temperature=0.8, extra_body={"seed": 4}, stream=True):
        names.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == whole.output_text and names[:2] == ["response.created", "response.in_progress"]
    assert names[-1] in ("response.completed", "response.incomplete")
    with client.responses.stream(model=model, input="Tell me a story.", max_output_tokens=30) as events:
        last = [event for event in events][-1]
        assert last.type in ("response.completed", "response.incomplete") and last.response.output_text is not None
    tool = {"type": "function", "name": "get_weather", "parameters": TOOL["function"]["parameters"], "strict": False}
    called = client.responses.create(model=model, input="Weather in Oslo?", tools=[tool], tool_choice="required", max_output_tokens=80)
    call = called.output[0]
    assert call.type == "function_call" and json.loads(call.arguments)["unit"] in ("C", "F")
    items = [{"role": "user", "content": "Weather in Oslo?"}, call.model_dump(exclude_none=True), {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    assert client.responses.create(model=model, input=items, tools=[tool], max_output_tokens=20).output
    for seed in range(20):
        parsed = client.responses.parse(model=model, input="Describe a dog.", text_format=Dog, max_output_tokens=100, temperature=0.3, extra_body={"seed": seed})
        if parsed.status == "completed":
            assert isinstance(parsed.output_parsed, Dog)
            break
    else:
        raise SystemExit("no answer was parsed")
    try:
        client.responses.create(model=model, input="x", previous_response_id="resp_1")
        raise SystemExit("a response that was not kept was found")
    except openai.BadRequestError as error:
        assert error.param == "previous_response_id"


def check_errors(model):
    for arguments, param in [({"temperature": -1}, "temperature"), ({"n": 1000}, "n"), ({"messages": [{"role": "x", "content": "y"}]}, "messages[0].role"),
                             ({"messages": ask, "top_logprobs": 3}, "top_logprobs")]:
        try:
            client.chat.completions.create(**{"model": model, "messages": ask, **arguments})
            raise SystemExit(f"{arguments} was taken")
        except openai.BadRequestError as error:
            assert error.param == param, error
    try:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 20000}], stream=True)
        raise SystemExit("a prompt that is too long was taken")
    except openai.BadRequestError as error:
        assert error.type == "exceed_context_size_error", error
    # A client that leaves in the middle.
    stream = client.chat.completions.create(model=model, messages=ask, stream=True, max_tokens=300)
    next(iter(stream))
    stream.close()


model = check_models()
for check in (check_chat, check_logprobs, check_completions, check_tools, check_schema, check_embeddings, check_responses, check_errors):
    check(model)
    print("ok", check.__name__)
