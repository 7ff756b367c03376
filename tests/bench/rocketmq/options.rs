//! What is measured, as the command line says it.

use crate::load::Load;
use crate::peers::Peers;
use anyhow::{Result, bail, ensure};

/// Messages, unless it is said how many: at most so many, and with a rate or work of each those of so long.
const MESSAGES: u32 = 200_000;
const RATE_SECONDS: u32 = 30;
const WORK_MS: u32 = 60_000;
/// Messages of a hot key with work, unless it is said how many: so many fit into memory beside those of others
/// (one queue may hold two thirds of `limits.messages`), and so much work, one after the other, takes a minute.
const HOT_MESSAGES: u32 = 10_000;
const HOT_WORK_MS: u32 = 60_000;

// What to measure. Without documentation of its own: that would be shown in place of the program's.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Consumers to run beside Keylane, or none: RocketMQ's java-orderly and java-concurrent, and Confluent's
    /// parallel-consumer, in order by key on a Kafka that is started for it (not with --rate).
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "java-orderly,java-concurrent"
    )]
    pub peers: Peers,
    /// Keylane's handler. noop: a Rust function in its process. http, http2, grpc: a server in a process of its own.
    #[arg(long, value_enum, default_value_t = Handler::Noop)]
    pub handler: Handler,
    /// Work of each message, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub work: u32,
    /// Keys.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub keys: u64,
    /// Queues.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub queues: u32,
    /// Messages. RocketMQ's ordered consumer gets no more than 20 s of work a queue. Default: 200,000, but no more
    /// than half a minute of --rate and a minute of work for all lanes; with work and a hot key no more than 10,000
    /// and a minute of work of that key, which are handled one after the other.
    #[arg(long, value_name = "N")]
    pub messages: Option<u32>,
    /// Lanes of Keylane, and threads of the others.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub lanes: u32,
    /// Share of the messages that one key has, in percent; the other keys share the rest.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=99))]
    pub hot: u32,
    /// One key has half of the messages, and Keylane runs once more with those of the others alone.
    #[arg(long, conflicts_with_all = ["hot", "rate"])]
    pub hot_key: bool,
    /// Measure what a consumer of that many queues costs while nothing comes, and nothing else.
    #[arg(long, conflicts_with_all = ["hot", "hot_key", "rate", "work", "lanes"])]
    pub idle: bool,
    /// How long that is measured, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "idle")]
    pub idle_seconds: u64,
    /// Send so many messages a second while the consumer runs, and tell how long each took to arrive.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<u32>,
    /// Let the broker send 32 messages or 256 KiB in a reply at most, as RocketMQ comes, in place of 1,024 and 4 MiB.
    #[arg(long)]
    pub stock_broker: bool,
    /// Tell in words the five functions that cost Keylane's process most, by perf: with some millions of --messages,
    /// and with CARGO_PROFILE_RELEASE_STRIP=none in the environment, which builds programs that have the names.
    #[arg(long)]
    pub profile: bool,
    /// Times everything is run; medians, and whether they reach Keylane's goals, are told at the end.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub runs: u32,
    /// One JSON object a system and run on standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,
}

/// Keylane's handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Handler {
    /// A Rust function in Keylane's process.
    Noop,
    /// An HTTP server, called by HTTP/1.1.
    Http,
    /// The same, called by HTTP/2.
    Http2,
    /// A gRPC server.
    Grpc,
}

impl Handler {
    /// The name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }
}

impl Bench {
    /// Percent of the messages that one key has.
    fn hot_percent(&self) -> u32 {
        if self.hot_key { 50 } else { self.hot }
    }

    fn messages(&self) -> u32 {
        let hot = self.hot_percent();
        let of_rate = self.rate.map(|rate| rate.saturating_mul(RATE_SECONDS));
        let of_work = WORK_MS.checked_div(self.work);
        let of_work = of_work.map(|each| each.max(1).saturating_mul(self.lanes));
        let of_hot_key = HOT_WORK_MS.checked_div(self.work).filter(|_| hot > 0);
        let of_hot_key = of_hot_key.map(|most| (most.clamp(1, HOT_MESSAGES) * 100).div_ceil(hot));
        let most = [of_rate, of_work, of_hot_key].into_iter().flatten();
        self.messages
            .unwrap_or_else(|| most.fold(MESSAGES, u32::min))
    }

