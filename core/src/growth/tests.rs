use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::draft::calibration::CLASSES;
use crate::token::Token;
use crate::tree::{Claim, Source};

const CLAIM: Claim = Claim { source: Source::Context, major: 0, minor: 0 };

/// Expected speed over plain decoding, drafting included.
fn expected_speedup(growth: &Growth) -> f64 {
    growth.expected_tokens * growth.plain_ms / (growth.pass_ms + growth.model_ms)
}

/// Candidates by path.
#[derive(Clone, Debug, Default)]
struct Fixed {
    free: HashMap<Vec<Token>, Vec<(Token, f64)>>,
    model: HashMap<Vec<Token>, Vec<(Token, f64)>>,
    quote: Option<Quote>,
    asked: Vec<Vec<NodeId>>,
    end: Option<Token>,
}

impl Fixed {
    /// A chain of tokens 1, 2, 3, … with these probabilities.
    fn chain(probabilities: &[f64]) -> Self {
        let tokens: Vec<Token> = (1..).take(probabilities.len()).collect();
        let links = probabilities.iter().enumerate().map(|(i, &p)| (tokens[..i].to_vec(), vec![(tokens[i], p)]));
        Self { free: links.collect(), ..Self::default() }
    }
}

fn add(tree: &mut DraftTree, node: NodeId, children: Option<&Vec<(Token, f64)>>, source: Source) {
    for &(token, p) in children.into_iter().flatten() {
        let child = tree.propose(node, token, Claim { source, ..CLAIM });
        tree.set_probability(child, p);
    }
}

impl Expand for Fixed {
    fn expand(&mut self, tree: &mut DraftTree, node: NodeId) {
        add(tree, node, self.free.get(&tree.path(node)), Source::Context);
    }

    fn is_end(&self, token: Token) -> bool {
        self.end == Some(token)
    }

    fn quote(&self) -> Option<Quote> {
        self.quote.clone()
    }

    fn ask_model(&mut self, tree: &mut DraftTree, nodes: &[NodeId]) -> Result<f64> {
        self.asked.push(nodes.to_vec());
        nodes.iter().for_each(|&node| add(tree, node, self.model.get(&tree.path(node)), Source::Model));
        Ok(self.quote.as_ref().map_or(0.0, |q| q.batch_ms[nodes.len()]))
    }
}

fn prices(verify_ms: Vec<f64>) -> Prices {
    let project_ms = vec![0.0; verify_ms.len()];
    Prices { verify_ms, project_ms, leaf_ms: 0.0, fixed_ms: 0.0, sample_ms: 0.0, row_ms: 0.0 }
}

/// `fixed + slope · rows`.
fn linear(fixed: f64, slope: f64) -> Prices {
    prices((0..=64).map(|rows| fixed + slope * f64::from(rows)).collect())
}

/// A model that is right as often behind any token.
fn quote(rate: f64, batch_ms: Vec<f64>) -> Quote {
    Quote { rates_behind: [rate; CLASSES], batch_ms, catch_up_ms: 0.0 }
}

/// Where time is worth what plain decoding brings.
fn grow_from_plain(tree: &mut DraftTree, sources: &mut Fixed, prices: &Prices, limits: Limits) -> Result<Growth> {
    grow(tree, sources, prices, 1.0 / prices.plain_ms(), limits)
}

fn run(mut sources: Fixed, prices: &Prices, limits: Limits) -> (DraftTree, Growth) {
    let mut tree = DraftTree::new(0);
    let growth = grow_from_plain(&mut tree, &mut sources, prices, limits).unwrap();
    (tree, growth)
}

#[test]
fn free_rows_are_all_taken_and_dear_rows_not() {
    let chain = Fixed::chain(&[0.5; 10]);
    let (_, all) = run(chain.clone(), &linear(30.0, 0.0), Limits::default());
    assert_eq!(all.selected.len(), 11);
    let (_, none) = run(chain, &linear(0.0, 30.0), Limits::default());
    assert_eq!(none.selected, [ROOT]);
    assert_eq!((none.expected_tokens, none.pass_ms, none.plain_ms), (1.0, 30.0, 30.0));
    assert_eq!(expected_speedup(&none), 1.0);
}

#[test]
fn looks_beyond_a_hump() {
    // ggml at Q8_0: the second row costs a whole pass, the next two a third of one. Lever's own rule stops at one row.
    let ggml = prices(vec![0.0, 26.5, 54.0, 58.0, 63.0, 72.0, 80.0, 88.0, 96.0]);
    let (_, growth) = run(Fixed::chain(&[0.95; 10]), &ggml, Limits::default());
    assert_eq!(growth.selected.len(), 8);
    assert!(expected_speedup(&growth) > 1.8, "{}", expected_speedup(&growth));
}

