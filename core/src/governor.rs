//! Speculation never costs more than a few passes: the account that turns `auto` off and the evidence that turns it on again.
//!
//! Growth drafts nothing where its estimates say so. The governor is for when the estimates are wrong: it books every step's
//! gain over plain decoding, in plain passes, and closes the account when it is overdrawn. While it is closed, free sources go
//! on drafting *in the shadow*: the tree that would have been verified is followed by the tokens that plain decoding emits
//! anyway, which says exactly what verifying it would have brought, for the microseconds of drafting it. So coming back needs no
//! blind probe. A draft model costs too much for that; it is shown, now and then, the tokens it has missed, in one batch it has to
//! read in any case before it can draft, and is judged by how many of them it would have said.
//!
//! Overhead in the worst case: the overdraft once, then at most [`ALLOWANCE`] of plain time for the shadow and as much for the draft
//! model; renewed only by real gains, and by re-entries, whose price doubles with every one that fails. What a draft model reads of
//! a prompt is not in this account: that is about a plain pass, and 32 tokens where it wins nothing (`speculation::model_use`).
//!
//! The idea of a ledger with a cap is ours; neither paper says how speculation is turned off.
//!
//! Deliberately not here: clocks and drafts. Figures in, mode out.

/// Share of plain decoding time that drafting in the shadow may cost, and again that looking at a draft model may cost.
pub const ALLOWANCE: f64 = 0.008;

/// Passes that speculation may lose before it is turned off, and the most past gain that may be lost on top.
const OVERDRAFT: f64 = 2.5;
const CREDIT: f64 = 3.0;

/// Passes that the shadow must have gained before speculation is turned on again, at first and at most.
const FIRST_PRICE: f64 = 0.75;
const LAST_PRICE: f64 = 12.0;

/// The shadow's losses are forgotten beyond this: bad times long past say nothing about now.
const SHADOW_FLOOR: f64 = -1.0;

/// Tokens between two looks at a draft model that is not in use, at first and at most. Reading costs nearly the same per token
/// from about 32 rows on, so waiting longer saves nothing that [`ALLOWANCE`] does not bound already.
const FIRST_INTERVAL: usize = 32;
const LAST_INTERVAL: usize = 64;

/// Expected speed over plain at which a draft model that was looked at is used again: clear of noise.
const MODEL_MARGIN: f64 = 1.04;

/// What the next step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Draft with every source and verify what growth selects.
    Speculate,
    /// Decode plainly; draft with free sources, to be followed only.
    Shadow,
    /// Decode plainly and draft nothing.
    Plain,
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its mode.
    pub mode: Mode,
    /// Tokens emitted.
    pub emitted: usize,
    /// Whether rows beside the root were verified.
    pub drafted: bool,
    /// Ms of the whole step, drafting included.
    pub total_ms: f64,
    /// Ms of drafting, draft model included.
    pub draft_ms: f64,
    /// Of that, the draft model.
    pub model_ms: f64,
    /// Ms that a plain pass would have cost, as the cost model has it.
    pub plain_ms: f64,
}

/// The account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Governor {
    is_on: bool,
    /// Passes gained and not yet lost, `-OVERDRAFT ..= CREDIT` while on.
    balance: f64,
    /// Passes that shadow trees would have gained.
    shadow: f64,
    /// Passes of drafting time that plain tokens have earned.
    allowance: f64,
    /// What the shadow has to gain.
    price: f64,
    /// Tokens emitted since the draft model was last used or looked at, and until the next look.
    unlooked: usize,
    interval: usize,
}

impl Default for Governor {
    fn default() -> Self {
        Self::new()
    }
}

impl Governor {
    /// Speculation is on, with its overdraft to lose.
    pub fn new() -> Self {
        Self {
            is_on: true,
            balance: 0.0,
            shadow: 0.0,
            allowance: 0.1,
            price: FIRST_PRICE,
            unlooked: 0,
            interval: FIRST_INTERVAL,
        }
    }

    /// What the next step should do.
    pub fn mode(&self) -> Mode {
        match (self.is_on, self.allowance > 0.0) {
            (true, _) => Mode::Speculate,
            (false, true) => Mode::Shadow,
            (false, false) => Mode::Plain,
        }
    }

    /// Books a step. A step without a usable plain price is not booked.
    pub fn observe(&mut self, step: &Step) {
        let usable = step.plain_ms > 0.0 && step.plain_ms.is_finite() && step.total_ms.is_finite();
        if !usable {
            return;
        }
        self.unlooked += step.emitted;
        let draft = step.draft_ms / step.plain_ms;
        let earned = ALLOWANCE * step.emitted as f64;
        if step.mode != Mode::Speculate {
            // A look at the draft model has waited until it was earned.
            let shadow = (step.draft_ms - step.model_ms) / step.plain_ms;
            self.allowance = (self.allowance + earned - shadow).min(0.5);
            return;
        }
        // A root-only pass is plain decoding: its noise is nobody's gain, only the drafting was extra.
        let gain = if step.drafted { step.emitted as f64 - step.total_ms / step.plain_ms } else { -draft };
        self.balance = (self.balance + gain + earned).min(CREDIT);
        if self.balance >= CREDIT {
            self.price = FIRST_PRICE;
        }
        if self.balance < -OVERDRAFT {
            self.is_on = false;
            (self.balance, self.shadow) = (0.0, 0.0);
            self.allowance = self.allowance.min(0.1);
        }
    }

