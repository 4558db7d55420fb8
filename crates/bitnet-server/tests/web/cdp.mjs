// A headless Chromium, driven over the DevTools protocol through a pipe: no package, no port.
// Browser starts and ends it; Page has what a user does (click, type, press) and what a test asks (evaluate, waitFor).

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** How long anything may take before a test gives up, in milliseconds. No test waits this long when all is well. */
const PATIENCE = 60_000;

const FLAGS = [
  "--headless=new",
  "--remote-debugging-pipe",
  "--no-first-run",
  "--no-default-browser-check",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-extensions",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--hide-scrollbars",
  "--mute-audio",
];

const KEYS = {
  Enter: { code: "Enter", windowsVirtualKeyCode: 13, text: "\r" },
  Escape: { code: "Escape", windowsVirtualKeyCode: 27 },
  ArrowUp: { code: "ArrowUp", windowsVirtualKeyCode: 38 },
  Tab: { code: "Tab", windowsVirtualKeyCode: 9 },
  a: { code: "KeyA", windowsVirtualKeyCode: 65 },
};

export class Browser {
  static async start(program) {
    const browser = new Browser();
    browser.profile = mkdtempSync(join(tmpdir(), "bitnet-web-"));
    // Chromium refuses its sandbox to root, which is who runs CI in a container.
    const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
    browser.process = spawn(program, [...FLAGS, ...sandbox, `--user-data-dir=${browser.profile}`, "about:blank"], {
      stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
    });
    browser.connect();
    await browser.send("Browser.getVersion");
    return browser;
  }

