//! The slow definition of GBNF: all ways through a grammar, by memory and patience.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

/// A grammar for tests, as a tree that prints itself as GBNF.
#[derive(Debug, Clone)]
pub(super) enum G {
    Text(&'static str),
    /// One of these characters, or none of them.
    Set(&'static str, bool),
    Seq(Vec<G>),
    Alt(Vec<G>),
    Repeat(Box<G>, u32, Option<u32>),
    Rule(usize),
}

/// Rules; the first is the root.
#[derive(Debug, Clone)]
pub(super) struct Rules(pub(super) Vec<G>);

impl G {
    fn print(&self, out: &mut String) {
        match self {
            Self::Text(text) => drop(write!(out, "\"{text}\"")),
            Self::Set(chars, negated) => drop(write!(out, "[{}{chars}]", if *negated { "^" } else { "" })),
            Self::Seq(parts) => {
                out.push('(');
                for part in parts {
                    part.print(out);
                    out.push(' ');
                }
                out.push(')');
            }
            Self::Alt(parts) => {
                out.push('(');
                for (index, part) in parts.iter().enumerate() {
                    out.push_str(if index > 0 { " | " } else { "" });
                    part.print(out);
                }
                out.push(')');
            }
            Self::Repeat(part, min, max) => {
                out.push('(');
                part.print(out);
                out.push(')');
                let _ = match max {
                    Some(max) => write!(out, "{{{min},{max}}}"),
                    None => write!(out, "{{{min},}}"),
                };
            }
            Self::Rule(rule) => drop(write!(out, "{}", name(*rule))),
        }
    }
}

fn name(rule: usize) -> String {
    if rule == 0 { "root".to_owned() } else { format!("rule-{rule}") }
}

impl Rules {
    pub(super) fn gbnf(&self) -> String {
        let mut out = String::new();
        for (rule, body) in self.0.iter().enumerate() {
            let _ = write!(out, "{} ::= ", name(rule));
            body.print(&mut out);
            out.push('\n');
        }
        out
    }
}

/// Where the ways through a part end, and whether one of them is still open when the text is over.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ways {
    ends: BTreeSet<usize>,
    open: bool,
}

/// All ways of a grammar through a text.
pub(super) struct Oracle<'a> {
    text: &'a [u8],
    known: HashMap<(usize, usize), Ways>,
    changed: bool,
}

impl<'a> Oracle<'a> {
    /// Whether the text is accepted, and whether it is the beginning of an accepted one, itself included.
    pub(super) fn judge(rules: &'a Rules, text: &'a [u8]) -> (bool, bool) {
        let mut oracle = Self { text, known: HashMap::new(), changed: true };
        let mut ways = Ways::default();
        // Rules that lead back to themselves grow until nothing changes any more.
        while std::mem::take(&mut oracle.changed) {
            ways = oracle.ways(&rules.0[0], 0);
            let found: Vec<_> = oracle.known.keys().copied().collect();
            for (rule, at) in found {
                let body = oracle.ways(&rules.0[rule], at);
                let known = oracle.known.get_mut(&(rule, at)).unwrap();
                if *known != body {
                    (*known, oracle.changed) = (body, true);
                }
            }
        }
        let accepted = ways.ends.contains(&text.len());
        (accepted, accepted || ways.open)
    }

    fn ways(&mut self, part: &G, at: usize) -> Ways {
        match part {
            G::Text(text) => self.bytes(text.as_bytes(), at),
            G::Set(chars, negated) => self.set(chars, *negated, at),
            G::Seq(parts) => {
                let mut ways = Ways { ends: BTreeSet::from([at]), open: false };
                for part in parts {
                    ways = self.behind(ways, part);
                }
                ways
            }
            G::Alt(parts) => parts.iter().fold(Ways::default(), |mut all, part| {
                let ways = self.ways(part, at);
                all.ends.extend(ways.ends);
                all.open |= ways.open;
                all
            }),
            G::Repeat(part, min, max) => {
                let mut ways = Ways { ends: BTreeSet::from([at]), open: false };
                for _ in 0..*min {
                    ways = self.behind(ways, part);
                }
                let mut last = ways.clone();
                for _ in *min..max.unwrap_or(*min + self.text.len() as u32 + 1) {
                    last = self.behind(last, part);
                    ways.open |= last.open;
                    // From an end that fewer turns reach all has been tried.
                    last.ends = &last.ends - &ways.ends;
                    if last.ends.is_empty() {
                        break;
                    }
                    ways.ends.extend(&last.ends);
                }
                ways
            }
            G::Rule(rule) => {
                let changed = &mut self.changed;
                let first_time = || {
                    *changed = true;
                    Ways::default()
                };
                self.known.entry((*rule, at)).or_insert_with(first_time).clone()
            }
        }
    }

    fn behind(&mut self, ways: Ways, part: &G) -> Ways {
        let mut all = Ways { ends: BTreeSet::new(), open: ways.open };
        for end in ways.ends {
            let next = self.ways(part, end);
            all.ends.extend(next.ends);
            all.open |= next.open;
        }
        all
    }

    fn bytes(&self, wanted: &[u8], at: usize) -> Ways {
        let rest = &self.text[at..];
        if rest.len() < wanted.len() {
            return Ways { ends: BTreeSet::new(), open: wanted.starts_with(rest) };
        }
        let ends = rest.starts_with(wanted).then_some(at + wanted.len());
        Ways { ends: ends.into_iter().collect(), open: false }
    }

    fn set(&self, chars: &str, negated: bool, at: usize) -> Ways {
        let mut all = Ways::default();
        if !negated {
            for c in chars.chars() {
                let ways = self.bytes(c.encode_utf8(&mut [0; 4]).as_bytes(), at);
                all.ends.extend(ways.ends);
                all.open |= ways.open;
            }
            return all;
        }
        let rest = &self.text[at..];
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => text,
            // Of the characters that begin in the same way some are not excluded.
            Err(error) if error.valid_up_to() == 0 => {
                return Ways { ends: BTreeSet::new(), open: error.error_len().is_none() };
            }
            Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap(),
        };
        match valid.chars().next() {
            None => all.open = true,
            Some(c) if !chars.contains(c) => drop(all.ends.insert(at + c.len_utf8())),
            Some(_) => {}
        }
        all
    }
}