    /// Books a shadow tree that the text has left: tokens that its pass would have emitted, and the pass's price in plain passes.
    pub fn observe_shadow(&mut self, emitted: usize, passes: f64) {
        if self.is_on || !passes.is_finite() {
            return;
        }
        self.shadow = (self.shadow + emitted as f64 - passes).max(SHADOW_FLOOR);
        if self.shadow >= self.price {
            self.turn_on();
        }
    }

    fn turn_on(&mut self) {
        self.is_on = true;
        self.price = (self.price * 2.0).min(LAST_PRICE);
        // The evidence is fresh, but the overdraft is not granted a second time in full.
        (self.balance, self.shadow) = (-0.5 * OVERDRAFT, 0.0);
        // Times have changed, so a draft model that had failed may be worth another look.
        self.interval = FIRST_INTERVAL;
    }

    /// Whether a draft model that is not in use should be shown the tokens it has missed, which would cost `look_ms`.
    pub fn should_look_at_model(&self, look_ms: f64, plain_ms: f64) -> bool {
        let affordable = ALLOWANCE * plain_ms * self.unlooked as f64;
        self.unlooked >= self.interval && look_ms <= affordable
    }

    /// The draft model was used by growth: no look is due for a while.
    pub fn model_was_used(&mut self) {
        (self.unlooked, self.interval) = (0, FIRST_INTERVAL);
    }

