//! Where the group stands in each queue: by the journal, and by the committed offset.
//!
//! Who may run is read from the journal alone ([`Head`]). What is finished is what the committed offset
//! says and what the journal's records say together; records about a topic that was recreated since, which
//! the message at their highest finished offset tells, are left out.

use super::start::{Start, Starts};
use crate::journal::{self, Body};
use crate::journal::{Entry, Head, Log, Progress, Record, WINDOW, Witness, decode, encode};
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
const ROUNDS: u32 = 16;

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
    /// What is finished.
    pub finished: Finished,
    /// Failed attempts of messages that may have killed their handler.
    pub suspects: Suspects,
}

/// Offsets and failed attempts.
pub type Suspects = Vec<(u64, u32)>;

impl Ledger {
    /// The journal as far as it was read, to read on from there.
    pub fn log(&mut self, queue: &QueueId) -> Log {
        self.logs.remove(queue).unwrap_or_default()
    }

    /// Takes in a reading; returns who may run.
    pub fn take(&mut self, queue: &QueueId, mut standing: Standing) -> Head {
        let head = standing.head.clone();
        let log = std::mem::take(&mut standing.log);
        self.logs.insert(queue.clone(), log);
        self.standings.insert(queue.clone(), standing);
        head
    }

    /// What the last reading said is finished, and of suspects.
    pub fn messages(&mut self, queue: &QueueId) -> (Finished, Suspects) {
        let standing = self.standings.remove(queue);
        standing.map_or_else(Default::default, |standing| {
            (standing.finished, standing.suspects)
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
            finished: Finished::default(),
            suspects: Suspects::new(),
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
    let (finished, suspects) = match reading {
        Reading::Head => Default::default(),
        Reading::Start => {
            let finished = Finished::new(starts.position(queue).await?);
            (finished, Suspects::new())
        }
        Reading::Everything => {
            let start = starts.find(queue, queues).await?;
            known(source, queue, &log, start).await?
        }
    };
    Ok(Standing {
        head: log.head(),
        log,
        finished,
        suspects,
    })
}

/// Reads on to the journal's end.
async fn follow<S: Source>(source: &S, queue: &QueueId, log: &mut Log) -> Result<(), SourceError> {
    for _ in 0..ROUNDS {
        let records = source.records(queue, log.end()).await?;
        log.bounds(records.min, records.max);
        if records.max - log.end() > WINDOW as u64 {
            // Older ones are of no account.
            log.bounds(records.max - WINDOW as u64, records.max);
            continue;
        }
        for (offset, bytes) in records.found {
            if offset >= log.end() {
                let record = decode(&bytes);
                log.push(Entry { offset, record });
            }
        }
        if log.end() >= records.max {
            return Ok(());
        }
    }
    Err(SourceError::Malformed {
        peer: queue.broker.to_string(),
        what: "for the journal",
        reason: format!("records from offset {} on do not come", log.end()),
    })
}

/// What is finished, and failed attempts of suspects.
async fn known<S: Source>(
    source: &S,
    queue: &QueueId,
    log: &Log,
    start: Start,
) -> Result<(Finished, Suspects), SourceError> {
    let mut finished = Finished::new(start.offset);
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
    if known.finished.watermark() <= start.max {
        finished.finish_range(0, known.finished.watermark());
        for range in known.finished.ranges() {
            finished.finish_range(range.start, range.end);
        }
    }
    Ok((finished, known.suspects.into_iter().collect()))
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

/// Appends a record; returns its offset.
pub async fn append<S: Source>(
    source: Arc<S>,
    queue: &QueueId,
    mut record: Record,
) -> Result<u64, SourceError> {
    if let Body::Progress { progress, .. } | Body::Released { progress, .. } = &mut record.body
        && let Some(highest) = progress.finished.highest()
    {
        progress.witness = source.witness(queue, highest).await?;
    }
    source.append(queue, encode(&record)).await
}
