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

#[cfg(test)]
mod tests {
    use super::super::record::tests::{Record, record};
    use super::*;
    use crate::contract::spec::Filter;
    use rocketmq_protocol::protocol::remoting_command::RemotingCommand;

    #[test]
    fn what_does_not_match_is_finished_and_not_handed_on() {
        let properties = [&b"k\x01v\x02"[..], b"k\x01w\x02", b""];
        let records = properties
            .iter()
            .zip(7..)
            .map(|(properties, offset)| Record {
                offset,
                properties: properties.to_vec(),
                ..record()
            });
        let body: Vec<u8> = records.flat_map(|record| record.bytes()).collect();
        for (sql, wanted) in [
            ("k = 'v'", &[7][..]),
            ("k IS NULL", &[9]),
            ("k = 'x'", &[]),
            ("k ~ 1", &[7, 8, 9]),
        ] {
            let subscription = Subscription::new(&Filter {
                tags: Vec::new(),
                sql: Some(sql.to_owned()),
            });
            let mut command =
                RemotingCommand::create_remoting_command(response::SUCCESS).set_body(body.clone());
            command.add_ext_field("nextBeginOffset", "10");
            let answer = Answer {
                command,
                peer: "broker".to_owned(),
                what: "a pull",
            };
            let Ok(Pulled::Found { messages, next }) = read(answer, 7, &subscription) else {
                panic!("{sql}: messages were found");
            };
            let offsets: Vec<u64> = messages.iter().map(|message| message.offset).collect();
            assert_eq!((offsets.as_slice(), next), (wanted, 10), "{sql}");
        }
    }
}
