//! What every executor promises, as tests of any executor: run [`contract`] on yours.
//!
//! Each law compares the executor with itself: the same tokens in another shape, after a detour, or in a fresh instance. That it
//! computes the right model is the parity tests' business.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::cast_possible_truncation, unreachable_pub)]

use fulcrum::executor::{Executor, Row};
use fulcrum::{Cancel, ErrorKind, Result, Token};

/// An executor to be judged. `make` gives a new one, empty, with at least [`CELLS`] cells and passes of at least [`ROWS`] rows
/// with at least [`LEAVES`] leaves; all on the same weights.
pub struct Subject<'a> {
    pub make: &'a dyn Fn() -> Box<dyn Executor>,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// How far two logits of the same row may be apart, relative to the row's largest.
    pub tolerance: f32,
    /// Leaves that the executor runs in one pass: 1 for models with a running state.
    pub max_leaves: usize,
}

/// Cells that the laws need.
pub const CELLS: usize = 96;
/// Rows of a pass that the laws need.
pub const ROWS: usize = 24;
/// Leaves of a pass that the laws use, where trees run at all.
pub const LEAVES: usize = 16;

/// Runs all laws and says which one is broken.
pub fn contract(subject: &Subject<'_>) {
    type Law = (&'static str, fn(&Subject<'_>));
    let chains: [Law; 9] = [
        ("the shape is sound", shape_is_sound),
        ("one batch, chunks and token by token agree", batches_agree),
        ("a rollback leaves no trace", rollback_leaves_no_trace),
        ("a prefix of a chain can be committed", prefixes_can_be_committed),
        ("a truncated history is as if it had never been longer", truncation_forgets),
        ("rows are projected in any order, and only where they may be", projection),
        ("the context fills to the last cell and not beyond", capacity),
        ("a cancelled pass does no harm", cancel),
        ("what is against the rules is refused and does no harm", misuse),
    ];
    let trees: [Law; 3] = [
        ("rows of a tree see their own path only", tree_rows_see_their_path),
        ("after any committed path the rest goes on as a chain", committed_paths_go_on),
        ("dropped rows do not disturb the others", dropped_rows),
    ];
    let trees = if subject.max_leaves >= LEAVES { &trees[..] } else { &[] };
    for (name, law) in chains.iter().chain(trees) {
        eprintln!("law: {name}");
        law(subject);
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

impl Subject<'_> {
    fn tokens(&self, seed: u64, n: usize) -> Vec<Token> {
        let mut numbers = Numbers(seed);
        (0..n).map(|_| numbers.below(self.n_vocab) as Token).collect()
    }

    /// The logits after each of `tokens`, from an executor that reads them in one chain and has done nothing else.
    fn reference(&self, tokens: &[Token]) -> Vec<Vec<f32>> {
        let mut executor = (self.make)();
        tokens.chunks(ROWS).flat_map(|chunk| feed(&mut *executor, chunk)).collect()
    }

    /// The logits after the last of `tokens`, from `executor`, which has read nothing but chains. Making one executor for every
    /// row of every tree would take minutes.
    fn last_reference(&self, executor: &mut dyn Executor, tokens: &[Token]) -> Vec<f32> {
        executor.truncate(0).unwrap();
        tokens.chunks(ROWS).flat_map(|chunk| feed(executor, chunk)).last().unwrap()
    }

    fn assert_same(&self, got: &[f32], want: &[f32], what: &str) {
        let largest = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let apart = got.iter().zip(want).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(got.iter().all(|x| x.is_finite()), "{what}: not finite");
        assert!(apart <= self.tolerance * largest, "{what}: {apart} apart, the largest logit is {largest}");
    }

    fn assert_all_same(&self, got: &[Vec<f32>], want: &[Vec<f32>], what: &str) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (row, (got, want)) in got.iter().zip(want).enumerate() {
            self.assert_same(got, want, &format!("{what}, row {row}"));
        }
    }
}

fn chain(tokens: &[Token]) -> Vec<Row> {
    let parents = std::iter::once(None).chain((0..).map(Some));
    tokens.iter().zip(parents).map(|(&token, parent)| Row { token, parent, wants_logits: true }).collect()
}

