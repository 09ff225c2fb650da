//! One measured quantity as a function of the number of rows: what was seen, made monotone, and read between the points.
//!
//! A pass over more rows never costs less, so measurements that say otherwise are noise: medians of recent windows take out the
//! outliers, isotonic regression (pool adjacent violators; Barlow et al. 1972) the rest; and one measurement alone is not believed
//! against its neighbours. Row counts not yet seen are interpolated between their neighbours, or extrapolated beyond the last, in
//! both cases with a small penalty, as Lever does for unseen shapes (arXiv 2605.16786, section 2.1).
//!
//! Deliberately not here: what is measured, in which unit, and what it is used for.

use std::collections::BTreeMap;

/// Measurements kept per row count: enough for a median that three outliers cannot move, few enough to follow a change.
const WINDOW: usize = 9;

/// Measurements from which a row count's figure stands whatever its neighbours say.
const TRUSTED: f64 = 2.0;

/// Surcharge on row counts that were never measured, as a share of their cost beyond the nearest smaller measured one.
const UNSEEN_PENALTY: f64 = 0.05;

/// Cost of a row beyond the first as a share of the first's, where only one row count has been measured: between own kernels
/// (0.06–0.15) and ggml's (0.3–1.0), so that sure candidates are worth a try and doubtful ones are not.
const PRIOR_SLOPE: f64 = 0.25;

/// The most recent measurements of one thing.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Window(Vec<f64>);

impl Window {
    /// A window that holds one value, which real measurements soon outvote.
    pub fn seeded(value: f64) -> Self {
        let mut window = Self::default();
        window.push(value);
        window
    }

    /// Adds a measurement; the oldest leaves when the window is full. Values that are not finite or negative are ignored.
    pub fn push(&mut self, value: f64) {
        if !(value.is_finite() && value >= 0.0) {
            return;
        }
        if self.0.len() >= WINDOW {
            self.0.remove(0);
        }
        self.0.push(value);
    }

    /// Measurements in the window.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The median; `None` if nothing was measured. The lower one of two: a cost is more often disturbed upwards.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }

    /// Keeps only what [`Window::push`] would have accepted, at most a window's worth: for values read from a file.
    pub fn sanitised(&self) -> Self {
        let mut window = Self::default();
        self.0.iter().for_each(|&value| window.push(value));
        window
    }
}

/// Measurements by row count.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Curve(BTreeMap<usize, Window>);

/// A point of a curve: a row count, its cost, and how many measurements stand behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Rows.
    pub rows: usize,
    /// Cost, in the unit of the measurements.
    pub cost: f64,
    /// Weight in the regression.
    pub weight: f64,
}

impl Curve {
    /// Adds a measurement of `cost` at `rows` rows (at least one).
    pub fn observe(&mut self, rows: usize, cost: f64) {
        self.0.entry(rows.max(1)).or_default().push(cost);
    }

    /// The window at exactly `rows` rows.
    pub fn window(&self, rows: usize) -> Option<&Window> {
        self.0.get(&rows).filter(|window| !window.is_empty())
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Window::is_empty)
    }

    /// The fewest rows that were measured.
    pub fn fewest_rows(&self) -> Option<usize> {
        self.0.iter().find(|(_, window)| !window.is_empty()).map(|(&rows, _)| rows)
    }

    /// The most rows that were measured.
    pub fn most_rows(&self) -> Option<usize> {
        self.0.iter().rev().find(|(_, window)| !window.is_empty()).map(|(&rows, _)| rows)
    }

    /// The medians, by rising row count.
    pub fn points(&self) -> Vec<Point> {
        let point = |(&rows, window): (&usize, &Window)| {
            window.median().map(|cost| Point { rows, cost, weight: window.len() as f64 })
        };
        self.0.iter().filter_map(point).collect()
    }

    /// Keeps sound measurements of at most `max_rows` rows: for curves read from a file.
    pub fn sanitised(&self, max_rows: usize) -> Self {
        let sound = self.0.range(1..=max_rows).map(|(&rows, window)| (rows, window.sanitised()));
        Self(sound.filter(|(_, window)| !window.is_empty()).collect())
    }

    /// Cost by row count, `[max_rows + 1]` (index 0 is 0): non-decreasing. All zero if nothing was measured.
    pub fn table(&self, max_rows: usize) -> Vec<f64> {
        table(&self.points(), max_rows)
    }
}

