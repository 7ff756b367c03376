//! Sends dead letters again, one after the other.

use super::course::{self, Course, Step};
use super::memory::{Memory, Witness};
use super::{BYTES, Held, Letters, LettersError, Replay, Replayed, Sent, TIME, id, unknown};
use keylane_consumer::contract::spec::Mode;
use keylane_consumer::message::QueueId;
use keylane_consumer::source::SourceError;
use keylane_consumer::source::rocketmq::letters::Letter;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// The broker's lock lives for 60 s; a process that stood still in between sends nothing.
const LOCK: Duration = Duration::from_secs(40);
/// Letters that one question sends.
const MOST: usize = 1_000;
/// Held letters that are told.
const TOLD: usize = 100;
/// Failures in a row after which a broker is left in peace.
const FAILURES: u32 = 3;
/// For so long a broker may hide a message that it acknowledged; it takes milliseconds.
const VISIBLE: Duration = Duration::from_secs(1);

/// What one queue of letters is sent with.
struct Run<'r> {
    queue: &'r QueueId,
    course: Course<'r>,
    memory: Memory,
    /// Offset of the next note.
    note: u64,
    /// Letters that were sent since the last one.
    unnoted: Vec<String>,
    locked: Instant,
    until: Instant,
    bytes: usize,
    failures: u32,
}

impl Letters {
    /// Sends letters again, or says what would be sent. What one broker does not do is told, and does not
    /// keep others from it.
    ///
    /// # Errors
    ///
    /// When nothing was sent.
    pub async fn replay(&self, what: &Replay) -> Result<Replayed, LettersError> {
        let keys: BTreeSet<String> = what.keys.iter().cloned().collect();
        if !keys.is_empty() && self.spec.ordering.mode == Mode::Queue {
            let reason = "with ordering.mode Queue a whole queue keeps its order: send all letters again, without --key";
            return Err(LettersError::Asked(reason.to_owned()));
        }
        let mut report = Replayed {
            dry_run: what.dry_run,
            other_groups: self.other_groups().await,
            ..Replayed::default()
        };
        let until = Instant::now() + TIME;
        for queue in &self.queues {
            let run = self.replay_queue(queue, what, &keys, until, &mut report);
            match Box::pin(run).await {
                Ok(()) => {}
                Err(error) if report.sent.is_empty() && self.queues.len() == 1 => {
                    return Err(error);
                }
                Err(error) => report.unknown.push(unknown(queue, &error)),
            }
        }
        Ok(report)
    }

    async fn other_groups(&self) -> Option<Vec<String>> {
        let mut all = None;
        for broker in self.route.masters.keys() {
            if let Ok(groups) = self.source.groups_of_topic(broker).await {
                all.get_or_insert_with(BTreeSet::new).extend(groups);
            }
        }
        let ours = &self.spec.consumer_group;
        all.map(|all| all.into_iter().filter(|group| group != ours).collect())
    }

    async fn replay_queue(
        &self,
        queue: &QueueId,
        what: &Replay,
        keys: &BTreeSet<String>,
        until: Instant,
        report: &mut Replayed,
    ) -> Result<(), LettersError> {
        let locked = Instant::now();
        if !what.dry_run {
            if !self.source.lock_letters(queue).await? {
                return Err(LettersError::Busy(queue.clone()));
            }
            self.source.make_notes(queue).await?;
        }
        let sent = async {
            let (memory, note) = self.memory(queue).await?;
            let mut run = Run {
                queue,
                course: Course::new(&self.spec, keys),
                memory,
                note,
                unnoted: Vec::new(),
                locked,
                until,
                bytes: BYTES,
                failures: 0,
            };
            let mut sent = self.go_through(&mut run, report).await;
            if !run.unnoted.is_empty() && !matches!(sent, Err(LettersError::Busy(_))) {
                sent = sent.and(self.note(&mut run).await);
            }
            report.unnoted.append(&mut run.unnoted);
            if !what.dry_run {
                self.until_visible(queue, run.note).await;
            }
            sent
        };
        let sent = sent.await;
        // Somebody else may have it.
        if !what.dry_run && !matches!(sent, Err(LettersError::Busy(_))) {
            let unlocked = self.source.unlock_letters(queue).await;
            let _ = unlocked.inspect_err(|error| warn!("it is free in a minute: {error}"));
        }
        sent
    }

