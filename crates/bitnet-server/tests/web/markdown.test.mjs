// The Markdown parser, the highlighter, the event parser and the conversation tree, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";

const assets = new URL("../../src/web/assets/", import.meta.url);
const { parseMarkdown } = await import(new URL("markdown.js", assets));
const { parseInline, plainText, safeUrl } = await import(new URL("inline.js", assets));
const { highlight } = await import(new URL("highlight.js", assets));

/** Nodes in a short form: tag(children), attributes in braces. */
function short(nodes) {
  return nodes
    .map((node) => {
      if (typeof node === "string") return node;
      const attrs = node.attrs ? `{${Object.entries(node.attrs).map(([name, value]) => `${name}=${value}`).join(" ")}}` : "";
      return `${node.tag}${attrs}(${short(node.children)})`;
    })
    .join("");
}
const md = (text) => short(parseMarkdown(text));
const inline = (text) => short(parseInline(text));

test("emphasis", () => {
  const cases = [
    ["*a* _b_ **c** __d__ ***e*** ~~f~~", "em(a) em(b) strong(c) strong(d) em(strong(e)) del(f)"],
    ["**a *b* c**", "strong(a em(b) c)"],
    ["*a **b***", "em(a strong(b))"],
    ["**a*", "*em(a)"],
    ["snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"],
    ["a*b*c", "aem(b)c"],
    ["** not bold **", "** not bold **"],
    ["*a", "*a"],
    ["\\*a\\*", "*a*"],
    ["~~~a~~~", "~~~a~~~"],
  ];
  for (const [text, expected] of cases) assert.equal(inline(text), expected, text);
});

test("code spans keep what is in them", () => {
  const cases = [
    ["`a *b* <i>`", "code(a *b* <i>)"],
    ["`` a`b ``", "code(a`b)"],
    ["`open", "`open"],
    ["*a `b* c`", "*a code(b* c)"],
  ];
  for (const [text, expected] of cases) assert.equal(inline(text), expected, text);
});

test("links", () => {
  const cases = [
    ["[a *b*](https://x.org/y_z)", "a{href=https://x.org/y_z}(a em(b))"],
    ['[a](https://x.org "title")', "a{href=https://x.org/}(a)"],
    ["[a](https://x.org/(b))", "a{href=https://x.org/(b)}(a)"],
    ["<https://x.org>", "a{href=https://x.org/}(https://x.org)"],
    ["see https://x.org/a_b. And", "see a{href=https://x.org/a_b}(https://x.org/a_b). And"],
    ["(https://x.org/a)", "(a{href=https://x.org/a}(https://x.org/a))"],
    ["![picture](https://x.org/p.png)", "a{href=https://x.org/p.png}(picture)"],
    ["[a [b](https://x.org) c](https://y.org)", "[a a{href=https://x.org/}(b) c](a{href=https://y.org/}(https://y.org))"],
    ["[a]", "[a]"],
    ["[a](b c", "[a](b c"],
  ];
  for (const [text, expected] of cases) assert.equal(inline(text), expected, text);
});

test("no address leads to a script", () => {
  const addresses = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "\u0001javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "blob:https://x.org/1",
    "//x.org",
    "relative/path",
    "#anchor",
  ];
  for (const address of addresses) {
    assert.equal(safeUrl(address), null, address);
    for (const text of [`[a](${address})`, `[a](<${address}>)`, `![a](${address})`, `<${address}>`, address]) {
      const links = JSON.stringify(parseMarkdown(text)).match(/"href":"[^"]*"/g) ?? [];
      for (const link of links) assert.match(link, /^"href":"(https?|mailto):/, text);
    }
  }
});

test("HTML is text", () => {
  assert.equal(md("<script>alert(1)</script>"), "p(<script>alert(1)</script>)");
  assert.equal(md("<img src=x onerror=alert(1)>"), "p(<img src=x onerror=alert(1)>)");
  assert.equal(md("a<br>b&amp;"), "p(abr()b&amp;)");
});

test("headings, rules, paragraphs", () => {
  assert.equal(md("# A\n## B *c*\n###### D ##\n####### E"), "h1(A)h2(B em(c))h6(D)p(####### E)");
  assert.equal(md("a\nb\n\nc"), "p(abr()b)p(c)");
  assert.equal(md("a\n\n---\n\n***"), "p(a)hr()hr()");
  assert.equal(md("#hashtag"), "p(#hashtag)");
  assert.equal(md("\r\na\r\n\r\nb\r\n"), "p(a)p(b)");
});

test("lists, as models write them", () => {
  assert.equal(md("- a\n- b"), "ul(li(a)li(b))");
  assert.equal(md("* a\n  * b\n    * c\n* d"), "ul(li(aul(li(bul(li(c)))))li(d))");
  assert.equal(md("1. a\n  - b\n2. c"), "ol(li(aul(li(b)))li(c))");
  assert.equal(md("1. a\n    - b\n2. c"), "ol(li(aul(li(b)))li(c))");
  assert.equal(md("3. a\n4. b"), "ol{start=3}(li(a)li(b))");
  assert.equal(md("1. a\n\n   more\n\n2. b"), "ol(li(p(a)p(more))li(p(b)))");
  assert.equal(md("1. a\n   ```\n   x\n     y\n   ```\n2. b"), "ol(li(apre{language=}(x\n  y))li(b))");
  assert.equal(md("- [x] a\n- [ ] b"), "ul(li{task=done}(a)li{task=open}(b))");
  assert.equal(md("text\n- a"), "p(text)ul(li(a))");
  assert.equal(md("in\n1999. that"), "p(inbr()1999. that)");
  assert.equal(md("- a\n\ntext"), "ul(li(a))p(text)");
  assert.equal(md("- a\n1. b"), "ul(li(a))ol(li(b))");
});

