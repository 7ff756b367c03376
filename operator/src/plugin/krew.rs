//! The plugin's entry in krew's index, as a release fills it in, is one that krew takes.
//!
//! Fields and rules: krew's "Writing Krew plugin manifests" and its naming guide. What addURIAndSha puts in is that
//! of krew-release-bot.

use super::Cli;
use clap::CommandFactory;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

const TEMPLATE: &str = include_str!("../../../.krew.yaml");
const SUM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Every field that krew documents for a manifest; others it would not know.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    version: String,
    homepage: String,
    short_description: String,
    description: String,
    #[serde(default)]
    caveats: String,
    platforms: Vec<Platform>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Platform {
    selector: Selector,
    uri: String,
    sha256: String,
    bin: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

/// The template as a release of this version makes a manifest of it.
fn released(template: &str, tag: &str) -> String {
    let filled = template.lines().map(|line| {
        let line = line.replace("{{ .TagName }}", tag);
        let Some((indent, rest)) = line.split_once("{{addURIAndSha \"") else {
            return line;
        };
        let uri = rest.split('"').next().unwrap_or_default();
        format!("{indent}uri: {uri}\n{indent}sha256: {SUM}")
    });
    filled.collect::<Vec<_>>().join("\n")
}

/// What krew, or who looks after its index, would refuse.
fn faults(text: &str, tag: &str) -> Vec<String> {
    let manifest: Manifest = match serde_norway::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    let mut fault = |is: bool, what: &str| {
        if is {
            faults.push(what.to_owned());
        }
    };
    let spec = &manifest.spec;
    fault(
        manifest.api_version != "krew.googlecontainertools.github.com/v1alpha2",
        "apiVersion",
    );
    fault(manifest.kind != "Plugin", "kind");
    let plain =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    fault(!manifest.metadata.name.chars().all(plain), "metadata.name");
    fault(spec.version != tag || !tag.starts_with('v'), "spec.version");
    fault(!spec.homepage.starts_with("https://"), "spec.homepage");
    let short = &spec.short_description;
    fault(
        !(1..=50).contains(&short.len()) || short.ends_with('.'),
        "spec.shortDescription",
    );
    fault(spec.description.trim().is_empty(), "spec.description");
    fault(
        spec.caveats.lines().any(|line| line.len() > 120),
        "spec.caveats",
    );
    let mut seen = BTreeSet::new();
    fault(spec.platforms.is_empty(), "spec.platforms");
    for platform in &spec.platforms {
        let labels = &platform.selector.match_labels;
        let label = |name: &str| labels.get(name).map(String::as_str);
        let known = matches!(label("os"), Some("linux" | "darwin" | "windows"))
            && matches!(
                label("arch"),
                Some("amd64" | "arm64" | "386" | "arm" | "ppc64le" | "s390x")
            );
        fault(labels.len() != 2 || !known, "platforms.selector");
        fault(!seen.insert(labels.clone()), "platforms: twice");
        let archive = [".tar.gz", ".zip"]
            .iter()
            .any(|end| platform.uri.ends_with(end));
        let names = |part: Option<&str>| part.is_some_and(|part| platform.uri.contains(part));
        let of_release = names(Some(tag)) && names(label("os")) && names(label("arch"));
        fault(!archive || !of_release, "platforms.uri");
        let digits = platform
            .sha256
            .chars()
            .all(|letter| letter.is_ascii_hexdigit());
        fault(platform.sha256.len() != 64 || !digits, "platforms.sha256");
        fault(platform.bin != Cli::command().get_name(), "platforms.bin");
    }
    faults
}

#[test]
fn a_release_fills_in_an_entry_that_krew_takes() {
    let tag = concat!("v", env!("CARGO_PKG_VERSION"));
    let text = released(TEMPLATE, tag);
    assert_eq!(faults(&text, tag), Vec::<String>::new(), "{text}");
    assert!(!text.contains("{{"), "{text}");
    assert_eq!(text.matches(SUM).count(), 4);
}

#[test]
fn what_krew_would_refuse_is_found() {
    let good = released(TEMPLATE, "v1.2.3");
    for (from, to, found) in [
        ("v1alpha2", "v1", "apiVersion"),
        ("name: keylane", "name: Key_Lane", "metadata.name"),
        ("version: v1.2.3", "version: 1.2.3", "spec.version"),
        (
            "Order per key for",
            "Everything that can be said of order per key for",
            "spec.shortDescription",
        ),
        ("arch: arm64", "arch: amd64", "platforms: twice"),
        ("os: darwin", "os: macos", "platforms.selector"),
        ("amd64.tar.gz", "amd64.rpm", "platforms.uri"),
        (
            "0123456789abcdef0123",
            "0123456789abcdef012",
            "platforms.sha256",
        ),
        ("bin: kubectl-keylane", "bin: keylane", "platforms.bin"),
        ("kind: Plugin", "kind: Plugin\nlicence: x", "licence"),
    ] {
        let faults = faults(&good.replace(from, to), "v1.2.3").join("; ");
        assert!(faults.contains(found), "{from} -> {to}: {faults}");
    }
}