    async fn go_through(
        &self,
        run: &mut Run<'_>,
        report: &mut Replayed,
    ) -> Result<(), LettersError> {
        let mut from = run.memory.first_open(0);
        // What comes meanwhile is for the next time.
        let mut end = None;
        loop {
            let page = self.source.letters(run.queue, from).await?;
            run.memory.forget_below(page.min);
            let end = *end.get_or_insert(page.max);
            for letter in &page.letters {
                if letter.message.offset >= end {
                    return Ok(());
                }
                run.bytes = run.bytes.saturating_sub(letter.size());
                let late = Instant::now() >= run.until || run.locked.elapsed() >= LOCK;
                if late || run.bytes == 0 || run.failures >= FAILURES || report.sent.len() >= MOST {
                    report.more = true;
                    return Ok(());
                }
                Box::pin(self.treat(run, letter, report)).await?;
            }
            if page.next >= end {
                return Ok(());
            }
            if page.next <= from {
                let reason = format!("the broker does not hand out offset {from} now");
                report.unknown.push(unknown(run.queue, &reason));
                return Ok(());
            }
            from = page.next;
        }
    }

    /// Sends one letter, or does not.
    async fn treat(
        &self,
        run: &mut Run<'_>,
        letter: &Letter,
        report: &mut Replayed,
    ) -> Result<(), LettersError> {
        let offset = letter.message.offset;
        if run.memory.has(offset) {
            return Ok(());
        }
        let name = id(run.queue, offset).to_string();
        let key = letter.message.find_key(&self.spec.ordering.key);
        let key = key.map(|key| course::shown(&self.spec, &key));
        let mut held = |reason: String| {
            report.held_count += 1;
            if report.held.len() < TOLD {
                let (id, key) = (name.clone(), key.clone());
                report.held.push(Held { id, key, reason });
            }
        };
        match run.course.step(letter) {
            Step::NotAsked => return Ok(()),
            Step::Held(reason) => {
                held(reason);
                return Ok(());
            }
            Step::Copy => {
                report.copies += 1;
                if !report.dry_run {
                    self.remember(run, letter, name).await?;
                }
                return Ok(());
            }
            Step::Send => {}
        }
        let to = match self.destination(run.queue, letter).await? {
            Ok(to) => to,
            Err(reason) => {
                run.course.hold(letter, &reason);
                held(reason);
                return Ok(());
            }
        };
        let mut sent = Sent {
            id: name.clone(),
            key: key.clone(),
            queue: to.to_string(),
            offset: None,
        };
        if !report.dry_run {
            // Two topics of one name do not have two letters that were stored there at one moment.
            let identity = format!("{name}@{}", letter.message.stored_at_ms);
            match self.source.send_again(&to, letter, &identity).await {
                Ok(at) => sent.offset = Some(at),
                Err(error) => {
                    let reason = match &error {
                        SourceError::Refused { .. } => error.to_string(),
                        _ => format!("whether it was sent is not known: {error}"),
                    };
                    run.failures += 1;
                    run.course.hold(letter, &reason);
                    held(reason);
                    return Ok(());
                }
            }
        }
        run.failures = 0;
        run.course.sent(letter);
        report.sent.push(sent);
        if report.dry_run {
            return Ok(());
        }
        self.remember(run, letter, name).await
    }

    /// The queue of the topic that a letter came from, or why it cannot go there.
    async fn destination(
        &self,
        letters: &QueueId,
        letter: &Letter,
    ) -> Result<Result<QueueId, String>, LettersError> {
        let original = self.source.original(&letters.broker, letter).await?;
        Ok(match original {
            None => Err(
                "its broker does not keep its message any more, so nobody knows the queue of its key: send it with your own producer, as you sent it first"
                    .to_owned(),
            ),
            Some(of) if !self.route.queues.contains(&of.queue) => Err(format!(
                "the topic has no queue {} any more",
                of.queue
            )),
            Some(of) => Ok(of.queue),
        })
    }

    /// Remembers a letter as sent; the more a note costs, the more letters share one.
    async fn remember(
        &self,
        run: &mut Run<'_>,
        letter: &Letter,
        name: String,
    ) -> Result<(), LettersError> {
        let message = &letter.message;
        run.memory.add(Witness {
            offset: message.offset,
            stored_at_ms: message.stored_at_ms,
            physical_offset: message.physical_offset,
        });
        run.unnoted.push(name);
        if run.unnoted.len() > run.memory.pieces() / 64 {
            self.note(run).await?;
        }
        Ok(())
    }

    async fn note(&self, run: &mut Run<'_>) -> Result<(), LettersError> {
        let at = self.source.note(run.queue, run.memory.encode()).await?;
        let alone = at == run.note;
        run.note = at + 1;
        run.unnoted.clear();
        if alone {
            return Ok(());
        }
        // Ours hides theirs: who reads it sends again what they sent.
        Err(LettersError::Busy(run.queue.clone()))
    }

    /// Waits until whoever comes next sees the last note.
    async fn until_visible(&self, queue: &QueueId, next: u64) {
        let until = Instant::now() + VISIBLE;
        while Instant::now() < until {
            match self.source.last_note(queue).await {
                Ok((_, found)) if found >= next => return,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}
