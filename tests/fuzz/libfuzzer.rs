//! `cargo fuzz-all --guided`: the targets of cargo-fuzz, built and run without it.
//!
//! What guides libFuzzer is a pass of the stable compiler. The flags are those that cargo-fuzz gives it (`cargo` in
//! its src/project.rs), without a sanitizer: that needs a nightly compiler, and there is no unsafe code of ours to
//! look into.

use crate::LIMIT;
use crate::target::Target;
use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::{Paths, packages, run};
use keylane_tests::images::workspace::{cargo, release_directory, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;

const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1";
const EXECUTED: &str = "stat::number_of_executed_units:";
const INPUT: &str = "Test unit written to ";

/// What came of a target's run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    runs: u64,
    /// The input it failed at, as a file.
    input: Option<PathBuf>,
}

impl Outcome {
    /// As libFuzzer tells it.
    fn of(said: &str) -> Self {
        let after = |what: &str| {
            let mut lines = said.lines().rev();
            lines.find_map(|line| Some(line.split_once(what)?.1.trim()))
        };
        Self {
            runs: after(EXECUTED)
                .and_then(|number| number.parse().ok())
                .unwrap_or_default(),
            input: after(INPUT).map(PathBuf::from),
        }
    }
}

/// Runs each target for so long, on what there is of its corpus; an error if an input failed.
pub fn run(targets: &[&Target], seconds: u64, seed: u64) -> Result<()> {
    let dir = release_directory().with_file_name("fuzz");
    let programs = build(&dir)?;
    let (mut all, mut failed) = (0, 0);
    for target in targets {
        let corpus = dir.join("corpus").join(target.name);
        crate::put_samples(target, &corpus)?;
        let failures = dir.join("failures").join(target.name);
        std::fs::create_dir_all(&failures)
            .with_context(|| format!("{} cannot be made", failures.display()))?;
        let output = Command::new(programs.join(target.name))
            .args([
                format!("-seed={seed}"),
                format!("-max_total_time={seconds}"),
                format!("-timeout={}", LIMIT.as_secs()),
                "-print_final_stats=1".to_owned(),
                // A directory only with its separator.
                format!("-artifact_prefix={}/", failures.display()),
            ])
            .arg(&corpus)
            .output()
            .with_context(|| format!("the target {} cannot be run", target.name))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let Outcome { runs, input } = Outcome::of(&said);
        all += runs;
        if output.status.success() {
            ensure!(
                runs > 0,
                "{}: nothing was read: {}",
                target.name,
                run::tail(&said)
            );
            println!("{:8} {runs} inputs", target.name);
            continue;
        }
        failed += 1;
        let input = input.map_or_else(
            || "no input was kept".to_owned(),
            |input| format!("the input is {}", input.display()),
        );
        println!("{:8} FAILED, {}: {input}", target.name, output.status);
        eprintln!("{said}");
    }
    println!("{all} inputs with seed {seed}, guided by coverage, {failed} targets failed");
    ensure!(failed == 0, "{failed} targets failed");
    Ok(())
}

/// Builds all targets; gives the directory they are in.
fn build(dir: &Path) -> Result<PathBuf> {
    packages::ensure(&Paths::from_env(), &packages::FUZZING)?;
    let told = run::output("rustc -vV", run::command("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    same_versions()?;
    let mut build = cargo();
    build
        .args(["build", "--release", "--manifest-path"])
        .arg(workspace().join("tests/fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(dir)
        // Named, so that build scripts do not get the flags.
        .args(["--target", host])
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", FLAGS);
    let log = dir.join("build.log");
    eprintln!(
        "building the targets with coverage, minutes when nothing is cached (log: {})",
        log.display()
    );
    run::logged("building the targets with coverage", &mut build, &log)?;
    Ok(dir.join(host).join("release"))
}

/// Lets cargo begin with the product's lock file, so that what is read here is what is linked in there. Cargo adds
/// what only the fuzzer needs.
fn same_versions() -> Result<()> {
    let ours = workspace().join("Cargo.lock");
    let theirs = workspace().join("tests/fuzz/Cargo.lock");
    let changed = |file: &Path| file.metadata().and_then(|about| about.modified()).ok();
    if changed(&theirs) < changed(&ours) {
        std::fs::copy(&ours, &theirs)
            .with_context(|| format!("{} cannot be written", theirs.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_the_input_that_failed_are_read_from_what_libfuzzer_says() {
        let well = "#2\tINITED cov: 120 ft: 121 corp: 1/1b exec/s: 0 rss: 40Mb\n\
            Done 73214 runs in 6 second(s)\n\
            stat::number_of_executed_units: 73214\n\
            stat::average_exec_per_sec:     12202\n";
        let expected = Outcome {
            runs: 73_214,
            input: None,
        };
        assert_eq!(Outcome::of(well), expected);
        let ill = "==7== ERROR: libFuzzer: deadly signal\n\
            artifact_prefix='/f/wire/'; Test unit written to /f/wire/crash-da39a3\n\
            Base64: aGVsbG8=\n\
            stat::number_of_executed_units: 12\n";
        let expected = Outcome {
            runs: 12,
            input: Some("/f/wire/crash-da39a3".into()),
        };
        assert_eq!(Outcome::of(ill), expected);
        assert_eq!(Outcome::of("no such corpus"), Outcome::default());
    }
}
