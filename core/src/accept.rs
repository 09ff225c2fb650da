//! Which drafted rows are accepted: pure functions of the tree and of what the target chooses.
//!
//! The rule is *sample and match*: at each row take the token that plain decoding would take there (the argmax, or a sample of the
//! target's own distribution with a generator keyed by seed and position) and go on if it is a child. It is exact for any
//! candidates whatever, asks only for rows on the accepted path (so logits can be projected one row at a time, Lever 2.3), and
//! the same seed gives the same text with any drafting.
//!
//! Deliberately not here: logits, samplers, random generators; and speculative sampling (Leviathan et al. 2023), which accepts more
//! of candidates that were drawn at random, and whose text depends on what was drafted.

use crate::error::Result;
use crate::token::Token;
use crate::tree::FlatTree;

/// What the target says at a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The next token; decoding goes on behind it.
    Continue(Token),
    /// The next token ends the generation (end of turn, or the last one allowed): nothing behind it is accepted.
    Stop(Token),
}

/// The outcome of a verify pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Rows to commit, from the root downwards; at least the root.
    pub path: Vec<u32>,
    /// The target's token behind the last row of `path`: emitted, and the root of the next tree.
    pub bonus: Token,
    /// Whether `bonus` ends the generation.
    pub stopped: bool,
}

impl Accepted {
    /// Drafted tokens that were accepted, the bonus not counted.
    pub fn n_drafted(&self) -> usize {
        self.path.len().saturating_sub(1)
    }

    /// Tokens emitted by this pass: accepted drafts and the bonus, in order.
    pub fn emitted<'a>(&'a self, flat: &'a FlatTree) -> impl Iterator<Item = Token> + 'a {
        self.path.iter().skip(1).map(|&row| flat.rows[row as usize].token).chain(std::iter::once(self.bonus))
    }
}

