// A conversation as a tree of messages: editing a message or asking again adds a sibling, and nothing that was written is
// lost. Each node remembers which of its children is shown, so the tree always has one current path.
//
// { id, title, named, created, updated, model, mode, system, settings, root: { children, selected },
//   nodes: { id: { id, parent, role, text, children, selected, reasoning?, state?, note?, stats? } } }

export const MODES = ["chat", "completion"];

/** The sampling parameters that can be set: what the server calls them and what they may be. */
export const PARAMETERS = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the likeliest token", min: 0, max: 5, slider: 2, step: 0.05 },
  { name: "top_k", label: "Top-k", hint: "Only the k likeliest tokens; 0: all", min: 0, max: 1_000_000, step: 1, integer: true },
  { name: "top_p", label: "Top-p", hint: "The likeliest tokens that together reach p", min: 0, max: 1, slider: 1, step: 0.01 },
  { name: "min_p", label: "Min-p", hint: "Tokens at least p times as likely as the best", min: 0, max: 1, slider: 1, step: 0.01 },
  { name: "repeat_penalty", label: "Repeat penalty", hint: "1: none", min: 0.01, max: 10, slider: 2, step: 0.05 },
  { name: "max_tokens", label: "Max tokens", hint: "The longest answer", min: 1, max: 10_000_000, step: 1, integer: true },
  { name: "seed", label: "Seed", hint: "The same seed gives the same answer", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, integer: true },
];

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");
}

/** An empty conversation that goes on with the settings of another. */
export function newConversation(like = null) {
  const now = Date.now();
  return {
    id: newId(),
    title: "New chat",
    named: false,
    created: now,
    updated: now,
    model: like?.model ?? null,
    mode: like?.mode ?? "chat",
    system: like?.system ?? "",
    settings: { ...like?.settings },
    root: { children: [], selected: null },
    nodes: {},
  };
}

/** The messages that are shown, in order. */
export function path(conversation) {
  const nodes = [];
  let next = conversation.root.selected;
  while (next) {
    const node = conversation.nodes[next];
    nodes.push(node);
    next = node.selected;
  }
  return nodes;
}

/** Adds a message below `parent` (null: at the beginning) and shows it. */
export function addMessage(conversation, parent, role, text) {
  const node = { id: newId(), parent, role, text, children: [], selected: null };
  conversation.nodes[node.id] = node;
  const above = holder(conversation, node);
  above.children.push(node.id);
  above.selected = node.id;
  conversation.updated = Date.now();
  if (!conversation.named && role === "user" && !parent) conversation.title = titleOf(text);
  return node;
}

/** Shows another version of a message: `step` is 1 for the next, -1 for the one before. */
export function switchVersion(conversation, node, step) {
  const { children } = holder(conversation, node);
  const index = children.indexOf(node.id) + step;
  if (children[index]) holder(conversation, node).selected = children[index];
}

/** Which version of how many a message is, from 1. */
export function version(conversation, node) {
  const { children } = holder(conversation, node);
  return { index: children.indexOf(node.id) + 1, count: children.length };
}

function holder(conversation, node) {
  return node.parent ? conversation.nodes[node.parent] : conversation.root;
}

/** What is sent for an answer below `node` (the message that is answered). */
export function promptFor(conversation, node) {
  const messages = [];
  for (let at = node; at; at = conversation.nodes[at.parent]) messages.unshift({ role: at.role, content: at.text });
  if (conversation.mode === "completion") return { prompt: messages.map((message) => message.content).join("") };
  if (conversation.system.trim()) messages.unshift({ role: "system", content: conversation.system });
  return { messages };
}

export function titleOf(text) {
  const line = text.trim().split("\n")[0].trim();
  const characters = Array.from(line);
  if (characters.length <= 48) return line || "New chat";
  return `${characters.slice(0, 47).join("").trimEnd()}…`;
}

/** A conversation as Markdown, for reading elsewhere. */
export function toMarkdown(conversation) {
  const parts = [`# ${conversation.title}`];
  if (conversation.system.trim()) parts.push(`**System:** ${conversation.system.trim()}`);
  for (const node of path(conversation)) parts.push(`**${node.role === "user" ? "You" : "Assistant"}:**\n\n${node.text.trim()}`);
  return `${parts.join("\n\n")}\n`;
}

/**
 * A conversation from a file or from storage, with every field checked, or null where it is none. What the tree does not
 * reach is left out; a tree that is not one is refused.
 */
export function readConversation(data) {
  if (!isObject(data) || !isObject(data.nodes) || !isObject(data.root)) return null;
  const conversation = newConversation();
  conversation.id = typeof data.id === "string" && /^[\w-]{1,64}$/.test(data.id) ? data.id : newId();
  conversation.title = string(data.title).slice(0, 200) || "New chat";
  conversation.named = data.named === true;
  conversation.created = time(data.created);
  conversation.updated = time(data.updated);
  conversation.model = typeof data.model === "string" ? data.model : null;
  conversation.mode = MODES.includes(data.mode) ? data.mode : "chat";
  conversation.system = string(data.system);
  for (const { name } of PARAMETERS) {
    if (Number.isFinite(data.settings?.[name])) conversation.settings[name] = data.settings[name];
  }
  return readTree(data, conversation) ? conversation : null;
}

function readTree(data, conversation) {
  const nodes = new Map();
  const pending = [[null, data.root, conversation.root]];
  while (pending.length) {
    const [parent, from, to] = pending.pop();
    for (const id of Array.isArray(from.children) ? from.children : []) {
      const node = typeof id === "string" && Object.hasOwn(data.nodes, id) ? data.nodes[id] : null;
      if (!isObject(node) || nodes.has(id) || !["user", "assistant"].includes(node.role)) return false;
      const copy = { id, parent, role: node.role, text: string(node.text), children: [], selected: null };
      if (typeof node.reasoning === "string") copy.reasoning = node.reasoning;
      if (["stopped", "length", "error"].includes(node.state)) copy.state = node.state;
      if (typeof node.note === "string") copy.note = node.note;
      if (isObject(node.stats)) copy.stats = numbers(node.stats);
      nodes.set(id, copy);
      to.children.push(id);
      pending.push([id, node, copy]);
    }
    to.selected = to.children.includes(from.selected) ? from.selected : (to.children.at(-1) ?? null);
  }
  conversation.nodes = Object.assign(Object.create(null), Object.fromEntries(nodes));
  return true;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const string = (value) => (typeof value === "string" ? value : "");
const time = (value) => (Number.isFinite(value) && value > 0 ? value : Date.now());

function numbers(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => Number.isFinite(value)));
}
