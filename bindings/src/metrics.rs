//! Figures of a generation and of a session. Times are seconds, sizes bytes, counts tokens or passes.

use crate::number::figure;

/// Accepted tokens by the source that drafted them; a token that several sources drafted counts for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct SourceTokens {
    /// Text that was read or written before, or handed in.
    pub context: i64,
    /// The target's own word at another place of the context.
    pub aligned: i64,
    /// The target's word the last time it read the same token.
    pub recycle: i64,
    /// The rest of an earlier draft.
    pub reuse: i64,
    /// The draft model.
    pub model: i64,
}

/// What was read from flash, and what came of it; all zero where every weight is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, uniffi::Record)]
pub struct FlashMetrics {
    /// Bytes read.
    pub bytes: i64,
    /// Of those, bytes that were packed for the kernels as they came, because there is no prepared file: it costs time on every pass.
    pub packed_bytes: i64,
    /// Seconds during which something was being read.
    pub busy_s: f64,
    /// Seconds during which computing waited for what was being read.
    pub stalled_s: f64,
    /// Bytes per second while something was being read; 0 if nothing was.
    pub bandwidth: f64,
    /// The share of reading that computing did not wait for, 0 to 1; 1 if nothing was read.
    pub overlap: f64,
}

/// The figures of one generation: a prompt and its answer.
#[derive(Clone, Debug, Default, PartialEq, uniffi::Record)]
pub struct GenerationMetrics {
    /// Tokens of the whole prompt: template, history and message.
    pub prompt_tokens: i64,
    /// Of those, taken from the K/V cache instead of being run again.
    pub reused_tokens: i64,
    /// Seconds spent reading the prompt, until the first token is chosen.
    pub prefill_s: f64,
    /// Seconds from the call until the first token is chosen; rendering, encoding and waiting included.
    pub ttft_s: f64,
    /// Tokens generated. The token that ends a turn is not one of them.
    pub decode_tokens: i64,
    /// Seconds spent behind prefill: what drafters do with the prompt, which the second token waits for, and the passes. A consumer
    /// that is slower than the model does not count.
    pub decode_s: f64,
    /// Tokens that the passes after prefill chose, by `decode_s`. The first token is prefill's. 0 if there was no such pass.
    pub decode_tokens_per_s: f64,
    /// Passes of the model after prefill.
    pub target_passes: i64,
    /// Rows that drafters proposed.
    pub drafted: i64,
    /// Of those, accepted.
    pub accepted: i64,
    /// Of those, by source.
    pub accepted_by: SourceTokens,
    /// Tokens that a pass after prefill chose in the mean; 1 in plain decoding. 0 if there was no such pass.
    pub accepted_length: f64,
    /// Passes after prefill by their rows: of 1, 2, up to 4, up to 8, and so on, in the last all of more than 64.
    pub rows_per_pass: Vec<i64>,
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
    pub batched_passes: i64,
    /// Seconds that projecting one by one was expected to take in passes of several rows. In each, the cheaper was done.
    pub expected_on_demand_s: f64,
    /// Seconds that projecting together was expected to take in the same passes.
    pub expected_batched_s: f64,
    /// What `decode_s` without `draft_s` was expected to be, pass by pass.
    pub predicted_s: f64,
    /// Whether anything might have been drafted.
    pub drafting: bool,
    /// What was read from flash during prefill, where the model is under a memory budget.
    pub prefill_flash: FlashMetrics,
    /// What was read from flash in the passes after prefill, reading ahead included.
    pub decode_flash: FlashMetrics,
    /// The process's largest resident set so far, in bytes, where the system tells it.
    pub peak_rss_bytes: Option<i64>,
}

/// The figures of all generations of a session so far, those that were rolled back included.
#[derive(Clone, Debug, Default, PartialEq, uniffi::Record)]
pub struct SessionMetrics {
    /// Generations that came to their end.
    pub completed: i64,
    /// Generations that were cancelled.
    pub cancelled: i64,
    /// Generations that failed.
    pub failed: i64,
    /// The sums over all of them; time to first token and the rate are those of the sums, `peak_rss_bytes` is the largest.
    pub total: GenerationMetrics,
}

impl From<fulcrum::SourceTokens> for SourceTokens {
    fn from(by: fulcrum::SourceTokens) -> Self {
        Self {
            context: figure(by.context),
            aligned: figure(by.aligned),
            recycle: figure(by.recycle),
            reuse: figure(by.reuse),
            model: figure(by.model),
        }
    }
}

impl From<fulcrum::metrics::FlashMetrics> for FlashMetrics {
    fn from(flash: fulcrum::metrics::FlashMetrics) -> Self {
        Self {
            bytes: figure(flash.bytes),
            packed_bytes: figure(flash.packed_bytes),
            busy_s: flash.busy_s,
            stalled_s: flash.stalled_s,
            bandwidth: flash.bandwidth(),
            overlap: flash.overlap(),
        }
    }
}

