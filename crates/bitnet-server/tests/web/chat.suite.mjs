// Talking: streaming, stopping, asking again, editing, settings, completion, errors, keys.

import assert from "node:assert/strict";

import { KEY, KEY_URL, answerWith, answered, asked, inLast, lastAnswer, messages, openChat, pageTest, send, set, stream } from "./harness.mjs";

const SHORT = { max_tokens: 24, temperature: 0, repeat_penalty: 1.2 };

pageTest("an answer streams in, with counts and speed", async (page) => {
  await openChat(page);
  assert.match(await page.text("#welcome-text"), /bitnet-tiny/);
  await set(page, SHORT);
  await page.evaluate(`window.seen = []; new MutationObserver(() => {
    const length = document.querySelector('.message.assistant .text')?.innerText.length;
    if (length && seen.at(-1) !== length) seen.push(length);
  }).observe(document.querySelector('#messages'), { subtree: true, childList: true, characterData: true })`);
  await send(page, "Tell me a story about a dog.");
  const text = await answered(page);
  assert.ok(text.length > 20, text);
  const seen = await page.evaluate("window.seen");
  assert.ok(seen.length > 1, `the text came at once: ${seen}`);
  assert.deepEqual([...seen].sort((a, b) => a - b), seen, "the text only grows");
  const stats = await page.text(await inLast(page, "assistant", ".stats"));
  assert.match(stats, /^24 tokens · [\d.]+ tokens\/s · prompt \d+.* · [\d.]+ s to the first$/);
  assert.match(await page.text(await inLast(page, "assistant", ".note")), /largest length/);
  assert.deepEqual((await messages(page)).map(([role]) => role), ["user", "assistant"]);
  assert.equal(await page.evaluate("document.activeElement.id"), "input");
  const [body] = asked(page);
  assert.deepEqual(body.messages, [{ role: "user", content: "Tell me a story about a dog." }]);
  for (const [name, value] of Object.entries(SHORT)) assert.equal(body[name], value, name);
  assert.ok(!("top_p" in body), "what is not set is not sent");
});

pageTest("a second turn sends the first, and the server finds it in its cache", async (page) => {
  await openChat(page);
  await set(page, { ...SHORT, system: "Answer in one sentence, and use simple words that a child of five years can understand." });
  await send(page, "What is rain?");
  await answered(page);
  await send(page, "And snow?");
  await answered(page);
  const [, body] = asked(page);
  assert.deepEqual(body.messages.map(({ role }) => role), ["system", "user", "assistant", "user"]);
  assert.match(await page.text(await inLast(page, "assistant", ".stats")), /prompt \d+ \(\d+ cached\)/);
});

pageTest("Esc stops an answer, and the next can begin", async (page) => {
  await openChat(page);
  await set(page, { max_tokens: 400, repeat_penalty: 1.3 });
  await send(page, "Tell me a very long story.");
  await page.waitFor("document.querySelector('.message.running .text')?.innerText.length > 10");
  assert.ok(await page.evaluate("document.querySelector('#send').hidden"));
  await page.press("Escape");
  const text = await answered(page);
  assert.ok(text.length > 10);
  assert.equal(await page.text(await inLast(page, "assistant", ".note")), "Stopped.");
  await set(page, SHORT);
  await send(page, "Hello");
  await answered(page);
  assert.equal((await messages(page)).length, 4);
});

pageTest("the stop button stops", async (page) => {
  await openChat(page);
  await set(page, { max_tokens: 400, repeat_penalty: 1.3 });
  await send(page, "Tell me a very long story.");
  await page.waitFor("document.querySelector('.message.running .text')?.innerText.length > 10");
  await page.click("#stop");
  await answered(page);
  assert.equal(await page.text(await inLast(page, "assistant", ".note")), "Stopped.");
});

