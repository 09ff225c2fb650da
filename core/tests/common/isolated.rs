//! Cases that could end the process, each in a child process: an abort is then a failed case and not a vanished test.
//!
//! The child is this test binary again, told by the environment which test it is to play and from which case on. A case that
//! ends it is noted, and the next child goes on behind it. A child that says nothing for too long hangs, which is a failure too.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// `NAME:FIRST`: the test that this process is a child of, and its first case.
const ROLE: &str = "FULCRUM_ISOLATED_TEST";
/// What a child prints before a case, and when it has run all of them.
const MARK: &str = "isolated case ";
/// How long one case may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `case` with each number of `cases`, in child processes; `test` is the name of the calling test, with its module. Panics
/// with a list of the cases that panicked, aborted or hung.
pub fn each(test: &str, cases: Range<usize>, case: impl Fn(usize)) {
    if let Some(first) = role(test) {
        for i in first..cases.end {
            println!("\n{MARK}{i}");
            case(i);
        }
        println!("\n{MARK}{}", cases.end);
        return;
    }
    let mut failures = Vec::new();
    let mut next = cases.start;
    while next < cases.end {
        match play(test, next, cases.end) {
            Ok(()) => break,
            Err((at, how)) => {
                failures.push(format!("case {at}: {how}"));
                next = at + 1;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {cases:?} failed\n{}", failures.len(), failures.join("\n"));
}

fn role(test: &str) -> Option<usize> {
    let role = std::env::var(ROLE).ok()?;
    let (name, first) = role.rsplit_once(':')?;
    (name == test).then(|| first.parse().unwrap())
}

/// Runs the cases from `first` on; an error is the case that did not come to its end, and what was seen.
fn play(test: &str, first: usize, end: usize) -> Result<(), (usize, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "0")
        .env(ROLE, format!("{test}:{first}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let (at, hung) = follow(&mut child, first);
    if hung {
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    let errors = errors.join().unwrap();
    match (hung, at == end && status.success()) {
        (false, true) => Ok(()),
        (hung, _) => {
            let last: Vec<&str> = errors.lines().rev().filter(|line| !line.is_empty()).take(4).collect();
            let how = if hung { "hangs".to_owned() } else { status.to_string() };
            Err((at, format!("{how}; {}", last.into_iter().rev().collect::<Vec<_>>().join(" | "))))
        }
    }
}

/// Reads what the child says until it ends or falls silent: its last case, and whether it hangs.
fn follow(child: &mut Child, first: usize) -> (usize, bool) {
    let output = BufReader::new(child.stdout.take().unwrap());
    let (said, heard) = channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(said.send(line))));
    let mut at = first;
    loop {
        match heard.recv_timeout(PATIENCE) {
            Ok(line) => at = line.strip_prefix(MARK).map_or(at, |case| case.parse().unwrap()),
            Err(RecvTimeoutError::Disconnected) => return (at, false),
            Err(RecvTimeoutError::Timeout) => return (at, true),
        }
    }
}
