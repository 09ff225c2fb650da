//! Random numbers keyed by (seed, position), with no state to roll back.
//!
//! Output `position` of a SplitMix64 generator (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014) whose
//! starting point is itself the first output of a SplitMix64 seeded with `seed`, so that neighbouring seeds are unrelated. The
//! state of SplitMix64 is a counter, which makes any output as cheap as the next.

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number that belongs to `position` of a sequence under `seed`: uniform in `[0, 1)`, a multiple of 2⁻⁵³.
pub fn uniform(seed: u64, position: u64) -> f64 {
    let start = mix(seed.wrapping_add(GOLDEN_GAMMA));
    let bits = mix(start.wrapping_add(GOLDEN_GAMMA.wrapping_mul(position.wrapping_add(1))));
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// SplitMix64's finaliser: a bijection in which every input bit moves half of the output bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the tests' numbers are small")]
mod tests {
    use super::{GOLDEN_GAMMA, mix, uniform};

    #[test]
    fn finaliser_gives_splitmix64s_published_outputs_for_seed_0() {
        let outputs: Vec<u64> = (1..=3).map(|i: u64| mix(GOLDEN_GAMMA.wrapping_mul(i))).collect();
        assert_eq!(outputs, [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
    }

    /// Worked out apart from this code. Draws are part of the contract: a new version must not change the text of an old seed.
    #[test]
    fn draws_stay_what_they_are() {
        let draws = [uniform(0, 0), uniform(0, 1), uniform(1, 0), uniform(u64::MAX, u64::MAX)];
        assert_eq!(draws, [0.6524484863740322, 0.7012121095215252, 0.36818951565166946, 0.2668471864940366]);
    }

    /// Chi-square with 255 degrees of freedom: 330.5 is exceeded by chance once in 1,000.
    fn assert_uniform(draws: impl Iterator<Item = f64>) {
        let mut counts = [0u32; 256];
        let mut n = 0.0;
        for draw in draws {
            counts[(draw * 256.0).floor() as usize] += 1;
            n += 1.0;
        }
        let expected: f64 = n / 256.0;
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
        assert!(chi2 < 330.5 && chi2 > 190.0, "chi-square {chi2}");
    }

    #[test]
    fn uniform_along_positions_along_seeds_and_in_pairs() {
        assert_uniform((0..200_000).map(|p| uniform(42, p)));
        assert_uniform((0..200_000).map(|s| uniform(s, 7)));
        // Neighbours: (x, y) in a 16 by 16 grid, packed into one number.
        let pair = |x: f64, y: f64| ((x * 16.0).floor() + y) / 16.0;
        assert_uniform((0..200_000).map(|p| pair(uniform(3, p), uniform(3, p + 1))));
        assert_uniform((0..200_000).map(|s| pair(uniform(s, 9), uniform(s + 1, 9))));
    }
}