#[test]
fn a_tree_where_it_is_broad_and_a_chain_where_it_is_sure() {
    let mut sources = Fixed::chain(&[0.5, 0.9]);
    sources.free.get_mut(&vec![]).unwrap().push((50, 0.4));
    let (tree, growth) = run(sources, &linear(30.0, 3.0), Limits::default());
    assert_eq!(growth.selected.len(), 4);
    assert_eq!(tree.flatten(&growth.selected).n_leaves(), 2);
    assert!((growth.expected_tokens - (1.0 + 0.5 + 0.45 + 0.4)).abs() < 1e-12);
}

#[test]
fn the_model_is_asked_where_retrieval_ends_and_not_where_it_is_sure() {
    let mut sources = Fixed::chain(&[0.98, 0.98]);
    sources.model = HashMap::from([(vec![1, 2], vec![(9, 0.8)]), (vec![1, 2, 9], vec![(10, 0.8)])]);
    sources.quote = Some(quote(0.8, vec![0.0, 2.0, 2.5, 3.0, 3.5]));
    let mut tree = DraftTree::new(0);
    let growth = grow_from_plain(&mut tree, &mut sources, &linear(30.0, 1.0), Limits::default()).unwrap();
    assert_eq!(sources.asked[0], [2], "the end of the retrieved chain");
    assert!(growth.selected.iter().any(|&node| tree.path(node) == [1, 2, 9, 10]));
    assert!(growth.model_ms > 0.0);
}

#[test]
fn one_call_is_about_the_whole_path_on_which_the_sources_may_agree() {
    // The others propose a doubtful path of six. The model says the same for three, then otherwise: asking one by one takes
    // a call each, asking about the path one for the agreement and one behind the correction.
    let mut sources = Fixed::chain(&[0.7; 6]);
    for n in 0..6 {
        let path: Vec<Token> = (1..=n).collect();
        let says = if n < 3 { n + 1 } else { 90 };
        sources.model.insert(path, vec![(says, 0.95)]);
    }
    sources.model.insert(vec![1, 2, 3, 90], vec![(91, 0.95)]);
    sources.quote = Some(quote(0.9, (0..=16).map(|n| 2.0 + 0.1 * f64::from(n)).collect()));
    let mut tree = DraftTree::new(0);
    let growth = grow_from_plain(&mut tree, &mut sources, &linear(30.0, 1.0), Limits::default()).unwrap();
    let first: Vec<Vec<Token>> = sources.asked[0].iter().map(|&node| tree.path(node)).collect();
    assert_eq!(first, (0..=6).map(|n| (1..=n).collect()).collect::<Vec<Vec<Token>>>());
    assert_eq!(tree.path(sources.asked[1][0]), [1, 2, 3, 90], "{:?}", sources.asked);
    assert!(growth.selected.iter().any(|&node| tree.path(node) == [1, 2, 3, 90, 91]));
    // Where another row costs the draft model more than another call, it is asked one by one.
    let mut sources = Fixed::chain(&[0.7; 6]);
    sources.quote = Some(quote(0.9, (0..=16).map(|n| 6.0 * f64::from(n) - 4.0).collect()));
    grow_from_plain(&mut DraftTree::new(0), &mut sources, &linear(30.0, 1.0), Limits::default()).unwrap();
    assert_eq!(sources.asked[0].len(), 1);
}

#[test]
fn the_model_is_asked_where_many_are_doubtful_and_one_answer_would_do() {
    // Eight candidates, together nearly certain. Beside them a chain of the model's is too dear, instead of them it is not.
    let mut sources = Fixed::default();
    sources.free.insert(vec![], (0..8).map(|i| (i, 0.12)).collect());
    sources.model = HashMap::from([(vec![], vec![(3, 0.85)]), (vec![3], vec![(77, 0.85)])]);
    let batch_ms = vec![0.0, 12.0, 24.0, 36.0, 48.0];
    sources.quote = Some(quote(0.85, batch_ms));
    let mut tree = DraftTree::new(0);
    let growth = grow_from_plain(&mut tree, &mut sources, &linear(30.0, 2.5), Limits::default()).unwrap();
    assert_eq!(sources.asked[0], [ROOT]);
    assert!(growth.selected.iter().any(|&node| tree.path(node) == [3, 77]));
}

