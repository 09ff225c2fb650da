//! What the drafters hear of the text: prompts, app text, turns that are rolled back, conversations that end.
//!
//! Where nothing is drafted they hear nothing, so that plain decoding pays for none of it; they catch up when drafting is wanted again.

use crate::draft::store::SavedDrafts;
use crate::draft::{ReuseDrafter, TopK};
use crate::growth::Expand;
use crate::token::Token;
use crate::tree::{DraftTree, ROOT};

use super::learning::Company;
use super::{LOOK_BACK, Speculation, Wanted};

impl Speculation {
    /// `token` is now the last of the history; `said` is what the target says behind it, where that is known (prompts).
    pub fn read(&mut self, token: Token, said: Option<&TopK>) {
        self.commit(token, None);
        let Some(said) = said.filter(|_| self.learns()) else { return };
        if let Some(next) = said.first() {
            let mut tree = DraftTree::new(token);
            let mut sources = self.sources(&|| 0.0);
            sources.begin();
            sources.expand(&mut tree, ROOT);
            self.kinds.label(&tree, ROOT, next, Company::All);
        }
        self.said = said.first();
        self.free().iter_mut().for_each(|drafter| drafter.said(said));
    }

    /// The layers took `ms` for `rows` rows of a prompt behind `cached` positions, without waiting; weights were being read for
    /// `read_ms`.
    pub fn observe_prefill(&mut self, rows: usize, cached: usize, ms: f64, read_ms: f64) {
        self.cost.observe_prefill(rows, cached, ms, read_ms);
    }

    /// `token` is now the last of the history; it was `foreseen` with that probability.
    pub(super) fn commit(&mut self, token: Token, foreseen: Option<f64>) {
        if !self.history.is_empty() {
            if self.wanted.len() >= LOOK_BACK {
                self.wanted.pop_front();
            }
            let foreseen = self.foreseen;
            self.wanted.push_back(self.said.take().map(|token| Wanted { token, foreseen }));
        }
        self.foreseen = foreseen;
        self.history.push(token);
        self.catch_up();
    }

    /// Lets the drafters hear what they have not heard of the history, if anything is drafted.
    fn catch_up(&mut self) {
        if !self.learns() {
            return;
        }
        let history = std::mem::take(&mut self.history);
        for &token in &history[self.n_heard..] {
            self.free().iter_mut().for_each(|drafter| drafter.commit(token));
            if let Some(model) = &mut self.model {
                model.commit(token);
            }
        }
        self.n_heard = history.len();
        self.history = history;
    }

    /// Text that is not part of the history but may be quoted.
    pub fn add_context(&mut self, tokens: &[Token]) {
        self.context.add_context(tokens);
    }

    /// Makes the history agree with `prompt` and returns how many of the prompt's tokens it holds then; the others are to be
    /// [`read`](Self::read). What a new rendering left out of the history stays in store as context.
    pub fn align(&mut self, prompt: &[Token]) -> usize {
        let common = self.history.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        if common < self.history.len() {
            self.history.truncate(common);
            self.forget_step();
        }
        if common < self.n_heard {
            let history = std::mem::take(&mut self.history);
            self.free().iter_mut().for_each(|drafter| drafter.rewind(&history));
            self.history = history;
            if let Some(model) = &mut self.model {
                model.rewind(common);
            }
            self.n_heard = common;
        }
        common
    }

    /// The turn begins, its prompt [aligned](Self::align) and not yet read: [`roll_back`](Self::roll_back) comes back to here.
    pub fn mark(&mut self) {
        self.mark = self.history.len();
        self.catch_up();
        (self.shadow, self.settling_ms) = (None, 0.0);
        self.kinds.begin_turn();
        self.free().iter_mut().for_each(|drafter| drafter.mark());
        if let Some(model) = &mut self.model {
            model.mark();
        }
    }

    /// The turn never was: its text is forgotten. What was learnt about costs and sources stays.
    pub fn roll_back(&mut self) {
        self.history.truncate(self.mark);
        self.n_heard = self.n_heard.min(self.mark);
        self.free().iter_mut().for_each(|drafter| drafter.roll_back());
        if let Some(model) = &mut self.model {
            model.roll_back();
        }
        self.forget_step();
    }

    /// The conversation is over and its text forgotten; text handed in and what was learnt about costs and sources stay.
    pub fn forget(&mut self) {
        self.history.clear();
        (self.mark, self.n_heard) = (0, 0);
        self.context.forget_history();
        self.recycle.forget();
        self.reuse = ReuseDrafter::new();
        if let Some(model) = &mut self.model {
            model.rewind(0);
            model.mark();
        }
        self.forget_step();
    }

    pub(super) fn forget_step(&mut self) {
        self.shadow = None;
        self.wanted.clear();
        self.said = None;
        self.foreseen = None;
    }

    pub(super) fn last(&self) -> Token {
        self.history.last().copied().unwrap_or_default()
    }

    /// What to save for another session.
    pub fn saved(&self) -> SavedDrafts {
        let (text, rows) = self.context.stored();
        SavedDrafts {
            context: text.iter().copied().zip(rows.iter().copied()).collect(),
            recycled: self.recycle.rows().collect(),
        }
    }

    /// Starts with what another session saved.
    pub fn restore(&mut self, saved: &SavedDrafts) {
        let (text, rows): (Vec<Token>, Vec<TopK>) = saved.context.iter().copied().unzip();
        self.context.restore(&text, &rows);
        saved.recycled.iter().for_each(|(token, top)| self.recycle.record(*token, top));
    }
}