pageTest("asking again adds a version, and both can be seen", async (page) => {
  await openChat(page);
  await set(page, { ...SHORT, temperature: 1, seed: 1 });
  await send(page, "Tell me a story.");
  const first = await answered(page);
  await set(page, { seed: 2 });
  await page.click(await inLast(page, "assistant", "[aria-label=Regenerate]"));
  await page.waitFor("document.querySelector('.message.assistant .versions').innerText === '2 / 2'");
  const second = await answered(page);
  assert.notEqual(second, first);
  assert.equal(await page.text(await inLast(page, "assistant", ".versions")), "2 / 2");
  await page.click(await inLast(page, "assistant", "[aria-label='Version before']"));
  await page.waitFor("document.querySelector('.message.assistant .versions').innerText === '1 / 2'");
  assert.equal(await lastAnswer(page), first);
  await set(page, { seed: 1 });
  await page.click(await inLast(page, "assistant", "[aria-label=Regenerate]"));
  await page.waitFor("document.querySelector('.message.assistant .versions').innerText.includes('3 / 3')");
  assert.equal(await answered(page), first, "the same seed gives the same answer");
});

pageTest("editing an earlier message branches from there", async (page) => {
  await openChat(page);
  await set(page, SHORT);
  await send(page, "One");
  await answered(page);
  await send(page, "Two");
  await answered(page);
  const before = await messages(page);
  await page.click(".message:nth-child(1)");
  await page.click(".message:nth-child(1) [aria-label=Edit]");
  await page.fill(".edit-field", "Three");
  await page.press("Enter");
  await page.waitFor("document.querySelectorAll('.message').length === 2");
  await answered(page);
  assert.equal((await messages(page))[0][1], "Three");
  assert.equal(await page.text(".message:nth-child(1) .versions"), "2 / 2");
  assert.deepEqual(asked(page).at(-1).messages, [{ role: "user", content: "Three" }]);
  await page.click(".message:nth-child(1) [aria-label='Version before']");
  await page.waitFor("document.querySelectorAll('.message').length === 4");
  assert.deepEqual(await messages(page), before);
  await page.click("#input");
  await page.press("ArrowUp");
  await page.waitFor("document.querySelector('.edit-field')?.value === 'Two'");
  await page.press("Escape");
  assert.deepEqual(await messages(page), before);
});

pageTest("Shift+Enter starts a new line, and nothing empty is sent", async (page) => {
  await openChat(page);
  await page.click("#input");
  await page.press("Enter");
  await page.type("  ");
  await page.press("Enter");
  assert.equal((await messages(page)).length, 0);
  await answerWith(page, "ok");
  await page.fill("#input", "a");
  await page.press("Enter", 8);
  await page.type("b");
  await page.press("Enter");
  await answered(page);
  assert.deepEqual(await messages(page), [["user", "a\nb"], ["assistant", "ok"]]);
});

pageTest("a suggestion is sent by a click", async (page) => {
  await openChat(page);
  await answerWith(page, "ok");
  await page.click(".suggestion");
  await answered(page);
  assert.match((await messages(page))[0][1], /fox/);
});

pageTest("wrong parameters are named and not sent", async (page) => {
  await openChat(page);
  await page.click("#open-settings");
  const shown = await page.evaluate("document.querySelector('#parameter-temperature').placeholder");
  assert.ok(Number(shown) > 0, `the default is shown, not ${shown}`);
  await page.fill("#parameter-top_p", "7");
  assert.equal(await page.text("#parameter-top_p-hint"), "Between 0 and 1");
  await page.fill("#parameter-top_k", "1.5");
  assert.equal(await page.text("#parameter-top_k-hint"), "A whole number");
  await page.fill("#parameter-min_p", "0.1");
  await answerWith(page, "ok");
  await send(page, "x");
  await answered(page);
  const body = asked(page).at(-1);
  assert.deepEqual([body.top_p, body.top_k, body.min_p], [undefined, undefined, 0.1]);
  await page.click("#reset-settings");
  assert.equal(await page.evaluate("document.querySelector('#parameter-min_p').value"), "");
});

pageTest("completion goes on with a text", async (page) => {
  await openChat(page);
  await set(page, SHORT);
  await page.click("#open-settings");
  await page.click("#mode label:last-of-type");
  await page.click("#close-settings");
  await send(page, "Once upon a time");
  const text = await answered(page);
  assert.ok(text.length > 10);
  await page.click("#send");
  await page.waitFor("document.querySelectorAll('.message').length === 3");
  await answered(page);
  const [first, second] = asked(page);
  assert.equal(first.prompt, "Once upon a time");
  assert.ok(second.prompt.startsWith("Once upon a time") && second.prompt.length > first.prompt.length + 10);
  assert.ok(!("messages" in first));
});

