//! The distribution as a whole: golden values by hand, properties, draws, adversarial rows.

use proptest::prelude::*;

use super::*;

/// Everything off: the plain softmax.
fn plain() -> SamplerSettings {
    SamplerSettings { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerSettings::default() }
}

fn distribution(settings: &SamplerSettings, logits: &[f32], history: &[Token]) -> Vec<(Token, f64)> {
    let mut sampler = Sampler::new(settings, logits.len()).unwrap();
    sampler.distribution(logits, history).unwrap().candidates().iter().map(|c| (c.token, c.probability)).collect()
}

fn tokens(settings: &SamplerSettings, logits: &[f32], history: &[Token]) -> Vec<Token> {
    distribution(settings, logits, history).into_iter().map(|(token, _)| token).collect()
}

/// Logits whose softmax is `probabilities`.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

fn assert_close(got: &[(Token, f64)], expected: &[(Token, f64)]) {
    let near = |(a, b): (&(Token, f64), &(Token, f64))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6;
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(near), "{got:?} is not {expected:?}");
}

const FIVE: [f32; 5] = [0.1, 0.4, 0.05, 0.25, 0.2];
