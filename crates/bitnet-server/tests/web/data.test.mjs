// What the page keeps and reads, without a browser: the tree of messages, the store, files, events of a stream.

import assert from "node:assert/strict";
import { test } from "node:test";

const assets = new URL("../../src/web/assets/", import.meta.url);
const conversations = await import(new URL("conversation.js", assets));
const { Store, exportText, importText, StorageError } = await import(new URL("store.js", assets));
const { EventBuffer, eventData } = await import(new URL("sse.js", assets));
const { addMessage, newConversation, path, promptFor, readConversation, switchVersion, titleOf, toMarkdown, version } = conversations;

const texts = (conversation) => path(conversation).map((node) => node.text);

/** A browser's storage with room for so many characters. */
class Memory {
  constructor(room = Infinity) {
    this.room = room;
    this.entries = new Map();
  }
  get length() {
    return this.entries.size;
  }
  key(index) {
    return [...this.entries.keys()][index] ?? null;
  }
  getItem(key) {
    return this.entries.get(key) ?? null;
  }
  setItem(key, value) {
    if (value.length > this.room) throw new Error("QuotaExceededError");
    this.entries.set(key, value);
  }
  removeItem(key) {
    this.entries.delete(key);
  }
}

function sample() {
  const conversation = newConversation();
  const question = addMessage(conversation, null, "user", "Hi there");
  const answer = addMessage(conversation, question.id, "assistant", "Hello");
  const second = addMessage(conversation, answer.id, "user", "More");
  addMessage(conversation, second.id, "assistant", "No");
  return { conversation, question, answer, second };
}

test("an edit branches and loses nothing", () => {
  const { conversation, question } = sample();
  assert.deepEqual(texts(conversation), ["Hi there", "Hello", "More", "No"]);
  assert.equal(conversation.title, "Hi there");
  const edited = addMessage(conversation, question.parent, "user", "Good morning");
  assert.deepEqual(texts(conversation), ["Good morning"]);
  assert.deepEqual(version(conversation, edited), { index: 2, count: 2 });
  switchVersion(conversation, edited, -1);
  assert.deepEqual(texts(conversation), ["Hi there", "Hello", "More", "No"]);
  switchVersion(conversation, question, -1);
  assert.deepEqual(texts(conversation), ["Hi there", "Hello", "More", "No"], "there is no version before the first");
});

test("a prompt is the path to the message that is answered", () => {
  const { conversation, second } = sample();
  assert.deepEqual(promptFor(conversation, second).messages.map(({ role, content }) => `${role}:${content}`), [
    "user:Hi there",
    "assistant:Hello",
    "user:More",
  ]);
  conversation.system = "Be kind.";
  assert.deepEqual(promptFor(conversation, second).messages[0], { role: "system", content: "Be kind." });
  conversation.mode = "completion";
  assert.deepEqual(promptFor(conversation, second), { prompt: "Hi thereHelloMore" });
});

test("titles and Markdown", () => {
  assert.equal(titleOf("  \n"), "New chat");
  assert.equal(titleOf(`${"é".repeat(60)}`), `${"é".repeat(47)}…`);
  assert.equal(titleOf("a\nb"), "a");
  assert.equal(toMarkdown(sample().conversation).split("\n\n").length, 9);
});

test("a new conversation goes on with the settings of the last", () => {
  const { conversation } = sample();
  conversation.settings.temperature = 0.5;
  const next = newConversation(conversation);
  assert.deepEqual(next.settings, { temperature: 0.5 });
  assert.notEqual(next.id, conversation.id);
  next.settings.temperature = 1;
  assert.equal(conversation.settings.temperature, 0.5);
});