pageTest("a model without a chat template offers completion alone", async (page) => {
  await page.intercept("*/v1/models", () => ({
    body: JSON.stringify({ object: "list", data: [{ id: "base", meta: { chat_template: false, default_generation_settings: { temperature: 0.5 } } }] }),
  }));
  await openChat(page);
  await page.click("#open-settings");
  await page.waitFor("document.querySelector('#mode input[value=completion]').checked");
  assert.ok(await page.evaluate("document.querySelector('#mode input[value=chat]').disabled"));
  assert.match(await page.text("#mode-note"), /no chat template/);
  assert.equal(await page.evaluate("document.querySelector('#parameter-temperature').placeholder"), "0.5");
});

pageTest("errors are shown where they happen, and asking again works", async (page) => {
  page.expectsFailures = true;
  await openChat(page);
  const failing = [
    [{ status: 503, body: '{"error":{"code":503,"message":"The queue is full.","type":"unavailable_error"}}' }, "The queue is full."],
    [{ status: 502, type: "text/html", body: "<h1>Bad Gateway</h1>" }, "502"],
    [{ type: "text/event-stream", body: `${stream(["par"]).split("data: [DONE]")[0].split("\n\n").slice(0, 2).join("\n\n")}\n\ndata: {"error":{"code":500,"message":"It broke.","type":"server_error"}}\n\n` }, "It broke."],
    [{ type: "text/event-stream", body: 'data: {"choices":[{"delta":{"content":"cut"}}]}\n\n' }, "ended before the answer"],
  ];
  for (const [answer, message] of failing) {
    await page.intercept("*/v1/chat/completions", () => answer);
    await page.click("#new-chat");
    await send(page, "x");
    await page.waitFor("document.querySelector('.note.error')?.checkVisibility()");
    assert.ok((await page.text(".note.error")).includes(message), message);
    assert.equal(await page.evaluate("document.querySelectorAll('h1:not(#welcome-title)').length"), 0);
  }
  await answerWith(page, "good");
  await page.click(await inLast(page, "assistant", "[aria-label=Regenerate]"));
  await page.waitFor("document.querySelector('.message.assistant .versions').innerText === '2 / 2'");
  assert.equal(await answered(page), "good");
});

pageTest("too long a prompt is the server's error, in its words", async (page) => {
  page.expectsFailures = true;
  await openChat(page);
  await send(page, "word ".repeat(3000));
  await page.waitFor("document.querySelector('.note.error')?.checkVisibility()");
  assert.match(await page.text(".note.error"), /exceeds the available context size/);
});

pageTest("a server that wants a key gets one", async (page) => {
  page.expectsFailures = true;
  await page.open(KEY_URL);
  const wanted = () => page.waitFor("document.querySelector('#key-dialog').open || !document.querySelector('#model').disabled");
  await wanted();
  if (!(await page.evaluate("document.querySelector('#key-dialog').open"))) {
    await set(page, SHORT);
    await send(page, "Hello");
    await page.waitFor("document.querySelector('#key-dialog').open");
  }
  await page.fill("#key", "wrong");
  await page.press("Enter");
  await page.waitFor("document.querySelector('#key-dialog').open && document.querySelector('#key').value === 'wrong'");
  await page.fill("#key", KEY);
  await page.press("Enter");
  await page.waitFor("!document.querySelector('#key-dialog').open && !document.querySelector('#model').disabled");
  if ((await messages(page)).length === 0) await send(page, "Hello");
  await answered(page);
  assert.equal(await page.text(await inLast(page, "assistant", ".note.error")), null);
  assert.equal(await page.evaluate("sessionStorage.getItem('bitnet.apiKey')"), KEY);
  assert.equal(await page.evaluate("localStorage.getItem('bitnet.apiKey')"), null, "kept only if the user wants it");
});

pageTest("a server that is gone is said so", async (page) => {
  page.expectsFailures = true;
  await openChat(page);
  await page.send("Network.emulateNetworkConditions", { offline: true, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await send(page, "x");
  await page.waitFor("document.querySelector('.note.error')?.checkVisibility()");
  assert.match(await page.text(".note.error"), /cannot be reached/);
});
