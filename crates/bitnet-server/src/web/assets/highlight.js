// Colours for code: comments, strings, numbers, keywords, names that are called or begin with a capital. One scanner for
// families of languages; what it does not know it leaves alone. Gives [kind, text] pairs whose texts join to the code.

const LIMIT = 50_000;

const words = (text) => new Set(text.split(" "));

const C_LIKE = words(
  "abstract as async await bool boolean break case catch char class const constexpr continue default delete do double else enum " +
    "export extends extern false final finally float fn for foreach from func function go goto if impl implements import in " +
    "instanceof int interface is let long loop match mod module move mut namespace new nil null nullptr of operator override " +
    "package private protected pub public range readonly ref return self sealed short signed sizeof static struct super switch " +
    "template this throw throws trait true try type typedef typeof union unsafe unsigned use using val var virtual void volatile " +
    "when where while with yield",
);
const PYTHON = words(
  "and as assert async await break case class continue def del elif else except False finally for from global if import in is " +
    "lambda match None nonlocal not or pass raise return True try while with yield self",
);
const SHELL = words(
  "if then else elif fi for while until do done case esac in function return local export readonly declare set unset shift exit " +
    "source alias true false echo cd sudo",
);
const SQL = words(
  "select from where insert into values update set delete create table drop alter index view join left right inner outer full on " +
    "as and or not null is in between like order by group having limit offset union all distinct primary key foreign references " +
    "default unique begin commit rollback with case when then else end true false",
);
const DATA = words("true false null yes no on off");
const NOTHING = new Set();

const DOUBLE = String.raw`"(?:\\[\s\S]|[^"\\\n])*"?`;
const SINGLE = String.raw`'(?:\\[\s\S]|[^'\\\n])*'?`;
const BACKTICK = "`(?:\\\\[\\s\\S]|[^`\\\\])*`?";
const SLASHES = String.raw`\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)`;
const HASH = String.raw`#[^\n]*`;
const NUMBER = String.raw`\b(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)[a-zA-Z_]*\d*\b`;
const NAME = String.raw`[\p{L}_$][\p{L}\p{N}_$]*`;

function family(comment, string, keywords, options = {}) {
  return { pattern: new RegExp(`(${comment})|(${string})|(${NUMBER})|(${NAME})`, "gu"), keywords, ...options };
}

const c = family(SLASHES, `${DOUBLE}|${BACKTICK}|${SINGLE}`, C_LIKE);
// In Rust ' also begins a lifetime.
const rust = family(SLASHES, String.raw`${DOUBLE}|'(?:\\[^\n]{1,10}|[^'\\\n])'`, C_LIKE);
const python = family(HASH, `"""[\\s\\S]*?(?:"""|$)|'''[\\s\\S]*?(?:'''|$)|${DOUBLE}|${SINGLE}`, PYTHON);
const shell = family(String.raw`(?<=^|\s)#[^\n]*`, `${DOUBLE}|'[^']*'?`, SHELL);
const sql = family(String.raw`--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)`, `${DOUBLE}|${SINGLE}`, SQL, { ignoreCase: true });
const data = family(HASH, `${DOUBLE}|${SINGLE}`, DATA);
const json = family(String.raw`\/\/[^\n]*`, DOUBLE, DATA);
const css = family(String.raw`\/\*[\s\S]*?(?:\*\/|$)`, `${DOUBLE}|${SINGLE}`, NOTHING);
const markup = { pattern: /(<!--[\s\S]*?(?:-->|$))|("[^"\n<]*"|'[^'\n<]*')|(&[#\w]+;)|(?<=<\/?)([A-Za-z][\w:-]*)/g, keywords: NOTHING, tags: true };

const FAMILIES = new Map([
  [c, "c h cc cpp c++ hpp cs csharp java js javascript jsx mjs ts typescript tsx go golang swift kotlin kt scala php dart zig cuda wgsl glsl"],
  [rust, "rs rust"],
  [python, "py python python3 rb ruby r julia"],
  [shell, "sh bash zsh shell console fish dockerfile makefile"],
  [sql, "sql sqlite postgresql mysql"],
  [data, "toml yaml yml ini conf"],
  [json, "json jsonc json5"],
  [css, "css scss less"],
  [markup, "html xml svg vue"],
]);

const LANGUAGES = new Map();
for (const [rules, names] of FAMILIES) for (const name of names.split(" ")) LANGUAGES.set(name, rules);

/** The pieces of some code with the kind of each ("" for plain text). */
export function highlight(code, language) {
  const rules = LANGUAGES.get((language ?? "").toLowerCase());
  if (!rules || code.length > LIMIT) return [["", code]];
  const pieces = [];
  let at = 0;
  for (const match of code.matchAll(rules.pattern)) {
    const kind = kindOf(match, rules);
    if (!kind) continue;
    if (match.index > at) pieces.push(["", code.slice(at, match.index)]);
    pieces.push([kind, match[0]]);
    at = match.index + match[0].length;
  }
  if (at < code.length) pieces.push(["", code.slice(at)]);
  return pieces;
}

function kindOf([text, comment, string, number, name], rules) {
  if (comment !== undefined) return "comment";
  if (string !== undefined) return "string";
  if (number !== undefined) return "number";
  if (name === undefined) return "";
  if (rules.tags) return "keyword";
  if (rules.keywords.has(rules.ignoreCase ? name.toLowerCase() : name)) return "keyword";
  if (/^\p{Lu}\p{L}*\p{Ll}/u.test(text)) return "type";
  return "";
}
