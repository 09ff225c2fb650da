//! What speculation has learnt that is worth more than one session: figures only, no text.

use crate::cost::CostModel;
use crate::draft::Calibration;

/// What asking the draft model is assumed to come to, over what a chain at its mean rate would: a little more, so that it is tried.
pub(super) const HOPE: f64 = 1.2;

/// What one session leaves and another of the same model begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Experience {
    /// What passes and drafting cost.
    pub cost: CostModel,
    /// What the sources' words have been worth.
    pub calibration: Calibration,
    /// What asking the draft model has come to, over what was hoped of it.
    pub hope_factor: f64,
}

impl Default for Experience {
    fn default() -> Self {
        Self { cost: CostModel::default(), calibration: Calibration::new(), hope_factor: HOPE }
    }
}

impl From<CostModel> for Experience {
    fn from(cost: CostModel) -> Self {
        Self { cost, ..Self::default() }
    }
}
