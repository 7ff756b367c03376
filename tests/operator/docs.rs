//! What the documentation shows is what there is.

use crate::space::Space;
use anyhow::{Context as _, Result, ensure};
use keylane_operator::crd::OrderedConsumer;
use keylane_tests::images::workspace::workspace;
use kube::CustomResourceExt as _;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every document for users, with its name.
pub fn documents() -> Result<Vec<(PathBuf, String)>> {
    let mut paths = vec![workspace().join("README.md")];
    for file in std::fs::read_dir(workspace().join("operator/docs"))? {
        paths.push(file?.path());
    }
    let read = |path: PathBuf| Ok((path.clone(), std::fs::read_to_string(path)?));
    let markdown = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    markdown.map(read).collect()
}

/// What stands between fences of that language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == begin {
            let inside = lines.by_ref().take_while(|line| *line != "```");
            blocks.push(inside.collect::<Vec<_>>().join("\n"));
        } else if line.starts_with("```") {
            // Another language.
            lines.by_ref().find(|line| *line == "```");
        }
    }
    blocks
}

#[test]
fn every_manifest_that_is_shown_is_taken_by_the_api_server() -> Result<()> {
    let space = Space::new("docs")?;
    let mut taken = 0;
    for (path, text) in documents()? {
        for block in blocks(&text, "yaml") {
            let documents = serde_norway::Deserializer::from_str(&block);
            for document in documents.map(Value::deserialize) {
                let shown = || format!("{}:\n{block}", path.display());
                let mut object: Value = document.with_context(shown)?;
                if object["kind"].is_null() {
                    continue;
                }
                object["metadata"]["namespace"] = json!(space.name);
                // The same name is shown with another group, which cannot change.
                object["metadata"]["name"] = json!(format!("shown-{taken}"));
                space.apply(&object).with_context(shown)?;
                taken += 1;
            }
        }
    }
    ensure!(taken > 4, "only {taken} manifests were found");
    Ok(())
}

#[test]
fn every_manifest_beside_a_sample_is_taken_by_the_api_server() -> Result<()> {
    let space = Space::new("samples")?;
    let mut taken = 0;
    for sample in std::fs::read_dir(workspace().join("consumer/samples"))? {
        for file in std::fs::read_dir(sample?.path())? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let object: Value = serde_norway::from_str(&std::fs::read_to_string(&path)?)?;
            let refused = space.refusal(&object);
            ensure!(refused.is_none(), "{}: {refused:?}", path.display());
            taken += 1;
        }
    }
    ensure!(taken >= 3, "only {taken} manifests were found");
    Ok(())
}

#[test]
fn every_alert_has_its_page_and_every_page_its_alert() -> Result<()> {
    let rules = std::fs::read_to_string(workspace().join("charts/keylane/rules.yaml"))?;
    let after = |text: &str, begin: &str| -> BTreeSet<String> {
        let lines = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(begin));
        lines.map(str::to_owned).collect()
    };
    let alerts = after(&rules, "- alert: ");
    let runbook = std::fs::read_to_string(workspace().join("operator/docs/runbook.md"))?;
    assert_eq!(after(&runbook, "## "), alerts);
    assert!(alerts.len() > 5);
    Ok(())
}

#[test]
fn every_test_that_a_guarantee_names_is_there() -> Result<()> {
    let mut source = String::new();
    for part in ["consumer/src", "operator/src", "tests"] {
        read_all(&workspace().join(part), &mut source)?;
    }
    let guarantees = std::fs::read_to_string(workspace().join("operator/docs/guarantees.md"))?;
    let rows = guarantees.lines().filter(|line| line.starts_with("| **"));
    let named = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let mut found = 0;
    for name in named.filter(|name| name.contains('_')) {
        assert!(
            source.contains(&format!("fn {name}(")),
            "there is no test {name}"
        );
        found += 1;
    }
    assert!(found > 20, "{found}");
    Ok(())
}

fn read_all(directory: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_field_of_a_status_that_is_named_is_there() -> Result<()> {
    let definition = serde_json::to_value(OrderedConsumer::crd())?;
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut found = 0;
    for (path, text) in documents()? {
        let quoted = text.split('`').skip(1).step_by(2);
        let named = quoted.filter(|part| {
            let mut letters = part.bytes();
            part.starts_with("status.")
                && letters.all(|one| one.is_ascii_alphabetic() || one == b'.')
        });
        for name in named {
            let field = name.split('.').try_fold(schema, |fields, field| {
                let field = fields.get(field)?;
                field.get("properties").or(Some(field))
            });
            assert!(field.is_some(), "{}: there is no {name}", path.display());
            found += 1;
        }
    }
    ensure!(found > 2, "only {found} fields were found");
    Ok(())
}

#[test]
fn every_link_between_documents_leads_somewhere() -> Result<()> {
    for (path, text) in documents()? {
        let here = path.parent().unwrap_or(Path::new("."));
        let targets = text.split("](").skip(1);
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") {
                continue;
            }
            let shown = || format!("{}: {target}", path.display());
            let file = match file {
                "" => path.clone(),
                file => here.join(file),
            };
            assert!(file.exists(), "{}", shown());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&file).with_context(shown)?;
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| anchor(line) == heading), "{}", shown());
            }
        }
    }
    Ok(())
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.replace(' ', "-");
    kept.chars()
        .filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter))
        .collect()
}