impl From<fulcrum::GenerationMetrics> for GenerationMetrics {
    fn from(metrics: fulcrum::GenerationMetrics) -> Self {
        Self {
            prompt_tokens: figure(metrics.prompt_tokens),
            reused_tokens: figure(metrics.reused_tokens),
            prefill_s: metrics.prefill_s,
            ttft_s: metrics.ttft_s,
            decode_tokens: figure(metrics.decode_tokens),
            decode_s: metrics.decode_s,
            decode_tokens_per_s: metrics.decode_tokens_per_s,
            target_passes: figure(metrics.target_passes),
            drafted: figure(metrics.drafted),
            accepted: figure(metrics.accepted),
            accepted_by: metrics.accepted_by.into(),
            accepted_length: metrics.accepted_length,
            rows_per_pass: metrics.rows_per_pass.into_iter().map(figure).collect(),
            draft_s: metrics.draft_s,
            draft_model_s: metrics.draft_model_s,
            verify_s: metrics.verify_s,
            project_s: metrics.project_s,
            sample_s: metrics.sample_s,
            batched_passes: figure(metrics.batched_passes),
            expected_on_demand_s: metrics.expected_on_demand_s,
            expected_batched_s: metrics.expected_batched_s,
            predicted_s: metrics.predicted_s,
            drafting: metrics.drafting,
            prefill_flash: metrics.prefill_flash.into(),
            decode_flash: metrics.decode_flash.into(),
            peak_rss_bytes: metrics.peak_rss_bytes.map(figure),
        }
    }
}

impl From<fulcrum::SessionMetrics> for SessionMetrics {
    fn from(metrics: fulcrum::SessionMetrics) -> Self {
        Self {
            completed: figure(metrics.completed),
            cancelled: figure(metrics.cancelled),
            failed: figure(metrics.failed),
            total: metrics.total.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number of its own for every figure. As JSON, because one of the core's is private.
    const FIGURES: &str = r#"{
        "prompt_tokens": 1, "reused_tokens": 2, "prefill_s": 3, "ttft_s": 4,
        "decode_tokens": 5, "decode_s": 6, "decode_tokens_per_s": 7, "target_passes": 8, "drafted": 9, "accepted": 10,
        "accepted_by": { "context": 11, "aligned": 12, "recycle": 13, "reuse": 14, "model": 15 },
        "accepted_length": 16, "rows_per_pass": [17, 18, 19, 20, 21, 22, 23, 24],
        "draft_s": 25, "draft_model_s": 26, "verify_s": 27, "project_s": 28, "sample_s": 29, "batched_passes": 30,
        "expected_on_demand_s": 31, "expected_batched_s": 32, "predicted_s": 33, "drafting": true,
        "prefill_flash": { "bytes": 70, "packed_bytes": 34, "busy_s": 2, "stalled_s": 0.5 },
        "decode_flash": { "bytes": 144, "packed_bytes": 37, "busy_s": 4, "stalled_s": 3 },
        "peak_rss_bytes": 38
    }"#;

    fn figures() -> GenerationMetrics {
        GenerationMetrics {
            prompt_tokens: 1,
            reused_tokens: 2,
            prefill_s: 3.0,
            ttft_s: 4.0,
            decode_tokens: 5,
            decode_s: 6.0,
            decode_tokens_per_s: 7.0,
            target_passes: 8,
            drafted: 9,
            accepted: 10,
            accepted_by: SourceTokens { context: 11, aligned: 12, recycle: 13, reuse: 14, model: 15 },
            accepted_length: 16.0,
            rows_per_pass: (17..25).collect(),
            draft_s: 25.0,
            draft_model_s: 26.0,
            verify_s: 27.0,
            project_s: 28.0,
            sample_s: 29.0,
            batched_passes: 30,
            expected_on_demand_s: 31.0,
            expected_batched_s: 32.0,
            predicted_s: 33.0,
            drafting: true,
            prefill_flash: FlashMetrics {
                bytes: 70,
                packed_bytes: 34,
                busy_s: 2.0,
                stalled_s: 0.5,
                bandwidth: 35.0,
                overlap: 0.75,
            },
            decode_flash: FlashMetrics {
                bytes: 144,
                packed_bytes: 37,
                busy_s: 4.0,
                stalled_s: 3.0,
                bandwidth: 36.0,
                overlap: 0.25,
            },
            peak_rss_bytes: Some(38),
        }
    }

    #[test]
    fn every_figure_arrives() {
        let total = serde_json::from_str(FIGURES).unwrap();
        let given = fulcrum::SessionMetrics { completed: 51, cancelled: 52, failed: 53, total };
        let there = SessionMetrics { completed: 51, cancelled: 52, failed: 53, total: figures() };
        assert_eq!(SessionMetrics::from(given), there);
    }
}
