//! Synthetic texts in the manner of the assistant's tasks, and what a model would say along them.
//!
//! The language is an order-one Markov chain over words; a task copies spans of its prompt between stretches of own words, and
//! the model words some things differently: it prefers a synonym for one word in nine. Random numbers are a hash of where they
//! are used, so every run and every mode sees the same text.

use fulcrum::Token;
use fulcrum::draft::TopK;

/// Words of the language.
pub(crate) const N_VOCAB: usize = 1200;

/// A prompt, and the text that the model writes behind it.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) prompt: Vec<Token>,
    pub(crate) output: Vec<Token>,
}

/// A number that looks random, in [0, 1).
pub(crate) fn unit(seed: u64, at: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at.wrapping_mul(0xD1B5_4A32_D192_ED03);
    for _ in 0..2 {
        x ^= x >> 32;
        x = x.wrapping_mul(0xE703_7ED1_A0B4_28DB);
    }
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn below(n: usize, u: f64) -> usize {
    ((u * n as f64).floor() as usize).min(n - 1)
}

fn token(i: usize) -> Token {
    Token::try_from(i % N_VOCAB).unwrap()
}

/// The words likely behind `word`, best first, with their probabilities; the rest is anything.
pub(crate) fn successors(word: Token) -> [(Token, f64); 4] {
    let successor = |rank: u64| token(below(N_VOCAB, unit(77 + rank, u64::from(word)).powi(2)));
    [(successor(0), 0.42), (successor(1), 0.2), (successor(2), 0.1), (successor(3), 0.05)]
}

/// What the model says instead of `word`, if it has another word for it.
pub(crate) fn wording(word: Token) -> Token {
    if word % 9 == 4 { token(word as usize + 3) } else { word }
}

fn speak(after: Token, u: f64) -> Token {
    let mut sum = 0.0;
    for (word, p) in successors(after) {
        sum += p;
        if u < sum {
            return word;
        }
    }
    token(below(N_VOCAB, (u - sum) / (1.0 - sum)))
}

fn speech(n: usize, seed: u64) -> Vec<Token> {
    let mut words = vec![token(below(N_VOCAB, unit(seed, 0)))];
    while words.len() < n {
        words.push(speak(words[words.len() - 1], unit(seed, words.len() as u64)));
    }
    words
}

/// Own words in stretches of `own`, then a span of `copied` tokens of the prompt in the model's wording, and so on.
fn copying(prompt: &[Token], n: usize, own: usize, copied: usize, seed: u64) -> Vec<Token> {
    let mut output: Vec<Token> = Vec::new();
    let mut at = 0;
    while output.len() < n {
        at += 1;
        let span = copied / 2 + below(copied, unit(seed, 10 * at));
        let start = below(prompt.len() - 1, unit(seed, 10 * at + 1));
        output.extend(prompt[start..].iter().take(span).map(|&word| wording(word)));
        let stretch = below(2 * own + 1, unit(seed, 10 * at + 2));
        for i in 0..stretch {
            let last = output.last().copied().unwrap_or(0);
            output.push(speak(last, unit(seed, (1000 + i as u64) * (at + 1))));
        }
    }
    output.truncate(n);
    output
}

/// Forms with a fixed frame and a few filled fields, as user interfaces and function calls are.
fn forms(n: usize, seed: u64) -> Vec<Token> {
    let frame: Vec<Token> = speech(24, 5);
    let filled = (0..).flat_map(|form| {
        let word =
            |i: usize| if i.is_multiple_of(6) { token(below(N_VOCAB, unit(seed + form, i as u64))) } else { frame[i] };
        (0..24).map(word).collect::<Vec<_>>()
    });
    filled.take(n).collect()
}

fn noise(n: usize, seed: u64) -> Vec<Token> {
    (0..n as u64).map(|i| token(below(N_VOCAB, unit(seed, i)))).collect()
}

/// The tasks, `n` tokens of output each.
pub(crate) fn tasks(n: usize) -> Vec<Workload> {
    tasks_of(n, 0)
}

/// The same tasks with other texts for every seed.
pub(crate) fn tasks_of(n: usize, seed: u64) -> Vec<Workload> {
    let own = |of: u64| of + 1000 * seed;
    let prompt = speech(700, own(1));
    let copy = |n_own, n_copied, of| copying(&prompt, n, n_own, n_copied, own(of));
    vec![
        Workload { name: "rag", output: copy(5, 24, 2), prompt: prompt.clone() },
        Workload { name: "summary", output: copy(6, 9, 3), prompt: prompt.clone() },
        Workload { name: "ui", output: forms(n, own(41)), prompt: forms(300, own(40)) },
        Workload { name: "reply", output: copy(14, 8, 4), prompt: prompt.clone() },
        Workload { name: "chat", output: speech(n, own(9)), prompt: speech(60, own(8)) },
    ]
}

/// Text in which nothing can be foreseen, as random weights write it.
pub(crate) fn random(n: usize) -> Workload {
    Workload { name: "random", prompt: noise(60, 20), output: noise(n, 21) }
}

/// A good stretch, a stretch where nothing can be foreseen, a good stretch; `n` tokens each.
pub(crate) fn drift(n: usize, seed: u64) -> Workload {
    in_three_parts("drift", n, seed, noise(n, 32 + 100 * seed))
}

/// The same with another good stretch in the middle.
pub(crate) fn steady(n: usize, seed: u64) -> Workload {
    in_three_parts("steady", n, seed, copying(&speech(700, 1), n, 5, 24, 34 + 100 * seed))
}

fn in_three_parts(name: &'static str, n: usize, seed: u64, middle: Vec<Token>) -> Workload {
    let prompt = speech(700, 1);
    let good = |n, own| copying(&prompt, n, 5, 24, own + 100 * seed);
    let parts = [good(n, 31), middle, good(n + 1, 33)];
    Workload { name, output: parts.concat(), prompt }
}

/// What the model says behind `word` where `next` is what it goes on to say.
pub(crate) fn said(word: Token, next: Token) -> TopK {
    let others = successors(word).into_iter().filter(|(other, _)| *other != next);
    TopK::from_weights(std::iter::once((next, 0.6)).chain(others.map(|(other, p)| (other, p * 0.5))))
}

/// What the model says behind `word` in a text that is not its own and goes on with `next`: its wording of it, or its own way.
pub(crate) fn said_of_prompt(word: Token, next: Token, at: u64) -> TopK {
    let own = if unit(50, at) < 0.75 { wording(next) } else { successors(word)[0].0 };
    said(word, own)
}

/// What the model says behind a path it did not take: as the language goes.
pub(crate) fn said_elsewhere(word: Token) -> TopK {
    TopK::from_weights(successors(word))
}
