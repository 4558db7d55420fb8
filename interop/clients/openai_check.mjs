// OpenAI's official Node client against a running server: BASE=http://127.0.0.1:PORT node openai_check.mjs

import assert from "node:assert/strict";

import OpenAI from "openai";

const model = process.env.MODEL ?? "bitnet-tiny";
const client = new OpenAI({ baseURL: `${process.env.BASE}/v1`, apiKey: "none", maxRetries: 0 });
const common = { model, messages: [{ role: "user", content: "Tell me of the sea." }], max_tokens: 24, seed: 5, temperature: 0.8 };

const whole = await client.chat.completions.create(common);
assert.ok(whole.choices[0].message.content);
let text = "";
let usage;
for await (const chunk of await client.chat.completions.create({ ...common, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);

const told = await client.chat.completions.create({ ...common, logprobs: true, top_logprobs: 2 });
assert.equal(told.choices[0].logprobs.content.length, told.usage.completion_tokens);

const schema = { type: "object", properties: { name: { enum: ["Ann", "Bob"] } }, required: ["name"], additionalProperties: false };
const fitted = await client.chat.completions.create({
  ...common,
  max_tokens: 100,
  response_format: { type: "json_schema", json_schema: { name: "person", schema, strict: true } },
});
assert.ok(["Ann", "Bob"].includes(JSON.parse(fitted.choices[0].message.content).name));

const tool = { type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { enum: ["Oslo", "Rome"] } }, required: ["city"] } } };
const called = await client.chat.completions.create({ ...common, max_tokens: 120, tools: [tool], tool_choice: { type: "function", function: { name: "weather" } } });
assert.ok(["Oslo", "Rome"].includes(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments).city));

const ids = [];
for await (const { id } of await client.models.list()) ids.push(id);
assert.ok(ids.includes(model));
const { data } = await client.embeddings.create({ model, input: ["the sea", "a ship"] });
assert.equal(data[0].embedding.length, data[1].embedding.length);

const stream = await client.chat.completions.create({ ...common, max_tokens: 400, stream: true });
for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
stream.controller.abort();

await assert.rejects(client.chat.completions.create({ ...common, temperature: -1 }), (error) => error.status === 400 && Boolean(error.message));
console.log("openai (Node): ok");
