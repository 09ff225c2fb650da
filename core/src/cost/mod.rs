//! What a cycle costs: measured on line, predicted for the shapes that growth considers.
//!
//! A cycle is draft, verify, projection, sampling and bookkeeping. Verify is a table by rows for each bucket of cached length
//! (Lever's online table, arXiv 2605.16786, section 2.1), with a surcharge per leaf for executors that pay for leaves. A pass whose
//! weights are read from flash takes at least as long as reading them: below that rows are free, which is why slow flash grows big
//! trees, and above it reading is.
//! Shapes unseen at one cached length take the nearest length's figure, scaled by how the two compare where both were seen.
//! A *pace* common to all shapes follows heat and busy neighbours, so that shapes not run lately do not keep yesterday's price.
//!
//! Deliberately not here: clocks (durations are observations), what is verified (`growth`), when to speculate (`governor`).

pub mod curve;
mod profile;

use std::collections::{BTreeMap, VecDeque};

use crate::tree::Source;

use curve::{Curve, Point, Window, table};
pub use profile::{Profile, ProfileKey};

/// Cached positions per bucket. Attention makes passes of any few rows dearer by about the same share within one (24 to 40 % at
/// its end), which the pace follows; a bucket has to learn its shapes anew, which costs more than finer ones would tell.
const BUCKET: usize = 2048;

/// Passes whose median change against their shape's record makes the pace: two outliers among them do not move it.
const PACE_WINDOW: usize = 5;

/// Measurements of a shape before it may argue about the pace: until then the shape's own figure is the more likely error.
const PACE_MIN_SEEN: usize = 3;

/// Share of a pass from which on waiting for weights is what the pass takes. Below it computing is, and waiting a matter of turns.
const WAITS: f64 = 0.1;

/// Rows from which a pass costs in proportion to its rows, and the fewest of a prompt that say anything about that.
const WIDE: usize = 64;
const MIN_PREFILL: usize = 16;

/// One verify pass that was run, times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PassCost {
    /// Rows of the pass.
    pub rows: usize,
    /// Rows without children.
    pub leaves: usize,
    /// Committed positions before the pass.
    pub cached: usize,
    /// The transformer layers, without waiting for weights.
    pub verify_ms: f64,
    /// Waiting for weights from flash that no computation covered.
    pub io_ms: f64,
    /// The part of `verify_ms + io_ms` during which weights were being read.
    pub read_ms: f64,
    /// Rows projected, in calls of `projected_per_call` rows each.
    pub projected: usize,
    /// Rows per call of the projection: 1 on demand, all of them batched.
    pub projected_per_call: usize,
    /// The output projection, all calls.
    pub project_ms: f64,
    /// Tokens sampled.
    pub sampled: usize,
    /// Sampler chain, constraints and penalties, all tokens.
    pub sample_ms: f64,
    /// Everything else in the cycle but drafting: masks, commit, text, bookkeeping.
    pub overhead_ms: f64,
}

impl PassCost {
    /// The whole cycle without drafting, in ms.
    pub fn total_ms(&self) -> f64 {
        self.verify_ms + self.io_ms + self.project_ms + self.sample_ms + self.overhead_ms
    }
}

/// How the rows of a pass should be projected, and what both ways were expected to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Projection {
    /// All rows in one call; otherwise one row at a time along the accepted path (Lever 2.3).
    pub batched: bool,
    /// Expected ms for the expected accepted path, row by row.
    pub on_demand_ms: f64,
    /// Expected ms for all rows at once.
    pub batched_ms: f64,
}

/// Prices of one moment, at one cached length: what growth plans with. A plain value.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// Layers by rows, waiting for weights included, ms, `[max_rows + 1]`, non-decreasing.
    pub verify_ms: Vec<f64>,
    /// Projection in one call by rows, ms, `[max_rows + 1]`, non-decreasing.
    pub project_ms: Vec<f64>,
    /// Surcharge per leaf beyond the first, ms.
    pub leaf_ms: f64,
    /// Bookkeeping, paid once per cycle whatever its rows, ms.
    pub fixed_ms: f64,
    /// Per emitted token, ms.
    pub sample_ms: f64,
    /// Drafting by free sources per drafted row, ms.
    pub row_ms: f64,
}

