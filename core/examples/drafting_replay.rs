//! What the policy of drafting would bring at the prices of a large model: decided by a small pair, timed by a simulated clock.
//!
//! usage: `drafting_replay TARGET DRAFT FILE... [--limit N] [--tokens N] [--prices q8_0|q4_0|flash] [--modes MODE,…] [--noise SHARE] [--states SHARE]`
//!
//! The models decide what is drafted and accepted; what a pass costs is read from curves that were measured with the same models
//! scaled to 1B and 62M parameters. So the figures are the same on every machine and in every run, which no benchmark is: the
//! place to try a change of the policy. For how fast it really is, `fulcrum bench --workload`. Real machines are disturbed: `--noise 0.2` lets
//! each pass, of the draft model too, take up to a fifth longer and one in twenty twice as long, drawn by position, so the same for
//! every mode; `--states 0.5` lets the host change between two states, in one of which everything takes half as long again.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program that counts"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fulcrum::accept::{Choice, accept};
use fulcrum::cost::PassCost;
use fulcrum::draft::{ModelDrafter, TopK};
use fulcrum::executor::{Executor, ExecutorShape, Row};
use fulcrum::growth::Limits;
use fulcrum::speculation::{Experience, Speculation};
use fulcrum::tokenizer::Encoding;
use fulcrum::{Cancel, Drafting, Message, Model, ModelOptions, Result, Token};

/// Ms by rows.
type Curve = &'static [(usize, f64)];

/// What a pass costs, two cores of Zen 5, few positions cached.
#[derive(Clone, Copy)]
struct Prices {
    name: &'static str,
    target: Curve,
    /// Reading weights beside a pass, ms.
    flash_ms: f64,
    draft: Curve,
}

/// Cached positions behind which a pass takes twice as long: +23 to 37 % were measured at 1,984.
const LENGTHENS: f64 = 6600.0;

const DRAFT: Curve = &[(1, 1.1), (4, 1.4), (8, 1.8), (16, 2.6), (32, 5.0), (64, 10.0)];
const PRICES: [Prices; 3] = [
    Prices {
        name: "q8_0",
        target: &[
            (1, 17.3),
            (2, 18.0),
            (4, 19.8),
            (8, 22.0),
            (10, 25.0),
            (12, 28.5),
            (16, 35.0),
            (32, 68.0),
            (64, 137.0),
        ],
        flash_ms: 0.0,
        draft: DRAFT,
    },
    Prices {
        name: "q4_0",
        target: &[(1, 12.0), (2, 12.6), (4, 13.7), (8, 17.0), (12, 23.0), (16, 28.0), (32, 56.0), (64, 118.0)],
        flash_ms: 0.0,
        draft: DRAFT,
    },
    Prices {
        name: "flash",
        target: &[(1, 17.3), (2, 18.0), (4, 19.8), (8, 22.0), (12, 28.5), (16, 35.0), (32, 68.0), (64, 137.0)],
        flash_ms: 300.0,
        draft: DRAFT,
    },
];

/// Ms at `rows`, between the points of `curve`.
fn at(curve: Curve, rows: usize) -> f64 {
    let after = curve.partition_point(|&(at, _)| at < rows).clamp(1, curve.len() - 1);
    let ((left, low), (right, high)) = (curve[after - 1], curve[after]);
    low + (high - low) * (rows as f64 - left as f64) / (right - left) as f64
}

/// Nanoseconds of simulated time.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
    fn advance(&self, ms: f64) {
        self.0.fetch_add((ms * 1e6) as u64, Ordering::Relaxed);
    }

    fn ms(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Looking takes 2 µs, which stands for the drafters' own time.
    fn look(&self) -> f64 {
        self.0.fetch_add(2_000, Ordering::Relaxed) as f64 / 1e6
    }
}

/// How a machine is disturbed.
#[derive(Clone, Copy, Default)]
struct Noise {
    /// The largest share by which a pass takes longer than it should.
    share: f64,
    /// The share by which everything takes longer in one of the host's two states.
    state: f64,
    /// The answer, which begins in a state of its own.
    answer: u64,
}

/// Ms that a host stays in a state at least.
const STATE_MS: f64 = 500.0;

