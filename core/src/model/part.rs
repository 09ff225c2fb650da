//! What a model is loaded for: to answer, or to draft for the one that does.

use crate::draft::ModelDrafter;
use crate::executor::staged::ALLOWANCE;

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// To answer.
    Target,
    /// To draft.
    Draft,
}

impl Part {
    /// Bytes of the memory budget that are for the process beside the models: they are taken once.
    pub(super) fn beside(self) -> u64 {
        match self {
            Self::Target => ALLOWANCE,
            Self::Draft => 0,
        }
    }

    /// Positions of a session with `context_length` of them: a draft model reads the end of a long text alone.
    pub(super) fn n_cells(self, context_length: usize) -> usize {
        match self {
            Self::Target => context_length,
            Self::Draft => context_length.min(ModelDrafter::CELLS),
        }
    }
}