/// Cost by row count from points by rising row count, `[max_rows + 1]`: fitted, interpolated, extrapolated, non-decreasing.
pub fn table(points: &[Point], max_rows: usize) -> Vec<f64> {
    let fitted = isotonic(&doubted(points));
    let mut table: Vec<f64> = (0..=max_rows).map(|rows| if rows == 0 { 0.0 } else { read(&fitted, rows) }).collect();
    // The penalty for unseen shapes may lift a point above its measured right-hand neighbour; the cheaper word stands.
    for rows in (1..max_rows).rev() {
        table[rows] = table[rows].min(table[rows + 1]);
    }
    table
}

/// One measurement alone may be an outlier: where it says more than its neighbours that were measured oftener lead to expect, they
/// stand until a second one says so too. Otherwise a shape that was disturbed when it was first tried would not be tried again.
fn doubted(points: &[Point]) -> Vec<Point> {
    let trusted: Vec<Point> =
        isotonic(&points.iter().copied().filter(|point| point.weight >= TRUSTED).collect::<Vec<_>>());
    let within = trusted.first().map_or(0, |p| p.rows)..trusted.last().map_or(0, |p| p.rows);
    let believe = |point: &Point| match point.weight < TRUSTED && within.contains(&point.rows) {
        true => Point { cost: point.cost.min(read(&trusted, point.rows)), ..*point },
        false => *point,
    };
    points.iter().map(believe).collect()
}

/// Least-squares non-decreasing fit: neighbours that fall are pooled into their weighted mean.
fn isotonic(points: &[Point]) -> Vec<Point> {
    let mut blocks: Vec<(Point, usize)> = Vec::with_capacity(points.len());
    for &point in points {
        let mut block = (point, 1);
        while let Some(&(last, n)) = blocks.last().filter(|(last, _)| last.cost > block.0.cost) {
            let weight = last.weight + block.0.weight;
            let cost = (last.cost * last.weight + block.0.cost * block.0.weight) / weight;
            block = (Point { rows: block.0.rows, cost, weight }, n + block.1);
            blocks.pop();
        }
        blocks.push(block);
    }
    let costs = blocks.iter().flat_map(|&(block, n)| std::iter::repeat_n(block.cost, n));
    points.iter().zip(costs).map(|(&point, cost)| Point { cost, ..point }).collect()
}

/// The cost at `rows` from fitted points.
fn read(points: &[Point], rows: usize) -> f64 {
    let after = points.partition_point(|point| point.rows < rows);
    let Some(first) = points.first() else { return 0.0 };
    match points.get(after) {
        Some(point) if point.rows == rows => point.cost,
        // Fewer rows than ever measured cost at most as much as the fewest.
        Some(point) if after == 0 => point.cost,
        Some(right) => {
            let left = points[after - 1];
            let share = (rows - left.rows) as f64 / (right.rows - left.rows) as f64;
            (left.cost + (right.cost - left.cost) * share * (1.0 + UNSEEN_PENALTY)).min(right.cost)
        }
        None => {
            let last = points[points.len() - 1];
            let slope = match points.len() {
                1 => PRIOR_SLOPE * last.cost / last.rows as f64,
                n => last_slope(&points[..n]).max((last.cost - first.cost) / (last.rows - first.rows) as f64),
            };
            last.cost + slope * (rows - last.rows) as f64 * (1.0 + UNSEEN_PENALTY)
        }
    }
}

