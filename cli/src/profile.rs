//! `--profile`: what passes and drafting cost, kept from run to run.

use crate::failure::Result;
use fulcrum::Model;
use std::path::PathBuf;

/// Where prices are kept.
#[derive(clap::Args)]
pub(crate) struct ProfileArgs {
    /// Begin with the prices of passes in FILE, and keep those measured now there: the first answer is guessed ahead sooner
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

impl ProfileArgs {
    /// Begins with what was kept; what was measured with something else is left out, and written over in the end.
    pub(crate) fn begin(&self, model: &Model) {
        let kept = self.profile.as_ref().filter(|path| path.exists());
        if let Some(error) = kept.and_then(|path| model.load_profile(path).err()) {
            log::warn!("{error}");
        }
    }

    /// Keeps what was measured.
    pub(crate) fn end(&self, model: &Model) -> Result<()> {
        Ok(self.profile.as_ref().map_or(Ok(()), |path| model.save_profile(path))?)
    }
}
