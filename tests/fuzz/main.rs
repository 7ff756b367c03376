//! `cargo fuzz-all`: damaged input of every kind that comes from outside, read by the product's own readers.
//!
//! Inputs are samples that are right, damaged a little: most of them get far into a reader before they are refused.
//! A run is a number: the same seed gives the same inputs, on every machine and with any number of threads, with
//! nothing but a stable compiler. Standard output has one line a target; the exit status is 1 if anything panicked,
//! took longer than 10 s, or came out otherwise than it went in.
//!
//! What the client library reads before us is not among them: the frame round an answer, and the JSON of a route.
//! What we make of a route is bounded (consumer/src/source/rocketmq/answer.rs).
//!
//! The same targets are there for cargo-fuzz, which is guided by coverage and finds what damage at random does not:
//! `Cargo.toml` here is theirs. `--guided` builds and runs them without cargo-fuzz. They are no part of the tests,
//! because that compiles all dependencies once more with instruments of its own.
#![recursion_limit = "512"]

mod damage;
mod libfuzzer;
mod target;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use damage::Damage;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use target::{TARGETS, Target};

/// Longest time one input may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads damaged input by the product's readers.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo fuzz-all")]
struct Cli {
    /// Inputs of all targets together; targets share them by what one costs.
    #[arg(long, default_value_t = 10_000_000)]
    runs: u64,
    /// Which inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// This target only.
    #[arg(long)]
    only: Option<String>,
    /// Write the samples into this directory instead, one below it for each target, to begin with for cargo-fuzz.
    #[arg(long, value_name = "DIR")]
    samples: Option<PathBuf>,
    /// Let libFuzzer make the inputs, guided by what they reach: builds the targets first.
    #[arg(long, conflicts_with_all = ["runs", "samples"])]
    guided: bool,
    /// How long each target is read with --guided, in seconds.
    #[arg(long, requires = "guided", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

fn main() -> Result<()> {
    let Cli {
        runs,
        seed,
        only,
        samples,
        guided,
        seconds,
    } = Cli::parse_from(keylane_tests::arguments());
    let chosen: Vec<_> = TARGETS
        .iter()
        .filter(|target| only.as_ref().is_none_or(|only| *only == target.name))
        .collect();
    ensure!(!chosen.is_empty(), "there is no such target");
    if let Some(dir) = samples {
        return write_samples(&chosen, &dir);
    }
    if guided {
        return libfuzzer::run(&chosen, seconds, seed);
    }
    let shares: u64 = chosen.iter().map(|target| target.share).sum();
    let (mut all, mut failures) = (0, 0);
    for target in chosen {
        let runs = (runs * target.share).div_ceil(shares);
        let (began, seen) = (Instant::now(), run(target, seed, runs));
        println!(
            "{:8} {runs} inputs, {} taken, slowest {:?}, {} failures, {:.0?}",
            target.name,
            seen.taken,
            seen.slowest,
            seen.failures.len(),
            began.elapsed()
        );
        for failure in &seen.failures {
            eprintln!("{failure}");
        }
        all += runs;
        failures += seen.failures.len();
    }
    println!("{all} inputs with seed {seed}, {failures} failures");
    ensure!(failures == 0, "{failures} inputs failed");
    Ok(())
}

fn write_samples(targets: &[&Target], dir: &Path) -> Result<()> {
    for target in targets {
        let dir = dir.join(target.name);
        put_samples(target, &dir)?;
        println!("{}", dir.display());
    }
    Ok(())
}

/// Writes a target's samples into a directory, which is made.
fn put_samples(target: &Target, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    for (number, sample) in (target.samples)().iter().enumerate() {
        let file = dir.join(format!("sample-{number}"));
        std::fs::write(&file, sample)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// What came of inputs.
#[derive(Debug, Default)]
struct Seen {
    /// How many were read to their end.
    taken: u64,
    slowest: Duration,
    /// The first few, in words.
    failures: Vec<String>,
}

const TOLD: usize = 10;

/// Reads that many inputs of a target, on all processors.
fn run(target: &Target, seed: u64, runs: u64) -> Seen {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let samples = (target.samples)();
    let part = |thread: u64| {
        let mut seen = Seen::default();
        for number in (thread..runs).step_by(threads as usize) {
            one(target, &samples, seed, number, &mut seen);
        }
        seen
    };
    std::thread::scope(|scope| {
        let part = &part;
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || part(thread)))
            .collect();
        let mut all = Seen::default();
        for thread in running {
            // Panics of readers are caught.
            let seen = thread.join().unwrap_or_default();
            all.taken += seen.taken;
            all.slowest = all.slowest.max(seen.slowest);
            all.failures.extend(seen.failures);
        }
        all.failures.truncate(TOLD);
        all
    })
}

fn one(target: &Target, samples: &[Vec<u8>], seed: u64, number: u64, seen: &mut Seen) {
    let mut damage = Damage::new(seed, number);
    let input = damage.of(samples, target.checksum);
    let began = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.read)(&input)));
    let took = began.elapsed();
    seen.slowest = seen.slowest.max(took);
    let wrong = match result {
        Ok(Ok(taken)) => {
            seen.taken += u64::from(taken);
            (took > LIMIT).then(|| format!("it took {took:?}"))
        }
        Ok(Err(reason)) => Some(reason),
        Err(_) => Some("it panicked".to_owned()),
    };
    if let Some(reason) = wrong
        && seen.failures.len() < TOLD
    {
        let hex = input.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let name = target.name;
        seen.failures.push(format!(
            "{name}, seed {seed}, input {number}: {reason}: {hex}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some inputs of each target at each test run, more where KEYLANE_FUZZ_RUNS says so (.ci/run); `cargo fuzz-all`
    /// has millions.
    #[test]
    fn no_damaged_input_is_a_reader_s_end() {
        let runs = std::env::var("KEYLANE_FUZZ_RUNS").ok();
        let runs: u64 = runs.map_or(65_000, |runs| runs.parse().expect("a number"));
        let shares: u64 = TARGETS.iter().map(|target| target.share).sum();
        for target in &TARGETS {
            let seen = run(target, 7, (runs * target.share).div_ceil(shares));
            assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
            // Damage that nothing survives would show the first check of a reader only.
            assert!(
                seen.taken > 0,
                "{}: nothing was read to its end",
                target.name
            );
        }
    }

    #[test]
    fn samples_are_taken_as_they_are() {
        for target in &TARGETS {
            for sample in (target.samples)() {
                let text = String::from_utf8_lossy(&sample).into_owned();
                assert_eq!((target.read)(&sample), Ok(true), "{}: {text}", target.name);
            }
        }
    }

    #[test]
    fn every_target_is_one_of_cargo_fuzz_too() {
        let manifest = include_str!("Cargo.toml");
        for Target { name, .. } in &TARGETS {
            let bin = format!("name = {name:?}\npath = \"targets/{name}.rs\"");
            assert!(manifest.contains(&bin), "{name}");
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets");
            let source = std::fs::read_to_string(dir.join(format!("{name}.rs"))).unwrap();
            assert!(
                source.contains(&format!("guided::read({name:?}, input)")),
                "{name}"
            );
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }

    #[test]
    fn a_reader_that_panics_is_a_failure_with_its_input() {
        let panics = Target {
            name: "panics",
            share: 1,
            checksum: false,
            samples: || vec![vec![1, 2, 3]],
            read: |_| panic!("on purpose"),
        };
        let seen = run(&panics, 1, 2);
        assert_eq!(seen.failures.len(), 2);
        assert!(
            seen.failures[0].contains("it panicked: "),
            "{:?}",
            seen.failures
        );
    }
}
