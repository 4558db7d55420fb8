// The messages of the conversation that is shown: one view a message, kept while the message stays, so that a selection,
// the focus and the scroll position survive what happens around them.

import { switchVersion, path, version } from "./conversation.js";
import { byId, copyWithFeedback, h, icon, iconButton } from "./dom.js";
import { renderMarkdown } from "./render.js";

/** How near to the end counts as being there, in pixels. */
const NEAR = 80;

export class Log {
  /** `actions`: { regenerate(node), edit(node, text), changed() }. */
  constructor(actions) {
    this.actions = actions;
    this.views = new Map();
    this.scroller = byId("log");
    this.list = byId("messages");
    this.toBottom = byId("to-bottom");
    this.following = true;
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.toBottom.addEventListener("click", () => this.follow());
    new ResizeObserver(() => this.keepEnd()).observe(this.scroller);
  }

  /** Shows the current path of a conversation; `run` is its answer in progress, if there is one. */
  show(conversation, run) {
    const nodes = path(conversation);
    const views = new Map();
    nodes.forEach((node, index) => {
      const key = `${conversation.id}/${node.id}`;
      const view = this.views.get(key) ?? new MessageView(node, conversation, this.actions);
      views.set(key, view);
      if (this.list.children[index] !== view.element) this.list.insertBefore(view.element, this.list.children[index] ?? null);
      view.update(node, conversation, run?.node === node ? run : null);
    });
    for (const [key, view] of this.views) if (!views.has(key)) view.element.remove();
    this.views = views;
    byId("welcome").hidden = nodes.length > 0;
    this.keepEnd();
  }

  /** Redraws one message while it grows. */
  grow(conversation, run) {
    this.views.get(`${conversation.id}/${run.node.id}`)?.update(run.node, conversation, run);
    this.keepEnd();
  }

  /** Goes to the end, and stays there while text arrives. */
  follow() {
    this.following = true;
    this.keepEnd();
  }

  keepEnd() {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.toBottom.hidden = this.isAtEnd();
  }

  scrolled() {
    this.following = this.isAtEnd();
    this.toBottom.hidden = this.following;
  }

  isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  /** Opens the editor of the last message that the user wrote. */
  editLast() {
    const own = [...this.views.values()].filter((view) => view.node.role === "user").at(-1);
    own?.edit();
    return Boolean(own);
  }
}

class MessageView {
  constructor(node, conversation, actions) {
    this.node = node;
    this.conversation = conversation;
    this.actions = actions;
    this.text = h("div", { class: "text" });
    this.reasoning = h("details", { class: "reasoning", hidden: true }, h("summary", { text: "Thoughts" }), h("div"));
    this.note = h("div", { class: "note", hidden: true });
    this.progress = h("div", { class: "progress", hidden: true }, h("span", { class: "dots" }, h("i"), h("i"), h("i")), h("span"));
    this.versions = h("span", { class: "versions" });
    this.stats = h("span", { class: "stats muted" });
    this.buttons = h("div", { class: "message-buttons" });
    this.body = h("div", { class: "body" }, this.reasoning, this.text, this.progress, this.note);
    this.foot = h("div", { class: "message-foot" }, this.versions, this.buttons, this.stats);
    const who = node.role === "user" ? "You" : "Model";
    this.element = h("li", { class: `message ${node.role}`, data: { role: node.role } }, h("span", { class: "sr-only", text: `${who}:` }), this.body, this.foot);
    this.fillButtons();
  }

  fillButtons() {
    const copy = iconButton("copy", "Copy", () => copyWithFeedback(copy, this.node.text));
    this.buttons.append(copy, iconButton("edit", "Edit", () => this.edit()));
    if (this.node.role === "assistant") {
      this.buttons.append(iconButton("again", "Regenerate", () => this.actions.regenerate(this.node)));
    }
  }

  update(node, conversation, run) {
    this.node = node;
    this.conversation = conversation;
    this.element.classList.toggle("running", Boolean(run));
    this.element.setAttribute("aria-busy", String(Boolean(run)));
    const plain = node.role === "user" || conversation.mode === "completion";
    this.text.classList.toggle("plain", plain);
    if (plain) this.showPlain(node.text);
    else {
      if (this.plain !== undefined) this.text.replaceChildren();
      this.plain = undefined;
      renderMarkdown(this.text, node.text);
    }
    this.updateReasoning(node);
    this.updateProgress(run);
    this.updateNote(node, run);
    this.updateVersions(run);
    this.stats.textContent = statsText(run ? run.stats() : node.stats);
    this.foot.hidden = Boolean(this.editor);
  }

