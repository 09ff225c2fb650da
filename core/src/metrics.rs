//! Figures of a step, a generation and a session, as plain values.
//!
//! They are filled by whoever measures and passed on by value: nothing here holds a clock, a lock or a global. Times are
//! seconds, sizes are bytes, counts are tokens or passes.

use serde::{Deserialize, Serialize};

/// Accepted tokens by the source that drafted them; a token that several sources drafted counts for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTokens {
    /// Text that was read or written before, or handed in.
    pub context: u64,
    /// The target's own word at another place of the context.
    pub aligned: u64,
    /// The target's word the last time it read the same token.
    pub recycle: u64,
    /// The rest of an earlier draft.
    pub reuse: u64,
    /// The draft model.
    pub model: u64,
}

/// What was read from flash, and what came of it; all zero where every weight is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlashMetrics {
    /// Bytes read.
    pub bytes: u64,
    /// Of those, bytes that were packed for the kernels as they came, because there is no prepared file: it costs time on every pass.
    pub packed_bytes: u64,
    /// Seconds during which something was being read.
    pub busy_s: f64,
    /// Seconds during which computing waited for what was being read.
    pub stalled_s: f64,
}

/// One pass of the target while decoding: draft, verify, accept, commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Tokens that the step chose, an end-of-generation token included.
    pub chosen: u64,
    /// Rows of the pass that were drafted.
    pub drafted: u64,
    /// Of those, accepted.
    pub accepted: u64,
    /// Of those, by source.
    pub accepted_by: SourceTokens,
    /// Duration in seconds.
    pub seconds: f64,
    /// Of that, drafting and learning from what came of it, the draft model included.
    pub draft_s: f64,
    /// Of that, the draft model.
    pub draft_model_s: f64,
    /// Of `seconds`, the layers, waiting for weights included.
    pub verify_s: f64,
    /// Of `seconds`, the output projection.
    pub project_s: f64,
    /// Of `seconds`, choosing tokens.
    pub sample_s: f64,
    /// Whether its rows were projected together, not one by one along the accepted path.
    pub batched: bool,
    /// What projecting them one by one was expected to take, and what together: the smaller one was chosen.
    pub expected_on_demand_s: f64,
    /// See `expected_on_demand_s`.
    pub expected_batched_s: f64,
    /// What the step was expected to take, without drafting; 0 before anything was measured.
    pub predicted_s: f64,
}

/// One generation: a prompt and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationMetrics {
    /// Tokens of the whole prompt: template, history and message.
    pub prompt_tokens: u64,
    /// Of those, taken from the K/V cache instead of being run again.
    pub reused_tokens: u64,
    /// Reading the prompt, until the first token is chosen.
    pub prefill_s: f64,
    /// Time to first token: from the call until the first token is chosen; rendering, encoding and waiting included.
    pub ttft_s: f64,
    /// Tokens generated. The token that ends a turn is not one of them.
    pub decode_tokens: u64,
    /// Time spent behind prefill: what drafters do with the prompt, which the second token waits for, and the passes. A consumer
    /// that is slower than the model does not count.
    pub decode_s: f64,
    /// Tokens that the passes after prefill chose, by `decode_s`. The first token is prefill's. 0 if there was no such pass.
    pub decode_tokens_per_s: f64,
    /// Passes of the target after prefill.
    pub target_passes: u64,
    /// Rows that drafters proposed.
    pub drafted: u64,
    /// Of those, accepted.
    pub accepted: u64,
    /// Of those, by source.
    pub accepted_by: SourceTokens,
    /// Tokens that a pass after prefill chose in the mean; 1 in plain decoding. 0 if there was no such pass.
    pub accepted_length: f64,
    /// Passes after prefill by their rows: of 1, 2, up to 4, up to 8, and so on, in the last all of more than 64.
    pub rows_per_pass: [u64; 8],
    /// Of `decode_s`, drafting and learning, from the prompt and from what came of drafts, the draft model included.
    pub draft_s: f64,
    /// Of `draft_s`, the draft model.
    pub draft_model_s: f64,
    /// Of `decode_s`, the layers.
    pub verify_s: f64,
    /// Of `decode_s`, the output projection.
    pub project_s: f64,
    /// Of `decode_s`, choosing tokens.
    pub sample_s: f64,
    /// Passes of several rows that were projected together, not one by one along the accepted path.
    pub batched_passes: u64,
    /// What projecting one by one was expected to take in passes of several rows, and what together: in each the cheaper was done.
    pub expected_on_demand_s: f64,
    /// See `expected_on_demand_s`.
    pub expected_batched_s: f64,
    /// What `decode_s` without `draft_s` was expected to be, pass by pass.
    pub predicted_s: f64,
    /// Whether anything might have been drafted: it was asked for, the executor forgets rejected rows for nothing, and, but for a
    /// chain, gives a row the same bits in any company.
    pub drafting: bool,
    /// What was read from flash during prefill, where the model is under a memory budget.
    pub prefill_flash: FlashMetrics,
    /// What was read from flash in the passes after prefill, reading ahead included.
    pub decode_flash: FlashMetrics,
    /// The process's largest resident set so far, in bytes, where the system tells it.
    pub peak_rss_bytes: Option<u64>,
    /// Tokens that the passes after prefill chose: what `decode_tokens_per_s` divides.
    #[serde(skip)]
    chosen: u64,
}

