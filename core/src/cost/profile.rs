//! Cost tables that outlive the process, so that the second start is already tuned.
//!
//! A profile is measured prices and nothing else: no text, no tokens. It counts only for the model, device, backend and thread
//! count it was measured with. What reading weights takes is not in it: that depends on the budget, and every prompt tells.
//! It is read as data that anybody may have written: sizes are bounded, values checked.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::curve::{Curve, Window};
use super::{BUCKET, CostModel};
use crate::tree::Source;

/// Changes when the meaning of the figures does; other versions are ignored.
const VERSION: u32 = 3;

/// Rows and buckets beyond which figures in a file are ignored: trees have 64 rows at most, and of contexts of more than 128 thousand
/// tokens the beginning is kept.
const MAX_ROWS: usize = 128;
const MAX_BUCKETS: usize = (1 << 17) / BUCKET;

/// What a profile was measured with. Any difference makes it another profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProfileKey {
    /// What prices depend on in the model's file: architecture, sizes, formats.
    pub model: String,
    /// The same of the draft model, if there is one, and what runs it.
    pub draft_model: Option<String>,
    /// The kind of processor: its architecture and instruction sets.
    pub device: String,
    /// What runs the model: version, executor, kernels, cache, and whether it streams.
    pub backend: String,
    /// Threads of the decode phase.
    pub threads: usize,
}

/// Measured prices of one key, as they are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    version: u32,
    key: ProfileKey,
    verify: BTreeMap<usize, Curve>,
    project: Curve,
    draft_model: Curve,
    draft: Vec<Window>,
    leaf: Window,
    sample: Window,
    overhead: Window,
}

impl CostModel {
    /// What was measured, to be stored under `key`.
    pub fn profile(&self, key: ProfileKey) -> Profile {
        Profile {
            version: VERSION,
            key,
            verify: self.verify.clone(),
            project: self.project.clone(),
            draft_model: self.draft_model.clone(),
            draft: self.draft.to_vec(),
            leaf: self.leaf.clone(),
            sample: self.sample.clone(),
            overhead: self.overhead.clone(),
        }
    }

    /// The cost model that a stored profile seeds; `None` if it is of another version or was measured with something else.
    ///
    /// One value per shape is taken over, so that the first real measurements outvote what has changed since.
    pub fn from_profile(profile: &Profile, key: &ProfileKey) -> Option<Self> {
        if profile.version != VERSION || profile.key != *key {
            return None;
        }
        let mut draft: [Window; Source::COUNT] = std::array::from_fn(|_| Window::default());
        for (to, from) in draft.iter_mut().zip(&profile.draft) {
            *to = seed(from);
        }
        let verify = profile.verify.iter().filter(|(bucket, _)| **bucket < MAX_BUCKETS);
        Some(Self {
            verify: verify.map(|(&bucket, curve)| (bucket, seed_curve(curve))).collect(),
            project: seed_curve(&profile.project),
            draft_model: seed_curve(&profile.draft_model),
            draft,
            leaf: seed(&profile.leaf),
            read: Window::default(),
            prompt_read_ms: 0.0,
            sample: seed(&profile.sample),
            overhead: seed(&profile.overhead),
            paces: VecDeque::new(),
        })
    }
}

fn seed(window: &Window) -> Window {
    window.sanitised().median().map_or_else(Window::default, Window::seeded)
}

fn seed_curve(curve: &Curve) -> Curve {
    let mut seeded = Curve::default();
    curve.sanitised(MAX_ROWS).points().iter().for_each(|point| seeded.observe(point.rows, point.cost));
    seeded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::PassCost;

    fn key(threads: usize) -> ProfileKey {
        ProfileKey {
            model: "a1b2".into(),
            draft_model: None,
            device: "CPU".into(),
            backend: "own kernels 1".into(),
            threads,
        }
    }

    fn measured() -> CostModel {
        let mut model = CostModel::default();
        for (rows, verify_ms) in [(1, 35.0), (4, 41.0), (8, 57.0)] {
            for _ in 0..5 {
                model.observe(&PassCost { rows, verify_ms, overhead_ms: 0.5, cached: 300, ..PassCost::default() });
            }
        }
        model.observe_draft(Source::Context, 0.02);
        model.observe_draft_batch(1, 2.5);
        model
    }

    #[test]
    fn the_second_start_predicts_as_the_first_did() {
        let model = measured();
        let stored = serde_json::to_string(&model.profile(key(2))).unwrap();
        let read: Profile = serde_json::from_str(&stored).unwrap();
        let again = CostModel::from_profile(&read, &key(2)).unwrap();
        assert_eq!(again.prices(300, 16), model.prices(300, 16));
        assert_eq!(again.draft_ms(Source::Context), 0.02);
        assert_eq!(again.draft_batch_ms(1, |_| 0.0), [0.0, 2.5]);
    }

    #[test]
    fn a_profile_counts_for_its_key_and_version_only() {
        let profile = measured().profile(key(2));
        assert_eq!(CostModel::from_profile(&profile, &key(4)), None);
        let other = Profile { version: VERSION + 1, ..profile };
        assert_eq!(CostModel::from_profile(&other, &key(2)), None);
    }

    #[test]
    fn of_a_huge_profile_as_much_is_kept_as_a_step_can_look_through() {
        let mut model = measured();
        for cached in (0..1 << 21).step_by(BUCKET) {
            (1..1024).for_each(|rows| model.observe(&PassCost { rows, verify_ms: 1.0, cached, ..PassCost::default() }));
        }
        let seeded = CostModel::from_profile(&model.profile(key(2)), &key(2)).unwrap();
        assert_eq!((seeded.verify.len(), seeded.most_rows()), (64, 128));
        assert_eq!(seeded.prices(300, 64).verify_ms.len(), 65);
    }

    #[test]
    fn a_damaged_profile_does_no_harm() {
        let mut profile = measured().profile(key(2));
        profile.draft = vec![Window::default(); 100];
        let mut curve = Curve::default();
        curve.observe(1_000_000, 1.0);
        profile.verify.insert(usize::MAX, curve);
        let model = CostModel::from_profile(&profile, &key(2)).unwrap();
        let prices = model.prices(usize::MAX, 16);
        assert!(prices.verify_ms.windows(2).all(|pair| pair[0] <= pair[1] && pair[1].is_finite()));
    }
}
