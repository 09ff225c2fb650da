//! What passes cost in a simulation.

use fulcrum::cost::{CostModel, PassCost};

use crate::workload::unit;

/// What passes cost: ms by rows, measured on two Zen 4 cores with a 1B shape, and what else a setting has.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) verify: &'static [(usize, f64)],
    /// Reading weights from flash beside a pass, ms.
    pub(crate) flash_ms: f64,
    /// One row of the draft model, ms.
    pub(crate) draft_ms: f64,
}

pub(crate) const OWN_Q8: Setting = Setting {
    name: "own Q8_0",
    verify: &[(1, 34.7), (2, 37.3), (4, 41.3), (8, 57.0), (16, 87.0), (64, 259.0)],
    flash_ms: 0.0,
    draft_ms: 2.3,
};
pub(crate) const OWN_Q4: Setting = Setting {
    name: "own Q4_0",
    verify: &[(1, 14.3), (2, 14.6), (4, 15.8), (8, 26.0), (12, 34.0), (16, 50.0), (64, 204.0)],
    flash_ms: 0.0,
    draft_ms: 1.0,
};
pub(crate) const GGML_Q8: Setting = Setting {
    name: "ggml Q8_0",
    verify: &[(1, 26.5), (2, 54.0), (4, 63.0), (8, 96.0), (12, 133.0), (16, 170.0), (64, 556.0)],
    flash_ms: 0.0,
    draft_ms: 2.3,
};
pub(crate) const GGML_Q4: Setting = Setting {
    name: "ggml Q4_0",
    verify: &[(1, 17.7), (2, 32.0), (4, 44.0), (8, 83.0), (16, 119.0), (64, 456.0)],
    flash_ms: 0.0,
    draft_ms: 1.2,
};
pub(crate) const FLASH: Setting = Setting { name: "flash", flash_ms: 300.0, ..OWN_Q8 };
pub(crate) const TINY: Setting =
    Setting { name: "6M", verify: &[(1, 1.2), (2, 1.3), (8, 1.9), (64, 7.0)], flash_ms: 0.0, draft_ms: 0.3 };

impl Setting {
    pub(crate) fn verify_ms(&self, rows: usize) -> f64 {
        let after = self.verify.partition_point(|&(at, _)| at < rows).min(self.verify.len() - 1);
        let (right, right_ms) = self.verify[after];
        if after == 0 || right == rows {
            return right_ms;
        }
        let (left, left_ms) = self.verify[after - 1];
        left_ms + (right_ms - left_ms) * (rows - left) as f64 / (right - left) as f64
    }

    /// Two per cent of noise, and every fortieth pass half as long again.
    pub(crate) fn noisy(&self, ms: f64, step: u64) -> f64 {
        let outlier = if unit(91, step) < 0.025 { 1.5 } else { 1.0 };
        ms * (0.98 + 0.04 * unit(90, step)) * outlier
    }

    /// Projecting rows in one call: a twentieth of the layers.
    pub(crate) fn project_ms(&self, rows: usize) -> f64 {
        self.verify_ms(rows) / 20.0
    }

    /// A pass that computes for `verify_ms`.
    pub(crate) fn pass(&self, verify_ms: f64) -> PassCost {
        let io_ms = (self.flash_ms - verify_ms).max(0.0);
        PassCost { verify_ms, io_ms, read_ms: self.flash_ms, ..PassCost::default() }
    }

    /// The prices that a kept profile begins with.
    pub(crate) fn measured(&self) -> CostModel {
        let mut cost = CostModel::default();
        for rows in [1, 2, 4, 8, 16, 32, 64] {
            let project_ms = self.project_ms(rows);
            cost.observe(&PassCost {
                rows,
                leaves: 1,
                projected: rows,
                projected_per_call: rows,
                project_ms,
                ..self.pass(self.verify_ms(rows))
            });
        }
        for rows in [1, 4, 16, 64] {
            cost.observe_draft_batch(rows, self.draft_batch_ms(rows));
        }
        cost
    }

    pub(crate) fn draft_batch_ms(&self, rows: usize) -> f64 {
        self.draft_ms * (1.0 + 0.08 * (rows as f64 - 1.0))
    }
}
