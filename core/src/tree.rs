//! The draft tree: what every source proposes for one verify pass, as one value.
//!
//! The root is the last emitted token, the one the target has not read yet. Below it hang candidates; a candidate that two
//! sources propose under the same parent is one node with the claims of both, so no row of the target is spent twice. Each
//! node carries the estimated probability that the target agrees with it given its parent, and the product of those along its
//! path, Lever's b̂ (arXiv 2605.16786, section 2.1), here called `reach`. A child never has more reach than its parent, so the
//! best n nodes always form a tree.
//!
//! Deliberately not here: where candidates come from (`draft`), how many are worth verifying (`growth`), what is accepted
//! (`accept`).

use crate::row::Row;
use crate::token::Token;

/// Index of a node in its tree, in order of insertion: a parent's is smaller than its children's.
pub type NodeId = usize;

/// The node of the last emitted token.
pub const ROOT: NodeId = 0;

/// Where a candidate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What followed the longest matching suffix in context, earlier turns and outputs.
    Context,
    /// What the target itself would have said there (CoordGen 1.1).
    Aligned,
    /// What the target said after this token the last time it read it (Token Recycling).
    Recycle,
    /// The rest of the previous draft, realigned behind its mismatch (CoordGen 1.2).
    Reuse,
    /// The draft model.
    Model,
}

impl Source {
    /// Number of sources.
    pub const COUNT: usize = 5;
    /// All sources, in the order of their index.
    pub const ALL: [Self; Self::COUNT] = [Self::Context, Self::Aligned, Self::Recycle, Self::Reuse, Self::Model];

    /// Position in [`Source::ALL`], for tables by source.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What a source says about its candidate, in its own coarse terms; `draft::calibration` turns it into a probability.
///
/// The meaning of the two figures is the source's own (match length and count share, rank and remembered probability, …);
/// all that is asked of them is that equal claims deserve equal trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Who claims it.
    pub source: Source,
    /// The more telling figure, below [`Claim::MAJORS`].
    pub major: u8,
    /// The less telling figure, below [`Claim::MINORS`].
    pub minor: u8,
}

impl Claim {
    /// Values of `major`.
    pub const MAJORS: usize = 14;
    /// Values of `minor`.
    pub const MINORS: usize = 8;
}

/// The claims of all sources that propose one node: at most one per source, the first one made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims([Option<Claim>; Source::COUNT]);

impl Claims {
    /// One source's claim.
    pub fn of(claim: Claim) -> Self {
        let mut claims = Self::default();
        claims.join(claim);
        claims
    }

    /// Adds a claim, unless its source has made one already. Says whether anything changed.
    pub fn join(&mut self, claim: Claim) -> bool {
        let slot = &mut self.0[claim.source.index()];
        let is_new = slot.is_none();
        slot.get_or_insert(claim);
        is_new
    }

    /// The claims, in the order of their sources.
    pub fn iter(&self) -> impl Iterator<Item = Claim> + '_ {
        self.0.iter().flatten().copied()
    }

    /// The claim of `source`, if it made one.
    pub fn by(&self, source: Source) -> Option<Claim> {
        self.0[source.index()]
    }

    /// The claim of `source`, and those of the others.
    pub fn split(&self, source: Source) -> (Self, Self) {
        let (mut own, mut others) = (Self::default(), *self);
        own.0[source.index()] = others.0[source.index()].take();
        (own, others)
    }

    /// The sources as a set of bits, bit i for `Source::ALL[i]`: below `1 << Source::COUNT`.
    pub fn mask(&self) -> usize {
        self.iter().map(|claim| 1 << claim.source.index()).sum()
    }
}

