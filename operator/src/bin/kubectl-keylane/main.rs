#![recursion_limit = "512"]
//! `kubectl-keylane`: run by kubectl as `kubectl keylane`.

use clap::Parser;
use keylane_operator::plugin::{self, Cli, Paint, PluginError, Verdict};
use std::io::ErrorKind;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    keylane_operator::install_crypto();
    let mut out = std::io::stdout();
    match plugin::run(cli, Paint::of(&out), &mut out).await {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        // Whoever reads has read enough, as head does.
        Err(PluginError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
