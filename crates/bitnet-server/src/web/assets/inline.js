// Inline Markdown: emphasis, code, links, line breaks. Text goes in, plain nodes come out:
// a node is a string or { tag, attrs?, children }. Nothing here knows the DOM; render.js builds it.
//
// The text comes from a model and may be hostile: every scan is linear, destinations have a limit, and what nests
// deeper than MAX_DEPTH is flattened.

const MAX_DEPTH = 16;
const MAX_DESTINATION = 2000;
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;

/** A URL that a link may point to, or null: http, https and mailto only. */
export function safeUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
}

/** The nodes of one run of text (a paragraph, a heading, a table cell). */
export function parseInline(text) {
  return new Scanner(text).run();
}

/** The text of nodes without their markup. */
export function plainText(nodes) {
  return nodes.map((node) => (typeof node === "string" ? node : plainText(node.children))).join("");
}

class Scanner {
  constructor(text) {
    this.text = text;
    this.at = 0;
    // Strings, finished nodes, and delimiter runs { run, count, ... } whose fate is decided at the end.
    this.items = [];
    this.buffer = "";
    this.brackets = [];
    this.ticks = tickRuns(text);
  }

  run() {
    while (this.at < this.text.length) this.step();
    this.flush();
    return resolve(this.items);
  }

  step() {
    const character = this.text[this.at];
    switch (character) {
      case "\\":
        return this.escape();
      case "`":
        return this.code();
      case "*":
      case "_":
      case "~":
        return this.delimiters(character);
      case "[":
        return this.open(1);
      case "!":
        return this.text[this.at + 1] === "[" ? this.open(2) : this.literal(1);
      case "]":
        return this.close();
      case "<":
        return this.angle();
      case "\n":
        return this.lineBreak();
      case "h":
        return this.bareUrl();
      default:
        return this.plain();
    }
  }

  literal(length) {
    this.buffer += this.text.slice(this.at, this.at + length);
    this.at += length;
  }

  /** Everything up to the next character that could mean something. */
  plain() {
    const special = /[\\`*_~[!\]<\nh]/g;
    special.lastIndex = this.at + 1;
    const match = special.exec(this.text);
    this.literal((match ? match.index : this.text.length) - this.at);
  }

  flush() {
    if (this.buffer) this.items.push(this.buffer);
    this.buffer = "";
  }

  push(node) {
    this.flush();
    this.items.push(node);
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "\n") {
      this.at += 1;
      this.lineBreak();
    } else if (next !== undefined && ESCAPABLE.test(next)) {
      this.buffer += next;
      this.at += 2;
    } else {
      this.literal(1);
    }
  }

  lineBreak() {
    this.buffer = this.buffer.replace(/ +$/, "");
    this.push({ tag: "br", children: [] });
    this.at += 1;
    while (this.text[this.at] === " ") this.at += 1;
  }

  code() {
    const start = this.at;
    const length = runLength(this.text, start);
    const closers = this.ticks.get(length) ?? [];
    while (closers.length && closers[0] <= start) closers.shift();
    if (!closers.length) return this.literal(length);
    let content = this.text.slice(start + length, closers[0]).replaceAll("\n", " ");
    if (content.startsWith(" ") && content.endsWith(" ") && content.trim()) content = content.slice(1, -1);
    this.push({ tag: "code", children: [content] });
    this.at = closers[0] + length;
  }

  delimiters(character) {
    const count = runLength(this.text, this.at);
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[this.at + count] ?? " ";
    const space = /\s/;
    const left = !space.test(after) && (!PUNCTUATION.test(after) || space.test(before) || PUNCTUATION.test(before));
    const right = !space.test(before) && (!PUNCTUATION.test(before) || space.test(after) || PUNCTUATION.test(after));
    const word = character === "_";
    this.push({
      run: character,
      count,
      original: count,
      opens: left && (!word || !right || PUNCTUATION.test(before)),
      closes: right && (!word || !left || PUNCTUATION.test(after)),
      opened: [],
      closed: [],
    });
    this.at += count;
  }

  open(length) {
    this.flush();
    this.brackets.push({ index: this.items.length, image: length === 2, active: true, after: this.at + length });
    this.literal(length);
    this.flush();
  }

  close() {
    const opener = this.brackets.pop();
    if (!opener) return this.literal(1);
    const target = opener.active && this.text[this.at + 1] === "(" ? destination(this.text, this.at + 2) : null;
    if (!target) return this.literal(1);
    this.flush();
    const inner = resolve(this.items.splice(opener.index).slice(1));
    this.at = target.end;
    const url = safeUrl(target.url);
    // A link without a safe address, and a link inside a link, is only its text. Pictures are shown as links: the page
    // loads nothing from elsewhere.
    if (url === null) {
      this.items.push(...inner);
      return;
    }
    this.items.push({ tag: "a", attrs: { href: url }, children: inner.length ? inner : [target.url] });
    if (!opener.image) for (const bracket of this.brackets) bracket.active = false;
  }

  angle() {
    const autolink = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;
    autolink.lastIndex = this.at;
    const match = autolink.exec(this.text);
    const url = match && match[1].length <= MAX_DESTINATION && safeUrl(match[1]);
    const newline = /^<br ?\/?>/i.exec(this.text.slice(this.at, this.at + 6));
    if (url) {
      this.push({ tag: "a", attrs: { href: url }, children: [match[1]] });
      this.at += match[0].length;
    } else if (newline) {
      this.push({ tag: "br", children: [] });
      this.at += newline[0].length;
    } else {
      this.literal(1);
    }
  }

  bareUrl() {
    const pattern = /https?:\/\/[^\s<>"'`*[\]]+/y;
    pattern.lastIndex = this.at;
    const before = this.text[this.at - 1];
    const match = before === undefined || !/[\p{L}\p{N}]/u.test(before) ? pattern.exec(this.text) : null;
    if (!match) return this.plain();
    const address = withoutTail(match[0].slice(0, MAX_DESTINATION));
    const url = safeUrl(address);
    const linked = this.brackets.some((bracket) => bracket.active && !bracket.image);
    if (!url || linked) return this.literal(address.length);
    this.push({ tag: "a", attrs: { href: url }, children: [address] });
    this.at += address.length;
  }
}

