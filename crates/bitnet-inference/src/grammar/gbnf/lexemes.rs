//! Chooses which parts of a grammar become lexemes.
//!
//! A lexeme is taken as long as it can be. Let `A` be a lexeme that a text has just completed and `B` one (perhaps `A`
//! itself) that is still on its way with the next character. If that character may also follow `A`, the way through `A`
//! would be lost, and `B` is broken up. Which lexemes can begin at the same place is not looked at: more may be broken up
//! than need be, never fewer.

use std::collections::{HashMap, HashSet};

use super::automaton::Automaton;
use super::class::Class;
use super::tree::{Grammar, Node, NodeId, RuleId};

/// Comparisons spent on looking for conflicts; when they are used up, everything becomes characters.
const BUDGET: usize = 20_000_000;

/// What becomes of the grammar.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The lexemes.
    pub(super) lexemes: HashSet<NodeId>,
    /// Whether a tree matches nothing but the empty text, or that among others, with the characters it may begin with; for
    /// lexemes and what is above them.
    pub(super) facts: HashMap<NodeId, Facts>,
    /// The rules above lexemes, from the root on.
    pub(super) rules: Vec<RuleId>,
}

/// What is known about a tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    /// Whether it matches the empty text.
    pub(super) nullable: bool,
    /// Characters that its texts begin with.
    pub(super) first: Class,
    /// Characters that may come behind it.
    follow: Class,
}

/// Chooses the lexemes, breaking up trees where need be.
pub(super) fn choose(grammar: &mut Grammar) -> Plan {
    let regular = regular_rules(grammar);
    let mut plan = Plan::default();
    let mut done = HashSet::new();
    let mut open = vec![grammar.body(grammar.root)];
    while let Some(node) = open.pop() {
        if !done.insert(node) {
            continue;
        }
        if is_regular(grammar, node, &regular) {
            plan.lexemes.insert(node);
            continue;
        }
        gather(grammar, node, &regular);
        match grammar.nodes[node] {
            Node::Rule(rule) => open.push(grammar.body(rule)),
            _ => open.extend_from_slice(grammar.children(node)),
        }
    }
    let mut budget = BUDGET;
    let mut automata = HashMap::new();
    loop {
        let nodes = survey(grammar, &mut plan);
        let broken = conflicts(grammar, &plan, &nodes, &mut automata, &mut budget);
        if broken.is_empty() {
            return plan;
        }
        for node in broken {
            break_up(grammar, &mut plan, node, budget == 0);
        }
    }
}

/// Which rules are regular: those that lead nowhere back.
fn regular_rules(grammar: &Grammar) -> Vec<bool> {
    let count = grammar.rules.len();
    let named: Vec<HashSet<RuleId>> =
        (0..count).map(|rule| grammar.named(grammar.body(rule)).into_iter().collect()).collect();
    let has_token = |rule: RuleId| {
        let mut open = vec![grammar.body(rule)];
        while let Some(node) = open.pop() {
            if matches!(grammar.nodes[node], Node::Token(_)) {
                return true;
            }
            open.extend_from_slice(grammar.children(node));
        }
        false
    };
    let mut waiting: Vec<usize> = named.iter().map(HashSet::len).collect();
    let mut named_by = vec![Vec::new(); count];
    for (rule, named) in named.iter().enumerate() {
        named.iter().for_each(|&other| named_by[other].push(rule));
    }
    let mut regular = vec![false; count];
    let mut ready: Vec<RuleId> = (0..count).filter(|&rule| waiting[rule] == 0).collect();
    while let Some(rule) = ready.pop() {
        if has_token(rule) {
            continue;
        }
        regular[rule] = true;
        for &other in &named_by[rule] {
            waiting[other] -= 1;
            if waiting[other] == 0 {
                ready.push(other);
            }
        }
    }
    regular
}

fn is_regular(grammar: &Grammar, node: NodeId, regular: &[bool]) -> bool {
    match &grammar.nodes[node] {
        Node::Token(_) => false,
        Node::Rule(rule) => regular[*rule],
        _ => grammar.children(node).iter().all(|&part| is_regular(grammar, part, regular)),
    }
}

