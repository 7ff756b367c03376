//! What is wrong with the brokers, in words for a person.
//!
//! Pure. What fails is tried again all the time, and between two tries everything else may be well: one
//! queue cannot be pulled while its broker answers whatever else is asked. So a trouble stays until it was
//! not heard of for [`KEPT`], and is news only once until then; the last one stays until all brokers answer.

use crate::lane::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a trouble stays after it was heard of last. Longer than anything that fails waits to be tried
/// again.
const KEPT: Duration = Duration::from_secs(10);
/// So many are remembered: words may differ each time.
const MOST: usize = 16;

/// Troubles by their words, the latest to begin last, and when each was heard of last.
#[derive(Debug, Default)]
pub struct Troubles(VecDeque<(String, Time)>);

impl Troubles {
    /// Something is wrong. True if that is news.
    pub fn heard(&mut self, now: Time, trouble: &str) -> bool {
        self.forget(now);
        let mut known = self.0.iter_mut();
        if let Some((_, heard)) = known.find(|(known, _)| known == trouble) {
            *heard = now;
            return false;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((trouble.to_owned(), now));
        true
    }

    /// All brokers answer. True if the last trouble is over with that.
    pub fn all_answer(&mut self, now: Time) -> bool {
        let were_any = !self.0.is_empty();
        self.forget(now);
        were_any && self.0.is_empty()
    }

    fn forget(&mut self, now: Time) {
        self.0.retain(|(_, heard)| now < *heard + KEPT);
    }

    /// The one that began last.
    pub fn latest(&self) -> Option<&str> {
        self.0.back().map(|(trouble, _)| trouble.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_fails_again_and_again_is_news_once_and_stays_while_brokers_answer() {
        let mut troubles = Troubles::default();
        assert!(troubles.heard(SECOND, "a pull: 1"));
        assert!(troubles.heard(SECOND, "a pull: 2"));
        for second in 2..20 {
            assert!(!troubles.heard(SECOND * second, "a pull: 1"));
            assert!(!troubles.heard(SECOND * second, "a pull: 2"));
            assert!(!troubles.all_answer(SECOND * second));
            assert_eq!(troubles.latest(), Some("a pull: 2"), "second {second}");
        }
    }

    #[test]
    fn it_is_over_when_it_was_not_heard_of_for_a_while_and_all_brokers_answer() {
        let mut troubles = Troubles::default();
        troubles.heard(SECOND, "a lock");
        troubles.heard(SECOND * 5, "a pull");
        assert!(!troubles.all_answer(SECOND + KEPT));
        assert_eq!(troubles.latest(), Some("a pull"));
        assert!(troubles.all_answer(SECOND * 5 + KEPT));
        assert_eq!(troubles.latest(), None);
        assert!(!troubles.all_answer(SECOND * 6 + KEPT));
        assert!(troubles.heard(SECOND * 20, "a lock"));
    }

    #[test]
    fn what_was_not_heard_of_for_a_while_gives_way_to_what_still_is() {
        let mut troubles = Troubles::default();
        troubles.heard(SECOND, "the route");
        troubles.heard(SECOND * 2, "a pull");
        for second in 3..12 {
            troubles.heard(SECOND * second, "the route");
            assert_eq!(troubles.latest(), Some("a pull"), "second {second}");
        }
        troubles.heard(SECOND * 2 + KEPT, "the route");
        assert_eq!(troubles.latest(), Some("the route"));
    }

    #[test]
    fn the_last_one_stays_until_all_brokers_answer_however_long_that_takes() {
        let mut troubles = Troubles::default();
        troubles.heard(SECOND, "a pull");
        assert_eq!(troubles.latest(), Some("a pull"));
        assert!(troubles.all_answer(SECOND * 600));
        assert_eq!(troubles.latest(), None);
    }

    #[test]
    fn troubles_in_ever_other_words_do_not_pile_up() {
        let mut troubles = Troubles::default();
        for request in 0..1_000 {
            troubles.heard(SECOND, &format!("request {request}"));
        }
        assert_eq!(troubles.0.len(), MOST);
        assert_eq!(troubles.latest(), Some("request 999"));
    }
}
