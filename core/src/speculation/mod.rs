//! One step of speculation, without the model: a plan before the pass, what came of it after.
//!
//! This is where drafters, calibration, prices, growth and governor meet, so that the decode loop is draft → verify → accept →
//! commit → emit and nothing else. Plan in, observation out; time comes in through a clock that is passed in.
//!
//! All sources feed one tree (ALGORITHMS of CoordGen 1.1, 1.2 and Lever 2.1 together). A draft model is asked by growth where
//! the tree's frontier is worth its price. Prompts are read with what the target said where that is known: such a position is a
//! labelled example, and calibration starts warm.
//!
//! Deliberately not here: passes, logits, samplers, text. What is drafted can change speed, never text.

mod drafting;
mod experience;
mod history;
mod kinds;
mod learning;
mod model_use;
mod planning;
mod settling;
mod sources;
#[cfg(test)]
mod tests;
mod worth;

use std::collections::VecDeque;

use crate::cost::CostModel;
use crate::draft::{BatchDrafter, ContextDrafter, Drafter, RecycleDrafter, ReuseDrafter};
use crate::governor::Governor;
use crate::growth::Limits;
use crate::token::Token;
use crate::tree::Source;

pub use drafting::Drafting;
pub use experience::Experience;
pub use kinds::Kinds;
pub use planning::Plan;
pub use settling::Settled;
use settling::Shadow;
use sources::Sources;
pub use worth::Worth;

/// Positions at which a draft model that is looked at is judged.
const LOOK_BACK: usize = 32;

/// What the target wanted behind a token of the history.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    token: Token,
    /// How surely the token before it was foreseen; `None` in a prompt, which nobody foresees.
    foreseen: Option<f64>,
}

/// The state of speculation in one session.
pub struct Speculation {
    drafting: Drafting,
    limits: Limits,
    /// Tokens that end a text.
    ends: Vec<Token>,
    context: ContextDrafter,
    recycle: RecycleDrafter,
    reuse: ReuseDrafter,
    model: Option<Box<dyn BatchDrafter>>,
    kinds: Kinds,
    cost: CostModel,
    governor: Governor,
    shadow: Option<Shadow>,
    /// Ms that settling the last step took.
    settling_ms: f64,
    history: Vec<Token>,
    /// Tokens of it that the drafters have heard: all, unless nothing is drafted.
    n_heard: usize,
    /// Its length when the turn began.
    mark: usize,
    /// What the target wanted behind each of the latest tokens but the last, where that is known: in a prompt where it was heard,
    /// for the text of a prompt is not its own.
    wanted: VecDeque<Option<Wanted>>,
    said: Option<Token>,
    /// How surely the last token was foreseen; `None` in a prompt.
    foreseen: Option<f64>,
    /// What time is worth to the next tree: what the latest passes have brought in it.
    worth: Worth,
}

impl Speculation {
    /// For a vocabulary of `n_vocab` tokens, with what is known already (possibly nothing: the first pass is then plain).
    pub fn new(drafting: Drafting, limits: Limits, n_vocab: usize, experience: Experience) -> Self {
        let Experience { cost, mut kinds, worth } = experience;
        kinds.begin_turn();
        Self {
            drafting,
            limits,
            ends: Vec::new(),
            context: ContextDrafter::default(),
            recycle: RecycleDrafter::new(n_vocab),
            reuse: ReuseDrafter::new(),
            model: None,
            kinds,
            cost,
            governor: Governor::new(),
            shadow: None,
            settling_ms: 0.0,
            history: Vec::new(),
            n_heard: 0,
            mark: 0,
            wanted: VecDeque::new(),
            said: None,
            foreseen: None,
            worth,
        }
    }

    /// Drafts with a draft model too.
    #[must_use]
    pub fn with_model(mut self, model: Box<dyn BatchDrafter>) -> Self {
        self.model = Some(model);
        self
    }

    /// Verifies no row for `ends`, the tokens that end a text.
    #[must_use]
    pub fn with_ends(mut self, ends: Vec<Token>) -> Self {
        self.ends = ends;
        self
    }

    /// How much to speculate from now on.
    pub fn set_drafting(&mut self, drafting: Drafting) {
        self.drafting = drafting;
    }

    /// Whether anything may be drafted, so that what the target says is worth keeping.
    pub fn learns(&self) -> bool {
        self.drafting != Drafting::Off
    }

    /// Tokens of the history.
    pub fn n_read(&self) -> usize {
        self.history.len()
    }

    /// What was learnt so far about prices and sources, for other sessions of the same model to begin with.
    pub fn experience(&self) -> Experience {
        Experience { cost: self.cost.clone(), kinds: self.kinds.clone(), worth: self.worth }
    }

    /// Bytes that drafting without a model uses.
    pub fn bytes(&self) -> usize {
        self.context.bytes() + self.recycle.bytes()
    }

    fn free(&mut self) -> [&mut dyn Drafter; 3] {
        [&mut self.context, &mut self.recycle, &mut self.reuse]
    }

    fn sources<'a>(&'a mut self, now: &'a dyn Fn() -> f64) -> Sources<'a> {
        let model = self.model.as_mut().filter(|_| self.drafting != Drafting::Context);
        Sources {
            free: [
                (Source::Context, &mut self.context as &mut dyn Drafter),
                (Source::Recycle, &mut self.recycle),
                (Source::Reuse, &mut self.reuse),
            ],
            model,
            kinds: &self.kinds,
            cost: &mut self.cost,
            ends: &self.ends,
            cancel: None,
            plain_ms: 0.0,
            max_batch: self.limits.max_model_batch,
            now,
            scratch: Vec::new(),
            hindsight: Vec::new(),
            free_ms: [0.0; 3],
            expanded: 0,
            failure: None,
        }
    }
}