/// Makes one part of regular parts that stand side by side.
fn gather(grammar: &mut Grammar, node: NodeId, regular: &[bool]) {
    match grammar.nodes[node].clone() {
        Node::Seq(parts) => {
            let mut kept = Vec::new();
            for run in
                parts.chunk_by(|&a, &b| is_regular(grammar, a, regular) && is_regular(grammar, b, regular))
            {
                kept.push(run.to_vec());
            }
            let parts = kept.into_iter().map(|run| grammar.seq(run)).collect();
            grammar.nodes[node] = Node::Seq(parts);
        }
        Node::Alt(parts) => {
            let (flat, mut deep): (Vec<_>, Vec<_>) =
                parts.into_iter().partition(|&part| is_regular(grammar, part, regular));
            if !flat.is_empty() {
                deep.push(grammar.alt(flat));
            }
            grammar.nodes[node] = Node::Alt(deep);
        }
        _ => {}
    }
}

/// Finds what is reachable above lexemes, and the facts about all of it. Gives the trees, parents first.
fn survey(grammar: &Grammar, plan: &mut Plan) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    let mut seen = HashSet::new();
    plan.rules = vec![grammar.root];
    let mut next = 0;
    while next < plan.rules.len() {
        let mut open = vec![grammar.body(plan.rules[next])];
        next += 1;
        while let Some(node) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            nodes.push(node);
            if plan.lexemes.contains(&node) {
                continue;
            }
            if let Node::Rule(rule) = grammar.nodes[node]
                && !plan.rules.contains(&rule)
            {
                plan.rules.push(rule);
            }
            open.extend_from_slice(grammar.children(node));
        }
    }
    plan.facts.clear();
    let mut known = HashMap::new();
    for &node in &nodes {
        let (nullable, first) = if plan.lexemes.contains(&node) {
            beginnings(grammar, node, &mut known)
        } else {
            Default::default()
        };
        plan.facts.insert(node, Facts { nullable, first, follow: Class::default() });
    }
    while nodes.iter().rev().fold(false, |any, &node| update_first(grammar, plan, node) | any) {}
    while nodes.iter().fold(false, |any, &node| update_follow(grammar, plan, node) | any) {}
    nodes
}

/// Whether a regular tree matches the empty text, and what its texts begin with.
fn beginnings(grammar: &Grammar, node: NodeId, known: &mut HashMap<NodeId, (bool, Class)>) -> (bool, Class) {
    if let Some(facts) = known.get(&node) {
        return facts.clone();
    }
    let facts = match &grammar.nodes[node] {
        Node::Chars(class) => (false, class.clone()),
        Node::Text(text) => (false, text.chars().next().map(Class::of).unwrap_or_default()),
        Node::Rule(rule) => beginnings(grammar, grammar.body(*rule), known),
        Node::Token(_) => (false, Class::default()),
        Node::Seq(parts) => {
            let (mut nullable, mut first) = (true, Class::default());
            for &part in parts {
                if !nullable {
                    break;
                }
                let facts = beginnings(grammar, part, known);
                first.add(&facts.1);
                nullable = facts.0;
            }
            (nullable, first)
        }
        Node::Alt(parts) => parts.iter().fold((false, Class::default()), |(nullable, mut first), &part| {
            let facts = beginnings(grammar, part, known);
            first.add(&facts.1);
            (nullable || facts.0, first)
        }),
        Node::Repeat(part, min, _) => {
            let (nullable, first) = beginnings(grammar, *part, known);
            (nullable || *min == 0, first)
        }
    };
    known.insert(node, facts.clone());
    facts
}

/// Takes over from the parts of a tree; tells whether that changed anything.
fn update_first(grammar: &Grammar, plan: &mut Plan, node: NodeId) -> bool {
    if plan.lexemes.contains(&node) {
        return false;
    }
    let of = |node: NodeId| &plan.facts[&node];
    let (mut nullable, mut first) = (false, Class::default());
    match &grammar.nodes[node] {
        Node::Rule(rule) => {
            let body = of(grammar.body(*rule));
            (nullable, first) = (body.nullable, body.first.clone());
        }
        Node::Seq(parts) => {
            nullable = true;
            for &part in parts {
                if nullable {
                    first.add(&of(part).first);
                    nullable = of(part).nullable;
                }
            }
        }
        Node::Alt(parts) => {
            for &part in parts {
                first.add(&of(part).first);
                nullable |= of(part).nullable;
            }
        }
        Node::Repeat(part, min, _) => {
            first.add(&of(*part).first);
            nullable = *min == 0 || of(*part).nullable;
        }
        Node::Chars(_) | Node::Text(_) | Node::Token(_) => {}
    }
    let Some(facts) = plan.facts.get_mut(&node) else { return false };
    let changed = facts.nullable != nullable || facts.first != first;
    (facts.nullable, facts.first) = (nullable, first);
    changed
}

