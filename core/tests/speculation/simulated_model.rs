//! A draft model that is as good as it is told to be.

use std::sync::Arc;

use fulcrum::draft::{Answer, BatchDrafter, Candidate, Hindsight};
use fulcrum::tree::{Claim, DraftTree, NodeId, Source};
use fulcrum::{Cancel, Result, Token};

use crate::setting::Setting;
use crate::simulation::Clock;
use crate::workload::{said_of_prompt, successors, unit};

/// How likely a draft model is right about the token at a position.
pub(crate) type Skill = fn(usize) -> f64;

pub(crate) fn skilled(_: usize) -> f64 {
    0.75
}

pub(crate) fn useless(_: usize) -> f64 {
    0.0
}

/// A draft model that knows the text and is right with probability `skill` (by position), and says so with some sense.
pub(crate) struct SimulatedModel {
    clock: Clock,
    setting: Setting,
    text: Arc<Vec<Token>>,
    n_prompt: usize,
    skill: Skill,
    /// Tokens of the history, and how many of them are read.
    history: usize,
    read: usize,
}

impl SimulatedModel {
    /// One that has read nothing yet of `text`, the first `n_prompt` tokens of which are the prompt.
    pub(crate) fn new(clock: Clock, setting: Setting, text: Arc<Vec<Token>>, n_prompt: usize, skill: Skill) -> Self {
        Self { clock, setting, text, n_prompt, skill, history: 0, read: 0 }
    }

    fn says(&self, before: &[Token], at: usize) -> Vec<Candidate> {
        let word = before[before.len() - 1];
        let on_text = self.text[..at] == *before;
        let is_right = on_text && unit(60, at as u64) < (self.skill)(at);
        let guess = successors(word);
        let wanted = if at < self.n_prompt { said_of_prompt(word, self.text[at], at as u64 - 1).first() } else { None };
        let first = if is_right { wanted.unwrap_or(self.text[at]) } else { guess[0].0 };
        let sure = if is_right { 7 + (unit(61, at as u64) * 5.0) as u8 } else { 4 + (unit(61, at as u64) * 6.0) as u8 };
        let claim = |rank, major| Claim { source: Source::Model, major, minor: rank };
        let mut candidates = vec![Candidate { token: first, claim: claim(0, sure.min(11)) }];
        let others = guess.iter().filter(|(token, _)| *token != first).take(2);
        candidates.extend((1..).zip(others).map(|(rank, &(token, _))| Candidate { token, claim: claim(rank, 3) }));
        candidates
    }

    fn hindsight(&self, n: usize) -> Vec<Hindsight> {
        let first = self.read.max(self.history.saturating_sub(n)).max(1);
        let seen = first..self.history;
        seen.map(|at| Hindsight { candidates: self.says(&self.text[..at], at), token: self.text[at] }).collect()
    }

    fn spend(&mut self, rows: usize) {
        self.clock.advance(self.setting.noisy(self.setting.draft_batch_ms(rows), self.history as u64));
        self.read = self.history;
    }
}

impl BatchDrafter for SimulatedModel {
    fn commit(&mut self, _token: Token) {
        self.history += 1;
    }

    fn n_unread(&self) -> usize {
        self.history.saturating_sub(self.read + 1)
    }

    fn read_at_most(&mut self, tokens: usize) {
        if self.n_unread() > tokens {
            self.read = self.history - (tokens + 1);
        }
    }

    fn propose(&mut self, tree: &DraftTree, nodes: &[NodeId], _cancel: &Cancel) -> Result<Answer> {
        let hindsight = self.hindsight(8);
        self.spend(nodes.len() + self.n_unread());
        let answer = |&node: &NodeId| {
            let before = [&self.text[..self.history], &tree.path(node)].concat();
            if before.len() < self.text.len() { self.says(&before, before.len()) } else { Vec::new() }
        };
        Ok(Answer { candidates: nodes.iter().map(answer).collect(), hindsight })
    }

    fn look(&mut self, n: usize, _cancel: &Cancel) -> Result<Vec<Hindsight>> {
        let hindsight = self.hindsight(n);
        self.spend(self.n_unread());
        Ok(hindsight)
    }

    fn rewind(&mut self, _len: usize) {}

    fn mark(&mut self) {}

    fn roll_back(&mut self) {}
}
