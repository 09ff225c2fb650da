//! Workloads answered in several modes, prompt by prompt in turns, and the figures.
//!
//! Every prompt is answered by all modes before the next one comes, in an order that turns from prompt to prompt, each by a new
//! session: whatever slows the machine for a while slows all modes. Each mode has its own model over the same weights, so that
//! none profits from what another has learnt. Of several rounds the median counts: a mode's own figures are those of its round of
//! median decoding time, and a ratio is the median of the rounds' ratios, because what disturbed the machine in a round disturbed both.
//! Deliberately not known here: files, tables.

use super::mode::Mode;
use super::workload::{Prompt, Workload};
use crate::failure::Result;
use fulcrum::metrics::GenerationMetrics;
use fulcrum::{GenerationOptions, Model, SessionOptions, Token};
use serde::Serialize;

/// A mode and the model that runs it.
pub(crate) struct Contestant {
    pub(crate) mode: Mode,
    pub(crate) model: Model,
}

/// How the prompts are answered.
pub(crate) struct Rules {
    /// Tokens of an answer at most.
    pub(crate) max_tokens: usize,
    pub(crate) rounds: usize,
}

/// What one mode made of one prompt, in one round.
#[derive(Clone, Debug)]
struct Answer {
    tokens: Vec<Token>,
    metrics: GenerationMetrics,
}

/// One mode's answers, `[prompts][rounds]`.
type Rounds = Vec<Vec<Answer>>;

/// One mode on one workload. Ratios are geometric means over the prompts, above 1 where this mode is faster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) workload: String,
    pub(crate) name: String,
    /// Of all prompts.
    pub(crate) prefill_tokens: u64,
    /// Of all answers.
    pub(crate) decode_tokens: u64,
    pub(crate) prefill_tokens_per_s: f64,
    pub(crate) decode_tokens_per_s: f64,
    /// Of decoding speed to plain decoding's; none where that did not run.
    pub(crate) ratio: Option<f64>,
    /// Of decoding speed to llama.cpp's.
    pub(crate) ratio_llama: Option<f64>,
    /// Of prefill's speed to plain decoding's.
    pub(crate) prefill_ratio: Option<f64>,
    /// Of the time to the first token.
    pub(crate) ttft_ratio: Option<f64>,
    /// Of the time of the whole answer, prompt included.
    pub(crate) total_ratio: Option<f64>,
    /// Tokens per pass.
    pub(crate) accepted_length: f64,
    pub(crate) drafted: u64,
    pub(crate) accepted: u64,
    pub(crate) accepted_by: fulcrum::SourceTokens,
    /// Parts of the decoding time, in [0, 1].
    pub(crate) draft_model_share: f64,
    pub(crate) draft_share: f64,
    pub(crate) verify_share: f64,
    pub(crate) project_share: f64,
    pub(crate) sample_share: f64,
    /// Predicted time of all passes over what they took, without drafting.
    pub(crate) predicted_over_measured: f64,
    /// Answers with other tokens than plain decoding's.
    pub(crate) different: Option<usize>,
    /// What decoding read from flash; none if it read nothing.
    pub(crate) flash: Option<FlashLine>,
    /// The process's largest resident set so far.
    pub(crate) peak_rss_bytes: Option<u64>,
}

/// What a mode read from flash while decoding.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct FlashLine {
    pub(crate) gb_per_pass: f64,
    /// While something was being read.
    pub(crate) gb_per_s: f64,
    /// Share of the reading time during which computing did not wait, in [0, 1].
    pub(crate) overlap: f64,
}

/// Answers all prompts with all contestants. `done` is told after every prompt.
pub(crate) fn race(
    contestants: &[Contestant],
    workload: &Workload,
    rules: &Rules,
    mut done: impl FnMut(),
) -> Result<Vec<Line>> {
    let mut answers: Vec<Rounds> = vec![vec![Vec::new(); workload.prompts.len()]; contestants.len()];
    for round in 0..rules.rounds {
        for (i, prompt) in workload.prompts.iter().enumerate() {
            for turn in 0..contestants.len() {
                let who = (turn + i + round) % contestants.len();
                answers[who][i].push(contestants[who].answer(prompt, rules.max_tokens)?);
            }
            done();
        }
    }
    let of = |mode| contestants.iter().position(|c| c.mode == mode).map(|i| &answers[i]);
    let (plain, llama) = (of(Mode::PLAIN), of(Mode::LlamaCpp));
    let line = |(contestant, answers): (&Contestant, &Rounds)| Line {
        workload: workload.name.clone(),
        different: (contestant.mode != Mode::LlamaCpp).then(|| plain.map(|plain| different(answers, plain))).flatten(),
        ..line(contestant.mode, answers, plain, llama)
    };
    Ok(contestants.iter().zip(&answers).map(line).collect())
}