impl Prices {
    /// Rows that the prices reach.
    pub fn max_rows(&self) -> usize {
        self.verify_ms.len().saturating_sub(1)
    }

    /// Expected ms of a cycle of `rows` rows that emits `tokens` tokens, free drafting included. Rows beyond the table cost infinity.
    pub fn cycle_ms(&self, rows: usize, leaves: usize, tokens: f64) -> f64 {
        let Some(verify) = self.verify_ms.get(rows) else { return f64::INFINITY };
        let projection = self.projection(rows, tokens);
        let leaf_ms = self.leaf_ms * leaves.saturating_sub(1) as f64;
        let row_ms = self.row_ms * rows.saturating_sub(1) as f64;
        verify + leaf_ms + projection.cheaper_ms() + self.fixed_ms + self.sample_ms * tokens + row_ms
    }

    /// Expected ms of a token decoded plainly.
    pub fn plain_ms(&self) -> f64 {
        self.cycle_ms(1, 1, 1.0)
    }

    /// Which way of projecting `rows` rows is cheaper when `tokens` of them are expected to be asked for.
    pub fn projection(&self, rows: usize, tokens: f64) -> Projection {
        let at = |rows: usize| self.project_ms.get(rows).copied().unwrap_or(f64::INFINITY);
        let on_demand_ms = at(1) * tokens.clamp(1.0, rows.max(1) as f64);
        let batched_ms = at(rows);
        Projection { batched: batched_ms < on_demand_ms, on_demand_ms, batched_ms }
    }
}

impl Projection {
    /// The smaller of the two.
    pub fn cheaper_ms(&self) -> f64 {
        self.on_demand_ms.min(self.batched_ms)
    }
}

/// All that was measured about one model on one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CostModel {
    /// Layers by bucket of cached length, at pace 1.
    verify: BTreeMap<usize, Curve>,
    project: Curve,
    /// Draft model: one batch by rows.
    draft_model: Curve,
    /// Other sources: proposing at one node.
    draft: [Window; Source::COUNT],
    leaf: Window,
    /// What a pass takes at least, however little it computes: reading its weights.
    read: Window,
    /// What stands for `read` until a pass was measured.
    prompt_read_ms: f64,
    sample: Window,
    overhead: Window,
    /// The latest passes' cost over their shape's record.
    paces: VecDeque<f64>,
}

impl CostModel {
    /// Takes a pass into account. Times that are not finite or negative are ignored.
    pub fn observe(&mut self, pass: &PassCost) {
        if pass.io_ms < WAITS * (pass.verify_ms + pass.io_ms) {
            // Computing took that long. What was read beside it was read among busy cores: that is a bound.
            let read_ms = self.read.median().map_or(pass.read_ms, |known| known.min(pass.read_ms));
            self.read.push(read_ms);
            self.observe_verify(pass, pass.verify_ms + pass.io_ms);
        } else {
            self.read.push(pass.verify_ms + pass.io_ms);
            self.observe_verify(pass, pass.verify_ms);
        }
        self.overhead.push(pass.overhead_ms);
        if pass.sampled > 0 {
            self.sample.push(pass.sample_ms / pass.sampled as f64);
        }
        if pass.projected > 0 {
            let per_call = pass.projected_per_call.clamp(1, pass.projected);
            let calls = pass.projected as f64 / per_call as f64;
            self.project.observe(per_call, pass.project_ms / calls);
        }
    }

