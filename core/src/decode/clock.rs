//! The time of a step, and its figures.

use std::time::Instant;

use crate::cost::PassCost;
use crate::metrics::{SourceTokens, StepMetrics};
use crate::speculation::Settled;
use crate::tree::Source;

/// Runs from where it was started.
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds so far.
    pub(super) fn ms(&self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1e3
    }

    /// The figures of the step that began with this clock and ends now; `draft_ms` of it went to speculation.
    pub(super) fn step(&self, settled: &Settled, cost: &PassCost, draft_ms: f64) -> StepMetrics {
        let by = |source: Source| settled.accepted_by[source.index()] as u64;
        StepMetrics {
            chosen: settled.emitted as u64,
            drafted: settled.drafted as u64,
            accepted: settled.accepted as u64,
            accepted_by: SourceTokens {
                context: by(Source::Context),
                aligned: by(Source::Aligned),
                recycle: by(Source::Recycle),
                reuse: by(Source::Reuse),
                model: by(Source::Model),
            },
            seconds: self.ms() / 1e3,
            draft_s: draft_ms / 1e3,
            draft_model_s: settled.model_ms / 1e3,
            verify_s: (cost.verify_ms + cost.io_ms) / 1e3,
            project_s: cost.project_ms / 1e3,
            sample_s: cost.sample_ms / 1e3,
            batched: settled.projection.batched,
            expected_on_demand_s: settled.projection.on_demand_ms / 1e3,
            expected_batched_s: settled.projection.batched_ms / 1e3,
            predicted_s: settled.expected_ms / 1e3,
        }
    }
}
