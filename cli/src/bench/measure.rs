//! Interleaved rounds of prefill and decode on several executors, and the medians.
//!
//! Whatever slows the machine for a while slows all contestants: each round runs every one of them, in an order that turns
//! from round to round, and only medians count. The tokens are fixed pseudo-random ones, the same for all, so nothing depends
//! on what a model says. Deliberately not known here: where the executors come from.

use fulcrum::executor::{Executor, Row};
use fulcrum::{Cancel, Result, Token};
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Tokens of the prompt.
    pub(crate) prefill: usize,
    /// Tokens decoded one by one after it.
    pub(crate) decode: usize,
    /// Rounds that count, after one that does not.
    pub(crate) rounds: usize,
}

/// One executor under test.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) executor: Box<dyn Executor>,
}

/// The medians of one executor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) prefill: Duration,
    pub(crate) decode: Duration,
}

/// Runs all rounds and gives each contestant's medians, in the order given. `after_round` is told how many are done.
pub(crate) fn measure(
    contestants: &mut [Contestant],
    load: Load,
    mut after_round: impl FnMut(usize),
) -> Result<Vec<Figures>> {
    let mut times = vec![(Vec::new(), Vec::new()); contestants.len()];
    for round in 0..=load.rounds {
        for turn in 0..contestants.len() {
            let index = (turn + round) % contestants.len();
            let (prefill, decode) = one_round(contestants[index].executor.as_mut(), load)?;
            // The first round warms caches, page tables and thread pools.
            if round > 0 {
                times[index].0.push(prefill);
                times[index].1.push(decode);
            }
        }
        after_round(round);
    }
    let figures = contestants.iter().zip(times).map(|(contestant, (prefill, decode))| Figures {
        name: contestant.name,
        prefill: median(prefill),
        decode: median(decode),
    });
    Ok(figures.collect())
}

/// Time to the logits after the prompt, and time of the tokens after it.
fn one_round(executor: &mut dyn Executor, load: Load) -> Result<(Duration, Duration)> {
    let shape = executor.shape().clone();
    let tokens = tokens(shape.n_vocab, load.prefill + load.decode);
    let (prompt, rest) = tokens.split_at(load.prefill);
    let mut logits = vec![0.0; shape.n_vocab];
    executor.truncate(0)?;

    let start = Instant::now();
    let mut chunks = prompt.chunks(shape.max_rows).peekable();
    while let Some(chunk) = chunks.next() {
        let wanted = if chunks.peek().is_none() { Some(logits.as_mut_slice()) } else { None };
        pass(executor, chunk, wanted)?;
    }
    let prefill = start.elapsed();

    let start = Instant::now();
    for token in rest {
        pass(executor, &[*token], Some(&mut logits))?;
    }
    Ok((prefill, start.elapsed()))
}

/// Reads `tokens` as a chain, writes the logits of the last where they are wanted, and commits all.
fn pass(executor: &mut dyn Executor, tokens: &[Token], logits: Option<&mut [f32]>) -> Result<()> {
    let path: Vec<u32> = (0..).take(tokens.len()).collect();
    let last = path.last().copied();
    let row = |(&i, &token): (&u32, &Token)| Row {
        token,
        parent: i.checked_sub(1),
        wants_logits: Some(i) == last && logits.is_some(),
    };
    let rows: Vec<Row> = path.iter().zip(tokens).map(row).collect();
    executor.begin(&rows)?;
    executor.run(executor.shape().n_layers, &Cancel::new())?;
    if let (Some(logits), Some(last)) = (logits, last) {
        executor.project(&[last], logits)?;
    }
    executor.commit(&path)
}

/// Reproducible tokens: a linear congruential generator (Knuth, MMIX), the high bits.
fn tokens(n_vocab: usize, n: usize) -> Vec<Token> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Token::try_from((state >> 33) % n_vocab as u64).unwrap_or(0)
    };
    (0..n).map(next).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    match times.len() {
        0 => Duration::ZERO,
        n if n % 2 == 1 => times[n / 2],
        n => (times[n / 2 - 1] + times[n / 2]) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulcrum::executor::Weights;
    use fulcrum::executor::scripted::{Cost, Rule, Script, ScriptedWeights};
    use std::sync::Arc;

    fn model(pass_ms: u64) -> Arc<ScriptedWeights> {
        let cost = Cost { pass: Duration::from_millis(pass_ms), real: true, ..Cost::default() };
        Script::new(Rule::next_token(50, |_| 7)).max_rows(8).cost(cost).weights()
    }

    #[test]
    fn every_round_reads_the_prompt_in_chunks_and_decodes_one_by_one() {
        let weights = model(0);
        let load = Load { prefill: 20, decode: 5, rounds: 2 };
        let mut contestants = [Contestant { name: "staged", executor: weights.executor(25).unwrap() }];
        let mut rounds = Vec::new();
        measure(&mut contestants, load, |round| rounds.push(round)).unwrap();
        let tally = weights.tally();
        assert_eq!(rounds, [0, 1, 2]);
        assert_eq!(tally.passes, 3 * (3 + 5));
        assert_eq!(tally.committed, 3 * 25);
        assert_eq!(tally.projected, 3 * (1 + 5), "only the prompt's last row and the decoded ones");
    }

    #[test]
    fn the_slower_contestant_has_the_longer_time() {
        let load = Load { prefill: 8, decode: 4, rounds: 3 };
        let contestant = |name, ms| Contestant { name, executor: model(ms).executor(12).unwrap() };
        let figures = measure(&mut [contestant("slow", 4), contestant("fast", 1)], load, |_| ()).unwrap();
        assert_eq!(figures[0].name, "slow");
        assert!(figures[0].decode > figures[1].decode * 2, "{figures:?}");
        assert!(figures[0].prefill >= Duration::from_millis(4));
    }

    #[test]
    fn medians_ignore_outliers() {
        let ms = |values: &[u64]| values.iter().map(|&v| Duration::from_millis(v)).collect();
        assert_eq!(median(ms(&[3, 900, 1])), Duration::from_millis(3));
        assert_eq!(median(ms(&[2, 4])), Duration::from_millis(3));
    }

    #[test]
    fn tokens_are_in_the_vocabulary_and_always_the_same() {
        assert!(tokens(50, 1000).iter().all(|&token| token < 50));
        assert_eq!(tokens(32_000, 8), tokens(32_000, 8));
        assert_ne!(tokens(32_000, 2)[0], tokens(32_000, 2)[1]);
    }
}
