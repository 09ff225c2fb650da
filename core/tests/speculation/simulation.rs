//! An answer on a simulated clock.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fulcrum::accept::{Accepted, Choice, accept};
use fulcrum::cost::PassCost;
use fulcrum::draft::TopK;
use fulcrum::executor::Row;
use fulcrum::growth::Limits;
use fulcrum::speculation::{Drafting, Experience, Plan, Speculation};
use fulcrum::tree::Source;
use fulcrum::{Cancel, Token};

use crate::setting::Setting;
use crate::simulated_model::{SimulatedModel, Skill};
use crate::workload::{N_VOCAB, Workload, said, said_elsewhere, said_of_prompt};

/// Nanoseconds of simulated time.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn advance(&self, ms: f64) {
        self.0.fetch_add((ms * 1e6) as u64, Ordering::Relaxed);
    }

    /// Looking takes 2 µs.
    pub(crate) fn look(&self) -> f64 {
        self.0.fetch_add(2_000, Ordering::Relaxed) as f64 / 1e6
    }
}

/// Share of a prompt's rows that are heard: what one per cent of the prefill of a model with 32 layers pays for (`decode::prefill`).
pub(crate) const HEARD: f64 = 0.035;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) tokens: usize,
    pub(crate) ms: f64,
    /// Of that, what the draft model read of the prompt.
    pub(crate) reading_ms: f64,
    pub(crate) passes: usize,
    /// After each step: tokens of the output, and the ms they took.
    steps: Vec<(usize, f64)>,
    pub(crate) accepted_by: [usize; Source::COUNT],
    /// What was learnt by the end.
    pub(crate) experience: Experience,
}

impl Run {
    pub(crate) fn ms_per_token(&self) -> f64 {
        self.ms / self.tokens as f64
    }

    /// Ms until `token` tokens were written, in proportion within a step.
    fn ms_at(&self, token: usize) -> f64 {
        let after = self.steps.partition_point(|&(tokens, _)| tokens < token).min(self.steps.len() - 1);
        let (right, right_ms) = self.steps[after];
        let (left, left_ms) = if after > 0 { self.steps[after - 1] } else { (0, 0.0) };
        let share = (token.min(right) - left) as f64 / (right - left) as f64;
        left_ms + (right_ms - left_ms) * share
    }

    pub(crate) fn ms_of(&self, tokens: Range<usize>) -> f64 {
        self.ms_at(tokens.end) - self.ms_at(tokens.start)
    }
}

pub(crate) fn run(workload: &Workload, setting: Setting, drafting: Drafting, skill: Option<Skill>) -> Run {
    run_from(workload, setting, drafting, skill, HEARD)
}

/// As `run`; `heard` is the share of the prompt's rows, from its end, that prefill hears.
pub(crate) fn run_from(
    workload: &Workload,
    setting: Setting,
    drafting: Drafting,
    skill: Option<Skill>,
    heard: f64,
) -> Run {
    run_with(workload, setting, drafting, skill, heard, setting.measured().into())
}

pub(crate) fn run_with(
    workload: &Workload,
    setting: Setting,
    drafting: Drafting,
    skill: Option<Skill>,
    heard: f64,
    experience: Experience,
) -> Run {
    let clock = Clock::default();
    let text: Arc<Vec<Token>> = Arc::new([workload.prompt.as_slice(), &workload.output].concat());
    let n_prompt = workload.prompt.len();
    let mut speculation = Speculation::new(drafting, Limits::default(), N_VOCAB, experience);
    if let Some(skill) = skill {
        let model = SimulatedModel::new(clock.clone(), setting, text.clone(), n_prompt, skill);
        speculation = speculation.with_model(Box::new(model));
    }
    read_prompt(&mut speculation, &text, n_prompt, heard);
    let reading_ms = speculation.let_model_read(text.len() - n_prompt - 1, &|| clock.look(), &Cancel::new()).unwrap();
    let mut result = Run { ms: reading_ms, reading_ms, ..Run::default() };
    let mut at = n_prompt;
    while at + 1 < text.len() {
        let start = clock.look();
        let emitted = step(&mut speculation, &text, at, setting, &clock, &mut result);
        result.ms += clock.look() - start;
        result.passes += 1;
        result.tokens += emitted;
        result.steps.push((result.tokens, result.ms));
        at += emitted;
    }
    result.experience = speculation.experience();
    result
}

/// Reads the prompt `text[..n_prompt]`, of which the last rows, a share of `heard`, are heard.
pub(crate) fn read_prompt(speculation: &mut Speculation, text: &[Token], n_prompt: usize, heard: f64) {
    let unheard = n_prompt - (n_prompt as f64 * heard) as usize;
    for at in 0..n_prompt {
        let top = said_of_prompt(text[at], text[at + 1], at as u64);
        speculation.read(text[at], (at >= unheard && at + 1 < n_prompt).then_some(&top));
    }
}

/// What a target accepts of `plan` that goes on as `text[at..]` does, and what it says at the rows that were projected.
pub(crate) fn verify(plan: &Plan, text: &[Token], at: usize) -> (Accepted, Vec<(u32, TopK)>) {
    let choose = |path: &[u32]| {
        let next = at + path.len() - 1;
        Ok(if next + 1 < text.len() { Choice::Continue(text[next]) } else { Choice::Stop(text[next]) })
    };
    let accepted = accept(&plan.flat, choose).unwrap();
    let says = |(row, r): (u32, &Row)| {
        let on_path = accepted.path.iter().position(|&p| p == row);
        let said = on_path.map(|i| said(r.token, text[at + i]));
        Some((row, said.or_else(|| plan.projection.batched.then(|| said_elsewhere(r.token)))?))
    };
    let said = (0..).zip(&plan.flat.rows).filter_map(says).collect();
    (accepted, said)
}

/// One step from history `text[..at]`. Returns the number of tokens emitted.
fn step(spec: &mut Speculation, text: &[Token], at: usize, setting: Setting, clock: &Clock, result: &mut Run) -> usize {
    let plan = spec.plan(at - 1, text.len() - at, &|| clock.look(), &Cancel::new()).unwrap();
    let (accepted, said) = verify(&plan, text, at);
    let rows = plan.flat.rows.len();
    let (calls, per_call) = if plan.projection.batched { (1, rows) } else { (accepted.path.len(), 1) };
    let pass = PassCost {
        rows,
        leaves: plan.flat.n_leaves(),
        cached: at - 1,
        projected: calls * per_call,
        projected_per_call: per_call,
        project_ms: calls as f64 * setting.project_ms(per_call),
        sampled: accepted.path.len(),
        sample_ms: 0.02 * accepted.path.len() as f64,
        overhead_ms: 0.05,
        ..setting.pass(setting.noisy(setting.verify_ms(rows), at as u64))
    };
    clock.advance(pass.total_ms());
    let emitted: Vec<Token> = accepted.emitted(&plan.flat).collect();
    assert_eq!(emitted, text[at..at + emitted.len()], "drafting changed the text");
    let settled = spec.settle(&plan, &accepted, &said, &pass, &|| clock.look());
    for (sum, n) in result.accepted_by.iter_mut().zip(settled.accepted_by) {
        *sum += n;
    }
    emitted.len()
}
