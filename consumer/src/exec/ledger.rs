//! Where the group stands in each queue: by the journal, and by the committed offset.
//!
//! Who may run is read from the journal alone ([`Head`]). What is finished is what the committed offset
//! says and what the journal's records say together; records about a topic that was recreated since, which
//! the message at their highest finished offset tells, are left out. After a reset only what followed it
//! counts ([`Reset`]).

use super::start::{Start, Starts};
use crate::journal::{self, Body};
use crate::journal::{
    Entry, Head, Known, Log, Progress, Record, Reset, WINDOW, Witness, decode, encode,
};
use crate::lane::{Assignment, Finished, LaneExecutor};
use crate::message::QueueId;
use crate::source::{Source, SourceError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, warn};

/// A record that was acknowledged can be seen this much later, with room to spare (10 ms were seen).
const VISIBLE_AFTER: Duration = Duration::from_millis(30);
/// Rounds without news after which a reading is given up.
const IDLE_ROUNDS: u32 = 16;
/// Rounds after which it is given up in any case. A broker may return records one by one: a pull brings at most
/// 256 KiB of them, or 64 KiB once they are not in memory any more.
const ROUNDS: u32 = 4 * WINDOW as u32;

/// What readings brought.
#[derive(Debug, Default)]
pub struct Ledger {
    logs: BTreeMap<QueueId, Log>,
    standings: BTreeMap<QueueId, Standing>,
}

/// Where the group stands in a queue.
#[derive(Debug)]
pub struct Standing {
    log: Log,
    /// Who may run.
    pub head: Head,
    /// What of its messages is known.
    pub messages: Messages,
}

/// What is known of the messages of a queue.
#[derive(Debug, Default)]
pub struct Messages {
    /// What is finished.
    pub finished: Finished,
    /// Failed attempts of messages that may have killed their handler.
    pub suspects: Suspects,
    /// The reset since which this is.
    pub reset: Option<Reset>,
}

/// Offsets and failed attempts.
pub type Suspects = Vec<(u64, u32)>;

impl Ledger {
    /// The journal as far as it was read, to read on from there.
    pub fn log(&mut self, queue: &QueueId) -> Log {
        let log = self.logs.entry(queue.clone()).or_default();
        let rest = log.without_records();
        std::mem::replace(log, rest)
    }

    /// Takes in a reading; returns who may run.
    pub fn take(&mut self, queue: &QueueId, mut standing: Standing) -> Head {
        let head = standing.head.clone();
        let log = std::mem::take(&mut standing.log);
        self.logs.insert(queue.clone(), log);
        self.standings.insert(queue.clone(), standing);
        head
    }

    /// What the last reading said of messages.
    pub fn messages(&mut self, queue: &QueueId) -> Messages {
        let standing = self.standings.remove(queue);
        standing.map(|of| of.messages).unwrap_or_default()
    }

    /// What is to be written of a queue that was read and not run here: the same again. A record that left
    /// out a reset would undo it.
    pub fn again(&self, queue: &QueueId) -> Option<Progress> {
        let messages = &self.standings.get(queue)?.messages;
        let finished = &messages.finished;
        Some(Progress {
            finished: journal::Finished::new(finished.watermark(), finished.ranges()),
            suspects: messages.suspects.clone(),
            reset: messages.reset.clone(),
            ..Progress::default()
        })
    }

    /// Forgets queues that are not here any more.
    pub fn retain(&mut self, here: impl Fn(&QueueId) -> bool) {
        self.logs.retain(|queue, _| here(queue));
        self.standings.retain(|queue, _| here(queue));
    }
}

/// What a queue needs to be read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Who may run.
    Head,
    /// That, and what is finished.
    Everything,
    /// What is finished, in consumption Broadcasting: there is no journal.
    Start,
}

impl Standing {
    /// Of a queue that runs here, and whose journal was read to its end before.
    pub fn unchanged(log: Log) -> Self {
        Self {
            head: log.head(),
            log,
            messages: Messages::default(),
        }
    }
}

/// Waits until whatever was acknowledged up to now can be seen.
pub async fn until_visible() {
    tokio::time::sleep(VISIBLE_AFTER).await;
}

/// Reads a queue's journal on from `log`, and where the group stands.
pub async fn read<S: Source>(
    source: &S,
    starts: &Starts<S>,
    queue: &QueueId,
    queues: &BTreeSet<QueueId>,
    mut log: Log,
    reading: Reading,
) -> Result<Standing, SourceError> {
    if reading != Reading::Start {
        until_visible().await;
        follow(source, queue, &mut log).await?;
    }
    let messages = match reading {
        Reading::Head => Messages::default(),
        Reading::Start => Messages {
            finished: Finished::new(starts.position(queue).await?),
            ..Messages::default()
        },
        Reading::Everything => {
            let start = starts.find(queue, queues).await?;
            known(source, queue, &log, start).await?
        }
    };
    Ok(Standing {
        head: log.head(),
        log,
        messages,
    })
}

/// Reads who may run, once everything that was acknowledged until now can be seen.
pub async fn head<S: Source>(source: &S, queue: &QueueId) -> Result<Head, SourceError> {
    let mut log = Log::default();
    until_visible().await;
    follow(source, queue, &mut log).await?;
    Ok(log.head())
}

