// The page itself: what it keeps, how it looks, what hostile text cannot do, who can use it.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { answerWith, answered, inLast, messages, openChat, overflow, pageTest, send, set } from "./harness.mjs";

pageTest("a conversation is there after a reload", async (page) => {
  await openChat(page);
  await set(page, { max_tokens: 16, temperature: 0 });
  await send(page, "Remember me");
  await answered(page);
  const before = await messages(page);
  await page.reload();
  await page.waitFor("document.querySelectorAll('.message').length === 2");
  assert.deepEqual(await messages(page), before);
  assert.match(await page.text(".stats:not(:empty)"), /16 tokens/);
  assert.equal(await page.evaluate("document.querySelector('#parameter-max_tokens').value"), "16");
  assert.equal(await page.text(".conversation.current .conversation-title"), "Remember me");
});

pageTest("an answer that a reload cuts off keeps what it had", async (page) => {
  await openChat(page);
  await set(page, { max_tokens: 400, repeat_penalty: 1.3 });
  await send(page, "Tell me a very long story.");
  await page.waitFor("document.querySelector('.message.running .text')?.innerText.length > 10");
  await page.reload();
  await page.waitFor("document.querySelectorAll('.message').length === 2");
  const [, [, text]] = await messages(page);
  assert.ok(text.length > 10);
  assert.equal(await page.text(await inLast(page, "assistant", ".note")), "Stopped.");
});

pageTest("several conversations: open, search, rename, delete", async (page) => {
  await openChat(page);
  await answerWith(page, "answer");
  for (const text of ["About apples", "About pears"]) {
    await page.click("#new-chat");
    await send(page, text);
    await answered(page);
  }
  const titles = () => page.evaluate("[...document.querySelectorAll('.conversation-title')].map((title) => title.innerText.trim())");
  assert.deepEqual(await titles(), ["About pears", "About apples"]);
  await page.click(".conversation:last-child .conversation-title");
  await page.waitFor("document.querySelector('.message.user .text').innerText === 'About apples'");
  await page.fill("#search", "PEARS");
  assert.deepEqual(await titles(), ["About pears"]);
  await page.evaluate("document.querySelector('#search').value = ''; document.querySelector('#search').dispatchEvent(new Event('input'))");
  await page.evaluate("document.querySelector('.conversation.current .conversation-title').focus()");
  await page.click(".conversation.current [aria-label^=Rename]");
  await page.evaluate("document.querySelector('.rename').select()");
  await page.type("Fruit <b>");
  await page.press("Enter");
  assert.deepEqual(await titles(), ["About pears", "Fruit <b>"]);
  await page.reload();
  await page.waitFor("document.querySelectorAll('.conversation').length === 2");
  assert.deepEqual(await titles(), ["About pears", "Fruit <b>"]);
  await page.evaluate("document.querySelector('.conversation.current .conversation-title').focus()");
  await page.click(".conversation.current [aria-label^=Delete]");
  await page.waitFor("document.querySelector('#confirm-dialog').open");
  await page.press("Escape");
  await page.waitFor("!document.querySelector('#confirm-dialog').open");
  assert.equal((await titles()).length, 2);
  await page.click(".conversation.current [aria-label^=Delete]");
  await page.click("#confirm-dialog .danger-button");
  await page.waitFor("document.querySelectorAll('.conversation').length === 1");
  assert.deepEqual(await titles(), ["About pears"]);
  assert.equal((await messages(page)).length, 0);
});

