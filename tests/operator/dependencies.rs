//! What is linked in is what .cargo/deny.toml allows: licences, sources, and crates that are not wanted. The same
//! lists are read here, where nothing but Rust is needed, and by cargo-deny, where it is installed.

use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::run;
use keylane_tests::images::workspace::{cargo, workspace};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for crates of this workspace.
    source: Option<String>,
}

/// The strings of a list in a TOML text that is written as ours is: one a line.
fn list(text: &str, name: &str) -> BTreeSet<String> {
    let begin = format!("{name} = [");
    let lines = text.lines().skip_while(|line| *line != begin).skip(1);
    let items = lines.take_while(|line| *line != "]");
    items
        .map(|line| {
            line.trim()
                .trim_end_matches(',')
                .trim_matches('"')
                .to_owned()
        })
        .collect()
}

/// Whether an SPDX expression can be fulfilled with these licences. `/` is an old way to write OR.
fn fulfilled(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let result = either(&mut words, allowed);
    result && words.peek().is_none()
}

type Words<'w> = std::iter::Peekable<std::str::SplitWhitespace<'w>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        result |= both(words, allowed);
    }
    result
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let result = either(words, allowed);
        return words.next_if_eq(&")").is_some() && result;
    }
    let mut licence = words.next().unwrap_or_default().to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&licence)
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["A", "B", "C WITH x"].map(str::to_owned).into();
    for (expression, expected) in [
        ("A", true),
        ("D", false),
        ("A OR D", true),
        ("D/A", true),
        ("A AND D", false),
        ("D OR A AND B", true),
        ("(D OR A) AND B", true),
        ("(D OR A) AND (D OR E)", false),
        ("C", false),
        ("C WITH x", true),
        ("A B", false),
        ("", false),
    ] {
        assert_eq!(fulfilled(expression, &allowed), expected, "{expression:?}");
    }
}

#[test]
fn nothing_is_linked_in_that_is_not_allowed() -> Result<()> {
    let rules = std::fs::read_to_string(workspace().join(".cargo/deny.toml"))?;
    let (allowed, unwanted) = (list(&rules, "allow"), list(&rules, "deny"));
    let sources = list(&rules, "allow-registry");
    ensure!(!allowed.is_empty() && !unwanted.is_empty() && !sources.is_empty());
    let host = Command::new("rustc").arg("-vV").output()?;
    let host = String::from_utf8(host.stdout)?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    // Crates of other platforms may not be here.
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
        ])
        .arg(host.context("rustc names no host")?)
        .current_dir(workspace())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {said}");
    let Metadata { packages } = serde_json::from_slice(&output.stdout)?;
    ensure!(
        packages.len() > 100,
        "only {} crates are known",
        packages.len()
    );
    let mut wrong = Vec::new();
    for Package {
        name,
        version,
        license,
        source,
    } in packages
    {
        let licence = license.unwrap_or_default();
        if !fulfilled(&licence, &allowed) {
            wrong.push(format!("{name} {version}: licence {licence:?}"));
        }
        if unwanted.contains(&name) {
            wrong.push(format!("{name} {version} is not wanted"));
        }
        let registry = source
            .as_deref()
            .map(|source| source.trim_start_matches("registry+"));
        if registry.is_some_and(|registry| !sources.contains(registry)) {
            wrong.push(format!("{name} {version} comes from {registry:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn cargo_deny_finds_nothing_where_it_is_installed() -> Result<()> {
    let check = [
        "--offline",
        "--locked",
        "check",
        "bans",
        "licenses",
        "sources",
    ];
    if run::find("cargo-deny").is_none() {
        // Past what is shown of tests that fail only: a check that was not made is to be seen.
        writeln!(
            std::io::stderr(),
            "cargo-deny is not installed: licences, sources and bans were checked without it; cargo deny {} does it",
            check.join(" ")
        )?;
        return Ok(());
    }
    let mut deny = cargo();
    deny.current_dir(workspace()).arg("deny").args(check);
    run::output("cargo deny", &mut deny)?;
    Ok(())
}