    /// The draft model was looked at; by its hits it would make decoding `speedup` times as fast.
    pub fn observe_look(&mut self, speedup: f64) {
        self.unlooked = 0;
        if speedup < MODEL_MARGIN {
            self.interval = (self.interval * 2).min(LAST_INTERVAL);
            return;
        }
        self.interval = FIRST_INTERVAL;
        if !self.is_on {
            self.turn_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(mode: Mode, emitted: usize, passes: f64) -> Step {
        Step {
            mode,
            emitted,
            drafted: passes != 1.0,
            total_ms: passes * 30.0,
            draft_ms: 0.0,
            model_ms: 0.0,
            plain_ms: 30.0,
        }
    }

    /// A synthetic workload: every verified tree costs `passes` and emits `1 + accepted(token)` tokens; shadow trees are followed
    /// token by token. Returns passes spent per token, by thirds of the text.
    fn simulate(n: usize, passes: f64, draft: f64, accepted: impl Fn(usize) -> usize) -> Vec<f64> {
        let mut governor = Governor::new();
        let (mut tokens, mut shadow_left) = (0, None::<(usize, usize)>);
        let mut spent = [0.0; 3];
        while tokens < n {
            let third = (tokens * 3 / n).min(2);
            let mode = governor.mode();
            let (emitted, cost, draft) = match mode {
                Mode::Speculate => (1 + accepted(tokens), passes + draft, draft),
                Mode::Shadow if shadow_left.is_none() => {
                    let would = 1 + accepted(tokens);
                    shadow_left = Some((would, would));
                    (1, 1.0 + draft, draft)
                }
                _ => (1, 1.0, 0.0),
            };
            let drafted = mode == Mode::Speculate;
            governor.observe(&Step {
                mode,
                emitted,
                drafted,
                total_ms: cost * 30.0,
                draft_ms: draft * 30.0,
                model_ms: 0.0,
                plain_ms: 30.0,
            });
            if let Some((left, would)) = shadow_left.take() {
                match left {
                    1 => governor.observe_shadow(would, passes + draft),
                    _ => shadow_left = Some((left - 1, would)),
                }
            }
            if mode == Mode::Speculate {
                shadow_left = None;
            }
            tokens += emitted;
            spent[third] += cost;
        }
        spent.iter().map(|spent| spent / (n as f64 / 3.0)).collect()
    }

    #[test]
    fn where_nothing_is_ever_accepted_the_loss_is_bounded() {
        for (passes, draft) in [(1.05, 0.001), (1.5, 0.005), (2.4, 0.02), (4.0, 0.1)] {
            let spent = simulate(300, passes, draft, |_| 0);
            let mean = spent.iter().sum::<f64>() / 3.0;
            assert!(mean < 1.03, "passes {passes}, draft {draft}: {spent:?}");
            assert!(spent[2] < 1.0 + ALLOWANCE * 1.5, "passes {passes}, draft {draft}: {spent:?}");
        }
    }

    #[test]
    fn where_all_is_well_it_stays_on() {
        let spent = simulate(300, 1.3, 0.01, |_| 3);
        assert!(spent.iter().all(|s| *s < 0.34), "{spent:?}");
    }

    #[test]
    fn a_collapse_costs_a_few_passes_and_a_recovery_is_seen_within_a_few_tokens() {
        // 900 tokens: good, nothing, good.
        let accepted = |token: usize| if (300..600).contains(&token) { 0 } else { 3 };
        let spent = simulate(900, 1.3, 0.005, accepted);
        let oracle = 1.305 / 4.0;
        assert!(spent[0] < oracle * 1.02, "{spent:?}");
        assert!(spent[1] < 1.03, "{spent:?}");
        assert!(spent[2] < oracle * 1.08, "{spent:?}");
    }

    #[test]
    fn acceptance_that_flickers_costs_little_either_way() {
        // Never two good stretches long enough to pay for turning on.
        let accepted = |token: usize| usize::from(token % 40 < 3) * 2;
        let spent = simulate(2000, 1.4, 0.005, accepted);
        assert!(spent.iter().all(|s| *s < 1.03), "{spent:?}");
    }

    #[test]
    fn failed_re_entries_grow_dearer() {
        let mut governor = Governor::new();
        let mut gains = Vec::new();
        for _ in 0..6 {
            while governor.mode() == Mode::Speculate {
                governor.observe(&step(Mode::Speculate, 1, 1.5));
            }
            let mut gained = 0;
            while governor.mode() != Mode::Speculate {
                governor.observe_shadow(2, 1.5);
                gained += 1;
            }
            gains.push(gained);
        }
        assert_eq!(gains, [2, 3, 6, 12, 24, 24]);
    }

    #[test]
    fn drafting_that_is_dear_beside_the_pass_is_done_seldom() {
        // A 6M model: drafting costs a tenth of a pass. Off, it may cost the allowance and no more.
        let spent = simulate(3000, 1.2, 0.1, |_| 0);
        assert!(spent[1] < 1.0 + 1.2 * ALLOWANCE, "{spent:?}");
        assert!(spent[1] > 1.0, "the shadow goes on");
    }

    #[test]
    fn a_model_is_looked_at_at_growing_intervals_and_within_its_allowance() {
        let mut governor = Governor::new();
        let mut looks = Vec::new();
        (0..9).for_each(|_| governor.observe(&step(Mode::Speculate, 1, 2.0)));
        governor.model_was_used();
        for token in 0..4000 {
            let looked = governor.mode() == Mode::Shadow && governor.should_look_at_model(5.0, 30.0);
            let model_ms = if looked { 5.0 } else { 0.0 };
            if looked {
                looks.push(token);
                governor.observe_look(0.9);
            }
            assert_eq!(governor.mode(), Mode::Shadow, "a look takes nothing from the shadow's allowance");
            governor.observe(&Step { draft_ms: model_ms, model_ms, ..step(Mode::Shadow, 1, 1.0) });
        }
        assert_eq!(looks[..4], [32, 96, 160, 224]);
        assert!(looks.len() as f64 * 5.0 < ALLOWANCE * 4000.0 * 30.0);
        let mut dear = Governor::new();
        (0..100).for_each(|_| dear.observe(&step(Mode::Plain, 1, 1.0)));
        assert!(!dear.should_look_at_model(60.0, 30.0), "100 tokens have not earned two passes");
    }

    #[test]
    fn a_model_that_has_come_back_turns_speculation_on() {
        let mut governor = Governor::new();
        (0..10).for_each(|_| governor.observe(&step(Mode::Speculate, 1, 2.0)));
        assert_ne!(governor.mode(), Mode::Speculate);
        governor.observe_look(1.02);
        assert_ne!(governor.mode(), Mode::Speculate);
        governor.observe_look(1.6);
        assert_eq!(governor.mode(), Mode::Speculate);
    }

    #[test]
    fn a_slow_plain_pass_is_not_held_against_drafting() {
        let mut governor = Governor::new();
        let slow = Step { drafted: false, ..step(Mode::Speculate, 1, 1.3) };
        (0..200).for_each(|_| governor.observe(&slow));
        assert_eq!(governor.mode(), Mode::Speculate);
        (0..200).for_each(|_| governor.observe(&Step { draft_ms: 2.0, ..slow }));
        assert_ne!(governor.mode(), Mode::Speculate, "but its own time is");
    }

    #[test]
    fn steps_without_a_price_are_not_booked() {
        let mut governor = Governor::new();
        for plain_ms in [0.0, f64::NAN, f64::INFINITY] {
            (0..50).for_each(|_| governor.observe(&Step { plain_ms, ..step(Mode::Speculate, 1, 9.0) }));
        }
        assert_eq!(governor, Governor::new());
    }
}
