//! Drafting changes speed, never text: the whole loop on the scripted executor, greedy and sampled, with every drafter.
//!
//! The loop here is the shortest that does everything: plan, pass, projection on demand or batched, accept, commit, settle.

use std::collections::BTreeMap;
use std::sync::Arc;

use fulcrum::accept::{Choice, accept};
use fulcrum::cost::{CostModel, PassCost};
use fulcrum::draft::{ModelDrafter, TopK};
use fulcrum::executor::scripted::{Rule, Script, ScriptedWeights};
use fulcrum::executor::{Executor, Weights};
use fulcrum::growth::Limits;
use fulcrum::sampling::Sampler;
use fulcrum::speculation::{Drafting, Plan, Speculation};
use fulcrum::{Cancel, SamplerSettings, Token};

use crate::workload::unit;

const N_VOCAB: usize = 24;
const N_CELLS: usize = 400;

/// A model that mostly repeats what followed the last token before, and has its own ideas: an order-one memory with noise.
fn repeating(noise: f32) -> Rule {
    Rule::logits_from(N_VOCAB, move |history, logits| {
        let last = history[history.len() - 1];
        let earlier = history[..history.len() - 1].iter().rposition(|&token| token == last);
        let state = u64::from(last) * 31 + history.len() as u64;
        for (token, logit) in (0u64..).zip(logits.iter_mut()) {
            *logit = noise * unit(state, token) as f32;
        }
        if let Some(at) = earlier {
            logits[history[at + 1] as usize] += 3.0;
        }
    })
}

fn weights(rule: Rule) -> Arc<ScriptedWeights> {
    Script::new(rule).max_rows(64).weights()
}

/// Rows that cost little, so that much is drafted.
fn cost() -> CostModel {
    let mut cost = CostModel::default();
    for (rows, ms) in [(1, 30.0), (8, 31.0), (64, 45.0)] {
        cost.observe(&PassCost { rows, leaves: 1, verify_ms: ms, ..PassCost::default() });
        cost.observe_draft_batch(rows, 0.5);
    }
    cost
}

struct Decoder {
    executor: Box<dyn Executor>,
    speculation: Speculation,
    sampler: Sampler,
    text: Vec<Token>,
    /// Rows of the widest pass, and drafted tokens accepted.
    widest: usize,
    accepted: usize,
}

impl Decoder {
    fn new(rule: Rule, drafting: Drafting, model: Option<Rule>, settings: &SamplerSettings) -> Self {
        let mut speculation = Speculation::new(drafting, Limits::default(), N_VOCAB, cost().into());
        if let Some(rule) = model {
            let executor = weights(rule).executor(N_CELLS).unwrap();
            speculation = speculation.with_model(Box::new(ModelDrafter::new(executor, N_VOCAB)));
        }
        let executor = weights(rule).executor(N_CELLS).unwrap();
        let sampler = Sampler::new(settings, N_VOCAB).unwrap();
        Self { executor, speculation, sampler, text: Vec::new(), widest: 0, accepted: 0 }
    }

    /// Reads all of `prompt` but its last token, which is the first root; every row projected.
    fn prefill(&mut self, prompt: &[Token]) {
        let mut logits = vec![0.0; N_VOCAB];
        let n = prompt.len() - 1;
        for &token in &prompt[..n] {
            self.executor.begin(&[fulcrum::executor::Row { token, parent: None, wants_logits: true }]).unwrap();
            self.executor.run(4, &Cancel::new()).unwrap();
            self.executor.project(&[0], &mut logits).unwrap();
            self.executor.commit(&[0]).unwrap();
            self.speculation.read(token, Some(&TopK::of(&logits)));
        }
        self.speculation.read(prompt[n], None);
        self.speculation.let_model_read(64, &|| 0.0, &Cancel::new()).unwrap();
        self.text = prompt.to_vec();
    }