#[test]
fn the_model_adds_to_a_tree_that_is_worth_more_than_its_chain() {
    // Two long sure texts, one of which is meant; the model goes on behind either.
    let mut sources = Fixed::default();
    sources.free.insert(vec![], vec![(100, 0.5), (200, 0.45)]);
    for start in [100, 200] {
        let text: Vec<Token> = (start..start + 8).collect();
        (1..8).for_each(|n| drop(sources.free.insert(text[..n].to_vec(), vec![(text[n], 0.99)])));
        sources.model.insert(text, vec![(7, 0.9)]);
    }
    let batch_ms = vec![0.0, 0.5, 0.6, 0.7, 0.8];
    sources.quote = Some(quote(0.85, batch_ms));
    let (tree, growth) = run(sources, &linear(100.0, 0.1), Limits::default());
    let behind = |start: Token| (start..start + 8).chain([7]).collect::<Vec<_>>();
    for path in [behind(100), behind(200)] {
        assert!(growth.selected.iter().any(|&node| tree.path(node) == path), "{path:?}");
    }
}

#[test]
fn the_model_is_asked_behind_what_was_foreseen_where_only_there_it_is_right() {
    let asked = |foreseen| {
        let mut sources = Fixed { quote: Some(quote(0.05, vec![0.0, 6.0])), ..Fixed::default() };
        sources.quote.as_mut().unwrap().rates_behind[CLASSES - 1] = 0.9;
        let mut tree = DraftTree::foreseen(0, foreseen);
        grow_from_plain(&mut tree, &mut sources, &linear(30.0, 1.0), Limits::default()).unwrap().model_rounds
    };
    assert_eq!((asked(0.5), asked(0.99)), (0, 1));
}

#[test]
fn a_model_that_is_sure_is_asked_further_than_its_record_says() {
    let rounds = |p: f64| {
        let mut sources = Fixed { quote: Some(quote(0.8, vec![0.0, 1.0])), ..Fixed::default() };
        for n in 0..16 {
            sources.model.insert((0..n).collect(), vec![(n, p)]);
        }
        grow_from_plain(&mut DraftTree::new(0), &mut sources, &linear(15.0, 2.0), Limits::default())
            .unwrap()
            .model_rounds
    };
    assert!(rounds(0.8) < 8 && rounds(0.99) > 12, "{} {}", rounds(0.8), rounds(0.99));
}

#[test]
fn nothing_is_verified_for_the_end_of_a_text() {
    for n in 0..=3 {
        let mut sources = Fixed { end: Some(3), ..Fixed::chain(&[0.9; 6]) };
        let prices = linear(30.0, 0.1);
        let growth = match n {
            0 => run(sources, &prices, Limits::default()).1,
            n => grow_chain(&mut DraftTree::new(0), &mut sources, &prices, n).unwrap(),
        };
        assert_eq!(growth.selected.len(), if n == 1 { 2 } else { 3 }, "chain of {n}, 0 for a tree");
    }
}

#[test]
fn a_model_that_costs_more_than_it_brings_is_not_asked() {
    for (first_rate, ms) in [(0.8, 60.0), (0.02, 2.0)] {
        let sources = Fixed { quote: Some(quote(first_rate, vec![0.0, ms, ms, ms, ms])), ..Fixed::default() };
        let (_, growth) = run(sources, &linear(30.0, 1.0), Limits::default());
        assert_eq!((growth.model_rounds, growth.model_ms), (0, 0.0));
    }
}

#[test]
fn the_model_drafts_a_chain_alone() {
    let mut sources = Fixed::chain(&[0.85; 30]);
    sources.model = std::mem::take(&mut sources.free);
    sources.quote = Some(quote(0.85, vec![0.0, 2.0, 2.2, 2.4, 2.6]));
    let (_, growth) = run(sources, &linear(33.0, 3.0), Limits::default());
    assert!((5..=16).contains(&growth.selected.len()), "{}", growth.selected.len());
    assert!(expected_speedup(&growth) > 2.0, "{}", expected_speedup(&growth));
}

#[test]
fn a_fixed_chain_follows_the_likeliest_child_whatever_it_costs() {
    let mut sources = Fixed::chain(&[0.1, 0.2, 0.3]);
    sources.free.get_mut(&vec![]).unwrap().insert(0, (50, 0.05));
    let mut tree = DraftTree::new(0);
    let growth = grow_chain(&mut tree, &mut sources, &linear(0.0, 30.0), 2).unwrap();
    assert_eq!(growth.selected.iter().map(|&n| tree.nodes()[n].token).collect::<Vec<_>>(), [0, 1, 2]);
    assert!((growth.expected_tokens - 1.12).abs() < 1e-12);
}

