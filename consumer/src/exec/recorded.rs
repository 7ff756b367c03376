//! What was last written to the journal of how far a queue is, and when it is to be written again.
//!
//! Pure. The committed offset tells the rest, so a record is due when something is finished above it and has
//! changed, when suspects have, from time to time because brokers let records expire, and again at the next
//! interval if it is not known to lie there: nobody may have to wait for the next change to have what was
//! to be told.

use super::ledger::Suspects;
use crate::journal::Progress;
use crate::lane::Time;
use std::time::Duration;

/// Brokers let records expire: even what does not change is written again.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// How far a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// First message that is not finished.
    pub watermark: u64,
    /// Messages above it that are.
    pub above: u64,
}

/// What the journal says of a queue that runs here.
#[derive(Debug)]
pub struct Recorded {
    /// A record is under way.
    pub under_way: bool,
    /// What *released* says, from the moment the queue has stopped: it says the same if it has to be
    /// written again.
    pub released: Option<Progress>,
    last: (Time, Reached),
    /// The last record is not known to lie in the journal.
    failed: bool,
    /// Failed attempts of suspects, and what is being written of them.
    suspects: Suspects,
    writing: Suspects,
}

impl Recorded {
    /// Of a queue whose journal says this, or is just being told it.
    pub fn new(now: Time, reached: Reached) -> Self {
        Self {
            under_way: false,
            released: None,
            last: (now, reached),
            failed: false,
            suspects: Suspects::default(),
            writing: Suspects::default(),
        }
    }

    /// What it says of suspects.
    pub fn suspects(&self) -> &[(u64, u32)] {
        &self.suspects
    }

    /// Whether a record is to be written now. `behind`: after a reset the committed offset does not tell this
    /// watermark before a record does.
    pub fn is_due(
        &self,
        now: Time,
        reached: Reached,
        behind: impl Fn(u64) -> bool,
        suspects: &[(u64, u32)],
    ) -> bool {
        let (at, last) = self.last;
        let news = (reached.above > 0 || behind(last.watermark)) && reached != last;
        let due = self.failed || news || now >= at + WRITE_AGAIN_AFTER;
        !self.under_way && (due || suspects != self.suspects)
    }

    /// A record is being written.
    pub fn begin(&mut self, now: Time, reached: Reached, suspects: Suspects) {
        self.under_way = true;
        self.last = (now, reached);
        self.writing = suspects;
    }

    /// It was written, or that is not known. Returns the suspects it tells of if they are others than before.
    pub fn end(&mut self, written: bool) -> Option<Suspects> {
        self.under_way = false;
        self.failed = !written;
        let suspects = std::mem::take(&mut self.writing);
        if !written || suspects == self.suspects {
            return None;
        }
        self.suspects.clone_from(&suspects);
        Some(suspects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_secs(100);

    fn reached(watermark: u64, above: u64) -> Reached {
        Reached { watermark, above }
    }

    fn due(recorded: &Recorded, now: Time, reached: Reached) -> bool {
        recorded.is_due(now, reached, |_| false, &[])
    }

    #[test]
    fn only_what_the_committed_offset_does_not_tell_is_written() {
        let mut recorded = Recorded::new(START, reached(0, 0));
        assert!(!due(&recorded, START, reached(0, 0)));
        assert!(!due(&recorded, START, reached(9, 0)));
        assert!(due(&recorded, START, reached(9, 1)));
        assert!(recorded.is_due(START, reached(9, 0), |_| true, &[]));
        assert!(recorded.is_due(START, reached(0, 0), |_| false, &[(3, 1)]));
        recorded.begin(START, reached(9, 1), Suspects::default());
        assert!(!due(&recorded, START, reached(9, 2)), "one at a time");
        assert_eq!(recorded.end(true), None);
        assert!(!due(&recorded, START, reached(9, 1)), "it is told");
        assert!(due(&recorded, START, reached(9, 2)));
    }

    #[test]
    fn a_record_that_failed_is_written_again_whatever_has_changed_since() {
        // The last also at the hourly one of a queue of which nothing is finished above the watermark.
        for at in [START, START + WRITE_AGAIN_AFTER] {
            for now in [reached(0, 5), reached(5, 0)] {
                let mut recorded = Recorded::new(START, reached(0, 0));
                recorded.begin(at, reached(0, 5), vec![(3, 1)]);
                assert_eq!(recorded.end(false), None);
                assert!(due(&recorded, at, now), "{now:?}");
                recorded.begin(at, now, vec![(3, 1)]);
                assert_eq!(recorded.end(true), Some(vec![(3, 1)]));
                assert!(!recorded.is_due(at, now, |_| false, &[(3, 1)]));
            }
        }
    }

    #[test]
    fn what_does_not_change_is_written_again_before_brokers_forget_it() {
        let mut recorded = Recorded::new(START, reached(7, 0));
        let hour = START + WRITE_AGAIN_AFTER;
        assert!(!due(
            &recorded,
            hour - Duration::from_secs(1),
            reached(7, 0)
        ));
        assert!(due(&recorded, hour, reached(7, 0)));
        recorded.begin(hour, reached(7, 0), Suspects::default());
        recorded.end(true);
        assert!(!due(&recorded, hour, reached(7, 0)));
    }
}