  showPlain(text) {
    if (this.plain === text) return;
    // What is there already stays: appending keeps a selection, and long texts cheap.
    if (this.plain !== undefined && text.startsWith(this.plain) && this.text.firstChild) {
      this.text.firstChild.appendData(text.slice(this.plain.length));
    } else {
      this.text.replaceChildren(document.createTextNode(text));
    }
    this.plain = text;
  }

  updateReasoning(node) {
    this.reasoning.hidden = !node.reasoning;
    if (node.reasoning) this.reasoning.lastChild.textContent = node.reasoning;
  }

  updateProgress(run) {
    const waiting = Boolean(run) && !run.node.text;
    this.progress.hidden = !waiting;
    if (!waiting) return;
    const { done, total } = run.progress ?? {};
    const share = total ? Math.floor((100 * done) / total) : 0;
    this.progress.lastChild.textContent = total ? `Reading the prompt: ${share} % of ${total.toLocaleString()} tokens` : "";
  }

  updateNote(node, run) {
    const text = run ? "" : noteText(node);
    this.note.hidden = !text;
    if (this.note.textContent !== text) this.note.textContent = text;
    this.note.classList.toggle("error", node.state === "error");
  }

  updateVersions(run) {
    const { index, count } = version(this.conversation, this.node);
    const label = count > 1 ? `${index} / ${count}${run ? " running" : ""}` : "";
    if (this.versions.dataset.label === label) return;
    this.versions.dataset.label = label;
    this.versions.replaceChildren();
    if (!label) return;
    const turn = (step) => {
      switchVersion(this.conversation, this.node, step);
      this.actions.changed();
    };
    const back = iconButton("left", "Version before", () => turn(-1), { disabled: index === 1 });
    const next = iconButton("right", "Next version", () => turn(1), { disabled: index === count });
    this.versions.append(back, h("span", { text: `${index} / ${count}`, "aria-label": `Version ${index} of ${count}` }), next);
  }

  /** Replaces the text by a field; what is saved becomes another version. */
  edit() {
    if (this.editor) return;
    const field = h("textarea", { class: "edit-field", "aria-label": "Edit the message", rows: "3" });
    field.value = this.node.text;
    const close = () => {
      this.editor.remove();
      this.editor = null;
      this.text.hidden = false;
      this.foot.hidden = false;
    };
    const save = () => {
      const text = field.value;
      if (this.node.role === "user" && !text.trim()) return;
      close();
      if (text !== this.node.text || this.node.role === "user") this.actions.edit(this.node, text);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && this.node.role === "user") save();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    const label = this.node.role === "user" ? "Send" : "Save";
    this.editor = h(
      "div",
      { class: "editor" },
      field,
      h(
        "div",
        { class: "editor-buttons" },
        h("button", { type: "button", class: "text-button", text: "Cancel", on: { click: close } }),
        h("button", { type: "button", class: "primary-button", text: label, on: { click: save } }, icon("check")),
      ),
    );
    this.text.hidden = true;
    this.foot.hidden = true;
    this.body.prepend(this.editor);
    field.style.height = `${Math.min(field.scrollHeight + 2, 400)}px`;
    field.focus();
  }
}

function noteText(node) {
  switch (node.state) {
    case "error":
      return node.note ?? "The answer failed.";
    case "stopped":
      return "Stopped.";
    case "length":
      return "The answer reached its largest length.";
    default:
      return "";
  }
}

/** "128 tokens · 45.2 tokens/s · prompt 34 (20 cached) · 0.12 s to the first" */
function statsText(stats) {
  if (!stats) return "";
  const parts = [];
  const count = (number) => number.toLocaleString("en");
  if (stats.generated) parts.push(`${count(stats.generated)} ${stats.generated === 1 ? "token" : "tokens"}`);
  if (stats.perSecond) parts.push(`${stats.perSecond.toFixed(stats.perSecond < 100 ? 1 : 0)} tokens/s`);
  if (stats.prompt) parts.push(`prompt ${count(stats.prompt)}${stats.cached ? ` (${count(stats.cached)} cached)` : ""}`);
  if (stats.first) parts.push(`${stats.first.toFixed(2)} s to the first`);
  return parts.join(" · ");
}