impl Contestant {
    fn answer(&self, prompt: &Prompt, max_tokens: usize) -> Result<Answer> {
        let session = self.model.session(SessionOptions::default())?;
        let mut messages = prompt.messages.clone();
        let last = messages.pop().into_iter().collect();
        session.restore_history(messages)?;
        let drafting = if let Mode::Own(drafting) = self.mode { drafting } else { fulcrum::Drafting::Off };
        let options = GenerationOptions { max_tokens: Some(max_tokens), drafting, ..GenerationOptions::default() };
        let response = session.stream_messages(last, &options)?.finish()?;
        Ok(Answer { tokens: response.tokens, metrics: response.metrics })
    }

    /// Answers one prompt for nothing: caches, page tables and thread pools are then as in the second answer.
    pub(crate) fn warm_up(&self, workload: &Workload, max_tokens: usize) -> Result<()> {
        workload.prompts.first().map_or(Ok(()), |prompt| self.answer(prompt, max_tokens).map(|_| ()))
    }
}

/// The answer of median decoding time.
fn typical(rounds: &[Answer]) -> Option<&Answer> {
    let mut rounds: Vec<&Answer> = rounds.iter().collect();
    rounds.sort_by(|a, b| a.metrics.decode_s.total_cmp(&b.metrics.decode_s));
    rounds.get(rounds.len().saturating_sub(1) / 2).copied()
}

/// Of an even number of ratios the geometric mean of the two in the middle. None of no values.
fn median(ratios: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = ratios.collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    geometric_mean([sorted[last / 2], sorted[last.div_ceil(2)]].into_iter())
}

/// Prompts answered otherwise in any round.
fn different(answers: &Rounds, plain: &Rounds) -> usize {
    let differ = |mine: &[Answer], theirs: &[Answer]| mine.iter().zip(theirs).any(|(a, b)| a.tokens != b.tokens);
    answers.iter().zip(plain).filter(|(mine, theirs)| differ(mine, theirs)).count()
}

/// Geometric mean over the prompts of the median over the rounds of `speed` over the `speed` of `to`.
fn ratio(rounds: &Rounds, to: &Rounds, speed: impl Fn(&GenerationMetrics) -> Option<f64>) -> Option<f64> {
    let one = |(mine, theirs): (&Answer, &Answer)| Some(speed(&mine.metrics)? / speed(&theirs.metrics)?);
    geometric_mean(rounds.iter().zip(to).filter_map(|(mine, theirs)| median(mine.iter().zip(theirs).filter_map(one))))
}

fn line(mode: Mode, rounds: &Rounds, plain: Option<&Rounds>, llama: Option<&Rounds>) -> Line {
    let answers: Vec<&Answer> = rounds.iter().filter_map(|rounds| typical(rounds)).collect();
    let sum = |figure: fn(&GenerationMetrics) -> f64| answers.iter().map(|a| figure(&a.metrics)).sum::<f64>();
    let count = |figure: fn(&GenerationMetrics) -> u64| answers.iter().map(|a| figure(&a.metrics)).sum::<u64>();
    let seconds = sum(|m| m.decode_s);
    let chosen = sum(|m| m.accepted_length * m.target_passes as f64);
    let read = |m: &GenerationMetrics| m.prompt_tokens - m.reused_tokens;
    let per_second = |m: &GenerationMetrics| (m.target_passes > 0).then_some(m.decode_tokens_per_s);
    let read_per_second = |m: &GenerationMetrics| Some(read(m) as f64 / m.prefill_s);
    let earlier = |m: &GenerationMetrics| Some(1.0 / m.ttft_s);
    let sooner = |m: &GenerationMetrics| Some(1.0 / (m.prefill_s + m.decode_s));
    Line {
        workload: String::new(),
        name: mode.to_string(),
        prefill_tokens: count(read),
        decode_tokens: count(|m| m.decode_tokens),
        prefill_tokens_per_s: count(read) as f64 / sum(|m| m.prefill_s),
        decode_tokens_per_s: chosen / seconds,
        ratio: plain.and_then(|plain| ratio(rounds, plain, per_second)),
        ratio_llama: llama.and_then(|llama| ratio(rounds, llama, per_second)),
        prefill_ratio: plain.and_then(|plain| ratio(rounds, plain, read_per_second)),
        ttft_ratio: plain.and_then(|plain| ratio(rounds, plain, earlier)),
        total_ratio: plain.and_then(|plain| ratio(rounds, plain, sooner)),
        accepted_length: chosen / count(|m| m.target_passes) as f64,
        drafted: count(|m| m.drafted),
        accepted: count(|m| m.accepted),
        accepted_by: fulcrum::SourceTokens {
            context: count(|m| m.accepted_by.context),
            aligned: count(|m| m.accepted_by.aligned),
            recycle: count(|m| m.accepted_by.recycle),
            reuse: count(|m| m.accepted_by.reuse),
            model: count(|m| m.accepted_by.model),
        },
        draft_model_share: sum(|m| m.draft_model_s) / seconds,
        draft_share: sum(|m| m.draft_s - m.draft_model_s) / seconds,
        verify_share: sum(|m| m.verify_s) / seconds,
        project_share: sum(|m| m.project_s) / seconds,
        sample_share: sum(|m| m.sample_s) / seconds,
        predicted_over_measured: sum(|m| m.predicted_s) / sum(|m| m.decode_s - m.draft_s),
        different: None,
        flash: flash(&answers),
        peak_rss_bytes: answers.iter().filter_map(|a| a.metrics.peak_rss_bytes).max(),
    }
}