/// All generations of a session so far, those that were rolled back included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionMetrics {
    /// Generations that came to their end.
    pub completed: u64,
    /// Generations that were cancelled.
    pub cancelled: u64,
    /// Generations that failed.
    pub failed: u64,
    /// The sums over all of them; `ttft_s` and the rate are those of the sums, `peak_rss_bytes` is the largest.
    pub total: GenerationMetrics,
}

/// How a generation came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationEnd {
    /// With an answer.
    Completed,
    /// By the user.
    Cancelled,
    /// With an error.
    Failed,
}

impl FlashMetrics {
    /// What was read since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(before.bytes),
            packed_bytes: self.packed_bytes.saturating_sub(before.packed_bytes),
            busy_s: (self.busy_s - before.busy_s).max(0.0),
            stalled_s: (self.stalled_s - before.stalled_s).max(0.0),
        }
    }

    /// Bytes per second while something was being read; 0 if nothing was.
    pub fn bandwidth(&self) -> f64 {
        if self.busy_s > 0.0 { self.bytes as f64 / self.busy_s } else { 0.0 }
    }

    /// The share of reading that computing did not wait for, 0 to 1; 1 if nothing was read.
    pub fn overlap(&self) -> f64 {
        if self.busy_s > 0.0 { (1.0 - self.stalled_s / self.busy_s).clamp(0.0, 1.0) } else { 1.0 }
    }

    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.packed_bytes += other.packed_bytes;
        self.busy_s += other.busy_s;
        self.stalled_s += other.stalled_s;
    }
}

impl SourceTokens {
    fn add(&mut self, other: &Self) {
        self.context += other.context;
        self.aligned += other.aligned;
        self.recycle += other.recycle;
        self.reuse += other.reuse;
        self.model += other.model;
    }
}

impl GenerationMetrics {
    /// Adds a pass after prefill.
    pub fn add_step(&mut self, step: &StepMetrics) {
        self.target_passes += 1;
        self.drafted += step.drafted;
        self.accepted += step.accepted;
        self.accepted_by.add(&step.accepted_by);
        // ceil(log2(rows)), with the root among the rows.
        let bin = (step.drafted + 1).next_power_of_two().trailing_zeros() as usize;
        self.rows_per_pass[bin.min(self.rows_per_pass.len() - 1)] += 1;
        self.decode_s += step.seconds;
        self.draft_s += step.draft_s;
        self.draft_model_s += step.draft_model_s;
        self.verify_s += step.verify_s;
        self.project_s += step.project_s;
        self.sample_s += step.sample_s;
        self.predicted_s += step.predicted_s;
        if step.drafted > 0 {
            self.batched_passes += u64::from(step.batched);
            self.expected_on_demand_s += step.expected_on_demand_s;
            self.expected_batched_s += step.expected_batched_s;
        }
        self.chosen += step.chosen;
        self.update_rates();
    }

    /// Adds time that drafters took outside of passes, with what of it was the draft model's.
    pub fn add_drafting(&mut self, seconds: f64, model_seconds: f64) {
        self.decode_s += seconds;
        self.draft_s += seconds;
        self.draft_model_s += model_seconds;
        self.update_rates();
    }