test("quotes", () => {
  assert.equal(md("> a\n> b\n\nc"), "blockquote(p(abr()b))p(c)");
  assert.equal(md("> - a\n>   - b"), "blockquote(ul(li(aul(li(b)))))");
});

test("code blocks", () => {
  assert.equal(md("```js\nlet a;\n\n# b\n```\nc"), "pre{language=js}(let a;\n\n# b)p(c)");
  assert.equal(md("```\nopen"), "pre{language=}(open)");
  assert.equal(md("~~~~\n```\n~~~~"), "pre{language=}(```)");
  assert.equal(md("```python title=x\na\n````"), "pre{language=python}(a)");
});

test("tables", () => {
  assert.equal(
    md("| a | b |\n|:--|--:|\n| `c` | d\\|e |\n| f |\nend"),
    "table(thead(tr(th{align=left}(a)th{align=right}(b)))tbody(tr(td{align=left}(code(c))td{align=right}(d|e))tr(td{align=left}(f))))p(end)",
  );
  assert.equal(md("a|b\n-|-\n1|2"), "table(thead(tr(th(a)th(b)))tbody(tr(td(1)td(2))))");
  assert.equal(md("a | b\nc | d"), "p(a | bbr()c | d)");
  assert.equal(md("|a|b|\n|-|"), "p(|a|b|br()|-|)");
});

test("every prefix of an answer can be shown", () => {
  const text = "# T\n\nSome **bold *and* em** `code` [l](https://x.org)\n\n1. a\n   - b\n\n```rs\nfn\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n> q ~~s~~";
  for (let end = 0; end <= text.length; end += 1) parseMarkdown(text.slice(0, end));
});

test("blocks carry their source, which is all that is needed to draw them", () => {
  const text = "# A\n\ntext\nmore\n\n- a\n\n  b\n\n```\nc\n```\n> q";
  const blocks = parseMarkdown(text);
  assert.equal(blocks.length, 5);
  for (const block of blocks) {
    const [again, ...rest] = parseMarkdown(block.source);
    assert.deepEqual(again, block);
    assert.deepEqual(rest, []);
  }
});

test("hostile texts neither nest without end nor lose characters", () => {
  const depth = (nodes) => 1 + Math.max(0, ...nodes.map((node) => (typeof node === "string" ? 0 : depth(node.children))));
  const repeated = ["> ", "- ", "1. ", "> - ", "*a ", "**a", "*a _b ", "[", "![", "[a](", "`", "``a`", "|", "\\", "<", "#", "~~", "a|b\n", "- a\n"];
  for (const part of repeated) {
    const nodes = parseMarkdown(part.repeat(5000));
    assert.ok(depth(nodes) < 64, part);
  }
  assert.ok(depth(parseMarkdown("*a _b ".repeat(1000) + " b_ a*".repeat(1000))) < 64);
  const wide = parseMarkdown(`${"|".repeat(3000)}\n${"|-".repeat(2999)}|\n${"|\n".repeat(3000)}`);
  assert.ok(JSON.stringify(wide).length < 2_000_000);
  assert.equal(plainText(parseInline("[".repeat(99))), "[".repeat(99));
});

test("random texts keep their letters", () => {
  // A fixed generator, so that a failure can be seen again.
  let state = 12345;
  const random = (limit) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % limit;
  const parts = ["*", "**", "_", "`", "[", "]", "(", ")", "!", "<", ">", "\n", "\n\n", "- ", "1. ", "|", "# ", "a", "b", " ", "~~", "```", "\\", "https://x"];
  for (let round = 0; round < 3000; round += 1) {
    const text = Array.from({ length: random(24) }, () => parts[random(parts.length)]).join("");
    // Of what follows a fence only the first word is kept.
    if (/^\s*(?:[->]|1\.|\s)*(?:```|~~~)/m.test(text)) continue;
    const nodes = parseMarkdown(text);
    const letters = (string) => string.replace(/[^ab]/g, "");
    // The language of a code block and the address of a link are kept as attributes.
    const shown = JSON.stringify(nodes.map(({ source, ...rest }) => rest));
    for (const letter of "ab") assert.ok(shown.includes(letter) || !letters(text).includes(letter), JSON.stringify(text));
  }
});

test("highlighted code is the code", () => {
  const samples = {
    rust: "// c\nfn main<'a>() -> Vec<u8> { let x = 'c'; println!(\"a\\\"b\"); 0x1F_u8 + 1.5e3 }",
    python: "def f(x):  # c\n    '''doc\n string'''\n    return \"a\" + x if True else None",
    js: "const a = `b ${c}`; /* open",
    sh: "echo \"$HOME\" # c\nif true; then x=a#b; fi",
    html: "<p class=\"x\">a &amp; b</p><!-- c -->",
    sql: "SELECT a FROM b WHERE c = 'd' -- e",
    json: '{"a": [1, true, null]}',
    unknown: "anything <b>",
    "": "",
  };
  for (const [language, code] of Object.entries(samples)) {
    assert.equal(highlight(code, language).map(([, text]) => text).join(""), code, language);
  }
  const kinds = (code, language) => highlight(code, language).filter(([kind]) => kind).map(([kind, text]) => `${kind}:${text}`);
  assert.deepEqual(kinds("let x = \"a\"; // b", "rust"), ["keyword:let", "string:\"a\"", "comment:// b"]);
  assert.deepEqual(kinds("select 1 FROM Table", "sql"), ["keyword:select", "number:1", "keyword:FROM", "keyword:Table"]);
  assert.deepEqual(kinds("fn f<'a>(x: &'a str)", "rust"), ["keyword:fn"]);
});
