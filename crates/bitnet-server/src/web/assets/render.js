// From the nodes of markdown.js to elements. Only the tags and attributes named here can appear, and while an answer
// streams in only the blocks that changed are built anew, so that a selection in earlier ones survives.

import { copyWithFeedback, h, icon } from "./dom.js";
import { highlight } from "./highlight.js";
import { safeUrl } from "./inline.js";
import { parseMarkdown } from "./markdown.js";

const PLAIN_TAGS = new Set([
  "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "blockquote", "hr", "br", "strong", "em", "del", "code", "thead", "tbody", "tr",
]);

/** What a container shows, block by block. */
const shown = new WeakMap();

/** Makes `container` show a Markdown text. */
export function renderMarkdown(container, text) {
  const before = shown.get(container) ?? [];
  const blocks = parseMarkdown(text);
  const after = blocks.map((block, index) => {
    const known = before[index];
    if (known && known.source === block.source && known.tag === block.tag) return known;
    const element = build(block);
    if (known) known.element.replaceWith(element);
    else container.append(element);
    return { source: block.source, tag: block.tag, element };
  });
  for (const gone of before.slice(blocks.length)) gone.element.remove();
  shown.set(container, after);
}

function build(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const { tag, attrs = {}, children } = node;
  switch (tag) {
    case "pre":
      return codeBlock(attrs.language, children[0]);
    case "a":
      return link(attrs.href, children);
    case "table":
      return h("div", { class: "table-scroll", tabindex: "0", role: "group", "aria-label": "Table" }, h("table", {}, ...children.map(build)));
    case "ol":
      return h("ol", { start: attrs.start }, ...children.map(build));
    case "th":
    case "td":
      return h(tag, { class: attrs.align && `align-${attrs.align}` }, ...children.map(build));
    case "li":
      return listItem(attrs.task, children);
    default:
      if (!PLAIN_TAGS.has(tag)) throw new Error(`no such Markdown node: ${tag}`);
      return h(tag, {}, ...children.map(build));
  }
}

function link(address, children) {
  const href = safeUrl(address);
  if (href === null) return h("span", {}, ...children.map(build));
  return h("a", { href, target: "_blank", rel: "noopener noreferrer nofollow", title: href }, ...children.map(build));
}

function listItem(task, children) {
  if (!task) return h("li", {}, ...children.map(build));
  const box = h("input", { type: "checkbox", disabled: true, checked: task === "done", "aria-label": task });
  return h("li", { class: "task" }, box, ...children.map(build));
}

function codeBlock(language, code) {
  const copy = h(
    "button",
    { type: "button", class: "code-copy", "aria-label": "Copy code", on: { click: () => copyWithFeedback(copy, code) } },
    icon("copy"),
    h("span", { text: "Copy" }),
  );
  const body = h("code", {});
  for (const [kind, text] of highlight(code, language)) body.append(kind ? h("span", { class: `hl-${kind}`, text }) : text);
  return h(
    "div",
    { class: "code-block" },
    h("div", { class: "code-head" }, h("span", { text: language || "code" }), copy),
    h("pre", { tabindex: "0" }, body),
  );
}