/// Hands what follows a tree to its parts; tells whether that changed anything.
fn update_follow(grammar: &Grammar, plan: &mut Plan, node: NodeId) -> bool {
    if plan.lexemes.contains(&node) {
        return false;
    }
    let behind = plan.facts[&node].follow.clone();
    let mut hand =
        |node: NodeId, class: &Class| plan.facts.get_mut(&node).is_some_and(|f| f.follow.add(class));
    match &grammar.nodes[node] {
        Node::Rule(rule) => hand(grammar.body(*rule), &behind),
        Node::Alt(parts) => parts.iter().fold(false, |any, &part| hand(part, &behind) | any),
        Node::Repeat(part, _, max) => {
            let mut behind = behind;
            if *max != Some(1) {
                behind.add(&plan.facts[part].first.clone());
            }
            plan.facts.get_mut(part).is_some_and(|facts| facts.follow.add(&behind))
        }
        Node::Seq(parts) => {
            let (mut behind, mut any) = (behind, false);
            for part in parts.iter().rev() {
                let Some(facts) = plan.facts.get_mut(part) else { continue };
                any |= facts.follow.add(&behind);
                if facts.nullable {
                    behind.add(&facts.first);
                } else {
                    behind = facts.first.clone();
                }
            }
            any
        }
        Node::Chars(_) | Node::Text(_) | Node::Token(_) => false,
    }
}

fn is_character(grammar: &Grammar, node: NodeId) -> bool {
    match &grammar.nodes[node] {
        Node::Chars(_) => true,
        Node::Text(text) => text.chars().nth(1).is_none(),
        Node::Seq(parts) => parts.is_empty(),
        _ => false,
    }
}

/// The lexemes that take something away from what follows another one.
fn conflicts(
    grammar: &Grammar,
    plan: &Plan,
    nodes: &[NodeId],
    automata: &mut HashMap<NodeId, Option<Automaton>>,
    budget: &mut usize,
) -> Vec<NodeId> {
    let lexemes: Vec<NodeId> = nodes.iter().copied().filter(|node| plan.lexemes.contains(node)).collect();
    for &node in &lexemes {
        automata.entry(node).or_insert_with(|| Automaton::of(grammar, node));
    }
    let takes = |longer: NodeId, budget: &mut usize| {
        lexemes.iter().any(|shorter| {
            let (short, long) = (&plan.facts[shorter], &plan.facts[&longer]);
            *budget = budget.saturating_sub(1);
            if short.follow.is_empty() || !short.first.meets(&long.first) {
                return false;
            }
            match (&automata[shorter], &automata[&longer]) {
                (Some(short), Some(long)) => short.cut_short(long, &plan.facts[shorter].follow, budget),
                _ => true,
            }
        })
    };
    lexemes.iter().copied().filter(|&node| !is_character(grammar, node) && takes(node, budget)).collect()
}

/// Makes smaller lexemes of one; characters at once if `all`.
fn break_up(grammar: &mut Grammar, plan: &mut Plan, node: NodeId, all: bool) {
    if !plan.lexemes.remove(&node) || is_character(grammar, node) {
        plan.lexemes.extend(is_character(grammar, node).then_some(node));
        return;
    }
    let parts = match grammar.nodes[node].clone() {
        Node::Text(text) => {
            let parts: Vec<NodeId> = text.chars().map(|c| grammar.add(Node::Chars(Class::of(c)))).collect();
            grammar.nodes[node] = Node::Seq(parts.clone());
            parts
        }
        // What makes a lexeme go on too far is mostly its last part.
        Node::Seq(mut parts) => {
            let last = parts.pop();
            let first = grammar.seq(parts);
            let parts: Vec<NodeId> = std::iter::once(first).chain(last).collect();
            grammar.nodes[node] = Node::Seq(parts.clone());
            parts
        }
        Node::Rule(rule) => vec![grammar.body(rule)],
        _ => grammar.children(node).to_vec(),
    };
    for part in parts {
        plan.lexemes.insert(part);
        if all {
            break_up(grammar, plan, part, all);
        }
    }
}