    /// The layers of `pass` took `verify_ms` by themselves.
    fn observe_verify(&mut self, pass: &PassCost, verify_ms: f64) {
        if !(verify_ms.is_finite() && verify_ms > 0.0) {
            return;
        }
        let bucket = pass.cached / BUCKET;
        let extra_leaves = pass.leaves.saturating_sub(1) as f64;
        let known = self.verify.get(&bucket).and_then(|curve| curve.window(pass.rows));
        let known = known.filter(|window| window.len() >= PACE_MIN_SEEN).and_then(Window::median);
        if let Some(recorded) = known.filter(|&ms| ms > 0.0) {
            let without_leaves = (verify_ms - self.leaf_ms() * extra_leaves).max(0.0);
            self.observe_pace(without_leaves / recorded);
            if extra_leaves > 0.0 {
                self.leaf.push((verify_ms / self.pace() - recorded).max(0.0) / extra_leaves);
            }
        }
        let own_ms = (verify_ms - self.leaf_ms() * extra_leaves).max(0.0);
        let recorded_ms = own_ms / self.pace();
        self.verify.entry(bucket).or_default().observe(pass.rows, recorded_ms);
    }

    /// Takes `ms` for the layers of `rows` rows of a prompt behind `cached` positions into account, without waiting for weights: the
    /// far end of the curve, which bounds what trees cost before any was tried. `read_ms` went by while weights were being read: a pass
    /// of few rows will take as long.
    pub fn observe_prefill(&mut self, rows: usize, cached: usize, ms: f64, read_ms: f64) {
        self.prompt_read_ms = read_ms;
        if rows >= MIN_PREFILL && ms.is_finite() && ms > 0.0 {
            let at = rows.min(WIDE);
            let cost = ms * at as f64 / rows as f64 / self.pace();
            self.verify.entry(cached / BUCKET).or_default().observe(at, cost);
        }
    }

    fn observe_pace(&mut self, change: f64) {
        if self.paces.len() >= PACE_WINDOW {
            self.paces.pop_front();
        }
        self.paces.push_back(change);
    }

    /// Takes a batch of `rows` rows through the draft model into account, ms, catching up included.
    pub fn observe_draft_batch(&mut self, rows: usize, ms: f64) {
        self.draft_model.observe(rows, ms);
    }

    /// Takes `ms` for the candidates of `source` at one node into account.
    pub fn observe_draft(&mut self, source: Source, ms: f64) {
        self.draft[source.index()].push(ms);
    }

    /// Expected ms for the candidates of `source` at one node; 0 if never measured.
    pub fn draft_ms(&self, source: Source) -> f64 {
        self.draft[source.index()].median().unwrap_or(0.0)
    }

    /// Expected ms of a draft model batch by rows, `[max_rows + 1]`; `assumed` gives what was not measured.
    ///
    /// A draft model that has only read long prompts has said nothing about the few rows it drafts with but an upper bound; the
    /// assumption stands below it until it is tried.
    pub fn draft_batch_ms(&self, max_rows: usize, assumed: impl Fn(usize) -> f64) -> Vec<f64> {
        let measured = self.draft_model.table(max_rows).into_iter().enumerate();
        let fewest = self.draft_model.fewest_rows().unwrap_or(usize::MAX);
        measured
            .map(|(rows, ms)| match (rows < fewest, self.draft_model.is_empty()) {
                (_, true) => assumed(rows),
                (true, false) => ms.min(assumed(rows)),
                (false, false) => ms,
            })
            .collect()
    }

    /// Ms of a verify pass now over what it cost when its shape was recorded.
    pub fn pace(&self) -> f64 {
        let mut sorted: Vec<f64> = self.paces.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        match sorted.get(sorted.len() / 2) {
            Some(&pace) if sorted.len() >= PACE_WINDOW => pace.max(f64::MIN_POSITIVE),
            _ => 1.0,
        }
    }

    /// Whether a plain pass was measured: before that there is nothing to compare with.
    pub fn knows_plain(&self) -> bool {
        self.verify.values().any(|curve| curve.window(1).is_some())
    }

    /// The most rows of any pass measured; 0 before the first.
    pub fn most_rows(&self) -> usize {
        self.verify.values().filter_map(Curve::most_rows).max().unwrap_or(0)
    }