pageTest("conversations go to a file and come back", async (page) => {
  const folder = mkdtempSync(join(tmpdir(), "bitnet-web-files-"));
  try {
    await page.downloadsTo(folder);
    await openChat(page);
    await answerWith(page, "**bold**");
    await send(page, "Export me");
    await answered(page);
    await page.evaluate("window.clicked = new Promise((resolve) => addEventListener('click', (event) => event.target.download && resolve(event.target.download), true)); undefined");
    await page.click("#export-all");
    const name = await page.evaluate("window.clicked");
    assert.match(name, /^bitnet-conversations-\d{4}-\d\d-\d\d\.json$/);
    const file = join(folder, name);
    while (!readdirSync(folder).includes(name)) await page.evaluate("new Promise(requestAnimationFrame)");
    const data = JSON.parse(readFileSync(file, "utf8"));
    assert.equal(data.conversations[0].title, "Export me");
    await page.evaluate("localStorage.clear()");
    await page.reload();
    assert.equal(await page.evaluate("document.querySelectorAll('.conversation').length"), 0);
    await page.chooseFile("#import-file", file);
    await page.waitFor("document.querySelectorAll('.message').length === 2");
    assert.deepEqual(await messages(page), [["user", "Export me"], ["assistant", "bold"]]);
    await page.chooseFile("#import-file", file);
    await page.waitFor("document.querySelectorAll('.conversation').length === 2");
    const bad = join(folder, "bad.json");
    writeFileSync(bad, "{}");
    await page.chooseFile("#import-file", bad);
    await page.waitFor("document.querySelector('#banner').innerText.includes('does not hold conversations')");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const HOSTILE = [
  "# <script>window.hacked = 1</script>",
  "<img src=x onerror='window.hacked = 2'> <svg onload=window.hacked=3> <iframe src='javascript:parent.hacked=4'></iframe>",
  "[click](javascript:window.hacked=5) [data](data:text/html,<script>parent.hacked=6</script>) ![img](javascript:window.hacked=7)",
  "<javascript:window.hacked=8> [x](JaVaScRiPt:window.hacked=9) [y](\u0001javascript:window.hacked=10) [tab](java\tscript:window.hacked=11)",
  "[ok](https://example.org/\"onmouseover=\"window.hacked=12) ![beacon](https://example.org/beacon.png) https://example.org/<script>",
  "| <b>a</b> | `<script>window.hacked=13</script>` |\n|-|-|\n| <img src=x onerror=window.hacked=14> | x |",
  "```<script>window.hacked=15</script>\n</code></pre><script>window.hacked=16</script>\n```",
  "```html\n<script>window.hacked=17</script><p class=\"x\">\n```",
  "- <a href='javascript:window.hacked=18'>a</a>\n\n> <style>body { display: none }</style>",
].join("\n\n");

pageTest("hostile text stays text", async (page) => {
  await openChat(page);
  const pieces = HOSTILE.match(/[\s\S]{1,7}/g);
  await answerWith(page, ...pieces);
  await send(page, "<img src=x onerror='window.hacked=19'><script>window.hacked=20</script>");
  await answered(page);
  const found = await page.evaluate(`(() => {
    const messages = document.querySelector("#messages");
    return {
      tags: [...messages.querySelectorAll("script, img, iframe, style, object, embed, form, b, [onerror], [onload], [onmouseover], [style]")].map((e) => e.outerHTML),
      links: [...messages.querySelectorAll("a")].map((a) => [a.protocol, a.rel, a.target]),
      text: messages.innerText,
      title: document.querySelector(".conversation-title").innerHTML,
    };
  })()`);
  assert.deepEqual(found.tags, []);
  assert.ok(found.links.length >= 2);
  for (const link of found.links) assert.deepEqual(link, ["https:", "noopener noreferrer nofollow", "_blank"]);
  for (const part of ["<script>window.hacked = 1</script>", "<iframe src=", "</code></pre><script>", "<style>body"]) {
    assert.ok(found.text.includes(part), part);
  }
  assert.ok(!found.title.includes("<img"), found.title);
  for (const link of await page.evaluate("document.querySelectorAll('#messages a').length && [...document.querySelectorAll('#messages a')].map((a) => a.href)")) {
    assert.match(link, /^https:\/\/example\.org\//);
  }
  await page.reload();
  await page.waitFor("document.querySelectorAll('.message').length === 2");
  assert.equal(await page.evaluate("window.hacked"), undefined);
});

pageTest("the policy forbids scripts in the page, styles and other hosts", async (page) => {
  await openChat(page);
  page.expectsFailures = true;
  const violations = await page.evaluate(`(async () => {
    const seen = [];
    addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
    const script = document.createElement("script");
    script.textContent = "window.hacked = 1";
    document.body.append(script);
    const style = document.createElement("style");
    style.textContent = "body { color: red }";
    document.body.append(style);
    await fetch("https://example.org/").catch(() => {});
    try { new Function("window.hacked = 2")(); } catch {}
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    return seen;
  })()`);
  for (const directive of ["script-src-elem", "style-src-elem", "connect-src"]) assert.ok(violations.includes(directive), `${directive} in ${violations}`);
  assert.equal(await page.evaluate("window.hacked"), undefined);
  page.requests = page.requests.filter(({ url }) => !url.startsWith("https://example.org"));
});

const RICH = [
  "## Heading\n\nText with **bold**, *em*, `code` and a [link](https://example.org).\n\n",
  "1. one\n   - nested\n2. two\n\n> quote\n\n- [x] done\n\n",
  `| a | b | ${Array.from({ length: 12 }, (_, n) => `column ${n}`).join(" | ")} |\n|${"-|".repeat(14)}\n| 1 | 2 |\n\n`,
  `\`\`\`rust\nfn main() { println!("${"a long line ".repeat(20)}"); }\n\`\`\`\n\n`,
  `${"Donaudampfschifffahrt".repeat(20)} https://example.org/${"path/".repeat(40)} \`${"code".repeat(60)}\``,
];

pageTest("Markdown becomes elements, and code can be copied", async (page) => {
  await openChat(page);
  await page.browser.send("Browser.grantPermissions", { permissions: ["clipboardReadWrite", "clipboardSanitizedWrite"], browserContextId: page.contextId });
  await answerWith(page, ...RICH);
  await send(page, "x");
  await answered(page);
  const count = (selector) => page.evaluate(`document.querySelectorAll(${JSON.stringify(`.message.assistant .text ${selector}`)}).length`);
  for (const [selector, expected] of Object.entries({ h2: 1, strong: 1, em: 1, "ol > li": 2, "ol ul > li": 1, blockquote: 1, "input[type=checkbox]:checked": 1, "table th": 14, pre: 1, ".hl-keyword": 1 })) {
    assert.equal(await count(selector), expected, selector);
  }
  await page.click(".code-copy");
  await page.waitFor("document.querySelector('#announcer').innerText === 'Copied'");
  assert.match(await page.evaluate("navigator.clipboard.readText()"), /^fn main\(\) \{ println!\("a long line/);
  await page.click(await inLast(page, "assistant", "[aria-label=Copy]"));
  await page.waitFor("navigator.clipboard.readText().then((text) => text.startsWith('## Heading'))");
});

pageTest("while text streams in, what is finished stays in place", async (page) => {
  await openChat(page);
  // The renderer is asked directly: how often a frame is painted between two pieces is the browser's affair.
  const kept = await page.evaluate(`(async () => {
    const { renderMarkdown } = await import("./web/render.js");
    const container = document.createElement("div");
    const text = "# A\\n\\nfirst **paragraph**\\n\\n- a\\n- b\\n\\n\`\`\`js\\nlet x;\\n\`\`\`\\n\\nend";
    const seen = new Set();
    for (let end = 1; end <= text.length; end += 1) {
      renderMarkdown(container, text.slice(0, end));
      if (container.children[1] && text.slice(0, end).includes("- a")) seen.add(container.children[1]);
    }
    const whole = document.createElement("div");
    renderMarkdown(whole, text);
    return [seen.size, whole.innerHTML === container.innerHTML];
  })()`);
  assert.deepEqual(kept, [1, true]);
});

pageTest("light and dark, by the system and by hand", async (page) => {
  const brightness = () =>
    page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0)");
  await page.media({ "prefers-color-scheme": "light" });
  await openChat(page);
  assert.ok((await brightness()) > 700);
  await page.media({ "prefers-color-scheme": "dark" });
  assert.ok((await brightness()) < 150);
  await page.click("#theme");
  assert.equal(await page.evaluate("document.querySelector('#theme').title"), "Theme: light");
  assert.ok((await brightness()) > 700);
  await page.reload();
  assert.ok((await brightness()) > 700, "the choice is remembered");
  await page.media({ "prefers-color-scheme": "light" });
  await page.click("#theme");
  assert.ok((await brightness()) < 150);
  await page.click("#theme");
  assert.equal(await page.evaluate("document.querySelector('#theme').title"), "Theme: as the system");
});

pageTest("text has contrast in both themes", async (page) => {
  await openChat(page);
  await answerWith(page, ...RICH);
  await send(page, "x");
  await answered(page);
  for (const scheme of ["light", "dark"]) {
    await page.media({ "prefers-color-scheme": scheme });
    const low = await page.evaluate(`(() => {
      const parts = (color) => color.match(/[\\d.]+/g).map(Number);
      const luminance = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((part) => { part /= 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
      };
      const back = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const color = parts(getComputedStyle(at).backgroundColor);
          if (color.length === 3 || color[3] > 0.99) return color;
        }
        return [255, 255, 255];
      };
      const low = [];
      for (const element of document.querySelectorAll("p, li, h1, h2, span, code, a, button, td, th, label")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility({ opacityProperty: true }) || element.closest(".sr-only, :disabled")) continue;
        const [a, b] = [luminance(parts(getComputedStyle(element).color)), luminance(back(element))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) low.push(element.className + " " + element.textContent.slice(0, 30));
      }
      return low;
    })()`);
    assert.deepEqual(low, [], scheme);
  }
});

pageTest("on a phone nothing is cut off or scrolls sideways", async (page) => {
  await page.viewport(360, 740, true);
  await openChat(page);
  assert.equal(await overflow(page), "", "welcome");
  await answerWith(page, ...RICH);
  await send(page, `a ${"long".repeat(60)}`);
  await answered(page);
  assert.equal(await overflow(page), "", "messages");
  assert.ok(await page.evaluate("document.querySelector('#send').getBoundingClientRect().bottom <= innerHeight"));
  await page.click("#open-sidebar");
  await page.waitFor("document.querySelector('#close-sidebar').checkVisibility({ visibilityProperty: true })");
  assert.equal(await overflow(page), "", "drawer");
  await page.press("Escape");
  await page.waitFor("!document.querySelector('#close-sidebar').checkVisibility({ visibilityProperty: true })");
  await page.click("#open-settings");
  assert.equal(await overflow(page), "", "settings");
  await page.click("#close-settings");
  const small = await page.evaluate(`[...document.querySelectorAll("button")]
    .filter((button) => button.checkVisibility({ visibilityProperty: true }) && !button.closest("#sidebar"))
    .map((button) => [button.getAttribute("aria-label") ?? button.innerText, button.getBoundingClientRect()])
    .filter(([, box]) => box.width < 24 || box.height < 24).map(([name]) => name)`);
  assert.deepEqual(small, [], "too small for a finger");
  await page.click("#open-sidebar");
  await page.click("#new-chat");
  await page.waitFor("!document.querySelector('#welcome').hidden && document.querySelector('#scrim').hidden");
  for (const [width, height] of [[320, 568], [768, 1024], [1024, 600]]) {
    await page.viewport(width, height, true);
    assert.equal(await overflow(page), "", `${width} x ${height}`);
  }
});

pageTest("everything has a name and can be reached by keyboard", async (page) => {
  await openChat(page);
  await answerWith(page, ...RICH);
  await send(page, "x");
  await answered(page);
  await page.click("#open-settings");
  const { nodes } = await page.send("Accessibility.getFullAXTree");
  const controls = nodes.filter(({ ignored, role }) => !ignored && ["button", "textbox", "searchbox", "combobox", "spinbutton", "slider", "radio", "checkbox", "link"].includes(role.value));
  assert.ok(controls.length > 20);
  assert.deepEqual(controls.filter(({ name }) => !name?.value).map(({ role, backendDOMNodeId }) => [role.value, backendDOMNodeId]), []);
  assert.match(await page.text("#announcer"), /^The model answered: /);
  await page.click("#close-settings");
  assert.equal(await page.evaluate("document.activeElement.id"), "open-settings", "focus returns");
  await page.evaluate("document.body.focus(); document.activeElement.blur()");
  const reached = new Set();
  for (let step = 0; step < 60; step += 1) {
    await page.press("Tab");
    reached.add(await page.evaluate("document.activeElement.id || document.activeElement.className"));
  }
  for (const wanted of ["skip-link", "new-chat", "search", "conversation-title", "model", "open-settings", "input", "code-copy"]) assert.ok(reached.has(wanted), `${wanted} in ${[...reached]}`);
});

pageTest("two tabs agree", async (page) => {
  await openChat(page);
  await answerWith(page, "ok");
  await send(page, "first");
  await answered(page);
  // What another tab does to the storage arrives as an event.
  await page.evaluate(`(() => {
    const [key] = Object.keys(localStorage).filter((key) => key.startsWith("bitnet.conversation."));
    const conversation = JSON.parse(localStorage.getItem(key));
    conversation.title = "Renamed elsewhere";
    localStorage.setItem(key, JSON.stringify(conversation));
    dispatchEvent(new StorageEvent("storage", { key, storageArea: localStorage }));
  })()`);
  await page.waitFor("document.querySelector('.conversation-title').innerText.includes('Renamed elsewhere')");
  await page.evaluate("localStorage.clear(); dispatchEvent(new StorageEvent('storage', { key: null, storageArea: localStorage }))");
  await page.waitFor("!document.querySelector('.message') && !document.querySelector('.conversation')");
});

pageTest("a full storage is said so", async (page) => {
  await openChat(page);
  await page.evaluate(`(() => {
    let size = 4_000_000;
    for (let index = 0; size > 10; index += 1) {
      try { localStorage.setItem("fill" + index, "x".repeat(size)); } catch { size = Math.floor(size / 2); }
    }
  })()`);
  await answerWith(page, "ok");
  await send(page, "x".repeat(100));
  await answered(page);
  assert.match(await page.text("#banner"), /storage is full/);
  assert.equal((await messages(page)).length, 2, "the conversation goes on");
});