#[test]
fn a_fixed_chain_is_the_draft_models_alone_if_there_is_one() {
    let mut sources = Fixed::chain(&[0.99; 8]);
    sources.model = HashMap::from([(vec![], vec![(7, 0.4)]), (vec![7], vec![(8, 0.4)])]);
    sources.quote = Some(quote(0.4, vec![0.0, 6.0]));
    let mut tree = DraftTree::new(0);
    let growth = grow_chain(&mut tree, &mut sources, &linear(30.0, 1.0), 2).unwrap();
    assert_eq!(tree.path(growth.selected[2]), [7, 8]);
    assert_eq!(tree.len(), 3, "the free sources were not asked");
}

#[test]
fn a_chain_by_the_record_pays_or_does_not() {
    assert!(chain_speedup(&linear(33.0, 2.0), 0.8, 2.0) > 2.0);
    assert_eq!(chain_speedup(&linear(33.0, 2.0), 0.01, 2.0), 1.0);
    assert_eq!(chain_speedup(&linear(0.0, 30.0), 0.9, 2.0), 1.0);
}

#[test]
fn a_model_is_asked_as_often_and_about_as_many_nodes_as_the_limits_allow() {
    let cheap = || Some(quote(0.99, (0..=64).map(|n| 0.01 + 0.001 * f64::from(n)).collect()));
    let grow_within = |mut sources: Fixed, limits| {
        let growth = grow_from_plain(&mut DraftTree::new(0), &mut sources, &linear(30.0, 0.001), limits).unwrap();
        (growth, sources.asked)
    };
    // A text that the model alone knows, word by word.
    let known = (0..20).map(|n| ((0..n).collect(), vec![(n, 0.97)])).collect();
    let alone = Fixed { model: known, quote: cheap(), ..Fixed::default() };
    for (max_model_rounds, max_depth) in [(0, 9), (1, 9), (5, 9), (9, 5), (16, 16)] {
        let limits = Limits { max_model_rounds, max_depth, ..Limits::default() };
        let (growth, asked) = grow_within(alone.clone(), limits);
        let n = max_model_rounds.min(max_depth);
        assert_eq!((growth.model_rounds, asked.len(), growth.selected.len()), (n, n, n + 1), "{limits:?}");
    }
    // A doubtful path of ten, about all of which it is asked at once.
    let doubtful = Fixed { quote: cheap(), ..Fixed::chain(&[0.7; 10]) };
    for max_model_batch in 1..=11 {
        let (_, asked) = grow_within(doubtful.clone(), Limits { max_model_batch, ..Limits::default() });
        assert_eq!(asked[0].len(), max_model_batch);
    }
}

/// A random tree of candidates: for each node its parent (an earlier one) and probability.
fn candidates() -> impl Strategy<Value = Vec<(usize, f64)>> {
    prop::collection::vec((0usize..8, 0.0f64..=1.0), 0..9)
}

fn sources(candidates: &[(usize, f64)]) -> Fixed {
    let mut sources = Fixed::default();
    let mut paths: Vec<Vec<Token>> = vec![Vec::new()];
    for (i, &(parent, p)) in candidates.iter().enumerate() {
        let parent = paths[parent % paths.len()].clone();
        let token = Token::try_from(i).unwrap() + 1;
        sources.free.entry(parent.clone()).or_default().push((token, p));
        paths.push([parent, vec![token]].concat());
    }
    sources
}

/// The best gain over all subtrees where a ms is worth `rate`, by trying them.
fn best_by_force(candidates: &[(usize, f64)], prices: &Prices, rate: f64) -> f64 {
    let n = candidates.len();
    let mut parents = vec![0];
    let mut reach = vec![1.0];
    for (i, &(parent, p)) in candidates.iter().enumerate() {
        parents.push(parent % (i + 1));
        reach.push(reach[parent % (i + 1)] * p);
    }
    let mut best = f64::NEG_INFINITY;
    for set in 0u32..1 << n {
        let has = |node: usize| node == 0 || set & (1 << (node - 1)) != 0;
        if (1..=n).all(|node| !has(node) || has(parents[node])) {
            let tokens: f64 = (0..=n).filter(|&node| has(node)).map(|node| reach[node]).sum();
            best = best.max(tokens - rate * prices.cycle_ms(1 + set.count_ones() as usize, 1, tokens));
        }
    }
    best
}

