// The list of conversations, by age; searching, renaming, and on small screens the drawer that holds it.

import { path, toMarkdown } from "./conversation.js";
import { byId, download, h, iconButton } from "./dom.js";

const DAY = 24 * 60 * 60 * 1000;

export class Sidebar {
  /** `actions`: { open(id), remove(conversation), rename(conversation, title) }. */
  constructor(actions) {
    this.actions = actions;
    this.list = byId("conversations");
    this.search = byId("search");
    this.panel = byId("sidebar");
    this.opener = byId("open-sidebar");
    this.conversations = [];
    this.current = null;
    this.running = new Set();
    this.search.addEventListener("input", () => this.draw());
    this.opener.addEventListener("click", () => this.toggle());
    byId("close-sidebar").addEventListener("click", () => this.toggle(false));
    byId("scrim").addEventListener("click", () => this.toggle(false));
  }

  show(conversations, current, running) {
    this.conversations = conversations;
    this.current = current;
    this.running = running;
    this.draw();
  }

  draw() {
    if (this.renaming) return;
    const wanted = this.search.value.trim().toLowerCase();
    const found = this.conversations.filter((conversation) => !wanted || matches(conversation, wanted));
    const items = [];
    let heading = null;
    for (const conversation of found) {
      const age = ageOf(conversation.updated);
      if (age !== heading) items.push(h("li", { class: "age", text: age }));
      heading = age;
      items.push(this.item(conversation));
    }
    if (!found.length && wanted) items.push(h("li", { class: "age", text: "Nothing found" }));
    this.list.replaceChildren(...items);
  }

  item(conversation) {
    const current = conversation.id === this.current;
    const open = h(
      "button",
      { type: "button", class: "conversation-title", "aria-current": current ? "true" : null, title: conversation.title, on: { click: () => this.open(conversation.id) } },
      this.running.has(conversation.id) && h("span", { class: "pulse", role: "img", "aria-label": "Answering" }),
      h("span", { text: conversation.title }),
    );
    const item = h("li", { class: `conversation${current ? " current" : ""}`, data: { id: conversation.id } }, open);
    item.append(
      h(
        "span",
        { class: "conversation-buttons" },
        iconButton("edit", `Rename ${conversation.title}`, () => this.rename(conversation, item)),
        iconButton("save", `Save ${conversation.title} as Markdown`, () => saveMarkdown(conversation)),
        iconButton("trash", `Delete ${conversation.title}`, () => this.actions.remove(conversation)),
      ),
    );
    open.addEventListener("dblclick", () => this.rename(conversation, item));
    return item;
  }

  open(id) {
    this.actions.open(id);
    this.toggle(false);
  }

  rename(conversation, item) {
    const field = h("input", { class: "rename", type: "text", maxlength: "200", "aria-label": "Title" });
    field.value = conversation.title;
    this.renaming = true;
    let ended = false;
    const end = (save) => {
      if (ended) return;
      ended = true;
      this.renaming = false;
      const title = field.value.trim();
      if (save && title && title !== conversation.title) this.actions.rename(conversation, title);
      this.draw();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(true);
      if (event.key === "Escape") {
        event.stopPropagation();
        end(false);
      }
    });
    field.addEventListener("blur", () => end(true));
    item.replaceChildren(field);
    field.focus();
    field.select();
  }

  /** Opens or closes the drawer; on wide screens the list can be folded away by the same button. */
  toggle(open = !this.isOpen()) {
    const narrow = isNarrow();
    document.body.classList.toggle("drawer-open", narrow && open);
    if (!narrow && document.activeElement === this.opener) document.body.classList.toggle("sidebar-folded", !open);
    byId("scrim").hidden = !(narrow && open);
    this.opener.setAttribute("aria-expanded", String(this.isOpen()));
    if (narrow && open) byId("close-sidebar").focus();
  }

  isOpen() {
    return isNarrow() ? document.body.classList.contains("drawer-open") : !document.body.classList.contains("sidebar-folded");
  }
}

export function isNarrow() {
  return matchMedia("(max-width: 800px)").matches;
}

function matches(conversation, wanted) {
  if (conversation.title.toLowerCase().includes(wanted)) return true;
  return path(conversation).some((node) => node.text.toLowerCase().includes(wanted));
}

function ageOf(time) {
  const today = new Date().setHours(0, 0, 0, 0);
  if (time >= today) return "Today";
  if (time >= today - DAY) return "Yesterday";
  if (time >= today - 7 * DAY) return "Last seven days";
  return "Earlier";
}

function saveMarkdown(conversation) {
  const name = conversation.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "chat";
  download(`${name}.md`, toMarkdown(conversation), "text/markdown");
}