    /// One step; `batched` projects all rows at once.
    fn step(&mut self, batched: bool) {
        let cached = self.executor.len();
        let plan = self.speculation.plan(cached, N_CELLS - cached, &|| 0.0, &Cancel::new()).unwrap();
        let rows = plan.flat.rows.len();
        self.executor.begin(&plan.flat.rows).unwrap();
        self.executor.run(4, &Cancel::new()).unwrap();
        let mut said: BTreeMap<u32, TopK> = BTreeMap::new();
        let mut logits = vec![0.0; rows * N_VOCAB];
        if batched {
            let all: Vec<u32> = (0..).take(rows).collect();
            self.executor.project(&all, &mut logits).unwrap();
            said = all.iter().zip(logits.chunks(N_VOCAB)).map(|(&row, logits)| (row, TopK::of(logits))).collect();
        }
        let (executor, sampler, text) = (&mut self.executor, &mut self.sampler, &self.text);
        let accepted = accept(&plan.flat, |path| {
            let row = path[path.len() - 1];
            let at = if batched { row as usize * N_VOCAB } else { 0 };
            if !batched {
                executor.project(&[row], &mut logits[..N_VOCAB])?;
                said.insert(row, TopK::of(&logits[..N_VOCAB]));
            }
            let history = on_path(text, &plan, path);
            let choice = sampler.choose(&logits[at..at + N_VOCAB], &history, history.len())?;
            Ok(Choice::Continue(choice.token))
        })
        .unwrap();
        self.executor.commit(&accepted.path).unwrap();
        self.text.extend(accepted.emitted(&plan.flat));
        let said: Vec<(u32, TopK)> = said.into_iter().collect();
        let pass = PassCost { rows, leaves: plan.flat.n_leaves(), cached, verify_ms: 30.0, ..PassCost::default() };
        self.speculation.settle(&plan, &accepted, &said, &pass, &|| 0.0);
        self.widest = self.widest.max(rows);
        self.accepted += accepted.n_drafted();
    }
}

/// The history at the last row of `path`: `text`, whose end is the root, and the drafted tokens.
fn on_path(text: &[Token], plan: &Plan, path: &[u32]) -> Vec<Token> {
    let drafted = path.iter().skip(1).map(|&row| plan.flat.rows[row as usize].token);
    text.iter().copied().chain(drafted).collect()
}

fn prompt(seed: u64) -> Vec<Token> {
    (0..20).map(|i| (unit(seed, i) * N_VOCAB as f64) as Token).collect()
}

/// 100 tokens, and how many drafted ones were accepted on the way.
fn decode(
    drafting: Drafting,
    model: Option<f32>,
    batched: bool,
    settings: &SamplerSettings,
    seed: u64,
) -> (Vec<Token>, usize) {
    let mut decoder = Decoder::new(repeating(4.0), drafting, model.map(repeating), settings);
    decoder.prefill(&prompt(seed));
    while decoder.text.len() < 120 {
        decoder.step(batched);
    }
    decoder.text.truncate(120);
    (decoder.text, decoder.accepted)
}

/// Plain text and the text with every way of drafting, which must be the same; returns the tokens accepted in all.
fn all_the_same(settings: &SamplerSettings, seed: u64) -> usize {
    let (plain, none) = decode(Drafting::Off, None, false, settings, seed);
    assert_eq!(none, 0);
    let mut accepted = 0;
    for drafting in [Drafting::Auto, Drafting::Context, Drafting::Chain { n: 3 }, Drafting::Chain { n: 16 }] {
        for model in [None, Some(4.0), Some(5.0), Some(40.0)] {
            for batched in [false, true] {
                let (text, n) = decode(drafting, model, batched, settings, seed);
                assert_eq!(text, plain, "{drafting:?}, model {model:?}, batched {batched}, seed {seed}");
                accepted += n;
            }
        }
    }
    accepted
}

#[test]
fn greedy_text_is_the_same_with_every_drafter() {
    let accepted: usize = (0..3).map(|seed| all_the_same(&SamplerSettings::default(), seed)).sum();
    assert!(accepted > 1_500, "hardly anything was drafted: {accepted}");
}

#[test]
fn the_same_seed_gives_the_same_text_with_every_drafter() {
    let warm = |seed| SamplerSettings {
        temperature: 0.8,
        repetition_penalty: 1.1,
        seed: Some(seed),
        ..SamplerSettings::default()
    };
    let accepted: usize = (0..3).map(|seed| all_the_same(&warm(seed), seed)).sum();
    assert!(accepted > 500, "hardly anything was drafted: {accepted}");
}

#[test]
fn a_turn_rolled_back_and_taken_again_says_the_same() {
    let settings = SamplerSettings::default();
    let mut decoder = Decoder::new(repeating(4.0), Drafting::Auto, Some(repeating(4.0)), &settings);
    decoder.prefill(&prompt(1));
    let (start, cached) = (decoder.text.clone(), decoder.executor.len());
    decoder.speculation.mark();
    let mut said = Vec::new();
    for _ in 0..3 {
        while decoder.text.len() < 90 {
            decoder.step(true);
        }
        decoder.text.truncate(90);
        said.push(std::mem::replace(&mut decoder.text, start.clone()));
        decoder.executor.truncate(cached).unwrap();
        decoder.speculation.roll_back();
    }
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(decoder.accepted > 50 && decoder.widest > 2);
}
