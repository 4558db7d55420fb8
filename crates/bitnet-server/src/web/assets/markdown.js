// Markdown blocks: headings, lists, tables, quotes, code. Text goes in, plain nodes come out (see inline.js);
// a block at the top level also carries its `source`, by which render.js knows what changed while text streams in.
//
// HTML is text here: there is no way from a model's words to markup.

import { parseInline } from "./inline.js";

const MAX_DEPTH = 12;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$/;
const FENCE = /^( *)(`{3,}|~{3,})([^`]*)$/;
const QUOTE = /^ {0,3}>( ?)/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( +)|$)/;
const TASK = /^\[([ xX])\] +/;

/** The blocks of a text. */
export function parseMarkdown(text) {
  const lines = text.replace(/\r\n?/g, "\n").replaceAll("\t", "    ").split("\n");
  return blocks(lines, 0);
}

function blocks(lines, depth) {
  const result = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [node, next] = block(lines, at, depth);
    if (depth === 0) node.source = lines.slice(at, next).join("\n");
    result.push(node);
    at = next;
  }
  return result;
}

/** The block that begins at a line, and the line behind it. */
function block(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return codeBlock(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) {
    const title = (heading[2] ?? "").replace(/(?:^| )#+ *$/, "").trim();
    return [{ tag: `h${heading[1].length}`, children: parseInline(title) }, at + 1];
  }
  if (RULE.test(line)) return [{ tag: "hr", children: [] }, at + 1];
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(line)) return quote(lines, at, depth);
    if (ITEM.test(line)) return list(lines, at, depth);
  }
  const columns = tableColumns(lines, at);
  if (columns) return table(lines, at, columns);
  return paragraph(lines, at, depth);
}

/** Whether a line begins a block that ends a paragraph before it. */
function interrupts(lines, at, depth) {
  const line = lines[at];
  const item = depth < MAX_DEPTH && ITEM.exec(line);
  return (
    !line.trim() ||
    FENCE.test(line) ||
    HEADING.test(line) ||
    RULE.test(line) ||
    (depth < MAX_DEPTH && QUOTE.test(line)) ||
    Boolean(item && item[3] && (/^[-*+]$/.test(item[2]) || /^1[.)]$/.test(item[2]))) ||
    tableColumns(lines, at) !== null
  );
}

function paragraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && !interrupts(lines, end, depth)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n").trimEnd();
  return [{ tag: "p", children: parseInline(text) }, end];
}

/** A fenced block; one that is not closed yet runs to the end of the text. */
function codeBlock(lines, at, [, indent, marks, info]) {
  const content = [];
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end].trim();
    if (line.length >= marks.length && line === marks[0].repeat(line.length)) break;
    content.push(unindent(lines[end], indent.length));
  }
  const language = info.trim().split(/\s+/)[0].slice(0, 40);
  const node = { tag: "pre", attrs: { language }, children: [content.join("\n")] };
  return [node, Math.min(end + 1, lines.length)];
}

function quote(lines, at, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    if (QUOTE.test(lines[end])) inner.push(lines[end].replace(QUOTE, ""));
    else if (interrupts(lines, end, depth)) break;
    else inner.push(lines[end]);
  }
  return [{ tag: "blockquote", children: blocks(inner, depth + 1) }, end];
}

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let loose = false;
  let end = at;
  while (end < lines.length) {
    const marker = ITEM.exec(lines[end]);
    if (!marker || /\d/.test(marker[2]) !== ordered || RULE.test(lines[end])) break;
    const item = itemLines(lines, end, marker, depth);
    items.push(item.lines);
    end = item.end;
    loose ||= item.loose;
    const next = skipBlank(lines, end);
    if (next === end) continue;
    const follower = next < lines.length && ITEM.exec(lines[next]);
    if (!follower || /\d/.test(follower[2]) !== ordered) break;
    loose = true;
    end = next;
  }
  const node = {
    tag: ordered ? "ol" : "ul",
    children: items.map((item) => listItem(item, loose, depth)),
  };
  const start = Number.parseInt(first[2], 10);
  if (ordered && start !== 1) node.attrs = { start };
  return [node, end];
}

/**
 * The lines of an item, without its indentation. Models indent nested lists by two, three or four spaces, so two more
 * than the marker has are enough.
 */
function itemLines(lines, at, marker, depth) {
  const indent = marker[1].length;
  const content = indent + marker[2].length + (marker[3] && marker[3].length <= 4 ? marker[3].length : 1);
  const result = [lines[at].slice(content)];
  let loose = false;
  let end = at + 1;
  let blank = false;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (!line.trim()) {
      blank = true;
      continue;
    }
    const belongs = indentation(line) >= Math.min(content, indent + 2);
    if (!belongs && (blank || ITEM.test(line) || interrupts(lines, end, depth))) break;
    if (blank) {
      result.push("");
      loose = true;
    }
    blank = false;
    result.push(unindent(line, content));
  }
  // Blank lines behind the item are left to the list.
  while (end > at + 1 && !lines[end - 1].trim()) end -= 1;
  return { lines: result, loose, end };
}

function listItem(lines, loose, depth) {
  const node = { tag: "li", children: [] };
  const task = TASK.exec(lines[0]);
  if (task) {
    lines = [lines[0].slice(task[0].length), ...lines.slice(1)];
    node.attrs = { task: task[1] === " " ? "open" : "done" };
  }
  for (const child of blocks(lines, depth + 1)) {
    if (child.tag === "p" && !loose) node.children.push(...child.children);
    else node.children.push(child);
  }
  return node;
}

/** The alignments of the table whose head is at a line, or null where no table begins. */
function tableColumns(lines, at) {
  const delimiter = lines[at + 1];
  if (!delimiter || !lines[at].includes("|") || !/^[ |:-]+$/.test(delimiter) || !delimiter.includes("-")) return null;
  const cells = tableCells(delimiter);
  if (cells.length !== tableCells(lines[at]).length || !cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return cells.map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : cell.startsWith(":") ? "left" : "",
  );
}

function tableCells(line) {
  const cells = line.trim().replace(/^\|/, "").replace(/\\\|/g, "\u0000").replace(/\|$/, "").split("|");
  return cells.map((cell) => cell.replaceAll("\u0000", "|").trim());
}

function table(lines, at, columns) {
  const row = (line, tag) => ({
    tag: "tr",
    children: tableCells(line)
      .slice(0, columns.length)
      .map((cell, column) => ({
        tag,
        attrs: columns[column] ? { align: columns[column] } : undefined,
        children: parseInline(cell),
      })),
  });
  const head = { tag: "thead", children: [row(lines[at], "th")] };
  const body = { tag: "tbody", children: [] };
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) body.children.push(row(lines[end], "td"));
  return [{ tag: "table", children: body.children.length ? [head, body] : [head] }, end];
}

function indentation(line) {
  return line.length - line.trimStart().length;
}

function unindent(line, columns) {
  return line.slice(Math.min(columns, indentation(line)));
}

function skipBlank(lines, at) {
  while (at < lines.length && !lines[at].trim()) at += 1;
  return at;
}
