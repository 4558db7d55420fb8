//! Makes a grammar simpler before lexemes are chosen: what matches no text goes, rules that go on with themselves at
//! their end become repetitions.

use super::tree::{Grammar, Node, NodeId, RuleId};
use crate::grammar::GrammarError;

/// Simplifies a grammar.
pub(super) fn simplify(grammar: &mut Grammar) -> Result<(), GrammarError> {
    prune(grammar)?;
    repeat_tails(grammar);
    Ok(())
}

/// Takes out alternatives that match no text, as they would lead to texts that never end.
fn prune(grammar: &mut Grammar) -> Result<(), GrammarError> {
    let mut productive = vec![false; grammar.rules.len()];
    loop {
        let before = productive.clone();
        for rule in 0..grammar.rules.len() {
            productive[rule] = productive[rule] || is_productive(grammar, grammar.body(rule), &productive);
        }
        if before == productive {
            break;
        }
    }
    if !productive[grammar.root] {
        let (line, column) = grammar.rules[grammar.root].place;
        let problem = "the rule \"root\" matches no text: it never ends".to_owned();
        return Err(GrammarError::Gbnf { line, column, problem });
    }
    for node in 0..grammar.nodes.len() {
        match &grammar.nodes[node] {
            Node::Alt(parts) => {
                let kept =
                    parts.iter().copied().filter(|&part| is_productive(grammar, part, &productive)).collect();
                grammar.nodes[node] = Node::Alt(kept);
            }
            Node::Repeat(part, 0, _) if !is_productive(grammar, *part, &productive) => {
                grammar.nodes[node] = Node::Seq(Vec::new());
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_productive(grammar: &Grammar, node: NodeId, productive: &[bool]) -> bool {
    match &grammar.nodes[node] {
        Node::Chars(_) | Node::Text(_) | Node::Token(_) | Node::Repeat(_, 0, _) => true,
        Node::Rule(rule) => productive[*rule],
        Node::Seq(parts) => parts.iter().all(|&part| is_productive(grammar, part, productive)),
        Node::Alt(parts) => parts.iter().any(|&part| is_productive(grammar, part, productive)),
        Node::Repeat(part, ..) => is_productive(grammar, *part, productive),
    }
}

/// Turns rules that name themselves at their end only, such as `ws ::= [ \t] ws | ""`, into repetitions.
fn repeat_tails(grammar: &mut Grammar) {
    for rule in 0..grammar.rules.len() {
        let body = grammar.body(rule);
        if !grammar.named(body).contains(&rule) {
            continue;
        }
        let Some(split) = split_tail(grammar, body, rule) else { continue };
        // A rule that goes on with nothing but itself goes nowhere.
        let loops = split.loops.into_iter().filter(|way| !way.is_empty());
        let loops: Vec<NodeId> = loops.map(|parts| grammar.seq(parts)).collect();
        let exits: Vec<NodeId> = split.exits.into_iter().map(|parts| grammar.seq(parts)).collect();
        let exits = grammar.alt(exits);
        let body = if loops.is_empty() {
            exits
        } else {
            let loops = grammar.alt(loops);
            let loops = grammar.add(Node::Repeat(loops, 0, None));
            grammar.seq(vec![loops, exits])
        };
        grammar.rules[rule].body = Some(body);
    }
}

/// The ways through a rule: those that end with the rule itself, without it, and the others.
#[derive(Default)]
struct Split {
    loops: Vec<Vec<NodeId>>,
    exits: Vec<Vec<NodeId>>,
}

/// `None` if the rule is named elsewhere than at an end.
fn split_tail(grammar: &Grammar, node: NodeId, rule: RuleId) -> Option<Split> {
    let names = |node| grammar.named(node).contains(&rule);
    if !names(node) {
        return Some(Split { loops: Vec::new(), exits: vec![vec![node]] });
    }
    match &grammar.nodes[node] {
        Node::Rule(_) => Some(Split { loops: vec![Vec::new()], exits: Vec::new() }),
        Node::Alt(parts) => {
            let mut all = Split::default();
            for &part in parts {
                let split = split_tail(grammar, part, rule)?;
                all.loops.extend(split.loops);
                all.exits.extend(split.exits);
            }
            Some(all)
        }
        Node::Seq(parts) => {
            let (&last, first) = parts.split_last()?;
            if first.iter().any(|&part| names(part)) {
                return None;
            }
            let mut split = split_tail(grammar, last, rule)?;
            for way in split.loops.iter_mut().chain(&mut split.exits) {
                way.splice(0..0, first.iter().copied());
            }
            Some(split)
        }
        Node::Repeat(part, 0, Some(1)) => {
            let mut split = split_tail(grammar, *part, rule)?;
            split.exits.push(Vec::new());
            Some(split)
        }
        _ => None,
    }
}
