// The page: which conversations there are, which one is shown, which answers are being written. The parts draw themselves
// (log.js, sidebar.js, settings.js, composer.js); this file holds the state and what the user can do with it.

import { ServerError, apiKey, describeModel, listModels } from "./api.js";
import { Composer } from "./composer.js";
import { addMessage, newConversation, path } from "./conversation.js";
import { announce, ask, byId, download, h } from "./dom.js";
import { Log } from "./log.js";
import { Run } from "./runs.js";
import { Settings } from "./settings.js";
import { Sidebar, isNarrow } from "./sidebar.js";
import { Store, exportText, importText } from "./store.js";

const SUGGESTIONS = [
  "Tell me a short story about a fox who is afraid of the dark.",
  "Explain why the sky is blue, simply.",
  "Give me three tips for sleeping better.",
  "Write a poem about the first snow.",
];
/** How often a growing answer is stored, in milliseconds. */
const SAVE_EVERY = 1000;

class App {
  constructor() {
    this.store = new Store(localStorage);
    this.conversations = this.store.list();
    this.models = new Map();
    this.runs = new Map();
    this.log = new Log({
      regenerate: (node) => this.answer(this.current.nodes[node.parent]),
      edit: (node, text) => this.edit(node, text),
      changed: () => this.changed(),
    });
    this.sidebar = new Sidebar({
      open: (id) => this.open(id),
      remove: (conversation) => this.remove(conversation),
      rename: (conversation, title) => this.rename(conversation, title),
    });
    this.settings = new Settings(() => this.changed());
    this.composer = new Composer({
      send: (text) => this.send(text),
      stop: () => this.stop(),
      editLast: () => this.log.editLast(),
    });
    this.current = this.conversations.find(({ id }) => id === this.store.current) ?? newConversation(this.conversations[0]);
    this.listen();
    this.drawSuggestions();
    this.draw();
    this.loadModels();
  }

  listen() {
    byId("new-chat").addEventListener("click", () => this.startNew());
    byId("model").addEventListener("change", (event) => this.chooseModel(event.target.value));
    byId("export-all").addEventListener("click", () => this.exportAll());
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", (event) => this.importFile(event.target));
    byId("edit-key").addEventListener("click", () => this.askForKey("Sent with every request of this page."));
    byId("theme").addEventListener("click", () => this.showTheme(window.nextTheme()));
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("pagehide", () => this.leave());
    window.addEventListener("storage", (event) => this.storageChanged(event));
    this.showTheme(document.documentElement.dataset.theme);
  }

