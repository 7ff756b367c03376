//! `kubectl keylane` as people type it: the released program, found and run by the real kubectl, with the exit codes
//! and the completion that its help and the documentation promise.

use crate::plugin::run_with;
use crate::process::program;
use crate::space::{Space, consumer};
use anyhow::{Context as _, Result};
use keylane_tests::cluster::run;
use keylane_tests::images::workspace::workspace;
use keylane_tests::terminal::Terminal;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use tempfile::{NamedTempFile, TempDir};

/// What the documentation lets completion be.
const COMPLETION: &str = "exec kubectl-keylane __complete \"$@\"";

/// What was typed, the exit code, and parts of what is said there.
type Typed<'t> = (&'t [&'t str], i32, &'t [&'t str]);

/// kubectl with the plugin on its PATH, and the script for completion.
struct Kubectl<'s> {
    space: &'s Space,
    scripts: TempDir,
}

impl<'s> Kubectl<'s> {
    fn new(space: &'s Space) -> Result<Self> {
        let scripts = TempDir::new()?;
        let script = scripts.path().join("kubectl_complete-keylane");
        fs::write(&script, format!("#!/bin/sh\n{COMPLETION}\n"))?;
        fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        Ok(Self { space, scripts })
    }

    fn command(&self, words: &[&str]) -> Command {
        let plugin = program("kubectl-keylane");
        let path = format!(
            "{}:{}:{}",
            plugin.parent().unwrap_or(Path::new(".")).display(),
            self.scripts.path().display(),
            run::search_path()
        );
        let mut kubectl = self.space.cluster().kubectl();
        kubectl.args(words).env("PATH", path);
        kubectl
    }

    /// The exit code, and what is printed and said.
    fn types(&self, words: &[&str]) -> Result<(Option<i32>, String, String)> {
        let output = self.command(words).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Ok((output.status.code(), out, err))
    }
}

#[test]
fn kubectl_runs_the_plugin_and_ends_with_its_exit_code() -> Result<()> {
    let space = Space::new("kubectl")?;
    // One that the demo left would look at the consumer.
    space.stop_installed_operators()?;
    space.apply(&consumer("orders"))?;
    let kubectl = Kubectl::new(&space)?;
    let name = space.name.as_str();
    let typed: [Typed<'_>; 6] = [
        (
            &["keylane", "status", "orders", "-n", name],
            0,
            &["OrderedConsumer"],
        ),
        (
            &["keylane", "explain", "orders", "-n", name],
            0,
            &["OrderedConsumer"],
        ),
        // Nobody has looked at it.
        (
            &["keylane", "check", "orders", "-n", name],
            1,
            &["FAIL", "check", "failed."],
        ),
        (
            &["keylane", "status", "order", "-n", name],
            2,
            &[
                "error: there is no OrderedConsumer \"order\"",
                "there are: orders",
            ],
        ),
        (
            &["keylane", "state", "orders"],
            2,
            &["unrecognized subcommand 'state'"],
        ),
        (
            &[
                "keylane",
                "status",
                "orders",
                "-n",
                name,
                "--context",
                "nowhere",
            ],
            2,
            &["no context \"nowhere\""],
        ),
    ];
    for (words, wanted, parts) in typed {
        let (code, out, err) = kubectl.types(words)?;
        assert_eq!(code, Some(wanted), "{words:?}: {out}{err}");
        // What was asked for is printed, what went wrong is said beside it.
        let (said, silent) = if wanted == 2 {
            (&err, &out)
        } else {
            (&out, &err)
        };
        assert!(silent.is_empty(), "{words:?}: {silent}");
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(
            !said.contains('\u{1b}'),
            "colours without a terminal: {said}"
        );
    }
    let (code, json, _) =
        kubectl.types(&["keylane", "status", "orders", "-n", name, "-o", "json"])?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!((code, &json["topic"]), (Some(0), &json!("ORDERS")));
    Ok(())
}

#[test]
fn what_matters_is_coloured_in_a_terminal_unless_that_is_not_wanted() -> Result<()> {
    let space = Space::new("colours")?;
    space.apply(&consumer("orders"))?;
    let kubectl = Kubectl::new(&space)?;
    for (unwanted, is_coloured) in [(None, true), (Some("1"), false)] {
        let mut status = kubectl.command(&["keylane", "status", "orders", "-n", &space.name]);
        status.env("TERM", "xterm").env_remove("NO_COLOR");
        if let Some(value) = unwanted {
            status.env("NO_COLOR", value);
        }
        let (status, screen) = Terminal::start(status)?.finish()?;
        assert!(status.success(), "{screen}");
        // Bold, its name.
        let strong = format!("\u{1b}[1m{}/orders\u{1b}[0m", space.name);
        assert_eq!(screen.contains(&strong), is_coloured, "{screen:?}");
        assert_eq!(screen.contains('\u{1b}'), is_coloured, "{screen:?}");
    }
    Ok(())
}

#[test]
fn kubectl_completes_commands_options_and_names_of_consumers() -> Result<()> {
    let readme = fs::read_to_string(workspace().join("README.md"))?;
    assert!(readme.contains(COMPLETION), "the README has another script");
    let space = Space::new("completion")?;
    space.apply(&consumer("orders"))?;
    let kubectl = Kubectl::new(&space)?;
    let name = space.name.as_str();
    let kubeconfig = fs::read_to_string(space.cluster().kubeconfig())?;
    let kubeconfig: Value = serde_norway::from_str(&kubeconfig)?;
    let context = kubeconfig["contexts"][0]["name"].as_str();
    let context = context.context("no contexts")?;
    let typed: [(&[&str], &str); 4] = [
        (&["keylane", "sta"], "status"),
        (&["keylane", "status", "--context", ""], context),
        (&["keylane", "explain", "orders", "--re"], "--replay"),
        (&["keylane", "status", "-n", name, "or"], "orders"),
    ];
    for (words, wanted) in typed {
        let words = [&["__complete"], words].concat();
        let (code, out, err) = kubectl.types(&words)?;
        assert_eq!(code, Some(0), "{words:?}: {out}{err}");
        // A possibility, perhaps with a tab and what it is.
        let mut offered = out.lines().filter_map(|line| line.split('\t').next());
        assert!(offered.any(|word| word == wanted), "{words:?}: {out}{err}");
    }
    Ok(())
}

/// Who is not let in at all is told so, rather than that the API server does not answer, or which role helps.
#[test]
fn who_is_not_let_in_is_told_to_log_in() -> Result<()> {
    let space = Space::new("login")?;
    space.apply(&consumer("orders"))?;
    space.apply(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}
    }))?;
    let robot = space.kubectl(&["create", "token", "robot"])?;
    let expired = kubeconfig_with(&space, "expired")?;
    let robot = kubeconfig_with(&space, robot.trim())?;
    let told = |kubeconfig: &NamedTempFile, words: &[&str]| match run_with(
        &space,
        kubeconfig.path(),
        words,
    ) {
        Ok((verdict, text)) => format!("{verdict:?}: {text}"),
        Err(error) => error.to_string(),
    };
    let somebody = "somebody@example.com";
    for (text, parts) in [
        (
            told(&expired, &["status", "orders"]),
            ["does not know you", "log in again"],
        ),
        (
            told(&expired, &["check"]),
            ["Failed: ", "does not let you in: Unauthorized"],
        ),
        (
            told(&robot, &["check", "--as", somebody]),
            ["does not let you in", "cannot impersonate"],
        ),
        (
            told(&robot, &["status", "orders", "--as", somebody]),
            ["you may not read", "cannot impersonate"],
        ),
        // It is known, and may nothing.
        (
            told(&robot, &["status", "orders"]),
            ["you may not read", "ask for the role view"],
        ),
    ] {
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    Ok(())
}

/// The administrator's kubeconfig with a token in place of the certificate.
fn kubeconfig_with(space: &Space, token: &str) -> Result<NamedTempFile> {
    let text = fs::read_to_string(space.cluster().kubeconfig())?;
    let mut kubeconfig: Value = serde_norway::from_str(&text)?;
    for entry in kubeconfig["users"].as_array_mut().context("no users")? {
        entry["user"] = json!({"token": token});
    }
    let file = NamedTempFile::new()?;
    fs::write(file.path(), kubeconfig.to_string())?;
    Ok(file)
}
