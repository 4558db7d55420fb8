// What the browser tests share: one Chromium for all of them, a fresh page for each, and the words for what a user does.
//
// From the environment: CHROMIUM (the program), BITNET_URL (a running server), BITNET_KEY_URL and BITNET_KEY (one that
// wants an API key). `cargo xtask web` starts both servers and sets all four.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Browser } from "./cdp.mjs";

export const URL_ = required("BITNET_URL");
export const KEY_URL = required("BITNET_KEY_URL");
export const KEY = required("BITNET_KEY");

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; run \`cargo xtask web\``);
  return value;
}

let browser;
before(async () => {
  browser = await Browser.start(required("CHROMIUM"));
});
after(() => browser.close());

/** A test with a page of its own, in which nothing may go wrong unnoticed. */
export function pageTest(name, body) {
  test(name, async (context) => {
    const page = await browser.newPage();
    try {
      await body(page, context);
      assert.deepEqual(page.problems, [], "errors in the console");
      const elsewhere = page.requests.map(({ url }) => url).filter((url) => !/^(data|blob|about):/.test(url) && ![URL_, KEY_URL].some((own) => url.startsWith(own)));
      assert.deepEqual(elsewhere, [], "requests to elsewhere");
    } finally {
      await page.close();
    }
  });
}

/** Opens the page and waits until a model can be talked to. */
export async function openChat(page, url = URL_) {
  await page.open(url);
  await page.waitFor("!document.querySelector('#model').disabled", "a model");
}

/** Sends a message as a user does. */
export async function send(page, text) {
  await page.fill("#input", text);
  await page.press("Enter");
}

/** Waits until nothing is being written; gives the text of the last answer. */
export async function answered(page) {
  await page.waitFor(
    "document.querySelector('.message.assistant') && !document.querySelector('.message.running') && !document.querySelector('#send').hidden",
    "the answer to be complete",
  );
  return lastAnswer(page);
}

export function lastAnswer(page) {
  return page.evaluate("[...document.querySelectorAll('.message.assistant .text')].at(-1).innerText");
}

/** Roles and texts of the messages that are shown. */
export function messages(page) {
  return page.evaluate("[...document.querySelectorAll('.message')].map((m) => [m.dataset.role, m.querySelector('.text').innerText])");
}

/** The selector of something in the last message of a role. */
export async function inLast(page, role, selector) {
  const index = await page.evaluate(`[...document.querySelectorAll('.message')].findLastIndex((m) => m.dataset.role === ${JSON.stringify(role)})`);
  return `.message:nth-child(${index + 1}) ${selector}`;
}

/** Opens the settings and sets parameters, by their names. */
export async function set(page, parameters) {
  if (await page.evaluate("document.querySelector('#settings').hidden")) await page.click("#open-settings");
  for (const [name, value] of Object.entries(parameters)) await page.fill(name === "system" ? "#system" : `#parameter-${name}`, String(value));
  await page.click("#close-settings");
}

/** The bodies of the requests for answers, in order. */
export function asked(page) {
  return page.requests.filter(({ method, url }) => method === "POST" && /completions$/.test(url)).map(({ postData }) => JSON.parse(postData));
}

/** The body of a stream that answers with these pieces. */
export function stream(pieces, finish = "stop") {
  const chunk = (delta, reason = null) => ({ id: "x", object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: reason }] });
  const chunks = [chunk({ role: "assistant", content: null }), ...pieces.map((content) => chunk({ content })), chunk({}, finish)];
  return `${chunks.map((each) => `data: ${JSON.stringify(each)}\n\n`).join("")}data: [DONE]\n\n`;
}

/** Makes every chat be answered with these pieces instead of by the server. */
export function answerWith(page, ...pieces) {
  return page.intercept("*/v1/chat/completions", () => ({ type: "text/event-stream", body: stream(pieces) }));
}

/** Whether anything of the page lies beyond its right edge or can be scrolled there. */
export function overflow(page) {
  return page.evaluate(`(() => {
    const root = document.documentElement;
    if (root.scrollWidth > innerWidth) return "the page is " + root.scrollWidth + " wide";
    const log = document.querySelector("#log");
    if (log.scrollWidth > log.clientWidth) return "the messages are " + log.scrollWidth + " wide";
    for (const element of document.querySelectorAll("main *, #settings *")) {
      if (!element.checkVisibility() || element.closest("pre, .table-scroll, .sr-only, svg, select")) continue;
      const box = element.getBoundingClientRect();
      if (box.right > innerWidth + 0.5 || (box.left < -0.5 && box.width)) return element.outerHTML.slice(0, 200) + " lies at " + box.left + " to " + box.right;
    }
    return "";
  })()`);
}