fn run(executor: &mut dyn Executor, cancel: &Cancel) -> Result<()> {
    executor.shape().boundaries.clone().into_iter().try_for_each(|boundary| executor.run(boundary, cancel))
}

/// Begins and runs `rows` and returns the logits of those that want them.
fn pass(executor: &mut dyn Executor, rows: &[Row]) -> Vec<Vec<f32>> {
    executor.begin(rows).unwrap();
    run(executor, &Cancel::new()).unwrap();
    (0u32..).zip(rows).filter(|(_, row)| row.wants_logits).map(|(index, _)| project(executor, index)).collect()
}

fn project(executor: &mut dyn Executor, row: u32) -> Vec<f32> {
    let mut logits = vec![f32::NAN; executor.shape().n_vocab];
    executor.project(&[row], &mut logits).unwrap();
    logits
}

/// Reads `tokens` as history and returns the logits after each.
fn feed(executor: &mut dyn Executor, tokens: &[Token]) -> Vec<Vec<f32>> {
    let logits = pass(executor, &chain(tokens));
    executor.commit(&(0..tokens.len() as u32).collect::<Vec<_>>()).unwrap();
    logits
}

/// A tree of `n` rows with at most [`LEAVES`] leaves.
fn tree(numbers: &mut Numbers, n: usize, n_vocab: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for index in 0..n {
        let is_leaf = |row: usize| rows.iter().all(|other| other.parent != Some(row as u32));
        let n_leaves = (0..index).filter(|&row| is_leaf(row)).count();
        let pick = numbers.below(index + 1);
        // Row `index` itself stands for the history. A leaf may always grow; a new branch needs a leaf to spare.
        let branches = pick == index || !is_leaf(pick);
        let parent = match branches && n_leaves >= LEAVES {
            true => (0..index).find(|&row| is_leaf(row)),
            false => (pick < index).then_some(pick),
        };
        let token = numbers.below(n_vocab) as Token;
        rows.push(Row { token, parent: parent.map(|parent| parent as u32), wants_logits: true });
    }
    rows
}

/// The rows from a root down to `row`.
fn path_to(rows: &[Row], row: u32) -> Vec<u32> {
    let mut path: Vec<u32> = std::iter::successors(Some(row), |&row| rows[row as usize].parent).collect();
    path.reverse();
    path
}

fn tokens_of(rows: &[Row], path: &[u32]) -> Vec<Token> {
    path.iter().map(|&row| rows[row as usize].token).collect()
}

fn shape_is_sound(subject: &Subject<'_>) {
    let executor = (subject.make)();
    let shape = executor.shape();
    assert!(shape.n_cells >= CELLS && shape.max_rows >= ROWS && shape.n_vocab == subject.n_vocab, "{shape:?}");
    assert!(shape.boundaries.is_sorted_by(|a, b| a < b), "{shape:?}");
    assert_eq!(shape.boundaries.last(), Some(&shape.n_layers));
    assert!(executor.is_empty());
}

fn batches_agree(subject: &Subject<'_>) {
    let tokens = subject.tokens(1, ROWS);
    let want = subject.reference(&tokens);
    assert_ne!(want[0], want[1], "the logits do not depend on the tokens");
    for size in [1, 5, ROWS - 1] {
        let mut executor = (subject.make)();
        let got: Vec<_> = tokens.chunks(size).flat_map(|chunk| feed(&mut *executor, chunk)).collect();
        assert_eq!(executor.len(), tokens.len());
        subject.assert_all_same(&got, &want, &format!("in pieces of {size}"));
    }
}