fn flash(answers: &[&Answer]) -> Option<FlashLine> {
    let sum = |figure: fn(&GenerationMetrics) -> f64| answers.iter().map(|a| figure(&a.metrics)).sum::<f64>();
    let (gb, busy) = (sum(|m| m.decode_flash.bytes as f64 / 1e9), sum(|m| m.decode_flash.busy_s));
    let overlap = 1.0 - sum(|m| m.decode_flash.stalled_s) / busy;
    (busy > 0.0).then(|| FlashLine { gb_per_pass: gb / sum(|m| m.target_passes as f64), gb_per_s: gb / busy, overlap })
}

/// None of no values.
pub(crate) fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.fold((0, 0.0), |(n, sum), value| (n + 1, sum + value.ln()));
    (n > 0).then(|| (sum / f64::from(n)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::tests::echo_parts;
    use fulcrum::{ChatTemplate, Drafting, Message, ModelInfo};

    fn model() -> Model {
        let parts = echo_parts();
        let template = ChatTemplate::new(None, "", "").unwrap();
        let mut info = ModelInfo::default();
        info.context_length = parts.context_length;
        Model::from_parts(parts.weights, parts.vocabulary, template, info)
    }

    #[test]
    fn every_mode_answers_every_prompt_the_same() {
        let modes = [Mode::PLAIN, Mode::Own(Drafting::Auto), Mode::Own(Drafting::Chain { n: 4 })];
        let contestants = modes.map(|mode| Contestant { mode, model: model() });
        let prompt = |text: &str| Prompt { messages: vec![Message::user(text)] };
        let prompts = vec![prompt("say say say say"), prompt("abc abc abc abc")];
        let workload = Workload { name: "echo".into(), prompts };
        let mut n_done = 0;
        let rules = Rules { max_tokens: 40, rounds: 2 };
        let lines = race(&contestants, &workload, &rules, || n_done += 1).unwrap();
        assert_eq!(n_done, 4);
        assert_eq!(lines.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["off", "auto", "chain:4"]);
        assert!(lines.iter().all(|line| line.different == Some(0) && line.workload == "echo"));
        assert_eq!((lines[0].ratio, lines[0].ratio_llama, lines[0].accepted_length), (Some(1.0), None, 1.0));
        assert!(lines[2].accepted_length > 1.2, "{:?}", lines[2]);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let took = |decode_s: f64| {
            let mut metrics = GenerationMetrics::default();
            (metrics.decode_s, metrics.decode_tokens_per_s) = (decode_s, 1.0 / decode_s);
            Answer { tokens: vec![], metrics }
        };
        // The machine is slower from round to round, for both; once it was while one of them ran.
        let plain = vec![vec![took(1.0), took(2.0), took(9.0)]];
        let mine = vec![vec![took(0.5), took(8.0), took(4.5)]];
        let speed = |m: &GenerationMetrics| Some(m.decode_tokens_per_s);
        assert_eq!(ratio(&mine, &plain, speed), Some(2.0));
        assert_eq!(ratio(&mine, &plain, |_| None), None);
        assert_eq!((median([4.0, 0.5, 1.0, 100.0].into_iter()), median(std::iter::empty())), (Some(2.0), None));
    }

    #[test]
    fn means_are_geometric() {
        assert_eq!(geometric_mean([1.0, 4.0].into_iter()), Some(2.0));
        assert_eq!(geometric_mean(std::iter::empty()), None);
    }
}
