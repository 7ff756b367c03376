//! What a pull brought.

use super::answer::{Answer, response};
use super::record;
use super::subscription::Subscription;
use crate::source::{Pulled, SourceError};

/// What a pull at `offset` brought. Only the statuses FOUND and NO_MATCHED_MESSAGE say that what was not
/// delivered is finished; the broker tells the status in the remark where several share a code.
/// Source: `PullMessageProcessor.composeResponseHeader` of Apache RocketMQ 5.3.3.
pub fn read(
    mut answer: Answer,
    offset: u64,
    subscription: &Subscription,
) -> Result<Pulled, SourceError> {
    match answer.code() {
        response::SUCCESS => {
            let body = answer.command.take_body().unwrap_or_default();
            let next = answer.number("nextBeginOffset")?;
            let mut messages =
                record::messages(&body).map_err(|reason| answer.malformed(reason))?;
            if let Some(stray) = messages
                .iter()
                .find(|message| !(offset..next).contains(&message.offset))
            {
                let reason = format!("offset {} is outside of {offset} to {next}", stray.offset);
                return Err(answer.malformed(reason));
            }
            messages.retain(|message| subscription.wants(message));
            Ok(Pulled::Found { messages, next })
        }
        response::PULL_NOT_FOUND => Ok(Pulled::NoNew),
        response::PULL_RETRY_IMMEDIATELY => {
            let next = answer.number("nextBeginOffset")?;
            Ok(match answer.remark() {
                _ if next <= offset => Pulled::NoNew,
                "NO_MATCHED_MESSAGE" => Pulled::NoMatch { next },
                "MESSAGE_WAS_REMOVING" => Pulled::Removed { next },
                _ => Pulled::NoNew,
            })
        }
        response::PULL_OFFSET_MOVED => Ok(Pulled::OutOfRange {
            min: answer.number("minOffset")?,
            max: answer.number("maxOffset")?,
        }),
        _ => Err(refused(answer)),
    }
}

/// Why the broker refuses a pull or its filter.
pub fn refused(answer: Answer) -> SourceError {
    let reason = match answer.code() {
        response::SUBSCRIPTION_PARSE_FAILED => {
            format!("it cannot read spec.filter.sql ({})", answer.remark())
        }
        response::SYSTEM_ERROR
            if answer.remark().contains("does not support consumer to filter") =>
        {
            "it does not filter by SQL: set enablePropertyFilter=true in its configuration and restart it, \
             or use spec.filter.tags"
                .to_owned()
        }
        _ => return answer.refused(),
    };
    SourceError::Filter {
        peer: answer.peer,
        reason,
    }
}