/// Reads on to the journal's end.
async fn follow<S: Source>(source: &S, queue: &QueueId, log: &mut Log) -> Result<(), SourceError> {
    let mut idle = 0;
    for _ in 0..ROUNDS {
        let records = source.records(queue, log.end()).await?;
        log.bounds(records.min, records.max);
        if records.max - log.end() > WINDOW as u64 {
            // Older ones are of no account.
            log.bounds(records.max - WINDOW as u64, records.max);
            continue;
        }
        let before = log.end();
        for (offset, bytes) in records.found {
            if offset >= log.end() {
                let record = decode(&bytes);
                log.push(Entry { offset, record });
            }
        }
        if log.end() >= records.max {
            return Ok(());
        }
        idle = if log.end() > before { 0 } else { idle + 1 };
        if idle == IDLE_ROUNDS {
            break;
        }
    }
    Err(SourceError::Malformed {
        peer: queue.broker.to_string(),
        what: "for the journal",
        reason: format!("records from offset {} on do not come", log.end()),
    })
}

/// What journal and committed offset say together.
async fn known<S: Source>(
    source: &S,
    queue: &QueueId,
    log: &Log,
    start: Start,
) -> Result<Messages, SourceError> {
    let mut intact: HashMap<Witness, bool> = HashMap::new();
    for witness in log.witnesses() {
        if let std::collections::hash_map::Entry::Vacant(unknown) = intact.entry(witness) {
            // What has expired since says nothing any more, and nothing of it runs again.
            let same = witness.offset < start.min
                || source.witness(queue, witness.offset).await? == Some(witness);
            unknown.insert(same);
        }
    }
    let known = log.finished(|witness| intact.get(witness).copied().unwrap_or_default());
    if known.discarded > 0 {
        error!(
            "queue {queue}: {} journal records are about other messages than are there now: the topic was recreated or \
             its log cut off; it is consumed from offset {}",
            known.discarded, start.offset
        );
    }
    if known.unreadable > 0 {
        warn!(
            "queue {queue}: {} journal records cannot be read; what only they say is finished runs again",
            known.unreadable
        );
    }
    Ok(together(known, start))
}

/// The union of both, unless the committed offset may be one from before a reset.
fn together(known: Known, start: Start) -> Messages {
    let watermark = known.finished.watermark();
    let mut finished = Finished::new(start.offset);
    // What is said of offsets that the queue does not have is of no account.
    if watermark <= start.max {
        if !known.believes(start.offset) {
            finished = Finished::new(watermark);
        }
        finished.finish_range(0, watermark);
        for range in known.finished.ranges() {
            finished.finish_range(range.start, range.end);
        }
    }
    Messages {
        finished,
        suspects: known.suspects.into_iter().collect(),
        reset: known.reset,
    }
}

/// How far a queue is, for a record. Its witness is found when it is written.
pub fn progress(lanes: &LaneExecutor, assignment: Assignment) -> Option<Progress> {
    let finished = lanes.finished(assignment)?;
    Some(Progress {
        finished: journal::Finished::new(finished.watermark(), finished.ranges()),
        suspects: lanes.suspects(assignment),
        ..Progress::default()
    })
}

/// Appends a record; returns its offset. Its witness is the highest finished message; that of a reset is the
/// last one the queue has, because what is finished by it may have expired.
pub async fn append<S: Source>(
    source: Arc<S>,
    queue: &QueueId,
    mut record: Record,
) -> Result<u64, SourceError> {
    if let Body::Progress { progress, .. } | Body::Released { progress, .. } = &mut record.body
        && let Some(last) = match &progress.reset {
            Some(reset) if reset.begins => reset.until.checked_sub(1),
            _ => progress.finished.highest(),
        }
    {
        progress.witness = source.witness(queue, last).await?;
    }
    source.append(queue, encode(&record)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Generation;

    /// A queue of 100 messages, 80 committed, that was reset to 10.
    fn known(finished: journal::Finished) -> Known {
        let reset = Reset {
            generation: Generation {
                epoch: 3,
                number: 0,
            },
            begins: false,
            until: 100,
            from: 80,
            position: 10,
            skipped: 0,
            replayed: 70,
            requests: Reset::requests("again", None),
        };
        Known {
            finished,
            reset: Some(reset),
            ..Known::default()
        }
    }

    fn starts(known: Known, committed: u64, max: u64) -> u64 {
        let start = Start {
            offset: committed,
            max,
            min: 0,
        };
        together(known, start).finished.watermark()
    }

    #[test]
    fn what_was_committed_before_a_reset_does_not_undo_it() {
        let reset = || known(journal::Finished::below(10));
        // The broker never got the new offset, lost it, or got an old one later.
        for committed in [80, 10, 0, 100] {
            assert_eq!(starts(reset(), committed, 150), 10, "{committed}");
        }
        // Nobody can have committed that before.
        assert_eq!(starts(reset(), 101, 150), 101);
    }

    #[test]
    fn once_progress_is_beyond_the_end_of_then_the_committed_offset_counts_again() {
        let beyond = || known(journal::Finished::below(100));
        assert_eq!(starts(beyond(), 140, 150), 140);
        assert_eq!(starts(beyond(), 80, 150), 100);
        let plain = Known {
            finished: journal::Finished::below(10),
            ..Known::default()
        };
        assert_eq!(starts(plain, 80, 150), 80);
    }

    #[test]
    fn a_reset_of_a_queue_that_was_cut_off_since_is_of_no_account() {
        assert_eq!(starts(known(journal::Finished::below(60)), 20, 50), 20);
    }
}
