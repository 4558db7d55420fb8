//! [`Grammar`]: rules as trees in one arena.

use super::class::Class;

/// A place in the arena.
pub(super) type NodeId = usize;
/// A place in the list of rules.
pub(super) type RuleId = usize;

/// A part of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// One character.
    Chars(Class),
    /// These characters; never none.
    Text(String),
    Rule(RuleId),
    /// A token, as Lark writes it.
    Token(String),
    /// One after the other; none: nothing.
    Seq(Vec<NodeId>),
    /// One of them; none: impossible.
    Alt(Vec<NodeId>),
    /// At least and at most so many times.
    Repeat(NodeId, u32, Option<u32>),
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Line and column of its first mention.
    pub(super) place: (usize, usize),
    /// `None` until it is defined.
    pub(super) body: Option<NodeId>,
}

#[derive(Debug, Default)]
pub(super) struct Grammar {
    pub(super) nodes: Vec<Node>,
    pub(super) rules: Vec<Rule>,
    pub(super) root: RuleId,
}

impl Grammar {
    pub(super) fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// A sequence, without a layer that means nothing.
    pub(super) fn seq(&mut self, parts: Vec<NodeId>) -> NodeId {
        if let [one] = parts[..] { one } else { self.add(Node::Seq(parts)) }
    }

    /// Alternatives, without a layer that means nothing.
    pub(super) fn alt(&mut self, parts: Vec<NodeId>) -> NodeId {
        if let [one] = parts[..] { one } else { self.add(Node::Alt(parts)) }
    }

    /// The tree of a rule.
    ///
    /// # Panics
    /// If the rule is not defined; parsing refuses such grammars.
    pub(super) fn body(&self, rule: RuleId) -> NodeId {
        self.rules[rule].body.expect("parsing refuses rules without a definition")
    }

    /// The parts of a node, without what its rule stands for.
    pub(super) fn children(&self, node: NodeId) -> &[NodeId] {
        match &self.nodes[node] {
            Node::Seq(parts) | Node::Alt(parts) => parts,
            Node::Repeat(part, ..) => std::slice::from_ref(part),
            _ => &[],
        }
    }

    /// The rules that a tree names, again and again if it does.
    pub(super) fn named(&self, node: NodeId) -> Vec<RuleId> {
        let (mut open, mut rules) = (vec![node], Vec::new());
        while let Some(node) = open.pop() {
            if let Node::Rule(rule) = self.nodes[node] {
                rules.push(rule);
            }
            open.extend_from_slice(self.children(node));
        }
        rules
    }
}