fn rollback_leaves_no_trace(subject: &Subject<'_>) {
    let tokens = subject.tokens(2, 20);
    let want = subject.reference(&tokens);
    let mut executor = (subject.make)();
    executor.rollback();
    pass(&mut *executor, &chain(&subject.tokens(3, 7)));
    executor.rollback();
    executor.rollback();
    assert!(executor.is_empty());
    feed(&mut *executor, &tokens[..10]);
    for n in [1, 7, ROWS] {
        pass(&mut *executor, &chain(&subject.tokens(4, n)));
        executor.rollback();
        executor.begin(&chain(&tokens[..3])).unwrap();
        executor.rollback();
        pass(&mut *executor, &chain(&tokens[..3]));
        executor.commit(&[]).unwrap();
        assert_eq!(executor.len(), 10);
    }
    subject.assert_all_same(&feed(&mut *executor, &tokens[10..]), &want[10..], "after rollbacks");
}

fn prefixes_can_be_committed(subject: &Subject<'_>) {
    let tokens = subject.tokens(5, 12);
    let want = subject.reference(&tokens);
    let mut executor = (subject.make)();
    feed(&mut *executor, &tokens[..4]);
    let mut rows = chain(&tokens[4..9]);
    rows.extend(
        chain(&subject.tokens(6, 3))
            .into_iter()
            .map(|row| Row { parent: Some(row.parent.map_or(4, |p| p + 5)), ..row }),
    );
    pass(&mut *executor, &rows);
    executor.commit(&[0, 1, 2, 3, 4]).unwrap();
    assert_eq!(executor.len(), 9);
    subject.assert_all_same(&feed(&mut *executor, &tokens[9..]), &want[9..], "after a prefix");
}

fn truncation_forgets(subject: &Subject<'_>) {
    let (tokens, others) = (subject.tokens(7, 20), subject.tokens(8, 20));
    let want = subject.reference(&tokens);
    let mut executor = (subject.make)();
    feed(&mut *executor, &tokens[..8]);
    feed(&mut *executor, &others[..9]);
    executor.truncate(17).unwrap();
    executor.truncate(8).unwrap();
    assert_eq!(executor.len(), 8);
    subject.assert_all_same(&feed(&mut *executor, &tokens[8..]), &want[8..], "after truncating to 8");
    executor.truncate(0).unwrap();
    assert!(executor.is_empty());
    subject.assert_all_same(&feed(&mut *executor, &tokens), &want, "after truncating to nothing");
}

fn projection(subject: &Subject<'_>) {
    let tokens = subject.tokens(9, 6);
    let want = subject.reference(&tokens);
    let mut rows = chain(&tokens);
    rows[1].wants_logits = false;
    rows[3].wants_logits = false;
    let mut executor = (subject.make)();
    let n_vocab = subject.n_vocab;
    executor.begin(&rows).unwrap();
    let mut logits = vec![0.0; 3 * n_vocab];
    assert!(is_misuse(executor.project(&[0], &mut logits[..n_vocab])), "projected before the run");
    run(&mut *executor, &Cancel::new()).unwrap();
    executor.project(&[5, 0, 2], &mut logits).unwrap();
    for (got, row) in logits.chunks(n_vocab).zip([5, 0, 2]) {
        subject.assert_same(got, &want[row], "out of order");
    }
    subject.assert_same(&project(&mut *executor, 4), &want[4], "a second time");
    executor.project(&[], &mut []).unwrap();
    assert!(is_misuse(executor.project(&[1], &mut logits[..n_vocab])), "a row without wants_logits");
    assert!(is_misuse(executor.project(&[6], &mut logits[..n_vocab])), "a row that does not exist");
    assert!(is_misuse(executor.project(&[0], &mut logits)), "a buffer of another size");
    executor.commit(&[0, 1, 2, 3, 4, 5]).unwrap();
    assert!(is_misuse(executor.project(&[0], &mut logits[..n_vocab])), "after the pass");
}

fn capacity(subject: &Subject<'_>) {
    let mut executor = (subject.make)();
    let n_cells = executor.shape().n_cells;
    let tokens = subject.tokens(10, n_cells);
    for chunk in tokens.chunks(ROWS) {
        feed(&mut *executor, chunk);
    }
    assert_eq!(executor.len(), n_cells);
    let full =
        |result: Result<()>| matches!(result.map_err(fulcrum::Error::into_kind), Err(ErrorKind::ContextFull { .. }));
    assert!(full(executor.begin(&chain(&tokens[..1]))));
    executor.truncate(n_cells - 2).unwrap();
    assert!(full(executor.begin(&chain(&tokens[..3]))));
    let want = subject.reference(&tokens);
    let got = feed(&mut *executor, &tokens[n_cells - 2..]);
    subject.assert_all_same(&got, &want[n_cells - 2..], "in the last cells");
}

