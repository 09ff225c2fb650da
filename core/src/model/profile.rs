//! Measured prices that outlive the process, so that the second start drafts from its first step on.
//!
//! Deliberately not here: what a profile holds, and how it is checked (`cost::profile`).

use std::path::Path;

use super::{Model, ModelInfo};
use crate::cost::{CostModel, Profile, ProfileKey};
use crate::error::{ErrorKind, Result};
use crate::small_file;

/// Bytes of the largest file that is read: a profile has some kilobytes.
const MAX_BYTES: usize = 4 << 20;

/// What a model runs on, as far as prices depend on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Engine {
    /// The device.
    pub(super) device: String,
    /// Kernels and cache, and whether layers are streamed.
    pub(super) backend: String,
    /// Threads that compute.
    pub(super) threads: usize,
}

impl Model {
    /// Writes what passes and drafting have cost in this model's sessions so far to the file at `path`, for
    /// [`load_profile`](Self::load_profile) at the next start. Figures of some kilobytes, no text; written whole or not at all.
    ///
    /// # Errors
    ///
    /// `File`.
    pub fn save_profile(&self, path: impl AsRef<Path>) -> Result<()> {
        let profile = self.inner.parts.experience.lock().cost.profile(self.profile_key());
        let path = path.as_ref();
        let failed =
            |error: serde_json::Error| ErrorKind::File { action: "write", path: path.to_owned(), source: error.into() };
        small_file::write(path, &serde_json::to_vec(&profile).map_err(failed)?)
    }

    /// Lets this model's sessions begin with the prices that were [saved](Self::save_profile), instead of measuring them in their first
    /// answers. To be called before the first session, and behind [`with_draft`](Self::with_draft), which begins without. No answer
    /// changes with it.
    ///
    /// # Errors
    ///
    /// `File` if it cannot be read; `InvalidOption` if it is something else or of another version, or was measured with a model or draft
    /// model of another shape, on another kind of processor, or with other kernels, cache or threads. An app may well go on without it.
    pub fn load_profile(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let refused = |reason: String| {
            let reason = format!("{} {reason}; delete it and go on", path.display());
            ErrorKind::InvalidOption { option: "profile", reason }
        };
        let bytes = small_file::read(path, MAX_BYTES)?;
        let profile: Profile =
            serde_json::from_slice(&bytes).map_err(|error| refused(format!("is not a profile ({error})")))?;
        let cost = CostModel::from_profile(&profile, &self.profile_key());
        let cost = cost.ok_or_else(|| refused("was measured by another version, or with something else".to_owned()))?;
        self.inner.parts.experience.lock().cost = cost;
        Ok(())
    }

    fn profile_key(&self) -> ProfileKey {
        let Engine { device, backend, threads } = self.inner.engine.clone();
        let draft_model =
            self.draft().map(|draft| format!("{} on {}", shape(draft.info()), draft.inner.engine.backend));
        ProfileKey { model: shape(self.info()), draft_model, device, backend, threads }
    }
}

/// What the price of a pass depends on in a model's file: not what its weights say.
fn shape(info: &ModelInfo) -> String {
    let ModelInfo { architecture, n_layers, n_parameters, weight_bytes, n_vocab, .. } = info;
    let quantization = info.quantization.as_deref().unwrap_or_default();
    format!(
        "{architecture} {n_layers} layers {n_parameters} parameters {n_vocab} tokens {weight_bytes} bytes {quantization}"
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::chat::ChatTemplate;
    use crate::cost::PassCost;
    use crate::executor::scripted::{ByteVocabulary, Rule, Script};

    /// A file of its own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("fulcrum-profile-{}-{name}", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn model(n_layers: usize) -> Model {
        let weights = Script::new(Rule::hashed(300, 1)).weights();
        let info = ModelInfo { n_layers, context_length: 64, ..ModelInfo::default() };
        Model::from_parts(weights, Arc::new(ByteVocabulary::new()), ChatTemplate::new(None, "", "").unwrap(), info)
    }

    fn learn(model: &Model) {
        let pass = |rows, verify_ms| PassCost { rows, verify_ms, ..PassCost::default() };
        let cost = &mut model.inner.parts.experience.lock().cost;
        [pass(1, 30.0), pass(1, 31.0), pass(8, 40.0)].iter().for_each(|pass| cost.observe(pass));
    }

    #[test]
    fn the_next_start_knows_the_prices() {
        let file = Scratch::new("kept");
        let (first, second) = (model(2), model(2));
        learn(&first);
        first.save_profile(&file.0).unwrap();
        assert!(!second.inner.parts.experience.lock().cost.knows_plain());
        second.load_profile(&file.0).unwrap();
        let prices = |model: &Model| model.inner.parts.experience.lock().cost.prices(0, 16);
        assert_eq!(prices(&second), prices(&first));
        assert!(second.inner.parts.experience.lock().cost.knows_plain());
    }

    #[test]
    fn what_was_measured_with_something_else_is_refused_and_nothing_is_changed() {
        let file = Scratch::new("other");
        let first = model(2);
        learn(&first);
        first.save_profile(&file.0).unwrap();
        let drafted = model(2).with_draft(&model(1)).unwrap();
        for other in [&model(3), &drafted] {
            let error = other.load_profile(&file.0).unwrap_err().to_string();
            assert!(error.contains("with something else") && error.contains("fulcrum-profile"), "{error}");
            assert!(!other.inner.parts.experience.lock().cost.knows_plain());
        }
        let whole = std::fs::read(&file.0).unwrap();
        for bytes in [&b""[..], &b"null"[..], &b"{}"[..], &whole[..whole.len() / 2], &[0xff; 100]] {
            std::fs::write(&file.0, bytes).unwrap();
            assert!(matches!(
                first.load_profile(&file.0).unwrap_err().kind(),
                ErrorKind::InvalidOption { option: "profile", .. }
            ));
        }
        assert!(first.inner.parts.experience.lock().cost.knows_plain());
        std::fs::remove_file(&file.0).unwrap();
        assert!(matches!(first.load_profile(&file.0).unwrap_err().kind(), ErrorKind::File { action: "read", .. }));
        let nowhere = file.0.join("nowhere");
        assert!(matches!(first.save_profile(nowhere).unwrap_err().kind(), ErrorKind::File { .. }));
    }
}