  key(event) {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
      if (document.body.classList.contains("drawer-open")) this.sidebar.toggle(false);
      else this.stop();
    } else if ((event.ctrlKey || event.metaKey) && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      this.startNew();
    } else if (event.key === "/" && !/^(input|textarea|select)$/i.test(event.target.tagName)) {
      event.preventDefault();
      byId("input").focus();
    }
  }

  // What is shown.

  get run() {
    return this.runs.get(this.current.id) ?? null;
  }

  get model() {
    return this.models.get(this.current.model) ?? this.models.values().next().value ?? null;
  }

  draw() {
    const { current, run, model } = this;
    const last = path(current).at(-1);
    if (model?.hasTemplate === false) current.mode = "completion";
    this.log.show(current, run);
    this.sidebar.show(this.conversations, current.id, new Set(this.runs.keys()));
    this.settings.show(current, model);
    this.composer.show({
      running: Boolean(run),
      mode: current.mode,
      canContinue: current.mode === "completion" && last?.role === "assistant",
    });
    document.title = this.conversations.includes(current) ? `${current.title} · BitNet` : "BitNet chat";
    this.drawModel();
  }

  drawModel() {
    const { model } = this;
    const select = byId("model");
    const ids = [...this.models.keys()];
    if (ids.join("\n") !== select.dataset.ids) {
      select.replaceChildren(...ids.map((id) => h("option", { value: id, text: id })));
      select.dataset.ids = ids.join("\n");
    }
    select.disabled = !model;
    if (model) select.value = model.id;
    byId("context-size").textContent = model?.context ? `${model.context.toLocaleString("en")} tokens of context` : "";
    const completing = this.current.mode === "completion";
    byId("welcome-title").textContent = completing ? "How does the text begin?" : "What shall we talk about?";
    byId("welcome-text").textContent = model ? (completing ? `${model.id} goes on with it.` : `You are talking to ${model.id}, on this server.`) : "";
    byId("suggestions").hidden = completing;
  }

  drawSuggestions() {
    const buttons = SUGGESTIONS.map((text) =>
      h("button", { type: "button", class: "suggestion", text, on: { click: () => this.send(text) } }),
    );
    byId("suggestions").append(...buttons);
  }

  showTheme(theme) {
    const button = byId("theme");
    const label = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" }[theme];
    button.querySelector("use").setAttribute("href", `#icon-${theme}`);
    button.title = label;
    button.setAttribute("aria-label", label);
  }

  /** A message at the top of the page, with a button to try again where that helps. */
  banner(text, retry) {
    const banner = byId("banner");
    banner.hidden = !text;
    const close = () => this.banner("");
    const button = (label, action) => h("button", { type: "button", class: "text-button", text: label, on: { click: action } });
    banner.replaceChildren(h("span", { text }), ...(retry ? [button("Try again", retry)] : []), button("Close", close));
  }

  // Models.

  async loadModels() {
    try {
      const models = await listModels();
      this.models = new Map(models.map((model) => [model.id, model]));
      this.banner(models.length ? "" : "The server has no model.", () => this.loadModels());
      if (models.length) byId("banner").hidden = true;
      this.draw();
      await this.describe();
    } catch (error) {
      if (error.status === 401 && (await this.askForKey("This server wants an API key."))) return this.loadModels();
      this.banner(error.message, () => this.loadModels());
    }
  }

  async describe() {
    const { model } = this;
    if (!model) return;
    try {
      this.models.set(model.id, await describeModel(model));
    } catch (error) {
      // Servers without /props still answer; the fields then show no defaults.
      if (!(error instanceof ServerError)) throw error;
    }
    this.draw();
  }

  chooseModel(id) {
    this.current.model = id;
    this.changed();
    this.describe();
  }

  async askForKey(reason) {
    const dialog = byId("key-dialog");
    if (dialog.open) return false;
    const field = byId("key");
    byId("key-text").textContent = reason;
    field.value = apiKey.get();
    // Enter in the field would press the first button of the form, which is Cancel.
    const enter = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      dialog.close("save");
    };
    field.addEventListener("keydown", enter);
    const answer = ask(dialog);
    field.focus();
    const saved = (await answer) === "save";
    field.removeEventListener("keydown", enter);
    if (saved) apiKey.set(field.value.trim(), byId("remember-key").checked);
    field.value = "";
    return saved;
  }

  // Conversations.

  /** After every change of the current conversation. */
  changed() {
    if (this.conversations.includes(this.current)) this.save(this.current);
    this.draw();
  }

  save(conversation) {
    try {
      this.store.save(conversation);
    } catch (error) {
      this.banner(error.message);
    }
  }

  saveRunning() {
    for (const run of this.runs.values()) {
      const { state } = run.node;
      run.node.state = "stopped";
      this.save(run.conversation);
      run.node.state = state;
    }
  }

  /** The page goes away: what was written so far is kept, and the cut connection is no error. */
  leave() {
    this.saveRunning();
    for (const run of this.runs.values()) run.stop();
  }

  startNew() {
    if (this.conversations.includes(this.current)) this.current = newConversation(this.current);
    this.store.current = "";
    this.log.follow();
    this.draw();
    if (isNarrow()) this.sidebar.toggle(false);
    byId("input").focus();
  }

  open(id) {
    const conversation = this.conversations.find((candidate) => candidate.id === id);
    if (!conversation) return;
    this.current = conversation;
    this.store.current = id;
    this.draw();
    this.log.follow();
    this.describe();
    this.composer.focus();
  }

  rename(conversation, title) {
    conversation.title = title;
    conversation.named = true;
    this.save(conversation);
    this.draw();
  }

  async remove(conversation) {
    byId("confirm-title").textContent = "Delete this conversation?";
    byId("confirm-text").textContent = `“${conversation.title}” is kept nowhere else.`;
    if ((await ask(byId("confirm-dialog"))) !== "yes") return;
    this.runs.get(conversation.id)?.stop();
    this.runs.delete(conversation.id);
    this.store.remove(conversation.id);
    this.conversations = this.conversations.filter((other) => other !== conversation);
    if (this.current === conversation) this.current = newConversation(conversation);
    this.draw();
    announce("Conversation deleted");
  }

  exportAll() {
    const date = new Date().toISOString().slice(0, 10);
    download(`bitnet-conversations-${date}.json`, exportText(this.conversations), "application/json");
  }

  async importFile(field) {
    const [file] = field.files;
    field.value = "";
    if (!file) return;
    try {
      const taken = new Set(this.conversations.map(({ id }) => id));
      const imported = importText(await file.text(), taken);
      for (const conversation of imported) this.store.save(conversation);
      this.conversations = [...imported, ...this.conversations].sort((a, b) => b.updated - a.updated);
      if (imported.length) this.open(imported[0].id);
      announce(`${imported.length} conversations imported`);
    } catch (error) {
      this.banner(`${file.name}: ${error.message}`);
    }
  }

  /** Another tab changed something: take it over, except in conversations that this tab is writing. */
  storageChanged(event) {
    if (event.storageArea !== localStorage || !Store.concerns(event.key)) return;
    const mine = new Map([...this.runs.values()].map(({ conversation }) => [conversation.id, conversation]));
    const kept = this.conversations.includes(this.current);
    this.conversations = this.store.list().map((conversation) => mine.get(conversation.id) ?? conversation);
    const same = this.conversations.find(({ id }) => id === this.current.id);
    if (same) this.current = same;
    else if (kept) this.current = newConversation(this.current);
    this.draw();
  }

  // Messages.

  send(text) {
    if (this.run) return;
    const { current } = this;
    if (!this.conversations.includes(current)) this.conversations.unshift(current);
    this.store.current = current.id;
    const last = path(current).at(-1);
    // In completion an empty message means: go on.
    const asked = text ? addMessage(current, last?.id ?? null, "user", text) : last;
    this.answer(asked);
  }

  edit(node, text) {
    if (this.run) return;
    const changed = addMessage(this.current, node.parent, node.role, text);
    if (node.role === "user") this.answer(changed);
    else this.changed();
  }

  stop() {
    this.run?.stop();
  }

  /** Writes a new answer to `asked`, beside those that are there. */
  async answer(asked) {
    const { current: conversation, model } = this;
    if (this.run) return;
    const node = addMessage(conversation, asked.id, "assistant", "");
    this.conversations = [conversation, ...this.conversations.filter((other) => other !== conversation)];
    this.log.follow();
    let run;
    let wanted = true;
    while (wanted) {
      run = new Run(conversation, node);
      this.runs.set(conversation.id, run);
      this.changed();
      announce("The model is answering");
      try {
        await run.stream(model?.id, this.painter(run));
        wanted = false;
      } catch (error) {
        wanted = await this.askForKey("This server wants an API key, or does not know the one it got.");
        node.state = "error";
        node.note = error.message;
        if (wanted) {
          delete node.state;
          delete node.note;
        }
      }
    }
    if (this.runs.get(conversation.id) !== run) return;
    this.runs.delete(conversation.id);
    this.save(conversation);
    this.draw();
    announce(node.state === "error" ? `The answer failed: ${node.note}` : `The model answered: ${node.text}`);
    if (!this.models.size) this.loadModels();
  }

  /** Draws and stores a growing answer: at most once a frame, and at most once a second. */
  painter(run) {
    let scheduled = false;
    let saved = performance.now();
    return () => {
      if (scheduled) return;
      scheduled = true;
      requestAnimationFrame(() => {
        scheduled = false;
        if (this.runs.get(run.conversation.id) !== run) return;
        if (run.conversation === this.current) this.log.grow(this.current, run);
        const now = performance.now();
        if (now - saved < SAVE_EVERY) return;
        saved = now;
        this.saveRunning();
      });
    };
  }
}

new App();