    /// Prices of passes of up to `max_rows` rows behind `cached` committed positions.
    pub fn prices(&self, cached: usize, max_rows: usize) -> Prices {
        let pace = self.pace();
        let read_ms = self.read.median().unwrap_or(self.prompt_read_ms);
        let mut verify_ms = table(&self.points_near(cached / BUCKET), max_rows);
        verify_ms.iter_mut().skip(1).for_each(|ms| *ms = (*ms * pace).max(read_ms));
        Prices {
            verify_ms,
            project_ms: self.project.table(max_rows),
            leaf_ms: self.leaf_ms(),
            fixed_ms: self.overhead.median().unwrap_or(0.0),
            sample_ms: self.sample.median().unwrap_or(0.0),
            row_ms: Source::ALL.iter().filter(|&&s| s != Source::Model).map(|&s| self.draft_ms(s)).sum(),
        }
    }

    fn leaf_ms(&self) -> f64 {
        self.leaf.median().unwrap_or(0.0) * self.pace()
    }

    /// The points of `bucket`, and for row counts not seen there those of the nearest other buckets, scaled to it.
    fn points_near(&self, bucket: usize) -> Vec<Point> {
        let mut others: Vec<(usize, Vec<Point>)> = self.verify.iter().map(|(&b, curve)| (b, curve.points())).collect();
        others.sort_by_key(|&(other, _)| other.abs_diff(bucket));
        let mut merged: BTreeMap<usize, Point> = BTreeMap::new();
        let own = others.first().filter(|(b, _)| *b == bucket).map(|(_, points)| points.clone()).unwrap_or_default();
        for (_, points) in &others {
            let ratios = ratios(&own, points);
            for &Point { rows, cost, weight } in points {
                // At the row count nearest to this one that both have.
                let nearest = ratios.iter().min_by_key(|(at, _)| at.abs_diff(rows));
                let scaled = Point { rows, cost: cost * nearest.map_or(1.0, |(_, ratio)| *ratio), weight };
                merged.entry(rows).or_insert(scaled);
            }
        }
        merged.into_values().collect()
    }
}