  connect() {
    this.next = 1;
    this.pending = new Map();
    this.listeners = new Map();
    this.errors = "";
    this.process.stderr.on("data", (data) => (this.errors = (this.errors + data).slice(-4000)));
    this.exited = new Promise((resolve) => this.process.on("exit", resolve));
    this.process.on("exit", (code) => this.fail(new Error(`Chromium ended (${code}):\n${this.errors}`)));
    this.process.on("error", (error) => this.fail(error));
    let rest = Buffer.alloc(0);
    this.process.stdio[4].on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
        this.receive(JSON.parse(rest.subarray(0, end).toString()));
        rest = rest.subarray(end + 1);
      }
    });
    this.process.stdio[3].on("error", () => {});
  }

  fail(error) {
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
  }

  receive(message) {
    const waiting = this.pending.get(message.id);
    if (waiting) {
      this.pending.delete(message.id);
      if (message.error) waiting.reject(new Error(`${waiting.method}: ${message.error.message}`));
      else waiting.resolve(message.result);
    } else if (message.method) {
      this.listeners.get(message.sessionId)?.(message.method, message.params);
    }
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject, method });
      this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  /** A page with storage of its own. */
  async newPage() {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId, width: 1200, height: 800 });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    return Page.attach(this, sessionId, browserContextId);
  }

  async close() {
    await Promise.race([this.send("Browser.close").catch(() => {}), this.exited]);
    await this.exited;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Page {
  static async attach(browser, sessionId, contextId) {
    const page = new Page();
    Object.assign(page, { browser, sessionId, contextId, problems: [], requests: [], fulfil: null });
    browser.listeners.set(sessionId, (method, params) => page.event(method, params));
    for (const domain of ["Page", "Runtime", "Log", "Network", "DOM", "Accessibility"]) await page.send(`${domain}.enable`);
    return page;
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  event(method, params) {
    if (method === "Runtime.exceptionThrown") this.problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Runtime.consoleAPICalled" && params.type === "error") this.problems.push(params.args.map((arg) => arg.value ?? arg.description).join(" "));
    if (method === "Log.entryAdded" && params.entry.level === "error" && !this.expectsFailures) this.problems.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    if (method === "Network.requestWillBeSent") this.requests.push(params.request);
    if (method === "Fetch.requestPaused") this.answerInstead(params);
  }

  /**
   * Answers requests whose address matches `pattern` in place of the server: `answer(request)` gives
   * { status, type, body }, or null to let it pass. `pattern` null ends that.
   */
  async intercept(pattern, answer) {
    this.fulfil = answer;
    if (pattern === null) await this.send("Fetch.disable");
    else await this.send("Fetch.enable", { patterns: [{ urlPattern: pattern }] });
  }

  async answerInstead({ requestId, request }) {
    const answer = this.fulfil(request);
    if (!answer) return this.send("Fetch.continueRequest", { requestId });
    return this.send("Fetch.fulfillRequest", {
      requestId,
      responseCode: answer.status ?? 200,
      responseHeaders: [{ name: "Content-Type", value: answer.type ?? "application/json" }],
      body: Buffer.from(answer.body).toString("base64"),
    });
  }

  async open(url) {
    this.url = url;
    await this.send("Page.navigate", { url });
    await this.waitFor(`location.href.startsWith(${JSON.stringify(url)}) && document.readyState === "complete"`);
  }

  async reload() {
    await this.evaluate("window.before = true");
    await this.send("Page.reload");
    await this.waitFor("!window.before && document.readyState === 'complete'");
  }

  /** The value of an expression in the page. */
  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
      // The page's policy holds for what tests evaluate too.
      allowUnsafeEvalBlockedByCSP: false,
    });
    if (exceptionDetails) throw new Error(`${exceptionDetails.exception?.description ?? exceptionDetails.text}\nin: ${expression}`);
    return result.value;
  }

  /** Waits until an expression is true in the page; gives its value. */
  async waitFor(expression, what = expression) {
    const start = Date.now();
    for (;;) {
      // Looking again with every frame; a navigation in between only means: look again.
      const look = `new Promise((resolve) => {
        const end = performance.now() + 1000;
        const look = () => { const value = (${expression}); if (value || performance.now() > end) resolve(value); else requestAnimationFrame(look); };
        look();
      })`;
      const value = await this.evaluate(look).catch((error) => {
        if (/context|navigat|Cannot find/i.test(error.message)) return null;
        throw error;
      });
      if (value) return value;
      if (Date.now() - start > PATIENCE) throw new Error(`waited in vain for: ${what}\nthe page says: ${await this.text("body")}`);
    }
  }

  text(selector) {
    return this.evaluate(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? null`);
  }

  /** Clicks the middle of an element as a mouse does: what covers it gets the click. */
  async click(selector) {
    const find = `document.querySelector(${JSON.stringify(selector)})`;
    await this.waitFor(`${find}?.checkVisibility()`, `${selector} to be visible`);
    const { x, y } = await this.evaluate(`(async () => {
      const element = ${find};
      element.scrollIntoView({ block: "center" });
      await Promise.all(document.getAnimations().filter((a) => a.effect.getTiming().iterations !== Infinity).map((a) => a.finished));
      const box = element.getBoundingClientRect();
      return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    })()`);
    for (const [type, buttons] of [["mouseMoved", 0], ["mousePressed", 1], ["mouseReleased", 0]]) {
      await this.send("Input.dispatchMouseEvent", { type, x, y, button: type === "mouseMoved" ? "none" : "left", buttons, clickCount: type === "mouseMoved" ? 0 : 1 });
    }
  }

  /** Types text where the focus is. */
  type(text) {
    return this.send("Input.insertText", { text });
  }

  /** Presses a key; modifiers: 1 Alt, 2 Ctrl, 4 Meta, 8 Shift. */
  async press(key, modifiers = 0) {
    const params = { key, modifiers, ...KEYS[key] };
    if (modifiers & 2) delete params.text;
    await this.send("Input.dispatchKeyEvent", { type: params.text ? "keyDown" : "rawKeyDown", ...params });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...params, text: undefined });
  }

  /** Replaces what is in a field. */
  async fill(selector, text) {
    await this.click(selector);
    await this.evaluate(`document.querySelector(${JSON.stringify(selector)}).select?.()`);
    if (text === "") await this.press("Backspace");
    await this.type(text);
  }

  async viewport(width, height, mobile = false) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: mobile ? 2 : 1, mobile });
    await this.send("Emulation.setTouchEmulationEnabled", { enabled: mobile });
  }

  media(features) {
    return this.send("Emulation.setEmulatedMedia", { features: Object.entries(features).map(([name, value]) => ({ name, value })) });
  }

  async chooseFile(selector, file) {
    const { root } = await this.send("DOM.getDocument");
    const { nodeId } = await this.send("DOM.querySelector", { nodeId: root.nodeId, selector });
    await this.send("DOM.setFileInputFiles", { nodeId, files: [file] });
  }

  downloadsTo(folder) {
    return this.browser.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder, browserContextId: this.contextId });
  }

  async screenshot() {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  async close() {
    this.browser.listeners.delete(this.sessionId);
    await this.browser.send("Target.disposeBrowserContext", { browserContextId: this.contextId });
  }
}
