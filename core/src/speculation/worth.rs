//! What a ms is worth in tokens: what decoding has brought lately.

/// Passes after which what they brought weighs 1/e.
const WINDOW: f64 = 16.0;

/// What is known before: twice plain decoding, as from two plain passes' time.
const FIRST_TOKENS: f64 = 4.0;
const FIRST_PASSES: f64 = 2.0;

/// By how much less time is taken to be worth: what is tried teaches something too.
const EXPONENT: f64 = 0.8;

/// Tokens and the time they took, exponentially forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worth {
    tokens: f64,
    /// In plain passes.
    passes: f64,
}

impl Worth {
    /// Takes in a step that emitted `tokens` and took as long as `passes` plain passes; one without a usable price is left out.
    pub fn observe(&mut self, tokens: usize, passes: f64) {
        if passes.is_finite() {
            let keep = 1.0 - 1.0 / WINDOW;
            self.tokens = self.tokens * keep + tokens as f64;
            self.passes = self.passes * keep + passes;
        }
    }

    /// Tokens that a ms is worth where a plain pass takes `plain_ms`; not less than plain decoding brings.
    pub fn tokens_per_ms(&self, plain_ms: f64) -> f64 {
        let speedup = (self.tokens + FIRST_TOKENS) / (self.passes + FIRST_PASSES);
        speedup.max(1.0).powf(EXPONENT) / plain_ms.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_decoding_brings_and_is_never_below_plain() {
        let mut worth = Worth::default();
        assert!((worth.tokens_per_ms(20.0) - 2f64.powf(EXPONENT) / 20.0).abs() < 1e-12);
        (0..200).for_each(|_| worth.observe(8, 2.0));
        assert!((3.7..4.0).contains(&(worth.tokens_per_ms(1.0).powf(1.0 / EXPONENT))));
        (0..200).for_each(|_| worth.observe(1, 1.5));
        assert_eq!(worth.tokens_per_ms(20.0), 1.0 / 20.0);
    }

    #[test]
    fn a_step_without_a_price_is_left_out() {
        let mut worth = Worth::default();
        [f64::NAN, f64::INFINITY].into_iter().for_each(|passes| worth.observe(5, passes));
        assert_eq!(worth, Worth::default());
    }
}