/// How `own` compares with `other`, both by ascending rows, at the row counts that both have.
fn ratios(own: &[Point], other: &[Point]) -> Vec<(usize, f64)> {
    let at = |rows: usize| other.binary_search_by_key(&rows, |p| p.rows).ok().map(|i| other[i].cost);
    own.iter().filter_map(|p| Some((p.rows, p.cost / at(p.rows).filter(|&cost| cost > 0.0)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ggml's and our own kernels on two Zen 4 cores, 1B shape, Q8_0, ms.
    const GGML: [(usize, f64); 6] = [(1, 26.5), (2, 54.0), (4, 63.0), (8, 96.0), (16, 170.0), (64, 556.0)];

    fn pass(rows: usize, cached: usize, verify_ms: f64) -> PassCost {
        PassCost { rows, leaves: 1, cached, verify_ms, ..PassCost::default() }
    }

    fn measured(curve: &[(usize, f64)], cached: usize) -> CostModel {
        let mut model = CostModel::default();
        for _ in 0..3 {
            curve.iter().for_each(|&(rows, ms)| model.observe(&pass(rows, cached, ms)));
        }
        model
    }

    #[test]
    fn gives_back_what_was_measured() {
        let prices = measured(&GGML, 100).prices(100, 64);
        for (rows, ms) in GGML {
            assert!((prices.verify_ms[rows] - ms).abs() < 1e-9);
        }
        assert!((prices.plain_ms() - 26.5).abs() < 1e-9);
        assert_eq!(prices.cycle_ms(65, 1, 1.0), f64::INFINITY);
    }

    #[test]
    fn a_prompt_bounds_what_trees_cost() {
        let mut model = CostModel::default();
        model.observe_prefill(512, 0, 8.0 * 259.0, 0.0);
        model.observe_prefill(4, 0, 1.0, 0.0);
        model.observe(&pass(1, 0, 34.7));
        let prices = model.prices(0, 64);
        assert!((prices.verify_ms[1] - 34.7).abs() < 1e-9 && (prices.verify_ms[64] - 259.0).abs() < 1e-9);
        assert!((57.0..70.0).contains(&prices.verify_ms[8]), "{}", prices.verify_ms[8]);
    }

    #[test]
    fn a_length_never_seen_takes_its_neighbour_scaled_where_they_meet() {
        let mut model = measured(&GGML, 100);
        assert!((model.prices(BUCKET, 8).verify_ms[8] - 96.0).abs() < 1e-9);
        for _ in 0..3 {
            model.observe(&pass(1, BUCKET, 53.0));
        }
        let prices = model.prices(BUCKET, 8);
        assert!((prices.verify_ms[1] - 53.0).abs() < 1e-9);
        assert!((prices.verify_ms[8] - 192.0).abs() < 1e-9, "one row costs twice as much there, so eight are taken to");
        assert!((model.prices(100, 8).verify_ms[8] - 96.0).abs() < 1e-9);
    }

    #[test]
    fn outliers_do_not_move_prices() {
        let mut model = measured(&GGML, 0);
        for round in 0..30 {
            let ms = if round % 5 == 4 { 900.0 } else { 26.5 };
            model.observe(&pass(1, 0, ms));
        }
        let prices = model.prices(0, 8);
        assert!((prices.verify_ms[1] / 26.5 - 1.0).abs() < 0.08, "{}", prices.verify_ms[1]);
        assert!((prices.verify_ms[8] / 96.0 - 1.0).abs() < 0.12, "{}", prices.verify_ms[8]);
    }

    #[test]
    fn heat_reaches_shapes_that_are_not_run() {
        let mut model = measured(&GGML, 0);
        (0..12).for_each(|_| model.observe(&pass(4, 0, 63.0 * 1.5)));
        let prices = model.prices(0, 16);
        assert!((prices.verify_ms[4] / (63.0 * 1.5) - 1.0).abs() < 0.02, "{}", prices.verify_ms[4]);
        assert!(prices.verify_ms[1] > 26.5 * 1.25, "{}", prices.verify_ms[1]);
    }

    #[test]
    fn a_wrong_seed_is_corrected_without_touching_the_rest() {
        let mut model = CostModel::default();
        GGML.iter().for_each(|&(rows, ms)| model.observe(&pass(rows, 0, if rows == 8 { 40.0 } else { ms })));
        (0..6).for_each(|_| model.observe(&pass(8, 0, 96.0)));
        let prices = model.prices(0, 16);
        assert!((prices.verify_ms[8] - 96.0).abs() < 1.0, "{}", prices.verify_ms[8]);
        assert!((prices.verify_ms[1] / 26.5 - 1.0).abs() < 0.1, "{}", prices.verify_ms[1]);
    }

    /// A pass that computes for `compute_ms` while its weights are read for `flash_ms`.
    fn streamed(rows: usize, compute_ms: f64, flash_ms: f64) -> PassCost {
        let io_ms = (flash_ms - compute_ms).max(0.0);
        PassCost { io_ms, read_ms: flash_ms, ..pass(rows, 0, compute_ms) }
    }

    #[test]
    fn what_a_prompt_read_is_expected_of_the_first_pass_and_measured_from_then_on() {
        let mut model = CostModel::default();
        model.observe_prefill(512, 0, 800.0, 2000.0);
        assert!((model.prices(0, 8).plain_ms() - 2000.0).abs() < 1e-6);
        model.observe(&streamed(1, 50.0, 1000.0));
        assert!((model.prices(0, 8).plain_ms() - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn rows_are_free_while_weights_are_being_read() {
        let mut model = measured(&GGML, 0);
        (0..9).for_each(|_| model.observe(&streamed(4, 63.0, 950.0)));
        let prices = model.prices(0, 64);
        assert!((prices.plain_ms() - 950.0).abs() < 1e-6);
        assert!((prices.cycle_ms(64, 1, 1.0) - 950.0).abs() < 1e-6);
    }

    #[test]
    fn passes_that_compute_for_longer_than_they_read_say_what_plain_ones_wait_for() {
        let mut model = CostModel::default();
        model.observe(&streamed(1, 93.0, 200.0));
        (0..20).for_each(|_| model.observe(&streamed(16, 232.0, 200.0)));
        let prices = model.prices(0, 16);
        assert!((prices.plain_ms() - 200.0).abs() < 1e-6, "{}", prices.plain_ms());
        assert!((prices.cycle_ms(16, 1, 1.0) - 232.0).abs() < 1e-6, "{}", prices.cycle_ms(16, 1, 1.0));
        (0..20).for_each(|_| model.observe(&streamed(16, 232.0, 120.0)));
        assert!((model.prices(0, 16).plain_ms() - 120.0).abs() < 1e-6, "faster flash is noticed");
    }

    #[test]
    fn a_pass_that_reads_among_busy_cores_says_little_of_reading_and_one_that_waits_says_all() {
        let mut model = CostModel::default();
        model.observe(&streamed(1, 93.0, 200.0));
        let busy = PassCost { read_ms: 225.0, io_ms: 8.0, ..pass(16, 0, 232.0) };
        (0..20).for_each(|_| model.observe(&busy));
        let prices = model.prices(0, 16);
        assert!((prices.plain_ms() - 200.0).abs() < 1e-6, "{}", prices.plain_ms());
        assert!((prices.cycle_ms(16, 1, 1.0) - 240.0).abs() < 1e-6, "{}", prices.cycle_ms(16, 1, 1.0));
        (0..9).for_each(|_| model.observe(&streamed(1, 93.0, 300.0)));
        assert!(
            (model.prices(0, 16).plain_ms() - 300.0).abs() < 1e-6,
            "slower flash is noticed where it is waited for"
        );
    }

    #[test]
    fn leaves_cost_where_the_executor_says_so() {
        let mut model = measured(&[(1, 20.0), (4, 30.0)], 0);
        (0..9).for_each(|_| model.observe(&PassCost { leaves: 3, ..pass(4, 0, 34.0) }));
        let prices = model.prices(0, 4);
        let surcharge = prices.cycle_ms(4, 3, 1.0) - prices.cycle_ms(4, 1, 1.0);
        assert!(surcharge > 0.5, "{surcharge}");
        assert!((prices.cycle_ms(4, 3, 1.0) - 34.0).abs() < 2.0);
    }

    #[test]
    fn what_a_draft_model_costs_by_the_row_is_assumed_until_it_is_tried() {
        let mut model = CostModel::default();
        let assumed = |rows: usize| 3.0 + rows as f64;
        assert_eq!(model.draft_batch_ms(2, assumed), [3.0, 4.0, 5.0]);
        model.observe_draft_batch(64, 20.0);
        assert_eq!(model.draft_batch_ms(2, assumed)[1], 4.0);
        assert_eq!(model.draft_batch_ms(64, assumed)[64], 20.0);
        model.observe_draft_batch(1, 2.5);
        assert_eq!(model.draft_batch_ms(2, assumed)[1], 2.5);
    }

    #[test]
    fn projects_the_cheaper_way() {
        let prices = Prices {
            verify_ms: vec![0.0, 30.0, 31.0, 32.0, 33.0],
            project_ms: vec![0.0, 4.0, 4.1, 4.2, 4.3],
            leaf_ms: 0.0,
            fixed_ms: 0.0,
            sample_ms: 0.0,
            row_ms: 0.0,
        };
        assert!(prices.projection(4, 2.5).batched);
        let dear = Prices { project_ms: vec![0.0, 4.0, 8.0, 12.0, 16.0], ..prices };
        assert_eq!(dear.projection(4, 2.5), Projection { batched: false, on_demand_ms: 10.0, batched_ms: 16.0 });
    }
}
