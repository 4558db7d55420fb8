//! Writes a grammar with its lexemes as Lark.

use std::collections::HashMap;
use std::fmt::Write;

use super::class::Class;
use super::lexemes::Plan;
use super::tree::{Grammar, Node, NodeId, RuleId};

/// Writes a string literal of Lark.
pub(in crate::grammar) fn push_lark_string(out: &mut String, chars: impl Iterator<Item = char>) {
    out.push('"');
    for c in chars {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Writer<'g> {
    grammar: &'g Grammar,
    plan: &'g Plan,
    /// Lexemes that are written, with their numbers.
    lexemes: HashMap<NodeId, usize>,
    /// Regular rules that lexemes name and that wait for being written, or are.
    rules: Vec<RuleId>,
    terminals: String,
}

/// The grammar as Lark.
pub(super) fn emit(grammar: &Grammar, plan: &Plan) -> String {
    let mut writer =
        Writer { grammar, plan, lexemes: HashMap::new(), rules: Vec::new(), terminals: String::new() };
    let mut out = String::new();
    for &rule in &plan.rules {
        let name = writer.rule_name(rule);
        let mut body = String::new();
        writer.structure(grammar.body(rule), &mut body);
        let _ = writeln!(out, "{name}: {body}");
    }
    let mut next = 0;
    while next < writer.rules.len() {
        let rule = writer.rules[next];
        let mut body = String::new();
        writer.regular(grammar.body(rule), &mut body);
        let _ = writeln!(writer.terminals, "R{rule}: {body}");
        next += 1;
    }
    out.push_str(&writer.terminals);
    out
}

impl Writer<'_> {
    fn rule_name(&self, rule: RuleId) -> String {
        if rule == self.grammar.root { "start".to_owned() } else { format!("r{rule}") }
    }

    /// What stands above lexemes.
    fn structure(&mut self, node: NodeId, out: &mut String) {
        if self.plan.lexemes.contains(&node) {
            return self.lexeme(node, out);
        }
        let grammar = self.grammar;
        match &grammar.nodes[node] {
            Node::Rule(rule) => out.push_str(&self.rule_name(*rule)),
            Node::Token(token) => out.push_str(token),
            Node::Seq(parts) if parts.is_empty() => out.push_str("\"\""),
            Node::Seq(parts) => self.joined(parts, " ", out, Self::structure),
            Node::Alt(parts) => self.joined(parts, " | ", out, Self::structure),
            Node::Repeat(part, min, max) => {
                self.joined(&[*part], "", out, Self::structure);
                push_repeats(*min, *max, out);
            }
            Node::Chars(_) | Node::Text(_) => self.lexeme(node, out),
        }
    }

    fn joined(
        &mut self,
        parts: &[NodeId],
        between: &str,
        out: &mut String,
        mut write: impl FnMut(&mut Self, NodeId, &mut String),
    ) {
        out.push('(');
        for (index, &part) in parts.iter().enumerate() {
            out.push_str(if index > 0 { between } else { "" });
            write(self, part, out);
        }
        out.push(')');
    }

    /// The name of a lexeme. Lexemes match at least one character; where none will do as well, they may be left out.
    fn lexeme(&mut self, node: NodeId, out: &mut String) {
        let facts = &self.plan.facts[&node];
        if facts.first.is_empty() {
            return out.push_str("\"\"");
        }
        let nullable = facts.nullable;
        let number = match self.lexemes.get(&node) {
            Some(&number) => number,
            None => {
                let number = self.lexemes.len();
                self.lexemes.insert(node, number);
                let mut body = String::new();
                self.regular(node, &mut body);
                let not_empty = if nullable { " & /(?s:.)+/" } else { "" };
                let _ = writeln!(self.terminals, "T{number}: {body}{not_empty}");
                number
            }
        };
        let _ = write!(out, "T{number}{}", if nullable { "?" } else { "" });
    }

    /// What stands in lexemes.
    fn regular(&mut self, node: NodeId, out: &mut String) {
        let grammar = self.grammar;
        match &grammar.nodes[node] {
            Node::Chars(class) => push_class(class, out),
            Node::Text(text) => push_lark_string(out, text.chars()),
            Node::Rule(rule) => {
                if !self.rules.contains(rule) {
                    self.rules.push(*rule);
                }
                let _ = write!(out, "R{rule}");
            }
            Node::Seq(parts) if parts.is_empty() => out.push_str("\"\""),
            Node::Seq(parts) => self.joined(parts, " ", out, Self::regular),
            Node::Alt(parts) => self.joined(parts, " | ", out, Self::regular),
            Node::Repeat(part, min, max) => {
                self.joined(&[*part], "", out, Self::regular);
                push_repeats(*min, *max, out);
            }
            // Lexemes have no tokens.
            Node::Token(_) => {}
        }
    }
}

fn push_repeats(min: u32, max: Option<u32>, out: &mut String) {
    let _ = match (min, max) {
        (0, None) => write!(out, "*"),
        (1, None) => write!(out, "+"),
        (0, Some(1)) => write!(out, "?"),
        (min, None) => write!(out, "{{{min},}}"),
        (min, Some(max)) => write!(out, "{{{min},{max}}}"),
    };
}

/// A set of characters as a regular expression.
fn push_class(class: &Class, out: &mut String) {
    out.push_str("/[");
    for &(start, end) in class.ranges() {
        // Ranges may end in the numbers of UTF-16's surrogates, which are no characters.
        let start = if (0xD800..0xE000).contains(&start) { 0xE000 } else { start };
        let end = if (0xD800..0xE000).contains(&end) { 0xD7FF } else { end };
        if start > end {
            continue;
        }
        let _ = write!(out, "\\u{{{start:x}}}");
        if end > start {
            let _ = write!(out, "-\\u{{{end:x}}}");
        }
    }
    out.push_str("]/");
}