proptest! {
    #[test]
    fn no_subtree_and_so_no_chain_is_better(
        candidates in candidates(), steps in prop::collection::vec(0.0f64..20.0, 10), speedup in 1.0f64..5.0
    ) {
        let mut ms = 5.0;
        let prices = prices(std::iter::once(0.0).chain(steps.iter().map(|step| { ms += step; ms })).collect());
        let rate = speedup / prices.plain_ms();
        let growth =
            grow(&mut DraftTree::new(0), &mut sources(&candidates), &prices, rate, Limits::default()).unwrap();
        let best = best_by_force(&candidates, &prices, rate);
        let plain = 1.0 - rate * prices.plain_ms();
        // Within the margin over plain nothing is drafted; beyond it, the best of all subtrees is found.
        if best > plain + MARGIN + 1e-9 {
            let gain = growth.expected_tokens - rate * growth.pass_ms;
            prop_assert!((gain - best).abs() < 1e-9, "{gain} against {best}");
        } else if best < plain + MARGIN - 1e-9 {
            prop_assert_eq!(growth.selected, vec![ROOT]);
        }
    }

    #[test]
    fn limits_hold(candidates in candidates(), max_rows in 1usize..12, max_depth in 0usize..6) {
        let limits = Limits { max_rows, max_depth, ..Limits::default() };
        let (tree, growth) = run(sources(&candidates), &linear(30.0, 0.01), limits);
        prop_assert!(growth.selected.len() <= max_rows);
        prop_assert!(growth.selected.iter().all(|&node| tree.nodes()[node].depth <= max_depth));
        let flat = tree.flatten(&growth.selected);
        prop_assert_eq!(flat.rows.len(), growth.selected.len(), "the selection is a tree");
    }

    #[test]
    fn limits_hold_with_a_draft_model(
        free in candidates(), model in candidates(), max_rows in 1usize..12, max_depth in 0usize..6,
        max_model_rounds in 0usize..4, max_model_batch in 1usize..5, rate in 0.0f64..1.0, call_ms in 0.0f64..3.0
    ) {
        let limits = Limits { max_rows, max_depth, max_model_rounds, max_model_batch };
        // Some of what the model says the free sources say too: tokens are numbered alike.
        let mut both = Fixed { model: sources(&model).free, ..sources(&free) };
        // Another row costs next to nothing, so that only the limit ends a batch.
        both.quote = Some(quote(rate, (0..=64).map(|n| call_ms + 0.001 * f64::from(n)).collect()));
        let mut tree = DraftTree::new(0);
        let growth = grow_from_plain(&mut tree, &mut both, &linear(30.0, 0.01), limits).unwrap();
        prop_assert!(growth.selected.len() <= max_rows);
        prop_assert!(growth.selected.iter().all(|&node| tree.nodes()[node].depth <= max_depth));
        prop_assert_eq!(tree.flatten(&growth.selected).rows.len(), growth.selected.len(), "the selection is a tree");
        prop_assert!(both.asked.len() <= max_model_rounds, "{:?}", both.asked);
        prop_assert_eq!(both.asked.len(), growth.model_rounds);
        prop_assert!(both.asked.iter().all(|batch| (1..=max_model_batch).contains(&batch.len())), "{:?}", both.asked);
        let mut asked = both.asked.concat();
        prop_assert!(asked.iter().all(|&node| tree.nodes()[node].depth < max_depth), "their children are too deep");
        let calls = asked.len();
        asked.sort_unstable();
        asked.dedup();
        prop_assert_eq!(asked.len(), calls, "a node was asked about twice");
    }

    #[test]
    fn dearer_rows_never_give_a_bigger_tree_and_a_dearer_cycle_never_a_smaller_one(
        candidates in candidates(), fixed in 1.0f64..100.0, slope in 0.0f64..30.0, more in 0.0f64..30.0, speedup in 1.0f64..5.0
    ) {
        let rows = |fixed, slope| {
            let prices = linear(fixed, slope);
            let rate = speedup / prices.plain_ms();
            let growth = grow(&mut DraftTree::new(0), &mut sources(&candidates), &prices, rate, Limits::default());
            growth.unwrap().selected.len()
        };
        prop_assert!(rows(fixed, slope + more) <= rows(fixed, slope));
        prop_assert!(rows(fixed + more, slope) >= rows(fixed, slope));
    }

    #[test]
    fn never_expects_to_be_slower_than_plain(candidates in candidates(), fixed in 0.1f64..50.0, slope in 0.0f64..50.0) {
        let (_, growth) = run(sources(&candidates), &linear(fixed, slope), Limits::default());
        prop_assert!(expected_speedup(&growth) >= 1.0 - 1e-12);
    }
}