/// A number of 24 bits that says nothing about `seed`.
fn mixed(seed: u64) -> u64 {
    (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

impl Noise {
    /// How much longer a pass takes, the same whenever it is run again; one in twenty is disturbed badly.
    fn factor(self, seed: usize, clock: &Clock) -> f64 {
        let share = mixed(seed as u64) as f64 / f64::from(1u32 << 24);
        let pass = if self.share > 0.0 && share > 0.95 { 2.0 } else { 1.0 + self.share * share };
        let state = mixed(1_000 * self.answer + (clock.ms() / STATE_MS) as u64) & 1;
        pass * (1.0 + self.state * state as f64)
    }
}

/// A draft model's executor whose passes take simulated time.
struct Timed {
    inner: Box<dyn Executor>,
    clock: Clock,
    curve: Curve,
    noise: Noise,
}

impl Executor for Timed {
    fn shape(&self) -> &ExecutorShape {
        self.inner.shape()
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn begin(&mut self, rows: &[Row]) -> Result<()> {
        let seed = 500_000 + self.inner.len() * 1_000 + rows.len();
        self.clock.advance(at(self.curve, rows.len()) * self.noise.factor(seed, &self.clock));
        self.inner.begin(rows)
    }
    fn run(&mut self, boundary: usize, cancel: &Cancel) -> Result<()> {
        self.inner.run(boundary, cancel)
    }
    fn keep(&mut self, rows: &[u32]) -> Result<()> {
        self.inner.keep(rows)
    }
    fn project(&mut self, rows: &[u32], logits: &mut [f32]) -> Result<()> {
        self.inner.project(rows, logits)
    }
    fn commit(&mut self, path: &[u32]) -> Result<()> {
        self.inner.commit(path)
    }
    fn rollback(&mut self) {
        self.inner.rollback();
    }
    fn truncate(&mut self, len: usize) -> Result<()> {
        self.inner.truncate(len)
    }
}

/// The target, and what it says.
struct Target {
    executor: Box<dyn Executor>,
    n_vocab: usize,
    logits: Vec<f32>,
}

impl Target {
    /// Runs `rows` and gives what is said at the last `heard` of them; the pass is still open.
    fn pass(&mut self, rows: &[Row], heard: usize) -> Result<Vec<(u32, TopK)>> {
        self.executor.begin(rows)?;
        self.executor.run(self.executor.shape().n_layers, &Cancel::new())?;
        let wanted: Vec<u32> = (0..).take(rows.len()).skip(rows.len() - heard).collect();
        self.logits.resize(heard * self.n_vocab, 0.0);
        self.executor.project(&wanted, &mut self.logits)?;
        Ok(wanted.into_iter().zip(self.logits.chunks(self.n_vocab).map(TopK::of)).collect())
    }

    /// Reads the prompt in chunks; what it says at the last `heard` positions.
    fn read(&mut self, prompt: &[Token], heard: usize) -> Result<Vec<(usize, TopK)>> {
        self.executor.truncate(0)?;
        let (mut said, mut start) = (Vec::new(), 0);
        for chunk in prompt.chunks(self.executor.shape().max_rows) {
            let last = start + chunk.len() == prompt.len();
            let heard = if last { heard.min(chunk.len()) } else { 0 };
            let row = |(i, &token): (u32, &Token)| Row {
                token,
                parent: i.checked_sub(1),
                wants_logits: i as usize + heard >= chunk.len(),
            };
            let rows: Vec<Row> = (0u32..).zip(chunk).map(row).collect();
            said.extend(self.pass(&rows, heard)?.into_iter().map(|(row, top)| (start + row as usize, top)));
            self.executor.commit(&(0..).take(chunk.len()).collect::<Vec<_>>())?;
            start += chunk.len();
        }
        Ok(said)
    }
}

/// What a mode came to on one prompt.
#[derive(Clone, Copy, Default)]
struct Outcome {
    ms: f64,
    /// Of that the draft model's, with what it read of the prompt.
    model_ms: f64,
    tokens: usize,
    passes: usize,
}

struct Replay {
    target: Target,
    model: Model,
    prices: Prices,
    max_tokens: usize,
    noise: Noise,
}

impl Replay {
    /// Answers `prompt`, which the target has read, in one mode. Returns the text too.
    fn answer(
        &mut self,
        prompt: &[Token],
        said: &[(usize, TopK)],
        mode: Drafting,
        experience: &mut Experience,
    ) -> Result<(Outcome, Vec<Token>)> {
        self.target.executor.truncate(prompt.len())?;
        self.noise.answer += 1;
        let clock = Clock::default();
        let mut spec = Speculation::new(mode, Limits::default(), self.target.n_vocab, experience.clone());
        let vocabulary = self.model.vocabulary();
        spec =
            spec.with_ends((0..).take(vocabulary.n_tokens()).filter(|&t| vocabulary.is_end_of_generation(t)).collect());
        if let Some(draft) = self.model.draft() {
            let inner = draft.weights().executor(self.target.executor.shape().n_cells)?;
            let timed = Timed { inner, clock: clock.clone(), curve: self.prices.draft, noise: self.noise };
            spec = spec.with_model(Box::new(ModelDrafter::new(Box::new(timed), self.target.n_vocab)));
        }
        spec.observe_prefill(
            prompt.len(),
            0,
            at(self.prices.target, 64) / 64.0 * prompt.len() as f64,
            self.prices.flash_ms,
        );
        for (position, &token) in prompt.iter().enumerate() {
            spec.read(token, said.iter().find(|(at, _)| *at == position).map(|(_, top)| top));
        }
        let first = said.last().and_then(|(_, top)| top.first()).unwrap_or_default();
        let mut text = vec![first];
        spec.read(first, None);
        let begun = clock.look();
        let model_ms = spec.let_model_read(self.max_tokens - 1, &|| clock.look(), &Cancel::new())?;
        let mut outcome = Outcome { model_ms, ..Outcome::default() };
        while text.len() < self.max_tokens && !self.model.vocabulary().is_end_of_generation(text[text.len() - 1]) {
            self.step(&mut spec, prompt.len(), &mut text, &clock, &mut outcome)?;
        }
        outcome.ms = clock.look() - begun;
        *experience = spec.experience();
        Ok((outcome, text))
    }

    fn step(
        &mut self,
        spec: &mut Speculation,
        n_prompt: usize,
        text: &mut Vec<Token>,
        clock: &Clock,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let cached = n_prompt + text.len() - 1;
        let room = (self.target.executor.shape().n_cells - cached).min(self.max_tokens - text.len());
        let plan = spec.plan(cached, room, &|| clock.look(), &Cancel::new())?;
        let rows = plan.flat.rows.len();
        let said = self.target.pass(&plan.flat.rows, rows)?;
        let (vocabulary, max_tokens) = (self.model.vocabulary(), self.max_tokens);
        let length = text.len();
        let accepted = accept(&plan.flat, |path| {
            let token = said[path[path.len() - 1] as usize].1.first().unwrap_or_default();
            let ends = vocabulary.is_end_of_generation(token) || length + path.len() >= max_tokens;
            Ok(if ends { Choice::Stop(token) } else { Choice::Continue(token) })
        })?;
        self.target.executor.commit(&accepted.path)?;
        let heard = |row: u32| plan.projection.batched || accepted.path.contains(&row);
        let said: Vec<(u32, TopK)> = said.into_iter().filter(|(row, _)| heard(*row)).collect();
        let verify_ms = at(self.prices.target, rows)
            * (1.0 + cached as f64 / LENGTHENS)
            * self.noise.factor(n_prompt + 1_000 * cached, clock);
        let pass = PassCost {
            rows,
            leaves: plan.flat.n_leaves(),
            cached,
            verify_ms,
            io_ms: (self.prices.flash_ms - verify_ms).max(0.0),
            read_ms: self.prices.flash_ms,
            projected: said.len(),
            projected_per_call: if plan.projection.batched { said.len() } else { 1 },
            project_ms: if plan.projection.batched { 0.14 + 0.01 * rows as f64 } else { 0.15 * said.len() as f64 },
            overhead_ms: 0.02,
            ..PassCost::default()
        };
        clock.advance(pass.total_ms());
        text.extend(accepted.emitted(&plan.flat));
        let settled = spec.settle(&plan, &accepted, &said, &pass, &|| clock.look());
        outcome.tokens += settled.emitted;
        outcome.passes += 1;
        outcome.model_ms += settled.model_ms;
        Ok(())
    }
}

fn prompts(path: &str, limit: usize) -> Vec<Vec<Message>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let messages = |line| {
        let mut object: serde_json::Value = serde_json::from_str(line).ok()?;
        serde_json::from_value(object.get_mut("messages")?.take()).ok()
    };
    text.lines().filter_map(messages).take(limit).collect()
}

fn mean(ratios: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = ratios.fold((0.0, 0.0), |(n, sum), ratio| (n + 1.0, sum + ratio.ln()));
    f64::exp(sum / f64::max(n, 1.0))
}

fn run(words: &[String]) -> Result<()> {
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let number = |name, default| option(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let share = |name| option(name).and_then(|share| share.parse().ok()).unwrap_or(0.0);
    let noise = Noise { share: share("--noise"), state: share("--states"), answer: 0 };
    let name = option("--prices").map_or("q8_0", String::as_str);
    let prices = PRICES.into_iter().find(|prices| prices.name == name).unwrap_or(PRICES[0]);
    let draft_model = Some(words[1].clone().into());
    let model = Model::load(&words[0], ModelOptions { draft_model, threads: Some(1), ..ModelOptions::default() })?;
    let executor = model.weights().executor(2048)?;
    let n_vocab = executor.shape().n_vocab;
    let target = Target { executor, n_vocab, logits: Vec::new() };
    let mut replay = Replay { target, model, prices, max_tokens: number("--tokens", 128), noise };
    let modes = option("--modes").map_or("off,auto,context,chain:2,chain:4,chain:8,chain:16", String::as_str);
    let modes = modes.split(',').map(str::parse).collect::<Result<Vec<Drafting>>>()?;
    let mut experience = vec![Experience::default(); modes.len()];
    let files: Vec<&String> = words[2..].iter().take_while(|word| !word.starts_with("--")).collect();
    let mut means = vec![Vec::new(); modes.len()];
    print!("{:<9}", prices.name);
    modes.iter().for_each(|mode| print!("{:>22}", mode.to_string()));
    println!("   (× plain, tokens per pass, the draft model's share)");
    for file in files {
        let mut outcomes = vec![Vec::new(); modes.len()];
        for messages in prompts(file, number("--limit", 12)) {
            let rendered = replay.model.template().render(&messages, &[], true)?;
            let encoding = Encoding { add_bos: true, parse_special: true };
            let prompt = replay.model.vocabulary().encode(&rendered, encoding)?;
            let said = replay.target.read(&prompt, (prompt.len() * 3 / 100).clamp(1, 128))?;
            let mut plain = Vec::new();
            for (i, &mode) in modes.iter().enumerate() {
                let (outcome, text) = replay.answer(&prompt, &said, mode, &mut experience[i])?;
                if i == 0 {
                    plain.clone_from(&text);
                }
                assert_eq!(text, plain, "{mode} changed the text");
                outcomes[i].push(outcome);
            }
        }
        let short = std::path::Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        print!("{short:<9}");
        for (i, mine) in outcomes.iter().enumerate() {
            let pairs = outcomes[0].iter().zip(mine).filter(|(plain, _)| plain.passes > 0);
            let ratio = mean(pairs.map(|(plain, mine)| plain.ms / mine.ms));
            let sum = |figure: fn(&Outcome) -> f64| mine.iter().map(figure).sum::<f64>();
            let length = sum(|o| o.tokens as f64) / sum(|o| o.passes as f64);
            print!("  {ratio:5.2} {length:6.2} {:5.1}%", sum(|o| o.model_ms) / sum(|o| o.ms) * 100.0);
            means[i].push(ratio);
        }
        println!();
    }
    print!("{:<9}", "geo. mean");
    means.iter().for_each(|ratios| print!("  {:5.2} {:14}", mean(ratios.iter().copied()), ""));
    println!();
    Ok(())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.len() < 3 {
        eprintln!(
            "usage: drafting_replay TARGET DRAFT FILE... [--limit N] [--tokens N] [--prices q8_0|q4_0|flash] [--modes MODE,…] [--noise SHARE] [--states SHARE]"
        );
        std::process::exit(2);
    }
    if let Err(error) = run(&words) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
