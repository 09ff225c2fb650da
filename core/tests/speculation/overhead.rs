//! What drafting itself costs, in real time.

use std::time::{Duration, Instant};

use fulcrum::cost::PassCost;
use fulcrum::draft::TopK;
use fulcrum::growth::Limits;
use fulcrum::speculation::{Drafting, Speculation};
use fulcrum::{Cancel, Token};

use crate::setting::OWN_Q8;
use crate::simulation::{HEARD, read_prompt, verify};
use crate::workload::{self, N_VOCAB, Workload, unit};

/// Real time of everything that drafting without a model does, µs.
struct Overhead {
    per_pass: f64,
    prompt_per_pass: f64,
    /// Rows of which the best tokens are kept.
    rows_per_pass: f64,
    bytes: usize,
}

fn overhead(workload: &Workload, context: &[Token]) -> Overhead {
    let text: Vec<Token> = [workload.prompt.as_slice(), &workload.output].concat();
    let n_prompt = workload.prompt.len();
    let mut spec = Speculation::new(Drafting::Auto, Limits::default(), N_VOCAB, OWN_Q8.measured().into());
    spec.add_context(context);
    let start = Instant::now();
    read_prompt(&mut spec, &text, n_prompt, HEARD);
    let reading = start.elapsed();
    let (mut at, mut passes, mut rows_known, mut spent) = (n_prompt, 0.0, 0, Duration::ZERO);
    let epoch = Instant::now();
    let now = || epoch.elapsed().as_secs_f64() * 1e3;
    while at + 1 < text.len() {
        let start = Instant::now();
        let plan = spec.plan(at - 1, text.len() - at, &now, &Cancel::new()).unwrap();
        spent += start.elapsed();
        let (accepted, said) = verify(&plan, &text, at);
        let rows = plan.flat.rows.len();
        let pass = PassCost { rows, leaves: 1, cached: at, verify_ms: OWN_Q8.verify_ms(rows), ..PassCost::default() };
        let start = Instant::now();
        spec.settle(&plan, &accepted, &said, &pass, &now);
        spent += start.elapsed();
        at += accepted.emitted(&plan.flat).count();
        rows_known += said.len();
        passes += 1.0;
    }
    Overhead {
        per_pass: spent.as_secs_f64() * 1e6 / passes,
        prompt_per_pass: reading.as_secs_f64() * 1e6 / passes,
        rows_per_pass: rows_known as f64 / passes,
        bytes: spec.bytes(),
    }
}

/// µs that it takes to find the best tokens of a row, with a vocabulary of 150,000.
fn top_k_us() -> f64 {
    let logits: Vec<f32> = (0..150_000).map(|i| unit(95, i) as f32).collect();
    let once = |_| {
        let start = Instant::now();
        assert_eq!(TopK::of(std::hint::black_box(&logits)).iter().count(), 4);
        start.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<f64> = (0..101).map(once).collect();
    times.sort_by(f64::total_cmp);
    times[50]
}

/// `cargo test --release --test speculation -- --ignored --nocapture`
#[test]
#[ignore = "measures real time: run alone, in release"]
fn drafting_without_a_model_costs_little() {
    let top_k = top_k_us();
    println!("{top_k:.0} µs for the best tokens of a row");
    // Nothing handed in, and as much as there is room for.
    let much = workload::tasks_of(60_000, 7).remove(0).output;
    for context in [&[][..], &much] {
        for workload in workload::tasks(400) {
            // The least disturbed of five.
            let times = [(); 5].map(|()| overhead(&workload, context));
            let both = |o: &Overhead| o.per_pass + o.prompt_per_pass;
            let o = times.iter().min_by(|a, b| both(a).total_cmp(&both(b))).unwrap();
            let (prompt, kept) = (o.prompt_per_pass, top_k * o.rows_per_pass);
            let all = both(o) + kept;
            println!(
                "{:8} {:5.0} µs per pass, {prompt:4.0} of the prompt, {kept:4.0} for the best tokens, together {all:5.0}; {} bytes",
                workload.name, o.per_pass, o.bytes
            );
            // The fastest plain pass at 1B that was measured (docs/benchmarks.md) took 14.4 ms.
            assert!(all < 0.02 * 14_400.0, "{}: {all} µs", workload.name);
        }
    }
}
