//! Who may read metrics, by the cluster's own word: a TokenReview says whose token it is, a SubjectAccessReview
//! whether they may `get` the URL `/metrics`.
//!
//! An answer is kept for a while, by the token's SHA-256: a scrape every few seconds is not a review every few
//! seconds. Tokens that are not known are looked at so many a second and not more, so that nobody has the
//! operator flood the API server; whoever might read lately is not held up by that.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use keylane_consumer::admin::Limit;
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long somebody who may is not asked about again.
const ALLOWED_FOR: Duration = Duration::from_secs(60);
/// How long after that they are asked about again at once, however many others knock.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// How long somebody who may not is not.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Tokens whose answers are kept.
const KEPT: usize = 64;
/// Longest token.
const LONGEST: usize = 16 * 1024;
const REVIEWS_PER_SECOND: u32 = 5;
const REVIEWS_AT_ONCE: u32 = 20;

/// What is said to somebody with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// They may read.
    Allowed,
    /// Nobody's token.
    Unknown,
    /// They may not.
    Refused,
    /// Too many tokens that are not known; later.
    Busy,
}

/// Asks the API server, and remembers.
pub struct Readers {
    client: Client,
    memory: Mutex<Memory>,
}

impl Readers {
    /// Knows nobody yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            memory: Mutex::new(Memory::default()),
        }
    }

    /// Whether the holder of a token may read.
    pub async fn ask(&self, token: &str) -> Result<Answer, kube::Error> {
        if token.is_empty() || token.len() > LONGEST {
            return Ok(Answer::Unknown);
        }
        let name = Name(Sha256::digest(token.as_bytes()).into());
        if let Some(answer) = self.memory().find(&name, Instant::now()) {
            return Ok(answer);
        }
        let answer = self.review(token).await?;
        self.memory().keep(name, answer, Instant::now());
        Ok(answer)
    }

    async fn review(&self, token: &str) -> Result<Answer, kube::Error> {
        let Some(user) = self.authenticate(token).await? else {
            return Ok(Answer::Unknown);
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some("/metrics".to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let reviewed = api.create(&PostParams::default(), &review).await?;
        Ok(match reviewed.status {
            Some(status) if status.allowed => Answer::Allowed,
            _ => Answer::Refused,
        })
    }

    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = api.create(&PostParams::default(), &review).await?;
        let status = reviewed.status.unwrap_or_default();
        Ok(status.user.filter(|_| status.authenticated == Some(true)))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token, by its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name([u8; 32]);

/// What was answered lately. Pure: time is an argument.
struct Memory {
    answers: BTreeMap<Name, (Answer, Instant)>,
    limit: Limit,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            answers: BTreeMap::new(),
            limit: Limit::new(REVIEWS_PER_SECOND, REVIEWS_AT_ONCE),
        }
    }
}

impl Memory {
    /// What is known, or that it is not to be asked now; none: to be asked.
    fn find(&mut self, name: &Name, now: Instant) -> Option<Answer> {
        self.answers.retain(|_, (answer, until)| match answer {
            Answer::Allowed => now < *until + KNOWN_FOR,
            _ => now < *until,
        });
        match self.answers.get(name) {
            Some((answer, until)) if now < *until => Some(*answer),
            Some(_) => None,
            None => (!self.limit.allows(now)).then_some(Answer::Busy),
        }
    }

    /// Of many the one that would be forgotten first makes room; who may read is not pushed out by others.
    fn keep(&mut self, name: Name, answer: Answer, now: Instant) {
        let lasts = match answer {
            Answer::Allowed => ALLOWED_FOR,
            _ => REFUSED_FOR,
        };
        if self.answers.len() >= KEPT {
            let order = |(_, (answer, until)): &(&Name, &(Answer, Instant))| {
                (*answer == Answer::Allowed, *until)
            };
            let first = self.answers.iter().min_by_key(order).map(|(name, _)| *name);
            if let Some(first) = first {
                self.answers.remove(&first);
            }
        }
        self.answers.insert(name, (answer, now + lasts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> Name {
        Name([number; 32])
    }

    #[test]
    fn an_answer_is_kept_for_a_while_and_then_asked_again() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        assert_eq!(memory.find(&name(1), start), None);
        memory.keep(name(1), Answer::Allowed, start);
        memory.keep(name(2), Answer::Refused, start);
        assert_eq!(memory.find(&name(1), start), Some(Answer::Allowed));
        assert_eq!(memory.find(&name(2), start), Some(Answer::Refused));
        let later = start + REFUSED_FOR;
        assert_eq!(memory.find(&name(1), later), Some(Answer::Allowed));
        assert_eq!(memory.find(&name(2), later), None);
        assert_eq!(memory.find(&name(1), start + ALLOWED_FOR), None);
    }

    #[test]
    fn strangers_are_held_up_and_push_nobody_out_who_may_read() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        memory.keep(name(0), Answer::Allowed, start);
        let later = start + Duration::from_secs(1);
        for number in 1..=200 {
            memory.keep(name(number), Answer::Unknown, later);
        }
        assert_eq!(memory.answers.len(), KEPT);
        assert_eq!(memory.find(&name(0), later), Some(Answer::Allowed));
        let new = (201..=240).filter(|number| memory.find(&name(*number), later).is_none());
        assert_eq!(new.count() as u32, REVIEWS_AT_ONCE);
        assert_eq!(memory.find(&name(250), later), Some(Answer::Busy));
        assert_eq!(memory.find(&name(0), later), Some(Answer::Allowed));
    }

    #[test]
    fn who_might_read_lately_is_asked_about_again_though_strangers_knock() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        memory.keep(name(0), Answer::Allowed, start);
        for (later, known) in [(ALLOWED_FOR, true), (ALLOWED_FOR + KNOWN_FOR, false)] {
            let now = start + later;
            while memory.find(&name(1), now).is_none() {}
            assert_eq!(memory.find(&name(1), now), Some(Answer::Busy));
            assert_eq!(memory.find(&name(0), now).is_none(), known);
        }
    }
}
