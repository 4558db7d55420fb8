//! Reads GBNF.

use std::collections::HashMap;

use super::class::Class;
use super::tree::{Grammar, Node, NodeId, Rule, RuleId};
use crate::grammar::GrammarError;

/// Deepest nesting of groups.
const DEEPEST: usize = 100;
/// Most rules.
const MOST_RULES: usize = 4096;
/// Largest number in `{m,n}`.
const MOST_REPEATS: u32 = 10_000;

type Result<T> = std::result::Result<T, GrammarError>;

struct Parser<'t> {
    text: &'t str,
    /// Bytes that were read.
    at: usize,
    depth: usize,
    names: HashMap<&'t str, RuleId>,
    grammar: Grammar,
}

/// Reads a grammar in which every rule that is named is defined, `root` among them.
pub(super) fn parse(text: &str) -> Result<Grammar> {
    let mut parser = Parser { text, at: 0, depth: 0, names: HashMap::new(), grammar: Grammar::default() };
    parser.space(true);
    while parser.peek().is_some() {
        parser.rule()?;
        parser.space(true);
    }
    let root = parser.names.get("root").copied();
    let mut grammar = parser.grammar;
    if let Some(rule) = grammar.rules.iter().find(|rule| rule.body.is_none()) {
        let (line, column) = rule.place;
        return Err(GrammarError::Gbnf {
            line,
            column,
            problem: format!("the rule {:?} is not defined", rule.name),
        });
    }
    grammar.root = root.ok_or_else(|| GrammarError::Gbnf {
        line: 1,
        column: 1,
        problem: "there is no rule \"root\", at which texts begin".to_owned(),
    })?;
    Ok(grammar)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.text[self.at..].starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Line and column of a byte.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at];
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }

    fn error<T>(&self, at: usize, problem: impl Into<String>) -> Result<T> {
        let (line, column) = self.place(at);
        Err(GrammarError::Gbnf { line, column, problem: problem.into() })
    }

    /// What stands here, for messages.
    fn here(&self) -> String {
        self.peek().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"))
    }

    /// Skips white space and comments; line ends only if they mean nothing here.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => {}
                '\r' | '\n' if lines => {}
                '#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find(['\r', '\n']).unwrap_or(rest.len());
                    continue;
                }
                _ => return,
            }
            self.bump();
        }
    }

    fn name(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        self.at += name.len();
        name
    }

    /// The number of a rule, which may be defined later.
    fn rule_id(&mut self, name: &'t str, at: usize) -> Result<RuleId> {
        if let Some(&id) = self.names.get(name) {
            return Ok(id);
        }
        let id = self.grammar.rules.len();
        if id == MOST_RULES {
            let what = "the number of rules";
            return Err(GrammarError::TooLarge { what, found: id + 1, limit: MOST_RULES });
        }
        self.names.insert(name, id);
        self.grammar.rules.push(Rule { name: name.to_owned(), place: self.place(at), body: None });
        Ok(id)
    }

    fn rule(&mut self) -> Result<()> {
        let start = self.at;
        let name = self.name();
        if name.is_empty() {
            return self
                .error(start, format!("a rule must begin here with its name, not with {}", self.here()));
        }
        let rule = self.rule_id(name, start)?;
        if self.grammar.rules[rule].body.is_some() {
            return self.error(start, format!("the rule {name:?} is defined twice"));
        }
        self.space(false);
        if !self.eat("::=") {
            return self
                .error(self.at, format!("\"::=\" must follow the name of a rule, not {}", self.here()));
        }
        self.space(true);
        let body = self.alternatives(false)?;
        self.grammar.rules[rule].body = Some(body);
        match self.peek() {
            None | Some('\r' | '\n') => Ok(()),
            Some(')') => self.error(self.at, "nothing was opened that this closes"),
            Some(c) => self.error(self.at, format!("{c:?} means nothing here")),
        }
    }

    fn alternatives(&mut self, nested: bool) -> Result<NodeId> {
        let mut parts = vec![self.sequence(nested)?];
        loop {
            // Outside of groups an alternative may begin on a line of its own.
            let before = self.at;
            self.space(true);
            if !self.eat("|") {
                self.at = if nested { self.at } else { before };
                return Ok(self.grammar.alt(parts));
            }
            self.space(true);
            parts.push(self.sequence(nested)?);
        }
    }

    fn sequence(&mut self, nested: bool) -> Result<NodeId> {
        let mut parts: Vec<NodeId> = Vec::new();
        while let Some(c) = self.peek() {
            let start = self.at;
            let part = match c {
                '"' => self.literal()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '.' => {
                    self.bump();
                    Some(self.grammar.add(Node::Chars(Class::any())))
                }
                '<' => Some(self.token(false)?),
                '!' => {
                    self.bump();
                    Some(self.token(true)?)
                }
                '*' | '+' | '?' | '{' => {
                    let (min, max) = self.repeats()?;
                    let Some(last) = parts.pop() else {
                        return self.error(start, format!("{c:?} must follow what it repeats"));
                    };
                    let nothing = max == Some(0);
                    Some(self.grammar.add(if nothing {
                        Node::Seq(Vec::new())
                    } else {
                        Node::Repeat(last, min, max)
                    }))
                }
                c if is_name(c) => {
                    let name = self.name();
                    let rule = self.rule_id(name, start)?;
                    Some(self.grammar.add(Node::Rule(rule)))
                }
                _ => break,
            };
            parts.extend(part);
            self.space(nested);
        }
        Ok(self.grammar.seq(parts))
    }

    fn group(&mut self) -> Result<Option<NodeId>> {
        let start = self.at;
        self.bump();
        self.depth += 1;
        if self.depth > DEEPEST {
            let what = "the nesting of groups";
            return Err(GrammarError::TooLarge { what, found: self.depth, limit: DEEPEST });
        }
        self.space(true);
        let inner = self.alternatives(true)?;
        if !self.eat(")") {
            let problem = match self.peek() {
                None => "this group is not closed".to_owned(),
                Some(c) => format!("this group is not closed; {c:?} means nothing in it"),
            };
            return self.error(start, problem);
        }
        self.depth -= 1;
        Ok(Some(inner))
    }

    fn literal(&mut self) -> Result<Option<NodeId>> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => return self.error(start, "this literal is not closed"),
                Some('"') => break,
                Some(_) => text.push(self.character()?),
            }
        }
        self.bump();
        Ok(Some(self.grammar.add(if text.is_empty() { Node::Seq(Vec::new()) } else { Node::Text(text) })))
    }

    fn class(&mut self) -> Result<Option<NodeId>> {
        let start = self.at;
        self.bump();
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        loop {
            let from = self.at;
            match self.peek() {
                None => return self.error(start, "this set of characters is not closed"),
                Some(']') => break,
                Some(_) => {}
            }
            let first = self.character()?;
            let rest = &self.text[self.at..];
            let mut last = first;
            if rest.starts_with('-') && !rest.starts_with("-]") {
                self.bump();
                if self.peek().is_none() {
                    return self.error(start, "this set of characters is not closed");
                }
                last = self.character()?;
            }
            if last < first {
                return self.error(from, format!("the range from {first:?} to {last:?} is empty"));
            }
            ranges.push((u32::from(first), u32::from(last)));
        }
        self.bump();
        let class = Class::from_ranges(ranges);
        let class = if negated { class.negated() } else { class };
        if class.is_empty() {
            return self.error(start, "this set of characters is empty");
        }
        Ok(Some(self.grammar.add(Node::Chars(class))))
    }

    /// One character of a literal or a set; there is one.
    fn character(&mut self) -> Result<char> {
        let start = self.at;
        let c = self.bump().unwrap_or_default();
        if c != '\\' {
            return Ok(c);
        }
        let digits = match self.bump() {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/' | '\'')) => return Ok(c),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            other => {
                let what = other.map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"));
                return self.error(start, format!("{what} cannot be escaped; write a backslash as \"\\\\\""));
            }
        };
        let code =
            self.text.get(self.at..self.at + digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(code) = code else {
            return self.error(start, format!("{digits} hexadecimal digits must follow here"));
        };
        self.at += digits;
        match u32::from_str_radix(code, 16).ok().and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => self.error(start, format!("{code} is the number of no character")),
        }
    }

    fn number(&mut self) -> Result<Option<u32>> {
        let start = self.at;
        let rest = &self.text[start..];
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        self.at += digits.len();
        match digits.parse::<u32>() {
            Ok(number) if number <= MOST_REPEATS => Ok(Some(number)),
            Err(_) if digits.is_empty() => Ok(None),
            _ => self.error(
                start,
                format!("{digits} repetitions are too many; at most {MOST_REPEATS} are allowed"),
            ),
        }
    }

    /// `*`, `+`, `?` or a number in braces.
    fn repeats(&mut self) -> Result<(u32, Option<u32>)> {
        let start = self.at;
        match self.bump() {
            Some('*') => return Ok((0, None)),
            Some('+') => return Ok((1, None)),
            Some('?') => return Ok((0, Some(1))),
            _ => {}
        }
        self.space(false);
        let min = self.number()?;
        self.space(false);
        let comma = self.eat(",");
        self.space(false);
        let max = if comma { self.number()? } else { min };
        self.space(false);
        if !self.eat("}") || (min.is_none() && max.is_none()) {
            return self.error(start, "a repetition is one of {m}, {m,} and {m,n}");
        }
        let min = min.unwrap_or(0);
        if max.is_some_and(|max| max < min) {
            return self.error(start, format!("{min} repetitions at least and fewer at most is impossible"));
        }
        Ok((min, max))
    }

    /// `<[12]>` or `<name>`, all others if negated.
    fn token(&mut self, negated: bool) -> Result<NodeId> {
        let start = self.at;
        let rest = &self.text[start..];
        let token = match rest.find('>') {
            Some(end) if rest.starts_with('<') && end > 1 => &rest[..=end],
            _ => return self.error(start, "a token is written as <name> or <[number]>"),
        };
        self.at += token.len();
        let number = token.strip_prefix("<[").and_then(|rest| rest.strip_suffix("]>"));
        let written = match (number, negated) {
            (Some(number), _) if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) => {
                return self.error(start, "a token is written as <name> or <[number]>");
            }
            (Some(number), true) => format!("<[^{number}]>"),
            (_, false) if !token[1..token.len() - 1].contains(|c: char| c == '<' || c.is_whitespace()) => {
                token.to_owned()
            }
            (_, false) => {
                return self.error(start, "the name of a token has neither white space nor \"<\" in it");
            }
            (None, true) => return self.error(start, "all tokens but one is written as !<[number]>"),
        };
        Ok(self.grammar.add(Node::Token(written)))
    }
}
