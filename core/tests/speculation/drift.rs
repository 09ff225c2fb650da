//! Acceptance that collapses in the middle of a text and comes back.

use std::ops::Range;

use fulcrum::speculation::Drafting;

use crate::setting::{GGML_Q4, GGML_Q8, OWN_Q4, OWN_Q8, TINY};
use crate::simulated_model::{Skill, skilled};
use crate::simulation::{Run, run};
use crate::workload::{self, Workload};

fn only_in_the_middle_useless(at: usize) -> f64 {
    if (1000..1300).contains(&at) { 0.0 } else { 0.75 }
}

/// Tokens of each part of a text that drifts, and how many such texts.
const PART: usize = 300;
const TEXTS: u64 = 8;

/// Ends of the stretches of a part in which speed is looked at.
const STRETCHES: [usize; 6] = [0, 10, 25, 50, 100, PART];

/// Speed of `runs` over `others` in each stretch of the part that begins at `start`, and the ms that a text has lost in all of it.
fn by_stretch(runs: &[Run], others: &[Run], start: usize) -> ([f64; 5], f64) {
    let ms = |runs: &[Run], tokens: Range<usize>| runs.iter().map(|run| run.ms_of(tokens.clone())).sum::<f64>();
    let all = start..start + PART;
    let speed = std::array::from_fn(|i| {
        let tokens = start + STRETCHES[i]..start + STRETCHES[i + 1];
        ms(others, tokens.clone()) / ms(runs, tokens)
    });
    (speed, (ms(runs, all.clone()) - ms(others, all)) / runs.len() as f64)
}

#[test]
fn acceptance_that_collapses_and_recovers() {
    for setting in [OWN_Q8, OWN_Q4, GGML_Q8, GGML_Q4, TINY] {
        for skill in [None, Some(only_in_the_middle_useless as Skill)] {
            let runs = |text: fn(usize, u64) -> Workload, drafting, skill| -> Vec<Run> {
                (0..TEXTS).map(|seed| run(&text(PART, seed), setting, drafting, skill)).collect()
            };
            let plain = runs(workload::drift, Drafting::Off, skill);
            let auto = runs(workload::drift, Drafting::Auto, skill);
            // Of the same last third, and without the bad one before it.
            let undisturbed = runs(workload::steady, Drafting::Auto, skill.and(Some(skilled as Skill)));
            let plain_ms = plain[0].ms_per_token();
            let (collapse, lost_ms) = by_stretch(&auto, &plain, PART);
            let (recovery, late_ms) = by_stretch(&auto, &undisturbed, 2 * PART);
            let (lost, late) = (lost_ms / plain_ms, late_ms / plain_ms);
            let with = if skill.is_some() { "model" } else { "free" };
            println!("{:10} {with:5} collapse {collapse:.2?} of plain, {lost:.1} passes", setting.name);
            println!("{:16} recovery {recovery:.2?} of undisturbed, {late:.1} passes", "");
            // Doubting a draft model takes its record longer than the others'.
            let at_once = if skill.is_some() { 0.7 } else { 0.9 };
            assert!(collapse[..3].iter().all(|speed| *speed >= at_once), "{}: {collapse:?}", setting.name);
            assert!(lost < 8.0 && collapse[3] >= 0.97 && collapse[4] >= 0.98, "{}: {collapse:?}", setting.name);
            assert!(late < 30.0 && recovery[2..].iter().all(|speed| *speed >= 0.8), "{}: {recovery:?}", setting.name);
        }
    }
}
