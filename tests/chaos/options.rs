//! What `cargo chaos` is asked for.

use crate::peer::Peer;
use crate::pieces::Pieces;
use crate::schedule::Place;
use crate::system::System;
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::time::Duration;

/// Events of one command, at most.
const MOST_EVENTS: usize = 100_000;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long things happen, in each piece. Some time before and after it is needed to begin and to end.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Gives the schedule: the same seed, the same events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run piece after piece, each with the next seed, until so many events have happened, and tell their
    /// sum. A piece that fails stops no other.
    #[arg(long, value_name = "NUMBER")]
    pub events: Option<usize>,
    /// Also fail if a queue stood still or a committed offset went back for longer than it may, a message
    /// ran again and nothing explains it, or was never committed: on a machine with time to spare.
    #[arg(long)]
    goals: bool,
    /// One JSON object an event, a verdict and a summary on standard output.
    #[arg(long)]
    pub json: bool,
    /// Let the members be pods of an OrderedConsumer on this machine's cluster, which is started if it does
    /// not run, with the operator; what happens to them is what happens to pods.
    #[arg(long, conflicts_with_all = ["peer", "peers", "consumer"])]
    pub cluster: bool,
    /// The operator is there and others use it: it is neither installed nor killed.
    #[arg(long, hide = true, requires = "cluster")]
    pub shared_operator: bool,
    /// Namespace of brokers and pods; it is made anew.
    #[arg(
        long,
        hide = true,
        requires = "cluster",
        default_value = "keylane-chaos"
    )]
    pub namespace: String,
    /// Places for members. Default: 4 processes, or 6 pods, which take longer to come back.
    #[arg(long)]
    members: Option<usize>,
    /// Messages a second.
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// Keys.
    #[arg(long, default_value_t = 200)]
    pub keys: u64,
    /// Queues of the topic.
    #[arg(long, default_value_t = 8)]
    pub queues: u32,
    /// Run RocketMQ's own consumer in place of Keylane's executor.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// Run others after Keylane with the same seed, and tell all in one table.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "peer")]
    peers: Vec<Peer>,
    /// The executor to run. Default: this workspace's, built in release mode.
    #[arg(long, value_name = "FILE")]
    pub consumer: Option<PathBuf>,
    /// Directory for the logs of the members, and for the record of all calls, in a directory
    /// for each run. Default: one that is removed at the end, unless the run failed.
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// Print the schedule and do nothing.
    #[arg(long)]
    pub plan: bool,
}

impl Options {
    /// What is to be run.
    ///
    /// # Errors
    /// If a number is out of its range.
    pub fn pieces(&self) -> Result<Pieces> {
        let (place, usual) = match self.cluster {
            true => (Place::Pods, 6),
            false => (Place::Processes, 4),
        };
        let members = self.members.unwrap_or(usual);
        ensure!(
            (3..=100).contains(&members),
            "--members is {members}: from 3, two of which can work at any time, to 100"
        );
        ensure!(
            (0.5..=1_440.0).contains(&self.minutes),
            "--minutes is {}: from 0.5 to 1440",
            self.minutes
        );
        ensure!(
            self.events
                .is_none_or(|events| (1..=MOST_EVENTS).contains(&events)),
            "--events is {}: from 1 to {MOST_EVENTS}",
            self.events.unwrap_or_default()
        );
        let mut peers = self.peers.clone();
        peers.dedup();
        let systems = match self.peer {
            Some(peer) => vec![System::Peer(peer)],
            None => {
                let peers = peers.into_iter().map(System::Peer);
                std::iter::once(System::Keylane).chain(peers).collect()
            }
        };
        Ok(Pieces {
            seed: self.seed,
            length: Duration::from_secs_f64(self.minutes * 60.0),
            place,
            members,
            events: self.events,
            goals: self.goals,
            systems,
        })
    }
}
