//! How long failing messages have kept their key waiting: a key whose every message fails must not pin
//! its queue for hours.
//!
//! Each key with failures has an account that fills with the time its messages were blocked and drains at
//! the rate of the budget (a leaky bucket). A key that overdraws it is broken until one of its messages
//! succeeds, which closes the account. Accounts outlive lanes, and there are at most [`ACCOUNTS`]: beyond
//! that the one that was used longest ago is forgotten.

use super::Time;
use super::availability::Key;
use super::settings::Budget;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

const ACCOUNTS: usize = 4096;

#[derive(Debug)]
struct Account {
    spent: Duration,
    at: Time,
    broken: bool,
    used: u64,
}

/// The accounts of all keys.
#[derive(Debug, Default)]
pub struct Budgets {
    accounts: HashMap<Key, Account, foldhash::fast::FixedState>,
    /// Accounts by when they were last used.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
}

impl Account {
    fn spent(&self, budget: Budget, now: Time) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let rate = budget.blocked.as_secs_f64() / budget.per.as_secs_f64().max(1e-9);
        let drained = Duration::try_from_secs_f64(passed * rate).unwrap_or(Duration::MAX);
        self.spent.saturating_sub(drained)
    }
}

impl Budgets {
    /// Whether no key has an account.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// How much longer a message of the key may be blocked that is blocked for so long already.
    pub fn left(&self, budget: Budget, now: Time, key: Key, blocked: Duration) -> Duration {
        let spent = match self.accounts.get(&key) {
            Some(account) if account.broken => return Duration::ZERO,
            // What this message spends is not on the account yet, but drains like the rest.
            Some(account) => account.spent(budget, now),
            None => Duration::ZERO,
        };
        budget.blocked.saturating_sub(spent + blocked)
    }

    /// A message of the key was blocked for so long and then exhausted. `broken` if the budget did not
    /// allow any more.
    pub fn spend(&mut self, budget: Budget, now: Time, key: Key, blocked: Duration, broken: bool) {
        self.uses += 1;
        let account = self.accounts.entry(key).or_insert(Account {
            spent: Duration::ZERO,
            at: now,
            broken: false,
            used: 0,
        });
        account.spent = account.spent(budget, now) + blocked;
        account.at = now;
        account.broken |= broken;
        self.by_use.remove(&account.used);
        account.used = self.uses;
        self.by_use.insert(self.uses, key);
        if self.accounts.len() > ACCOUNTS
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.accounts.remove(&oldest);
        }
    }

    /// A message of the key succeeded.
    pub fn succeeded(&mut self, key: Key) {
        if let Some(account) = self.accounts.remove(&key) {
            self.by_use.remove(&account.used);
        }
    }

    /// The queue of this number is gone.
    pub fn forget_queue(&mut self, queue: u32) {
        self.accounts.retain(|(of, _), _| *of != queue);
        self.by_use.retain(|_, (of, _)| *of != queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget {
        blocked: Duration::from_secs(60),
        per: Duration::from_secs(600),
    };
    const KEY: Key = (1, 7);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_spent_comes_back_with_time() {
        let mut budgets = Budgets::default();
        assert_eq!(
            budgets.left(BUDGET, seconds(0), KEY, seconds(20)),
            seconds(40)
        );
        budgets.spend(BUDGET, seconds(0), KEY, seconds(50), false);
        assert_eq!(
            budgets.left(BUDGET, seconds(0), KEY, seconds(0)),
            seconds(10)
        );
        assert_eq!(
            budgets.left(BUDGET, seconds(100), KEY, seconds(0)),
            seconds(20)
        );
        assert_eq!(
            budgets.left(BUDGET, seconds(5_000), KEY, seconds(0)),
            seconds(60)
        );
        assert_eq!(
            budgets.left(BUDGET, seconds(0), (2, 7), seconds(0)),
            seconds(60)
        );
    }

    #[test]
    fn a_broken_key_has_nothing_left_until_it_succeeds() {
        let mut budgets = Budgets::default();
        budgets.spend(BUDGET, seconds(0), KEY, seconds(60), true);
        assert_eq!(
            budgets.left(BUDGET, seconds(9_999), KEY, seconds(0)),
            seconds(0)
        );
        budgets.succeeded(KEY);
        assert!(budgets.is_empty());
        assert_eq!(
            budgets.left(BUDGET, seconds(9_999), KEY, seconds(0)),
            seconds(60)
        );
    }

    #[test]
    fn accounts_are_bounded_and_the_longest_unused_is_forgotten() {
        let mut budgets = Budgets::default();
        for key in 0..3 * ACCOUNTS as u32 {
            budgets.spend(BUDGET, seconds(0), (1, key), seconds(60), true);
            budgets.spend(BUDGET, seconds(0), KEY, seconds(1), true);
        }
        assert_eq!(
            (budgets.accounts.len(), budgets.by_use.len()),
            (ACCOUNTS, ACCOUNTS)
        );
        assert_eq!(
            budgets.left(BUDGET, seconds(0), KEY, seconds(0)),
            seconds(0)
        );
        budgets.forget_queue(1);
        assert!(budgets.is_empty() && budgets.by_use.is_empty());
    }
}