/// Cost per row between the last two points.
fn last_slope(points: &[Point]) -> f64 {
    let [.., a, b] = points else { return 0.0 };
    (b.cost - a.cost) / (b.rows - a.rows) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curve(points: &[(usize, f64)]) -> Curve {
        let mut curve = Curve::default();
        for &(rows, cost) in points {
            curve.observe(rows, cost);
        }
        curve
    }

    #[test]
    fn the_median_ignores_outliers_and_follows_a_change() {
        let mut window = Window::default();
        assert_eq!(window.median(), None);
        for value in [10.0, 500.0, 10.0, 11.0, f64::NAN, -3.0, 900.0, 10.0, 9.0] {
            window.push(value);
        }
        assert_eq!(window.len(), 7);
        assert_eq!(window.median(), Some(10.0));
        (0..5).for_each(|_| window.push(20.0));
        assert_eq!(window.median(), Some(20.0));
    }

    #[test]
    fn pools_what_falls_and_keeps_what_rises() {
        let table = curve(&[(1, 10.0), (2, 30.0), (3, 20.0), (4, 40.0)]).table(4);
        assert_eq!(table, [0.0, 10.0, 25.0, 25.0, 40.0]);
    }

    #[test]
    fn pools_backwards_as_far_as_needed() {
        let fit = isotonic(&curve(&[(1, 4.0), (2, 5.0), (3, 6.0), (4, 1.0)]).points());
        assert_eq!(fit.iter().map(|p| p.cost).collect::<Vec<_>>(), [4.0; 4]);
    }

    #[test]
    fn reads_between_and_beyond_with_a_penalty() {
        let table = curve(&[(2, 10.0), (4, 20.0), (8, 40.0)]).table(10);
        assert_eq!(table[1], 10.0, "fewer rows than measured cost at most as much");
        assert_eq!(curve(&[(4, 20.0), (2, 10.0)]).fewest_rows(), Some(2));
        assert_eq!(table[3], 15.25);
        assert_eq!(table[8], 40.0);
        assert!((table[10] - (40.0 + 2.0 * 5.0 * 1.05)).abs() < 1e-9);
    }

    #[test]
    fn one_point_alone_uses_the_prior_slope() {
        let table = curve(&[(1, 100.0)]).table(2);
        assert!((table[2] - 126.25).abs() < 1e-9);
        assert_eq!(Curve::default().table(2), [0.0; 3]);
    }

    #[test]
    fn one_measurement_alone_is_doubted_where_its_neighbours_say_less() {
        let known = [(1, 10.0), (1, 10.0), (16, 40.0), (16, 40.0)];
        let table = |extra: &[(usize, f64)]| curve(&[&known, extra].concat()).table(16);
        let line = table(&[])[8];
        assert_eq!(table(&[(8, 39.0)])[8], line, "it may have been disturbed");
        assert_eq!(table(&[(8, 12.0)])[8], 12.0, "nothing makes a pass faster than it is");
        assert_eq!(table(&[(8, 39.0), (8, 39.0)])[8], 39.0, "twice is no accident");
        assert_eq!(curve(&[(1, 10.0), (1, 10.0), (8, 39.0)]).table(8)[8], 39.0, "nothing is known beyond");
    }

    #[test]
    fn a_damaged_file_is_cleaned() {
        let text = r#"{"0":[1.0],"2":[5.0,-1.0,6.0],"3":[],"9000":[1.0]}"#;
        let read: Curve = serde_json::from_str(text).unwrap();
        assert_eq!(read.sanitised(64), curve(&[(2, 5.0), (2, 6.0)]));
    }

    proptest! {
        #[test]
        fn tables_never_fall(points in prop::collection::vec((1usize..40, 0.0f64..1e6), 0..60), max in 1usize..80) {
            let table = curve(&points).table(max);
            prop_assert_eq!(table.len(), max + 1);
            for pair in table.windows(2) {
                prop_assert!(pair[0] <= pair[1]);
            }
            prop_assert!(table.iter().all(|c| c.is_finite()));
        }

        #[test]
        fn a_rising_curve_is_kept_as_it_is(steps in prop::collection::vec(0.0f64..10.0, 1..20)) {
            let mut cost = 1.0;
            let points: Vec<_> = steps.iter().enumerate().map(|(i, s)| { cost += s; (i + 1, cost) }).collect();
            let table = curve(&points).table(points.len());
            for (rows, cost) in points {
                prop_assert_eq!(table[rows], cost);
            }
        }
    }
}