test("what is stored is found again, damage is left out", () => {
  const memory = new Memory();
  const store = new Store(memory);
  const { conversation } = sample();
  store.save(conversation);
  memory.setItem("bitnet.conversation.bad", "{");
  memory.setItem("bitnet.conversation.worse", '{"nodes":[],"root":1}');
  memory.setItem("other", "1");
  assert.deepEqual(store.list().map(({ id }) => id), [conversation.id]);
  assert.deepEqual(texts(store.get(conversation.id)), texts(conversation));
  assert.deepEqual(JSON.parse(JSON.stringify(store.get(conversation.id))), JSON.parse(JSON.stringify(conversation)));
  store.remove(conversation.id);
  assert.deepEqual(store.list(), []);
  assert.throws(() => new Store(new Memory(10)).save(conversation), StorageError);
});

test("files come back as they went, and never overwrite", () => {
  const { conversation } = sample();
  const text = exportText([conversation]);
  const [same] = importText(text, new Set());
  assert.deepEqual(JSON.parse(JSON.stringify(same)), JSON.parse(JSON.stringify(conversation)));
  const [copy] = importText(text, new Set([conversation.id]));
  assert.notEqual(copy.id, conversation.id);
  for (const [bad, message] of [
    ["x", /not JSON/],
    ["[]", /does not hold/],
    ["null", /does not hold/],
    ['{"format":"bitnet-conversations","version":2,"conversations":[]}', /version 2/],
    ['{"format":"bitnet-conversations","version":1,"conversations":[{}]}', /Conversation 1/],
  ]) {
    assert.throws(() => importText(bad, new Set()), message);
  }
});

test("trees that are none are refused", () => {
  const node = (children, more = {}) => ({ role: "user", text: "a", children, selected: null, ...more });
  const read = (root, nodes) => readConversation({ root: { children: root, selected: null }, nodes });
  assert.ok(read(["a"], { a: node([]) }));
  assert.equal(read(["a"], { a: node(["a"]) }), null, "a loop");
  assert.equal(read(["a", "a"], { a: node([]) }), null, "a child twice");
  assert.equal(read(["b"], { a: node([]) }), null, "no such node");
  assert.equal(read(["a"], { a: node([], { role: "system" }) }), null, "another role");
  assert.equal(read(["toString"], {}), null, "a name of every object");
  const kept = read(["__proto__"], JSON.parse('{"__proto__":{"role":"user","text":"x","children":[]}}'));
  assert.deepEqual(texts(kept), ["x"]);
  assert.equal({}.role, undefined);
  const strange = read(["a"], { a: node([], { text: 7, note: {}, stats: { generated: "x", first: 1 }, state: "?" }) });
  assert.deepEqual(path(strange)[0].text, "");
  assert.deepEqual(path(strange)[0].stats, { first: 1 });
  assert.equal(path(strange)[0].state, undefined);
});

test("events are found however the stream is cut", () => {
  const stream = 'data: {"a":1}\n\n: comment\ndata: x\r\ndata: y\r\n\r\nevent: e\ndata:z\n\ndata: [DONE]\n\n';
  for (let size = 1; size <= stream.length; size += 1) {
    const buffer = new EventBuffer();
    const events = [];
    for (let at = 0; at < stream.length; at += size) events.push(...buffer.push(stream.slice(at, at + size)));
    assert.deepEqual(events, ['{"a":1}', "x\ny", "z", "[DONE]"], `pieces of ${size}`);
  }
});

test("characters may be cut between pieces, and the last event may lack its end", async () => {
  const bytes = new TextEncoder().encode("data: é🚀\n\ndata: last");
  for (let size = 1; size < bytes.length; size += 1) {
    const pieces = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
    const body = new ReadableStream({ start: (controller) => (pieces.forEach((piece) => controller.enqueue(piece)), controller.close()) });
    const events = [];
    for await (const data of eventData(body)) events.push(data);
    assert.deepEqual(events, ["é🚀", "last"]);
  }
});

test("leaving a stream closes it", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: a\n\n")),
    cancel: () => (cancelled = true),
  });
  for await (const data of eventData(body)) {
    assert.equal(data, "a");
    break;
  }
  assert.ok(cancelled);
});