/// One candidate in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The token.
    pub token: Token,
    /// The node it continues; `None` for the root only.
    pub parent: Option<NodeId>,
    /// Edges between the root and here.
    pub depth: usize,
    /// Who proposes it, and how sure they say they are. Empty for the root.
    pub claims: Claims,
    /// Estimated probability that the target chooses this token after its parent, in [0, 1]; of the root, what it was before the
    /// target chose it.
    pub probability: f64,
    /// Estimated probability that this node is reached and accepted: the product of probabilities from the root. Lever's b̂.
    pub reach: f64,
    first_child: Option<NodeId>,
    next_sibling: Option<NodeId>,
}

/// The candidates of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftTree {
    nodes: Vec<Node>,
}

/// A selection of nodes as rows for the executor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlatTree {
    /// Parents before children; row 0 is the root.
    pub rows: Vec<Row>,
    /// The node of each row.
    pub nodes: Vec<NodeId>,
}

impl DraftTree {
    /// A tree of the last emitted token alone: plain decoding.
    pub fn new(root: Token) -> Self {
        let root = Node {
            token: root,
            parent: None,
            depth: 0,
            claims: Claims::default(),
            probability: 1.0,
            reach: 1.0,
            first_child: None,
            next_sibling: None,
        };
        Self { nodes: vec![root] }
    }

    /// A tree of only its root, which was foreseen with `probability`.
    pub fn foreseen(root: Token, probability: f64) -> Self {
        let mut tree = Self::new(root);
        tree.nodes[ROOT].probability = probability.clamp(0.0, 1.0);
        tree
    }

    /// All nodes, parents before children.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Number of nodes, the root included: at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always a root")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Proposes `token` under `parent` and returns its node: the one that is there already, or a new one of probability 0.
    ///
    /// A `parent` that is not in the tree counts as the root, which cannot happen with ids that this tree returned.
    pub fn propose(&mut self, parent: NodeId, token: Token, claim: Claim) -> NodeId {
        let parent = if parent < self.nodes.len() { parent } else { ROOT };
        if let Some(node) = self.child(parent, token) {
            self.nodes[node].claims.join(claim);
            return node;
        }
        let id = self.nodes.len();
        self.nodes.push(Node {
            token,
            parent: Some(parent),
            depth: self.nodes[parent].depth + 1,
            claims: Claims::of(claim),
            probability: 0.0,
            reach: 0.0,
            first_child: None,
            next_sibling: None,
        });
        self.link(parent, id);
        id
    }

    /// Appends `id` to the children of `parent`: candidates keep the order in which they were proposed.
    fn link(&mut self, parent: NodeId, id: NodeId) {
        let last = self.children(parent).last();
        match last {
            Some(last) => self.nodes[last].next_sibling = Some(id),
            None => self.nodes[parent].first_child = Some(id),
        }
    }

