//! The command line of Fulcrum: `chat`, `generate`, `inspect`, `plan`, `bench`.
//!
//! A command is a file. What they share: options (`options`), how things fail (`failure`), where text comes from (`input`) and goes
//! (`output`).

mod bench;
mod chat;
mod conversation;
mod failure;
mod generate;
mod input;
mod inspect;
mod interrupt;
mod loading;
mod options;
mod output;
mod plan;
mod profile;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs language models from GGUF files, on this device.
#[derive(Parser)]
#[command(name = "fulcrum", version, max_term_width = 100)]
struct Cli {
    /// Say more on standard error: -v information, -vv details, -vvv everything (RUST_LOG is understood too)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Chat(chat::Chat),
    Generate(generate::Generate),
    Inspect(inspect::Inspect),
    Plan(plan::Plan),
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.verbose);
    let result = match cli.command {
        Command::Chat(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Bench(command) => command.run(),
    };
    result.map_or_else(failure::Failure::report, |()| ExitCode::SUCCESS)
}

/// Warnings always, more on request; `RUST_LOG` wins where it is set.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).format_timestamp(None).init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }
}