fn cancel(subject: &Subject<'_>) {
    let tokens = subject.tokens(11, 12);
    let want = subject.reference(&tokens);
    let mut executor = (subject.make)();
    feed(&mut *executor, &tokens[..6]);
    let raised = Cancel::new();
    raised.cancel();
    executor.begin(&chain(&tokens[..5])).unwrap();
    assert!(run(&mut *executor, &raised).is_err_and(|error| error.is_cancelled()));
    executor.rollback();
    assert_eq!(executor.len(), 6);
    // Raised while the pass runs, at no particular moment: it ends in either way.
    for delay in [0, 20, 50, 100, 200] {
        let cancel = Cancel::new();
        executor.begin(&chain(&subject.tokens(12, ROWS))).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_micros(delay));
                cancel.cancel();
            });
            if let Err(error) = run(&mut *executor, &cancel) {
                assert!(error.is_cancelled(), "{error}");
            }
        });
        executor.rollback();
    }
    subject.assert_all_same(&feed(&mut *executor, &tokens[6..]), &want[6..], "after cancelled passes");
}

fn is_misuse(result: Result<()>) -> bool {
    matches!(result.map_err(fulcrum::Error::into_kind), Err(ErrorKind::Misuse { .. }))
}

fn misuse(subject: &Subject<'_>) {
    let tokens = subject.tokens(13, 12);
    let want = subject.reference(&tokens);
    let mut executor = (subject.make)();
    let executor = &mut *executor;
    let shape = executor.shape().clone();
    feed(executor, &tokens[..6]);
    let row = |token, parent| Row { token, parent, wants_logits: true };

    assert!(is_misuse(executor.begin(&[])), "no rows");
    assert!(is_misuse(executor.begin(&vec![row(0, None); shape.max_rows + 1])), "too many rows");
    assert!(is_misuse(executor.begin(&[row(shape.n_vocab as Token, None)])), "a token beyond the vocabulary");
    assert!(is_misuse(executor.begin(&[row(Token::MAX, None)])), "a token beyond all numbers");
    assert!(is_misuse(executor.begin(&[row(0, Some(0))])), "its own parent");
    assert!(is_misuse(executor.begin(&[row(0, None), row(0, Some(2)), row(0, None)])), "a later parent");
    assert!(is_misuse(run(executor, &Cancel::new())), "run without a pass");
    assert!(is_misuse(executor.keep(&[0])), "keep without a pass");
    assert!(is_misuse(executor.commit(&[])), "commit without a pass");
    assert!(is_misuse(executor.truncate(7)), "truncate beyond the history");

    executor.begin(&chain(&tokens[6..9])).unwrap();
    assert!(is_misuse(executor.begin(&chain(&tokens[6..9]))), "a second pass");
    assert!(is_misuse(executor.truncate(2)), "truncate in a pass");
    assert!(is_misuse(executor.run(shape.n_layers + 1, &Cancel::new())), "not a boundary");
    assert!(is_misuse(executor.commit(&[0])), "commit before the run");
    run(executor, &Cancel::new()).unwrap();
    assert!(is_misuse(executor.commit(&[1])), "not from a root");
    assert!(is_misuse(executor.commit(&[0, 2])), "a gap");
    assert!(is_misuse(executor.commit(&[0, 1, 2, 3])), "beyond the pass");
    assert!(is_misuse(executor.keep(&[])), "keep nothing");
    assert!(is_misuse(executor.keep(&[1, 2])), "keep without the parent");
    assert!(is_misuse(executor.keep(&[1, 0])), "not ascending");
    executor.commit(&[0, 1, 2]).unwrap();
    subject.assert_all_same(&feed(executor, &tokens[9..]), &want[9..], "after all that");
}