    /// The children of `node`, in the order in which they were proposed.
    pub fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.nodes[node].first_child, |&child| self.nodes[child].next_sibling)
    }

    /// The child of `node` that is `token`.
    pub fn child(&self, node: NodeId, token: Token) -> Option<NodeId> {
        self.children(node).find(|&child| self.nodes[child].token == token)
    }

    /// Sets the probability of `node` given its parent (clamped to [0, 1], not a number counts as 0) and its reach.
    /// Descendants follow with [`DraftTree::update_reach`].
    pub fn set_probability(&mut self, node: NodeId, probability: f64) {
        let Some(parent) = self.nodes[node].parent else { return };
        let probability = if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) };
        self.nodes[node].probability = probability;
        self.nodes[node].reach = self.nodes[parent].reach * probability;
    }

    /// Recomputes every node's reach from the probabilities along its path.
    pub fn update_reach(&mut self) {
        for id in 1..self.nodes.len() {
            let parent = self.nodes[id].parent.unwrap_or(ROOT);
            self.nodes[id].reach = self.nodes[parent].reach * self.nodes[id].probability;
        }
    }

    /// The tokens from the root's child down to `node`; empty for the root.
    pub fn path(&self, node: NodeId) -> Vec<Token> {
        let mut path: Vec<Token> = self.ancestors(node).map(|id| self.nodes[id].token).collect();
        path.pop();
        path.reverse();
        path
    }

    /// `node`, its parent, and so on up to and including the root.
    pub fn ancestors(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(Some(node), |&id| self.nodes[id].parent)
    }

    /// Rows of `selected`, a set of nodes that has each one's parent, in the order of their ids. Every row wants logits.
    ///
    /// The root is always in; a node whose parent was not selected is left out, so that the rows are always a tree.
    pub fn flatten(&self, selected: &[NodeId]) -> FlatTree {
        let mut row_of: Vec<Option<u32>> = vec![None; self.nodes.len()];
        let mut wanted = vec![false; self.nodes.len()];
        wanted[ROOT] = true;
        for &node in selected {
            wanted[node] = true;
        }
        let mut flat = FlatTree::default();
        for (id, node) in self.nodes.iter().enumerate().filter(|&(id, _)| wanted[id]) {
            let parent = node.parent.map(|parent| row_of[parent]);
            if parent == Some(None) {
                continue;
            }
            row_of[id] = u32::try_from(flat.rows.len()).ok();
            flat.rows.push(Row { token: node.token, parent: parent.flatten(), wants_logits: true });
            flat.nodes.push(id);
        }
        flat
    }
}

impl FlatTree {
    /// Rows without children.
    pub fn n_leaves(&self) -> usize {
        let mut has_child = vec![false; self.rows.len()];
        for parent in self.rows.iter().filter_map(|row| row.parent) {
            has_child[parent as usize] = true;
        }
        has_child.iter().filter(|&&has| !has).count()
    }

