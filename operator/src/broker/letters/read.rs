//! What dead letters there are, and what is in one.

use super::{
    BYTES, Content, DeadLetter, LetterId, Letters, LettersError, Listing, TIME, course, id, unknown,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use keylane_consumer::message::QueueId;
use keylane_consumer::source::rocketmq::letters::Letter;
use tokio::time::Instant;

impl Letters {
    /// Letters that were not sent again, or all, from behind one on; at most so many.
    pub async fn list(
        &self,
        all: bool,
        after: Option<&LetterId>,
        most: usize,
    ) -> Result<Listing, LettersError> {
        let mut listing = Listing::default();
        let until = Instant::now() + TIME;
        let mut bytes = BYTES;
        for queue in &self.queues {
            let at = after.map(|after| (after.broker.as_str(), after.queue));
            let begin = match at {
                Some(at) if at > (&*queue.broker, queue.id) => continue,
                Some(at) if at == (&*queue.broker, queue.id) => {
                    after.map_or(0, |after| after.offset + 1)
                }
                _ => 0,
            };
            let begin = (begin, all);
            let listed = self
                .list_queue(queue, begin, most, &mut bytes, until, &mut listing)
                .await;
            match listed {
                Ok(()) if listing.after.is_some() => break,
                Ok(()) => {}
                Err(error) => listing.unknown.push(unknown(queue, &error)),
            }
        }
        Ok(listing)
    }

    async fn list_queue(
        &self,
        queue: &QueueId,
        (mut from, all): (u64, bool),
        most: usize,
        bytes: &mut usize,
        until: Instant,
        listing: &mut Listing,
    ) -> Result<(), LettersError> {
        let (memory, _) = self.memory(queue).await?;
        if !all {
            from = memory.first_open(from);
        }
        loop {
            let page = self.source.letters(queue, from).await?;
            for letter in &page.letters {
                let offset = letter.message.offset;
                let replayed = memory.has(offset);
                if replayed && !all {
                    continue;
                }
                let late = *bytes == 0 || Instant::now() >= until;
                if late || listing.letters.len() >= most {
                    listing.after = listing.letters.last().map(|last| last.id.clone());
                    if listing.after.is_none() {
                        listing
                            .unknown
                            .push(unknown(queue, &"reading it took too long"));
                    }
                    return Ok(());
                }
                *bytes = bytes.saturating_sub(letter.size());
                let told = self.told(queue, letter, replayed).await?;
                listing.letters.push(told);
            }
            if page.next >= page.max {
                return Ok(());
            }
            if page.next <= from {
                listing.unknown.push(unknown(
                    queue,
                    &format!("the broker does not hand out offset {from} now"),
                ));
                return Ok(());
            }
            from = page.next;
        }
    }

    /// What is in a letter; none if there is none of that name.
    pub async fn content(&self, of: &LetterId) -> Result<Option<Content>, LettersError> {
        let queue = self
            .queues
            .iter()
            .find(|queue| (&*queue.broker, queue.id) == (&*of.broker, of.queue));
        let Some(queue) = queue else {
            return Ok(None);
        };
        let Some(letter) = self.source.letter(queue, of.offset).await? else {
            return Ok(None);
        };
        let (memory, _) = self.memory(queue).await?;
        let told = self.told(queue, &letter, memory.has(of.offset)).await?;
        let mut content = Content {
            letter: told,
            ..Content::default()
        };
        if self.spec.redact_keys {
            return Ok(Some(content));
        }
        let message = &letter.message;
        let properties = message.properties.iter();
        let owned = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        content.properties = Some(owned.collect());
        match &message.defect {
            Some(defect) => content.defect = Some(defect.to_string()),
            None => match std::str::from_utf8(&message.body) {
                Ok(text) => content.text = Some(text.to_owned()),
                Err(_) => content.base64 = Some(STANDARD.encode(&message.body)),
            },
        }
        Ok(Some(content))
    }

    async fn told(
        &self,
        queue: &QueueId,
        letter: &Letter,
        replayed: bool,
    ) -> Result<DeadLetter, LettersError> {
        let message = &letter.message;
        let original = self.source.original(&queue.broker, letter).await?;
        let key = message.find_key(&self.spec.ordering.key);
        Ok(DeadLetter {
            id: id(queue, message.offset).to_string(),
            key: key.map(|key| course::shown(&self.spec, &key)),
            queue: original.as_ref().map(|of| of.queue.to_string()),
            offset: original.map(|of| of.offset),
            message_id: message.id.to_string(),
            given_up_at: time(message.stored_at_ms),
            born_at: time(message.born_at_ms),
            attempts: None,
            last_error: None,
            bytes: letter.size() as u64,
            replayed,
        })
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