    /// What the consumers are to do.
    pub fn load(&self) -> Load {
        Load {
            messages: self.messages(),
            keys: self.keys,
            queues: self.queues,
            hot: self.hot_percent(),
            others_only: false,
            work_ms: self.work,
            lanes: self.lanes,
            rate: self.rate,
        }
    }

    /// Whether it makes sense; the error says what does not.
    pub fn check(&self) -> Result<()> {
        for (field, value) in [
            ("runs", u64::from(self.runs)),
            ("keys", self.keys),
            ("queues", self.queues.into()),
            ("lanes", self.lanes.into()),
            ("rate", self.rate.unwrap_or(1).into()),
            ("idle-seconds", self.idle_seconds),
            ("messages", self.messages().into()),
        ] {
            ensure!(value > 0, "--{field} is 0: at least 1");
        }
        ensure!(
            !self.idle || self.handler == Handler::Noop,
            "--idle needs --handler noop"
        );
        let without_rate = self.peers.iter().find(|peer| !peer.has_rate());
        if let (Some(_), Some(peer)) = (self.rate, without_rate) {
            bail!(
                "--peers has {0}, which is not sent messages at a --rate: leave {0} out, or the rate",
                peer.name()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::{self, Medians};
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: Bench,
    }

    fn bench(options: &str) -> Bench {
        let words = std::iter::once("bench").chain(options.split_whitespace());
        Cli::parse_from(words).bench
    }

    /// The options that the README names for its goals, with how many of them they are.
    #[test]
    fn every_goal_has_options_that_measure_it() {
        let medians = |system| Medians {
            system,
            per_second: 1.0,
            cpu_s_per_100k: 1.0,
            latency: Some((1.0, 1.0)),
        };
        for (options, count) in [
            ("", 4),
            ("--peers java-orderly,java-concurrent,parallel-consumer", 5),
            ("--work 1", 1),
            ("--work 10", 1),
            ("--work 100", 1),
            ("--handler http", 1),
            ("--handler grpc", 1),
            ("--handler http --work 10 --lanes 256", 1),
            ("--rate 1000", 3),
        ] {
            let bench = bench(options);
            bench.check().unwrap();
            let peers: Vec<_> = bench
                .peers
                .iter()
                .map(|peer| medians(peer.name()))
                .collect();
            let goals = goals::goals(bench.handler, &bench.load(), &medians("keylane"), &peers);
            assert_eq!(goals.len(), count, "{options}");
        }
        let hot = bench("--hot-key --work 10");
        assert!(goals::beside_hot_key(&hot.load(), 1.0).is_some());
        let idle = bench("--idle --queues 1024");
        idle.check().unwrap();
        assert_eq!(goals::idle(idle.queues, 1.0, 1.0).len(), 2);
    }

    #[test]
    fn nobody_waits_for_long_unless_it_is_said_how_many_messages_there_are() {
        for (options, messages) in [
            ("", 200_000),
            ("--rate 1000", 30_000),
            ("--work 10", 200_000),
            ("--work 100", 60_000),
            ("--work 100 --lanes 1", 600),
            ("--work 10 --hot-key", 12_000),
            ("--hot 50", 200_000),
            ("--work 100 --messages 7", 7),
        ] {
            assert_eq!(bench(options).load().messages, messages, "{options}");
        }
        for (options, wrong) in [
            ("--rate 0", "--rate"),
            ("--lanes 0 --work 1", "--lanes"),
            ("--messages 0", "--messages"),
            ("--idle --handler http", "--handler noop"),
            (
                "--rate 10 --peers java-orderly,parallel-consumer",
                "leave parallel-consumer out",
            ),
        ] {
            let said = bench(options).check().unwrap_err().to_string();
            assert!(said.contains(wrong), "{options}: {said}");
        }
    }
}