function runLength(text, start) {
  let end = start;
  while (text[end] === text[start]) end += 1;
  return end - start;
}

/** Where runs of backticks start, by their length. */
function tickRuns(text) {
  const runs = new Map();
  for (const match of text.matchAll(/`+/g)) {
    const starts = runs.get(match[0].length) ?? [];
    starts.push(match.index);
    runs.set(match[0].length, starts);
  }
  return runs;
}

/** The address and the end of "(address "title")" whose bracket is already read, or null. */
function destination(text, start) {
  const limit = Math.min(text.length, start + MAX_DESTINATION);
  let depth = 0;
  for (let at = start; at < limit; at += 1) {
    const character = text[at];
    if (character === "\n") return null;
    if (character === "\\") at += 1;
    else if (character === "(") depth += 1;
    else if (character === ")" && depth > 0) depth -= 1;
    else if (character === ")") {
      const inside = text.slice(start, at).trim().replace(/^<([^<>]*)>/, "$1");
      return { url: inside.replace(/\s+["'(][^\n]*$/, "").replace(/\\([!-/:-@[-`{-~])/g, "$1"), end: at + 1 };
    }
  }
  return null;
}

/** A bare address without the punctuation of the sentence around it. */
function withoutTail(address) {
  let end = address.length;
  let open = 0;
  for (const character of address) open += character === "(" ? 1 : character === ")" ? -1 : 0;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    if (last === ")" && open < 0) open += 1;
    else if (!/[.,;:!?_~]/.test(last)) break;
  }
  return address.slice(0, end);
}

/** Pairs delimiter runs (the algorithm of CommonMark) and builds the tree. */
function resolve(items) {
  const openers = [];
  // Per kind of closer: the height of the stack below which no opener fits, which keeps the search linear.
  const floor = new Map();
  for (const item of items) {
    if (!item.run) continue;
    if (item.closes) closeWith(item, openers, floor);
    if (item.opens && item.count) openers.push(item);
  }
  return build(items);
}

function closeWith(closer, openers, floor) {
  const key = `${closer.run}${closer.opens}${closer.original % 3}`;
  while (closer.count) {
    const bottom = Math.min(floor.get(key) ?? 0, openers.length);
    let index = openers.length - 1;
    while (index >= bottom && !fits(openers[index], closer)) index -= 1;
    if (index < bottom) {
      floor.set(key, openers.length);
      return;
    }
    const opener = openers[index];
    const strike = closer.run === "~";
    const used = strike ? closer.count : Math.min(2, opener.count, closer.count);
    const tag = strike ? "del" : used === 2 ? "strong" : "em";
    opener.opened.push(tag);
    closer.closed.push(tag);
    opener.count -= used;
    closer.count -= used;
    openers.length = opener.count ? index + 1 : index;
  }
}

function fits(opener, closer) {
  if (opener.run !== closer.run) return false;
  if (closer.run === "~") return opener.count === closer.count && closer.count <= 2;
  const both = (opener.closes || closer.opens) && (opener.original + closer.original) % 3 === 0;
  return !both || (opener.original % 3 === 0 && closer.original % 3 === 0);
}

/** Turns the marks on delimiter runs into nested nodes. */
function build(items) {
  const root = [];
  const stack = [root];
  let flattened = 0;
  const add = (node) => {
    const list = stack.at(-1);
    if (typeof node === "string" && typeof list.at(-1) === "string") list[list.length - 1] += node;
    else list.push(node);
  };
  for (const item of items) {
    if (!item.run) {
      add(item);
      continue;
    }
    for (let closing = item.closed.length; closing > 0; closing -= 1) {
      if (flattened) flattened -= 1;
      else stack.pop();
    }
    if (item.count) add(item.run.repeat(item.count));
    for (const tag of item.opened.toReversed()) {
      if (stack.length > MAX_DEPTH) {
        flattened += 1;
        continue;
      }
      const node = { tag, children: [] };
      add(node);
      stack.push(node.children);
    }
  }
  return root;
}