fn tree_rows_see_their_path(subject: &Subject<'_>) {
    let mut numbers = Numbers(14);
    let mut reference = (subject.make)();
    for n_history in [0, 1, 9] {
        for n in [2, 9, ROWS] {
            let history = subject.tokens(n as u64, n_history);
            let mut executor = (subject.make)();
            if n_history > 0 {
                feed(&mut *executor, &history);
            }
            let rows = tree(&mut numbers, n, subject.n_vocab);
            let got = pass(&mut *executor, &rows);
            for row in 0..n as u32 {
                let mut tokens = history.clone();
                tokens.extend(tokens_of(&rows, &path_to(&rows, row)));
                let want = subject.last_reference(&mut *reference, &tokens);
                subject.assert_same(&got[row as usize], &want, &format!("{n_history}+{n}, row {row}"));
            }
        }
    }
}

fn committed_paths_go_on(subject: &Subject<'_>) {
    let mut reference = (subject.make)();
    for seed in 0..6 {
        let mut numbers = Numbers(15 + seed);
        let mut executor = (subject.make)();
        let mut history = Vec::new();
        while history.len() + ROWS <= CELLS && history.len() < 40 {
            let n = 1 + numbers.below(ROWS);
            let rows = tree(&mut numbers, n, subject.n_vocab);
            let got = pass(&mut *executor, &rows);
            let mut path = path_to(&rows, numbers.below(n) as u32);
            path.truncate(1 + numbers.below(path.len()));
            if numbers.below(5) == 0 {
                executor.rollback();
                continue;
            }
            executor.commit(&path).unwrap();
            history.extend(tokens_of(&rows, &path));
            assert_eq!(executor.len(), history.len());
            let want = subject.last_reference(&mut *reference, &history);
            let last = *path.last().unwrap() as usize;
            subject.assert_same(&got[last], &want, &format!("seed {seed}, {} tokens", history.len()));
            if numbers.below(4) == 0 {
                let len = numbers.below(history.len());
                executor.truncate(len).unwrap();
                history.truncate(len);
            }
        }
    }
}

fn dropped_rows(subject: &Subject<'_>) {
    let mut executor = (subject.make)();
    let history = subject.tokens(16, 5);
    feed(&mut *executor, &history);
    // 0 ─┬─ 1 ─── 3
    //    └─ 2 ─── 4
    let parents = [None, Some(0), Some(0), Some(1), Some(2)];
    let tokens = subject.tokens(17, 5);
    let rows: Vec<Row> =
        tokens.iter().zip(parents).map(|(&token, parent)| Row { token, parent, wants_logits: true }).collect();
    let boundaries = executor.shape().boundaries.clone();
    // Dropped before the first stage, and after each but the last.
    for stage in 0..boundaries.len() {
        executor.begin(&rows).unwrap();
        for (index, &boundary) in boundaries.iter().enumerate() {
            if index == stage {
                executor.keep(&[0, 2, 4]).unwrap();
                assert!(is_misuse(executor.keep(&[0, 1])), "a row that was dropped");
            }
            executor.run(boundary, &Cancel::new()).unwrap();
        }
        let mut continued = history.clone();
        continued.extend(tokens_of(&rows, &[0, 2, 4]));
        let want = subject.reference(&continued);
        for (row, want) in [0, 2, 4].into_iter().zip(&want[5..]) {
            subject.assert_same(&project(&mut *executor, row), want, &format!("stage {stage}, row {row}"));
        }
        let mut logits = vec![0.0; executor.shape().n_vocab];
        assert!(is_misuse(executor.project(&[1], &mut logits)), "a dropped row");
        assert!(is_misuse(executor.commit(&[0, 1])), "a dropped row");
        executor.commit(&[0, 2, 4]).unwrap();
        let next = subject.tokens(18, 1);
        continued.extend(&next);
        let want = subject.reference(&continued);
        subject.assert_all_same(&feed(&mut *executor, &next), &want[8..], &format!("after stage {stage}"));
        executor.truncate(5).unwrap();
    }
}
