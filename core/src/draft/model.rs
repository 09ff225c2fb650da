//! Drafts from a small model with the target's vocabulary.
//!
//! Growth asks about a batch of frontier nodes at a time (Lever 2.3: wide frontiers are batched); the best tokens behind each
//! come back as candidates, so the draft has several branches per step and one row of the model per node asked about. Its KV
//! cache is kept in step by comparing tokens: what it has read and the path wanted agree up to some point, it is truncated there and
//! reads on. After a rejection nothing is read again but the correction.
//!
//! Between batches the cache holds the history, or its end, and the path to the best node of the last batch; a batch elsewhere
//! reads the few tokens from the branching point again.
//!
//! Of a long prompt it reads the end alone (a window, as MagicDec's and TriForce's drafts have one: arXiv 2408.11049, 2404.11912). What
//! was said further back the free sources quote for nothing. A draft model of a sixteenth of the target's size takes a twelfth of
//! prefill to read all of it, and the second token waits for that; a short answer does not make up for it.
//!
//! Vocabularies must be the same token for token: [`check_vocabulary`]. Bridging others by re-tokenising is not built: a draft
//! of other pieces rarely pays on the texts this is for.
//!
//! Deliberately not here: when it is worth asking (`growth`), and what its word is worth (`calibration`).

#[cfg(test)]
mod tests;

use super::{Answer, BatchDrafter, Candidate, Hindsight, TopK, bin};
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::{Executor, Row};
use crate::token::Token;
use crate::tokenizer::Vocabulary;
use crate::tree::{Claim, DraftTree, NodeId, Source};

/// Lower edges of the bins of a candidate's weight among the best tokens.
const WEIGHTS: [f64; 13] = [0.03, 0.06, 0.12, 0.2, 0.3, 0.42, 0.55, 0.68, 0.8, 0.9, 0.97, 0.99, 0.998];

/// Tokens of the history that are read in the same pass as the first nodes; more are read in passes of their own before.
const MAX_UNREAD: usize = 24;

/// Unread tokens that are read at most; twice as many where that keeps at least as many as are read beyond it. Where there are more, the
/// cache is emptied and begins anew with so many of the latest; it grows beyond that as the text goes on. Reading whole prompts makes
/// decoding behind them 4 % faster, and is worth it for answers of more than about 170 tokens. `speculation::model_use` mostly asks
/// for less.
const WINDOW: usize = 512;

/// Tokens with which a cache begins anew that is full in the middle of an answer: reading them takes no longer than a pass or two of the
/// target, which the next tree can bear.
const REST: usize = 128;

/// Positions that are kept free for the next tree.
const ROOM: usize = 64;