    fn add(&mut self, other: &Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.reused_tokens += other.reused_tokens;
        self.prefill_s += other.prefill_s;
        self.ttft_s += other.ttft_s;
        self.decode_tokens += other.decode_tokens;
        self.decode_s += other.decode_s;
        self.target_passes += other.target_passes;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
        self.accepted_by.add(&other.accepted_by);
        self.rows_per_pass.iter_mut().zip(other.rows_per_pass).for_each(|(n, more)| *n += more);
        self.draft_s += other.draft_s;
        self.draft_model_s += other.draft_model_s;
        self.verify_s += other.verify_s;
        self.project_s += other.project_s;
        self.sample_s += other.sample_s;
        self.predicted_s += other.predicted_s;
        self.batched_passes += other.batched_passes;
        self.expected_on_demand_s += other.expected_on_demand_s;
        self.expected_batched_s += other.expected_batched_s;
        self.drafting |= other.drafting;
        self.prefill_flash.add(&other.prefill_flash);
        self.decode_flash.add(&other.decode_flash);
        self.peak_rss_bytes = self.peak_rss_bytes.max(other.peak_rss_bytes);
        self.chosen += other.chosen;
        self.update_rates();
    }

    fn update_rates(&mut self) {
        self.accepted_length = self.chosen as f64 / self.target_passes.max(1) as f64;
        self.decode_tokens_per_s = if self.decode_s > 0.0 { self.chosen as f64 / self.decode_s } else { 0.0 };
    }
}

impl SessionMetrics {
    /// Adds a generation, however it ended.
    pub fn add_generation(&mut self, generation: &GenerationMetrics, end: GenerationEnd) {
        match end {
            GenerationEnd::Completed => self.completed += 1,
            GenerationEnd::Cancelled => self.cancelled += 1,
            GenerationEnd::Failed => self.failed += 1,
        }
        self.total.add(generation);
    }
}

/// The process's largest resident set so far, in bytes; `None` where the system does not tell (it does on Linux and Android).
pub fn peak_rss_bytes() -> Option<u64> {
    parse_peak_rss(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmHWM` of `/proc/self/status` (proc(5)), which counts in units of 1024 bytes.
fn parse_peak_rss(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_what_passes_after_prefill_chose() {
        let mut generation = GenerationMetrics { decode_tokens: 4, ..Default::default() };
        generation.add_step(&StepMetrics { chosen: 3, drafted: 5, accepted: 2, seconds: 0.5, ..Default::default() });
        generation.add_step(&StepMetrics { chosen: 1, seconds: 0.5, ..Default::default() });
        assert_eq!((generation.target_passes, generation.drafted, generation.accepted), (2, 5, 2));
        assert_eq!((generation.decode_tokens_per_s, generation.accepted_length), (4.0, 2.0));
        assert_eq!(generation.rows_per_pass, [1, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_session_sums_generations_and_counts_their_ends() {
        let mut generation = GenerationMetrics { prompt_tokens: 7, peak_rss_bytes: Some(3), ..Default::default() };
        generation.add_step(&StepMetrics { chosen: 2, seconds: 0.5, ..Default::default() });
        let mut session = SessionMetrics::default();
        session.add_generation(&generation, GenerationEnd::Completed);
        session.add_generation(&generation, GenerationEnd::Cancelled);
        session.add_generation(&GenerationMetrics { decode_s: 1.0, ..Default::default() }, GenerationEnd::Failed);
        assert_eq!((session.completed, session.cancelled, session.failed), (1, 1, 1));
        assert_eq!((session.total.prompt_tokens, session.total.target_passes), (14, 2));
        assert_eq!((session.total.decode_tokens_per_s, session.total.peak_rss_bytes), (2.0, Some(3)));
    }

    #[test]
    fn peak_rss_is_read_in_bytes() {
        assert_eq!(parse_peak_rss("VmPeak:\t 9 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 1 kB\n"), Some(1_263_616));
        assert_eq!(parse_peak_rss("VmRSS:\t 1 kB\n"), None);
        assert_eq!(parse_peak_rss("VmHWM: many kB\n"), None);
        #[cfg(target_os = "linux")]
        assert!(peak_rss_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