    /// The child of row `row` that reads `token`.
    pub fn child(&self, row: u32, token: Token) -> Option<u32> {
        let at = self.rows.iter().position(|r| r.parent == Some(row) && r.token == token)?;
        u32::try_from(at).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn claim(source: Source) -> Claim {
        Claim { source, major: 1, minor: 2 }
    }

    /// Two sources propose overlapping paths.
    fn example() -> DraftTree {
        let mut tree = DraftTree::new(7);
        let a = tree.propose(ROOT, 1, claim(Source::Context));
        let b = tree.propose(a, 2, claim(Source::Context));
        let joined = tree.propose(ROOT, 1, claim(Source::Model));
        let c = tree.propose(joined, 3, claim(Source::Model));
        let d = tree.propose(ROOT, 9, claim(Source::Recycle));
        for (node, p) in [(a, 0.5), (b, 0.4), (c, 0.6), (d, 0.25)] {
            tree.set_probability(node, p);
        }
        tree
    }

    #[test]
    fn duplicates_join_and_keep_both_claims() {
        let tree = example();
        assert_eq!(tree.len(), 5);
        let joined = tree.child(ROOT, 1).unwrap();
        assert_eq!(tree.nodes()[joined].claims.mask(), 0b10001);
        assert_eq!(tree.children(ROOT).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(tree.children(joined).map(|n| tree.nodes()[n].token).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(tree.path(3), [1, 3]);
    }

    #[test]
    fn flattens_to_golden_rows() {
        let tree = example();
        let row = |token, parent| Row { token, parent, wants_logits: true };
        let flat = tree.flatten(&best_first(&tree));
        assert_eq!(flat.rows, [row(7, None), row(1, Some(0)), row(2, Some(1)), row(3, Some(1)), row(9, Some(0))]);
        assert_eq!(flat.n_leaves(), 3);
        assert_eq!(best_first(&tree), [0, 1, 3, 4, 2]);
        let best_three = tree.flatten(&best_first(&tree)[..3]);
        assert_eq!(best_three.rows, [row(7, None), row(1, Some(0)), row(3, Some(1))]);
        assert_eq!(best_three.nodes, [0, 1, 3]);
        assert_eq!(best_three.child(0, 1), Some(1));
        assert_eq!(best_three.child(0, 3), None);
    }

    #[test]
    fn a_selection_without_the_parent_is_no_orphan() {
        let flat = example().flatten(&[2, 4]);
        assert_eq!(flat.nodes, [0, 4]);
    }

    #[test]
    fn a_probability_that_is_none_is_clamped() {
        let mut tree = DraftTree::new(0);
        let node = tree.propose(ROOT, 1, claim(Source::Reuse));
        for (given, kept) in [(f64::NAN, 0.0), (-1.0, 0.0), (2.0, 1.0)] {
            tree.set_probability(node, given);
            assert_eq!(tree.nodes()[node].probability, kept);
        }
        tree.set_probability(ROOT, 0.0);
        assert_eq!(tree.nodes()[ROOT].reach, 1.0);
    }

    /// All nodes by falling reach, older before newer where equal. Reach never rises along a path and ids do, so that no child
    /// comes before its parent.
    fn best_first(tree: &DraftTree) -> Vec<NodeId> {
        let mut order: Vec<NodeId> = (0..tree.len()).collect();
        order.sort_by(|&a, &b| tree.nodes()[b].reach.total_cmp(&tree.nodes()[a].reach).then(a.cmp(&b)));
        order
    }

    fn paths() -> impl Strategy<Value = Vec<(u8, Vec<(Token, f64)>)>> {
        prop::collection::vec((0u8..5, prop::collection::vec((0u32..4, 0.0f64..=1.0), 1..7)), 0..12)
    }

    fn merge(paths: &[(u8, Vec<(Token, f64)>)]) -> DraftTree {
        let mut tree = DraftTree::new(0);
        for (source, path) in paths {
            let mut node = ROOT;
            for &(token, p) in path {
                node = tree.propose(node, token, claim(Source::ALL[*source as usize]));
                tree.set_probability(node, p);
            }
        }
        tree.update_reach();
        tree
    }

    /// Token paths from the root to every row.
    fn row_paths(rows: &[Row]) -> Vec<Vec<Token>> {
        let mut paths: Vec<Vec<Token>> = Vec::new();
        for row in rows {
            let mut path = row.parent.map_or_else(Vec::new, |p| paths[p as usize].clone());
            path.push(row.token);
            paths.push(path);
        }
        paths
    }

    proptest! {
        #[test]
        fn every_path_survives_merge_and_flatten(paths in paths()) {
            let tree = merge(&paths);
            let flat = tree.flatten(&best_first(&tree));
            prop_assert_eq!(flat.rows.len(), tree.len());
            let found = row_paths(&flat.rows);
            let distinct: BTreeSet<_> = found.iter().cloned().collect();
            prop_assert_eq!(distinct.len(), found.len(), "a path stands twice");
            let mut expected = BTreeSet::from([vec![0]]);
            for (_, path) in &paths {
                for end in 1..=path.len() {
                    expected.insert(std::iter::once(0).chain(path[..end].iter().map(|s| s.0)).collect());
                }
            }
            prop_assert_eq!(distinct, expected);
        }

        #[test]
        fn every_prefix_of_the_best_first_order_is_a_tree(paths in paths(), keep in 1usize..40) {
            let tree = merge(&paths);
            let order = best_first(&tree);
            let selected = &order[..keep.min(order.len())];
            let flat = tree.flatten(selected);
            prop_assert_eq!(flat.rows.len(), selected.len());
            for (i, row) in flat.rows.iter().enumerate() {
                prop_assert!(row.parent.is_none_or(|p| (p as usize) < i));
                prop_assert_eq!(row.parent.is_none(), i == 0);
            }
            let least = selected.iter().map(|&n| tree.nodes()[n].reach).fold(1.0, f64::min);
            for node in (0..tree.len()).filter(|n| !selected.contains(n)) {
                prop_assert!(tree.nodes()[node].reach <= least);
            }
        }
    }
}