/// Fails with `InvalidOption` unless every token of the draft model's vocabulary is the same bytes in the target's.
///
/// Sizes may differ by padding: tokens beyond the smaller vocabulary are not compared and never proposed. Models that share a
/// size but not the pieces are told apart, which a comparison of sizes cannot do.
pub fn check_vocabulary(target: &dyn Vocabulary, draft: &dyn Vocabulary) -> Result<()> {
    let refuse = |reason| Err(ErrorKind::InvalidOption { option: "draft_model", reason }.into());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for token in (0..).take(target.n_tokens().min(draft.n_tokens())) {
        ours.clear();
        theirs.clear();
        target.decode_token(token, true, &mut ours);
        draft.decode_token(token, true, &mut theirs);
        if ours != theirs || target.is_end_of_generation(token) != draft.is_end_of_generation(token) {
            let (ours, theirs) = (String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
            return refuse(format!(
                "its vocabulary differs from the target's: token {token} is {theirs:?}, not {ours:?}; use a draft model of the same family"
            ));
        }
    }
    if target.n_tokens().min(draft.n_tokens()) * 10 < target.n_tokens().max(draft.n_tokens()) * 9 {
        let (ours, theirs) = (target.n_tokens(), draft.n_tokens());
        return refuse(format!(
            "its vocabulary has {theirs} tokens and the target's {ours}; use a draft model of the same family"
        ));
    }
    Ok(())
}

/// The drafter.
pub struct ModelDrafter {
    executor: Box<dyn Executor>,
    /// Tokens that both models know are below this.
    n_vocab: usize,
    history: Vec<Token>,
    /// The tokens of the history from here on are all ones that the model knows.
    known_from: usize,
    /// Unread tokens that are read at most.
    at_most: usize,
    /// Tokens of the history before the cache's first.
    skipped: usize,
    /// What the executor has committed: the history from there on up to some point, or all of it and part of a drafted path.
    cached: Vec<Token>,
    mark: usize,
    logits: Vec<f32>,
}

impl ModelDrafter {
    /// Positions that a cache has at most, however long the target's context is. A full one begins anew with the end of the text, once
    /// in some thousand tokens, and the memory that drafting takes does not grow with the context.
    pub const CELLS: usize = 2048;

    /// A drafter that has read nothing. `executor` is empty; `target_vocab` is the length of the target's rows of logits.
    pub fn new(executor: Box<dyn Executor>, target_vocab: usize) -> Self {
        let n_vocab = executor.shape().n_vocab.min(target_vocab);
        let (history, cached, logits) = (Vec::new(), Vec::new(), Vec::new());
        Self { executor, n_vocab, history, known_from: 0, at_most: WINDOW, skipped: 0, cached, mark: 0, logits }
    }

    /// The part of the history that the cache is about.
    fn window(&self) -> &[Token] {
        &self.history[self.skipped.min(self.history.len())..]
    }

    /// Tokens of the history that the cache should leave out: those it does, unless one behind them is none that the model knows, too
    /// many are unread, too few are left after a rollback, or there is no room for another tree. What was read is not given up for
    /// reading a few tokens less.
    fn to_skip(&self) -> usize {
        let n_cells = self.executor.shape().n_cells;
        let (window, rest) = (self.at_most.min(n_cells / 2), REST.min(n_cells / 4));
        let is_short = self.skipped > 0 && self.window().len() <= window.min(rest / 2);
        let is_full = self.window().len() + ROOM.min(n_cells / 8) > n_cells;
        let unread = self.n_unread_here();
        let read = self.window().len().saturating_sub(unread + 1);
        let is_worth_keeping = !is_full && unread <= 2 * window && unread <= window + read;
        let is_much = unread > window && !is_worth_keeping;
        let anew = |n: usize| self.history.len().saturating_sub(n + 1);
        let skipped = if is_short || is_much {
            anew(window)
        } else if is_full {
            anew(rest)
        } else {
            self.skipped
        };
        skipped.max(self.known_from)
    }

    fn knows(&self, token: Token) -> bool {
        (token as usize) < self.executor.shape().n_vocab
    }

    fn truncate_history(&mut self, len: usize) {
        self.history.truncate(len);
        self.known_from = self.history.iter().rposition(|&token| !self.knows(token)).map_or(0, |at| at + 1);
    }

    /// Unread tokens of the window but its last.
    fn n_unread_here(&self) -> usize {
        let read = self.cached.iter().zip(self.window()).take_while(|(a, b)| a == b).count();
        self.window().len().saturating_sub(read + 1)
    }

    /// Begins anew where that is due.
    fn slide(&mut self) -> Result<()> {
        let skipped = self.to_skip();
        if skipped != self.skipped {
            self.executor.truncate(0)?;
            self.cached.clear();
            self.skipped = skipped;
        }
        Ok(())
    }

    /// Leaves in the cache the longest common beginning of all `wanted` that is at most `limit` long, and returns its length.
    fn truncate_to_common<'a>(&mut self, wanted: impl Iterator<Item = &'a [Token]>, limit: usize) -> Result<usize> {
        let common = |path: &[Token]| self.cached.iter().zip(path).take_while(|(a, b)| a == b).count();
        let keep = wanted.map(common).fold(limit, usize::min);
        if keep < self.cached.len() {
            self.executor.truncate(keep)?;
            self.cached.truncate(keep);
        }
        Ok(keep)
    }

    /// Reads `tokens` behind the cache and returns the best tokens behind the last `n` of them.
    fn run_chain(&mut self, tokens: &[Token], n: usize, cancel: &Cancel) -> Result<Vec<TopK>> {
        let first_wanted = tokens.len() - n.min(tokens.len());
        let rows: Vec<Row> = (0u32..)
            .zip(tokens)
            .map(|(i, &token)| Row { token, parent: i.checked_sub(1), wants_logits: i as usize >= first_wanted })
            .collect();
        let all: Vec<u32> = (0..).take(rows.len()).collect();
        let tops = self.pass(&rows, &all[first_wanted..], |_| all.clone(), cancel)?;
        self.cached.extend_from_slice(tokens);
        Ok(tops)
    }

    /// One pass: the best tokens behind `wanted` rows, and the path that `choose` finds by them committed. Rolled back on error.
    fn pass(
        &mut self,
        rows: &[Row],
        wanted: &[u32],
        choose: impl FnOnce(&[TopK]) -> Vec<u32>,
        cancel: &Cancel,
    ) -> Result<Vec<TopK>> {
        let result = (|| {
            let (row_len, n_layers) = (self.executor.shape().n_vocab, self.executor.shape().n_layers);
            self.executor.begin(rows)?;
            self.executor.run(n_layers, cancel)?;
            self.logits.resize(wanted.len() * row_len, 0.0);
            if !wanted.is_empty() {
                self.executor.project(wanted, &mut self.logits)?;
            }
            let tops: Vec<TopK> =
                self.logits.chunks(row_len.max(1)).map(|row| TopK::of(&row[..self.n_vocab.min(row.len())])).collect();
            self.executor.commit(&choose(&tops))?;
            Ok(tops)
        })();
        if result.is_err() {
            self.executor.rollback();
        }
        result
    }

    /// The rows that `paths`, taken in `order`, need beyond the cache; what does not fit is left out.
    fn batch(&self, paths: &[Vec<Token>], order: &[usize]) -> Batch {
        let start = self.cached.len();
        let mut batch = Batch::default();
        for &i in order {
            let before = batch.rows.len();
            let path = &paths[i][start..];
            if !path.iter().all(|&token| self.knows(token)) {
                continue;
            }
            let end = add_path(&mut batch.rows, path);
            match end.filter(|_| self.fits(batch.rows.len())) {
                Some(row) => batch.asked.push((i, row)),
                None => batch.rows.truncate(before),
            }
        }
        // All paths begin with the window, so its rows are the first.
        let n_unread = self.window().len().saturating_sub(start + 1).min(batch.rows.len());
        batch.unread = (0..).take(n_unread).collect();
        let wanted: Vec<u32> = batch.unread.iter().copied().chain(batch.asked.iter().map(|&(_, row)| row)).collect();
        wanted.into_iter().for_each(|row| batch.rows[row as usize].wants_logits = true);
        batch
    }

    fn fits(&self, n_rows: usize) -> bool {
        let shape = self.executor.shape();
        self.executor.len() + n_rows <= shape.n_cells && n_rows <= shape.max_rows
    }
}