/// Walks down from the root for as long as the target's choice is a child.
///
/// `choose` is called once per row of the accepted path, in order, with the path so far (its last element is the row whose
/// logits it needs); the position of the chosen token is the root's plus `path.len()`. Any error of `choose` is returned.
///
/// A choice that is a child *and* [`Choice::Stop`] is emitted as the bonus: nobody will read it.
pub fn accept(flat: &FlatTree, mut choose: impl FnMut(&[u32]) -> Result<Choice>) -> Result<Accepted> {
    let mut path = vec![0];
    let mut row = 0;
    loop {
        match choose(&path)? {
            Choice::Stop(bonus) => return Ok(Accepted { path, bonus, stopped: true }),
            Choice::Continue(token) => match flat.child(row, token) {
                Some(child) => {
                    path.push(child);
                    row = child;
                }
                None => return Ok(Accepted { path, bonus: token, stopped: false }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::tree::{Claim, DraftTree, NodeId, ROOT, Source};

    const CLAIM: Claim = Claim { source: Source::Recycle, major: 0, minor: 0 };

    fn tree(paths: &[&[Token]]) -> FlatTree {
        let mut tree = DraftTree::new(0);
        for path in paths {
            path.iter().fold(ROOT, |node, &token| tree.propose(node, token, CLAIM));
        }
        let all: Vec<NodeId> = (0..tree.len()).collect();
        tree.flatten(&all)
    }

    /// A target that says `text`, whatever the rows.
    fn say(text: &[Token]) -> impl FnMut(&[u32]) -> Result<Choice> + '_ {
        |path| Ok(Choice::Continue(text[path.len() - 1]))
    }

    #[test]
    fn accepts_the_path_the_target_takes_and_adds_its_next_token() {
        let flat = tree(&[&[1, 2, 3], &[1, 4, 5, 6], &[7]]);
        let accepted = accept(&flat, say(&[1, 4, 5, 9])).unwrap();
        assert_eq!(accepted, Accepted { path: vec![0, 1, 4, 5], bonus: 9, stopped: false });
        assert_eq!(accepted.emitted(&flat).collect::<Vec<_>>(), [1, 4, 5, 9]);
        assert_eq!(accepted.n_drafted(), 3);
    }

    #[test]
    fn a_whole_path_gets_a_bonus_and_a_miss_only_the_bonus() {
        let flat = tree(&[&[1, 2]]);
        assert_eq!(accept(&flat, say(&[1, 2, 3])).unwrap().path, [0, 1, 2]);
        let missed = accept(&flat, say(&[8])).unwrap();
        assert_eq!((missed.path, missed.bonus), (vec![0], 8));
    }

    #[test]
    fn nothing_is_accepted_behind_the_end() {
        let flat = tree(&[&[1, 2, 3]]);
        let accepted = accept(&flat, |path| Ok(if path.len() == 2 { Choice::Stop(2) } else { Choice::Continue(1) }));
        assert_eq!(accepted.unwrap(), Accepted { path: vec![0, 1], bonus: 2, stopped: true });
    }

    #[test]
    fn asks_only_for_rows_on_the_path_and_passes_errors_on() {
        let flat = tree(&[&[1, 2], &[3, 4]]);
        let mut asked = Vec::new();
        let result = accept(&flat, |path| {
            asked.push(path[path.len() - 1]);
            if path.len() == 2 { Err(ErrorKind::Cancelled.into()) } else { Ok(Choice::Continue(3)) }
        });
        assert!(result.unwrap_err().is_cancelled());
        assert_eq!(asked, [0, 3]);
    }

    /// xorshift64*: enough for a test, and the same on every machine.
    struct Uniform(u64);

    impl Uniform {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
            bits as f64 / (1u64 << 53) as f64
        }

        /// The token at which the running sum of `p` passes a uniform number.
        fn token(&mut self, p: &[f64]) -> Token {
            let (u, mut sum) = (self.next(), 0.0);
            let at = p.iter().position(|p| {
                sum += p;
                u < sum
            });
            Token::try_from(at.unwrap_or(p.len() - 1)).unwrap()
        }
    }

    const VOCAB: usize = 4;
    const DEPTH: usize = 3;

    /// A target whose distribution depends on the path: a fixed rotation of fixed weights.
    fn target(path: &[Token]) -> Vec<f64> {
        let turn = path.iter().map(|&t| t as usize + 1).sum::<usize>();
        let weights = [0.55, 0.25, 0.15, 0.05];
        (0..VOCAB).map(|t| weights[(t + turn) % VOCAB]).collect()
    }

    /// Pearson's statistic of counts of whole texts against the exact product distribution.
    fn chi_square(counts: &[u64], n: u64) -> f64 {
        (0..counts.len())
            .map(|code| {
                let text = [code / 16, code / 4 % 4, code % 4];
                let mut path = Vec::new();
                let mut probability = 1.0;
                for t in text {
                    probability *= target(&path)[t];
                    path.push(Token::try_from(t).unwrap());
                }
                let expected = probability * n as f64;
                (counts[code] as f64 - expected).powi(2) / expected
            })
            .sum()
    }

    /// 63 degrees of freedom: 0.999 quantile 103.4.
    const CRITICAL: f64 = 103.4;

    #[test]
    fn sample_and_match_is_exact_and_the_same_with_any_tree() {
        let trees = [tree(&[]), tree(&[&[0, 1, 2]]), tree(&[&[0, 1], &[0, 2], &[1, 0, 3], &[3], &[2, 2, 2]])];
        let mut counts = [0u64; 64];
        let n = 1_000_000;
        for seed in 0..n {
            // Keyed by (seed, position): whatever the tree, the same position draws the same number.
            let text_with = |flat: &FlatTree| {
                let mut text: Vec<Token> = Vec::new();
                while text.len() < DEPTH {
                    // A tree is good for its first pass; later passes are plain, so that all trees reach three tokens.
                    let flat = if text.is_empty() { flat } else { &trees[0] };
                    let start = text.len();
                    let accepted = accept(flat, |path| {
                        let mut context = text.clone();
                        context.extend(path.iter().skip(1).map(|&r| flat.rows[r as usize].token));
                        let position = (start + path.len()) as u64;
                        let mut key = Uniform((seed * 8 + position + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                        key.next();
                        Ok(Choice::Continue(key.token(&target(&context))))
                    });
                    text.extend(accepted.unwrap().emitted(flat));
                }
                text.truncate(DEPTH);
                text
            };
            let tree = &trees[1 + usize::try_from(seed % 2).unwrap()];
            let text = text_with(tree);
            if seed < 2_000 {
                assert_eq!(text, text_with(&trees[0]), "seed {seed}");
            }
            counts[text.iter().fold(0, |code, &t| code * 4 + t as usize)] += 1;
        }
        let chi = chi_square(&counts, n);
        assert!(chi < CRITICAL, "{chi}");
    }
}
