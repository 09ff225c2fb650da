//! What speculation has learnt that is worth more than one session: figures only, no text.

use crate::cost::CostModel;

use super::{Kinds, Worth};

/// What one session leaves and another of the same model begins with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experience {
    /// What passes and drafting cost.
    pub cost: CostModel,
    /// What the sources' words have been worth.
    pub kinds: Kinds,
    /// What time has been worth.
    pub worth: Worth,
}

impl From<CostModel> for Experience {
    fn from(cost: CostModel) -> Self {
        Self { cost, ..Self::default() }
    }
}