/// A model's best tokens as candidates.
fn candidates(top: &TopK) -> Vec<Candidate> {
    let claim = |rank, weight| Claim { source: Source::Model, major: bin(weight, &WEIGHTS), minor: rank };
    (0..).zip(top.iter()).map(|(rank, (token, weight))| Candidate { token, claim: claim(rank, weight) }).collect()
}

/// What the model would have proposed at rows whose next tokens are known.
fn hindsight(tops: &[TopK], next: &[Token]) -> Vec<Hindsight> {
    tops.iter().zip(next).map(|(top, &token)| Hindsight { candidates: candidates(top), token }).collect()
}

/// Rows of a pass about several nodes.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// Rows of the window but its last token.
    unread: Vec<u32>,
    /// Which of the nodes fitted, by their index, with their rows.
    asked: Vec<(usize, u32)>,
}

impl Batch {
    /// The rows to the asked row `first` and on along what the model says itself, `tops` by asked row: where it will be asked next.
    fn path(&self, first: u32, tops: &[TopK]) -> Vec<u32> {
        let mut path: Vec<u32> = std::iter::successors(Some(first), |&row| self.rows[row as usize].parent).collect();
        path.reverse();
        let says = |row: u32| self.asked.iter().position(|&(_, asked)| asked == row).and_then(|i| tops[i].first());
        let next = |&row: &u32| {
            let token = says(row)?;
            (0..)
                .zip(&self.rows)
                .find(|(_, child)| child.parent == Some(row) && child.token == token)
                .map(|(child, _)| child)
        };
        path.extend(std::iter::successors(next(&first), next));
        path
    }
}

