//! What a pass of many rows costs: our kernels, ggml's, and llama.cpp's context, on the same file in one process.
//!
//! usage: `verify_bench MODEL [--cached N] [--rounds N] [--threads N] [--rows N,N,...]`
//!
//! A pass is a chain of rows behind `cached` committed positions, run through all layers, every row projected, and rolled back.
//! Executors take turns for every row count, so that whatever slows the machine slows all of them. Figures are medians in
//! milliseconds; `×` is llama.cpp's time divided by ours. *own GB/s* is the size of the file by the time of our pass (K and V come on top);
//! *plain read* the speed of reading memory and doing nothing with it, measured between the passes.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::cast_possible_truncation)]

use std::time::Instant;

use fulcrum::executor::{Executor, Row};
use fulcrum::{Cancel, ErrorKind, ExecutorChoice, Kernels, Model, ModelOptions, Result};

const ROWS: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64];

struct Arguments {
    model: String,
    cached: usize,
    rounds: usize,
    threads: usize,
    rows: Vec<usize>,
}

fn arguments() -> Option<Arguments> {
    let mut words = std::env::args().skip(1);
    let mut found = Arguments { model: words.next()?, cached: 256, rounds: 7, threads: 2, rows: ROWS.to_vec() };
    while let Some(option) = words.next() {
        let value = words.next()?;
        match option.as_str() {
            "--cached" => found.cached = value.parse().ok()?,
            "--rounds" => found.rounds = value.parse().ok()?,
            "--threads" => found.threads = value.parse().ok()?,
            "--rows" => found.rows = value.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?,
            _ => return None,
        }
    }
    Some(found)
}

/// One executor with `cached` positions behind it, and the times it took.
struct Contestant {
    name: &'static str,
    executor: Box<dyn Executor>,
    logits: Vec<f32>,
}

impl Contestant {
    fn load(name: &'static str, executor: ExecutorChoice, kernels: Kernels, arguments: &Arguments) -> Result<Self> {
        let threads = Some(arguments.threads);
        let model = Model::load(&arguments.model, ModelOptions { executor, kernels, threads, ..Default::default() })?;
        let executor = model.weights().executor(arguments.cached + 64)?;
        let logits = vec![0.0; 64 * executor.shape().n_vocab];
        let mut contestant = Self { name, executor, logits };
        let mut left = arguments.cached;
        while left > 0 {
            let rows = left.min(contestant.executor.shape().max_rows);
            contestant.begin(rows, false)?;
            let path: Vec<u32> = (0..rows as u32).collect();
            contestant.executor.commit(&path)?;
            left -= rows;
        }
        Ok(contestant)
    }

    /// Begins a chain of `rows` rows and runs it through all layers.
    fn begin(&mut self, rows: usize, wants_logits: bool) -> Result<()> {
        let n_vocab = self.executor.shape().n_vocab;
        let row =
            |i: usize| Row { token: ((i * 37 + 11) % n_vocab) as u32, parent: (i as u32).checked_sub(1), wants_logits };
        let rows: Vec<Row> = (0..rows).map(row).collect();
        let n_layers = self.executor.shape().n_layers;
        self.executor.begin(&rows)?;
        self.executor.run(n_layers, &Cancel::new())
    }

    /// Milliseconds of one pass.
    fn pass(&mut self, rows: usize) -> Result<f64> {
        let start = Instant::now();
        self.begin(rows, true)?;
        let all: Vec<u32> = (0..rows as u32).collect();
        let n_vocab = self.executor.shape().n_vocab;
        self.executor.project(&all, &mut self.logits[..rows * n_vocab])?;
        let elapsed = start.elapsed().as_secs_f64() * 1e3;
        self.executor.rollback();
        Ok(elapsed)
    }
}

/// Memory to read and nothing else, as fast as the machine lets us in the same moment: a block per thread, far more than caches hold.
struct PlainRead(Vec<Vec<u64>>);

impl PlainRead {
    fn new(threads: usize) -> Self {
        const WORDS: usize = 32 << 20; // of 8 bytes
        Self((0..threads).map(|i| vec![i as u64 + 1; WORDS]).collect())
    }

    /// GB/s of reading all of it once.
    fn gb_per_s(&self) -> f64 {
        let start = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let sums: Vec<_> =
                self.0.iter().map(|block| scope.spawn(|| block.iter().fold(0_u64, |a, b| a ^ b))).collect();
            sums.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
        });
        std::hint::black_box(sum);
        let bytes = self.0.iter().map(|block| block.len() * 8).sum::<usize>();
        bytes as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn run(arguments: &Arguments) -> Result<()> {
    let plain_read = PlainRead::new(arguments.threads);
    let file_gb = std::fs::metadata(&arguments.model).map_or(0.0, |file| file.len() as f64 / 1e9);
    let mut contestants = [
        Contestant::load("own", ExecutorChoice::Staged, Kernels::Auto, arguments)?,
        Contestant::load("ggml", ExecutorChoice::Staged, Kernels::Ggml, arguments)?,
        Contestant::load("llama.cpp", ExecutorChoice::LlamaCpp, Kernels::Ggml, arguments)?,
    ];
    println!("cached {}; milliseconds per pass, medians of {}", arguments.cached, arguments.rounds);
    println!(
        "{:>5} {:>9} {:>9} {:>9} {:>7} {:>12} {:>9} {:>11}",
        "rows", "own", "ggml", "llama.cpp", "×", "own / own(1)", "own GB/s", "plain read"
    );
    let mut alone = 0.0;
    for &rows in &arguments.rows {
        let (mut times, mut reads) = (vec![Vec::new(); contestants.len()], Vec::new());
        for round in 0..=arguments.rounds {
            for (contestant, times) in contestants.iter_mut().zip(&mut times) {
                let time = contestant.pass(rows)?;
                // The first round builds graphs and wakes caches.
                if round > 0 {
                    times.push(time);
                }
            }
            reads.push(plain_read.gb_per_s());
        }
        let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
        if alone == 0.0 {
            alone = medians[0];
        }
        let (ratio, growth) = (medians[2] / medians[0], medians[0] / alone);
        println!(
            "{rows:>5} {:>9.1} {:>9.1} {:>9.1} {ratio:>7.2} {growth:>12.2} {:>9.1} {:>11.1}",
            medians[0],
            medians[1],
            medians[2],
            file_gb / medians[0] * 1e3,
            median(&mut reads)
        );
    }
    let names: Vec<&str> = contestants.iter().map(|contestant| contestant.name).collect();
    eprintln!("({})", names.join(", "));
    Ok(())
}

fn main() -> std::process::ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: verify_bench MODEL [--cached N] [--rounds N] [--threads N] [--rows N,N,...]");
        return 2.into();
    };
    match run(&arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let hint =
                if matches!(error.kind(), ErrorKind::ContextFull { .. }) { " (--cached is too large)" } else { "" };
            eprintln!("error: {error}{hint}");
            1.into()
        }
    }
}
