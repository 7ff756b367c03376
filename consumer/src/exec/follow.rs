//! Follows the configuration file of a running executor.
//!
//! In Kubernetes the file is a mounted ConfigMap, which the kubelet swaps some time after a change;
//! elsewhere somebody edits it and may send SIGHUP. Both are found by reading it again: once a second and
//! at a SIGHUP. A file that cannot be used changes nothing.

use super::Control;
use crate::config::Config;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hands every change of the file to the executor, until that has ended. `known` is what it was started
/// with.
pub async fn follow(path: &Path, known: &Config, control: &Control) -> std::io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_force = known.clone();
    let mut last_problem = None;
    loop {
        let asked = tokio::select! {
            _ = interval.tick() => false,
            _ = hang_up.recv() => true,
        };
        match Config::read(path) {
            Ok(config) if config == in_force => {
                last_problem = None;
                if asked {
                    info!("{} says nothing new", path.display());
                }
            }
            Ok(config) => {
                let Ok(need_restart) = control.reconfigure(config.spec().clone()).await else {
                    return Ok(());
                };
                info!("{} has changed and was taken over", path.display());
                if !need_restart.is_empty() {
                    warn!(
                        "changes of spec.{} take effect at the next start of the process",
                        need_restart.join(", spec.")
                    );
                }
                in_force = config;
            }
            Err(problem) => {
                let problem = problem.to_string();
                if asked || last_problem.as_ref() != Some(&problem) {
                    warn!("the configuration stays as it is: {problem}");
                }
                last_problem = Some(problem);
            }
        }
    }
}