/// Adds the rows of `path` that are not there yet and returns the row of its end; `None` for an empty path.
fn add_path(rows: &mut Vec<Row>, path: &[Token]) -> Option<u32> {
    let mut parent = None;
    for &token in path {
        let known = rows.iter().position(|row| row.parent == parent && row.token == token);
        let at = known.unwrap_or_else(|| {
            rows.push(Row { token, parent, wants_logits: false });
            rows.len() - 1
        });
        parent = u32::try_from(at).ok();
    }
    parent
}

impl BatchDrafter for ModelDrafter {
    fn commit(&mut self, token: Token) {
        self.history.push(token);
        if !self.knows(token) {
            self.known_from = self.history.len();
        }
    }

    fn n_unread(&self) -> usize {
        match self.to_skip() {
            skipped if skipped == self.skipped => self.n_unread_here(),
            skipped => self.history.len().saturating_sub(skipped + 1),
        }
    }

    fn read_at_most(&mut self, tokens: usize) {
        self.at_most = tokens.clamp(1, WINDOW);
    }

    fn propose(&mut self, tree: &DraftTree, nodes: &[NodeId], cancel: &Cancel) -> Result<Answer> {
        let mut answer = Answer { candidates: vec![Vec::new(); nodes.len()], hindsight: Vec::new() };
        self.slide()?;
        let paths: Vec<Vec<Token>> = nodes.iter().map(|&n| [self.window(), &tree.path(n)].concat()).collect();
        let Some(shortest) = paths.iter().map(Vec::len).min().filter(|&len| len > 0) else { return Ok(answer) };
        self.truncate_to_common(paths.iter().map(Vec::as_slice), shortest - 1)?;
        if self.n_unread_here() > MAX_UNREAD.min(self.executor.shape().max_rows / 2) {
            self.look(0, cancel)?;
        }
        // Best first, so that what does not fit into one pass is what is least likely to be reached.
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by(|&a, &b| tree.nodes()[nodes[b]].reach.total_cmp(&tree.nodes()[nodes[a]].reach));
        let batch = self.batch(&paths, &order);
        let Some(&(_, first)) = batch.asked.first() else { return Ok(answer) };
        let wanted: Vec<u32> = batch.unread.iter().copied().chain(batch.asked.iter().map(|&(_, row)| row)).collect();
        let start = self.cached.len();
        let mut path = Vec::new();
        let tops = self.pass(
            &batch.rows,
            &wanted,
            |tops| {
                path = batch.path(first, &tops[batch.unread.len()..]);
                path.clone()
            },
            cancel,
        )?;
        self.cached.extend(path.iter().map(|&row| batch.rows[row as usize].token));
        let (read, asked) = tops.split_at(batch.unread.len());
        answer.hindsight = hindsight(read, self.window().get(start + 1..).unwrap_or_default());
        for (&(i, _), top) in batch.asked.iter().zip(asked) {
            answer.candidates[i] = candidates(top);
        }
        Ok(answer)
    }

    fn look(&mut self, n: usize, cancel: &Cancel) -> Result<Vec<Hindsight>> {
        self.slide()?;
        let window = self.window().to_vec();
        let end = window.len().saturating_sub(1);
        self.truncate_to_common(std::iter::once(window.as_slice()), end)?;
        let mut seen = Vec::new();
        let max_rows = self.executor.shape().max_rows.max(1);
        while self.cached.len() < end {
            let start = self.cached.len();
            let chunk: Vec<Token> = window[start..end].iter().take(max_rows).copied().collect();
            let wanted = (start + chunk.len()).saturating_sub(start.max(end.saturating_sub(n)));
            let tops = self.run_chain(&chunk, wanted, cancel)?;
            let first = start + chunk.len() - tops.len();
            seen.extend(hindsight(&tops, &window[first + 1..]));
        }
        Ok(seen)
    }

    fn rewind(&mut self, len: usize) {
        // The cache is compared with the history before it is used, so it needs no truncation here.
        self.truncate_history(len);
    }

    fn mark(&mut self) {
        self.mark = self.history.len();
    }

    fn roll_back(&mut self) {
        self.truncate_history(self.mark);
    }
}
