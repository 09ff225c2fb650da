//! Slow flash grows trees: a pass takes at least as long as reading its weights, so rows that are computed meanwhile are free.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use fulcrum::Result;
use fulcrum::cost::{CostModel, PassCost};
use fulcrum::growth::{Expand, Growth, Limits, Quote, grow};
use fulcrum::tree::{Claim, DraftTree, NodeId, Source};

/// Three candidates at every node, likelier and less likely.
struct Guesses;

impl Expand for Guesses {
    fn expand(&mut self, tree: &mut DraftTree, node: NodeId) {
        for (token, probability) in [(1, 0.6), (2, 0.2), (3, 0.1)] {
            let claim = Claim { source: Source::Context, major: 0, minor: 0 };
            let child = tree.propose(node, token, claim);
            tree.set_probability(child, probability);
        }
    }

    fn quote(&self) -> Option<Quote> {
        None
    }

    fn ask_model(&mut self, _: &mut DraftTree, _: &[NodeId]) -> Result<f64> {
        unreachable!("there is no draft model")
    }
}

/// A pass whose layers compute for `30 + 8 · (rows − 1)` ms while they are read for `flash_ms`: a little of it is not covered.
fn pass(rows: usize, flash_ms: f64) -> PassCost {
    let verify_ms = 30.0 + 8.0 * (rows as f64 - 1.0);
    let io_ms = (flash_ms - verify_ms).max(0.0) + 0.05 * verify_ms.min(flash_ms);
    PassCost { rows, leaves: 1, cached: 100, verify_ms, io_ms, read_ms: flash_ms, ..PassCost::default() }
}

/// What is grown where reading the streamed layers takes `flash_ms`, after passes of some sizes were measured.
fn grown(flash_ms: f64) -> Growth {
    let mut cost = CostModel::default();
    for _ in 0..4 {
        for rows in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64] {
            cost.observe(&pass(rows, flash_ms));
        }
    }
    let mut tree = DraftTree::new(0);
    let prices = cost.prices(100, 64);
    grow(&mut tree, &mut Guesses, &prices, 1.0 / prices.plain_ms(), Limits::default()).unwrap()
}

#[test]
fn slower_flash_grows_larger_trees_whose_cycles_are_foreseen() {
    let mut rows_before = 0;
    for flash_ms in [0.0, 60.0, 200.0, 500.0, 2000.0] {
        let growth = grown(flash_ms);
        let rows = growth.selected.len();
        assert!(rows >= rows_before, "{rows} rows at {flash_ms} ms, {rows_before} with faster flash");
        let measured = pass(rows, flash_ms).total_ms();
        assert!((growth.pass_ms / measured - 1.0).abs() < 0.15, "{} ms foreseen, {measured} ms", growth.pass_ms);
        rows_before = rows;
    }
    assert!(grown(0.0).selected.len() < 8, "in memory every row costs");
    assert_eq!(grown(2000.0).selected.len(), 64, "rows that reading hides are free");
}
