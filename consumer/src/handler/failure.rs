//! What a handler in this process says when it did not take a message.

use super::Outcome;
use crate::lane::CallResult;
use std::fmt::Display;
use std::time::Duration;

/// Why a message was not handled. Anything that can be displayed becomes one that is worth another
/// attempt, so `?` works in a handler on errors of every type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(CallResult);

impl Failure {
    /// An attempt: the message is handled again after `retry.backoff`, its key waits until then.
    pub fn retry(error: impl Display) -> Self {
        Self(CallResult::Failed {
            error: error.to_string(),
            retry_after: None,
        })
    }

    /// An attempt: the message is handled again after `delay`.
    pub fn retry_after(error: impl Display, delay: Duration) -> Self {
        Self(CallResult::Failed {
            error: error.to_string(),
            retry_after: Some(delay),
        })
    }

    /// It will never be handled: at once what `retry.onExhausted` says, the dead letter topic by default.
    pub fn permanent(error: impl Display) -> Self {
        Self(CallResult::Permanent {
            error: error.to_string(),
        })
    }

    /// Not the message's fault (a database that is down): not an attempt. When it happens to two keys in a
    /// row the consumer stops dispatching and probes with one call at a time.
    pub fn unavailable(error: impl Display) -> Self {
        Self(CallResult::NotTaken {
            error: error.to_string(),
            retry_after: None,
        })
    }
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl<E: Into<Failure>> From<Result<(), E>> for Outcome {
    /// `Ok`: all messages of the call are finished. `Err`: none is, and it is about the first.
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => CallResult::Done.into(),
            Err(error) => error.into().0.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_any_type_is_an_attempt_and_says_its_reason() {
        fn handle(text: &str) -> Result<(), Failure> {
            let number: u32 = text.parse()?;
            if number == 0 {
                return Err(Failure::permanent("zero"));
            }
            Ok(())
        }
        assert_eq!(Outcome::from(handle("7")), CallResult::Done.into());
        let Outcome { acked, result, .. } = handle("x").into();
        let CallResult::Failed { error, retry_after } = result else {
            panic!("{result:?}")
        };
        assert_eq!((acked, retry_after), (0, None));
        assert!(error.contains("invalid digit"), "{error}");
        assert!(matches!(
            Outcome::from(handle("0")).result,
            CallResult::Permanent { .. }
        ));
        let late = Outcome::from(Err::<(), _>(Failure::retry_after("later", Duration::ZERO)));
        assert!(matches!(
            late.result,
            CallResult::Failed {
                retry_after: Some(Duration::ZERO),
                ..
            }
        ));
    }
}
