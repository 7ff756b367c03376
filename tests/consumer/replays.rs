//! Dead letters that are sent again: each once, each key in its order, with what was sent noted at the broker.

use crate::function::{Function, failed};
use crate::world::World;
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::message::QueueId;
use keylane_consumer::source::rocketmq::letters::PROPERTY_DEAD_LETTER;
use keylane_consumer::source::rocketmq::{Access, RocketmqSource};
use keylane_consumer::source::{Pulled, Source as _};
use keylane_operator::broker::letters::{
    DeadLetter, Letters, LettersError, Listing, Replay, Replayed, Sent,
};
use keylane_tests::rocketmq::Message;
use keylane_tests::wait;
use std::collections::BTreeSet;
use std::time::Duration;

/// Not the first one, so that whatever goes to the first one by mistake is seen.
const QUEUE: u32 = 1;
/// One after the other, so that their order among the dead letters is known.
const ONCE: [(&str, &str); 2] = [
    ("retry", r#"{"maxAttempts": 1}"#),
    ("ordering", r#"{"mode": "Queue"}"#),
];

/// Has these messages, each a key, a body and a tag, sent to a queue and given up by a handler.
async fn given_up(world: &World, messages: &[(&str, &str, &str)]) {
    let producer = world.producer().await;
    for (key, body, tag) in messages {
        let message = Message::keyed(key, body.to_string()).tag(tag);
        producer.send_to(QUEUE as usize, &message).await.unwrap();
    }
    let running = Function::start(world, &ONCE, |_| failed().into()).await;
    world.until_committed(messages.len() as u64).await;
    let stats = running.control.stats().await.unwrap();
    assert_eq!(stats.dead_letters.len(), messages.len());
    let last = stats.dead_letters.last().unwrap();
    assert_eq!(
        (last.queue.as_str(), last.attempts),
        (&*world.queue(QUEUE).to_string(), 1)
    );
    assert_eq!(last.offset, messages.len() as u64 - 1);
    assert!(!last.last_error.is_empty());
    running.stop().await;
}

/// The letters, once the name server knows of them.
async fn letters(spec: &ConsumerSpec) -> Letters {
    wait::until(Duration::from_secs(60), "dead letters", async || {
        let access = Access::open(&spec.rocketmq).map_err(|error| error.to_string())?;
        let letters = Letters::connect(spec, access)
            .await
            .map_err(|error| error.to_string())?;
        let listing = letters.list(true, None, 1).await;
        let listing = listing.map_err(|error| error.to_string())?;
        if listing.letters.is_empty() {
            return Err(format!("{listing:?}"));
        }
        Ok(letters)
    })
    .await
    .unwrap()
}

async fn replay(spec: &ConsumerSpec, keys: &[&str]) -> Replayed {
    let what = Replay {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        dry_run: false,
    };
    letters(spec).await.replay(&what).await.unwrap()
}

/// All letters, by the offset that each message had in the topic. A broker whose answer was late has made
/// copies: they are there, too.
async fn listed(spec: &ConsumerSpec) -> Vec<DeadLetter> {
    let listing = letters(spec).await.list(true, None, 100).await.unwrap();
    assert_eq!(listing.unknown, []);
    listing.letters
}

/// Which messages were sent again, by the offset that each had in the topic.
async fn offsets(spec: &ConsumerSpec, replayed: &Replayed) -> Vec<u64> {
    let listed = listed(spec).await;
    let offset = |sent: &Sent| {
        let of = listed.iter().find(|letter| letter.id == sent.id);
        of.and_then(|letter| letter.offset).unwrap()
    };
    replayed.sent.iter().map(offset).collect()
}

/// Bodies of the so many messages that the queue has from an offset on, with the letter that each was and its id.
async fn sent(world: &World, from: u64, count: u64) -> Vec<(String, String, String)> {
    let (source, queue) = (world.source("reader").await, world.queue(QUEUE));
    wait::until(Duration::from_secs(10), "what was sent", async || {
        let bounds = source.bounds(&queue).await;
        let (_, end) = bounds.map_err(|error| error.to_string())?;
        (end == from + count)
            .then_some(())
            .ok_or_else(|| format!("{end}"))
    })
    .await
    .unwrap();
    if count == 0 {
        return Vec::new();
    }
    let pulled = source.pull(&queue, from, 32, Duration::ZERO).await;
    let Pulled::Found { messages, .. } = pulled.unwrap() else {
        panic!("no messages");
    };
    let messages = messages.iter();
    messages
        .map(|message| {
            let letter = message.properties.get(PROPERTY_DEAD_LETTER);
            let body = String::from_utf8_lossy(&message.body).into_owned();
            (
                body,
                letter.unwrap_or_default().to_owned(),
                message.id.to_string(),
            )
        })
        .collect()
}

fn bodies(sent: &[(String, String, String)]) -> Vec<&str> {
    sent.iter().map(|(body, ..)| body.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_sent_again_once_in_order_and_handled() {
    let world = World::new("replayed", 2).await;
    given_up(
        &world,
        &[("a", "a1", "T"), ("b", "b1", "T"), ("a", "a2", "T")],
    )
    .await;
    let spec = world.spec(1, &[]);
    let all = listed(&spec).await;
    let told: BTreeSet<_> = all
        .iter()
        .map(|letter| (letter.offset.unwrap(), letter.key.as_deref().unwrap()))
        .collect();
    assert_eq!(told, BTreeSet::from([(0, "a"), (1, "b"), (2, "a")]));
    let queue = world.queue(QUEUE).to_string();
    assert!(
        all.iter()
            .all(|letter| letter.queue.as_ref() == Some(&queue) && !letter.replayed)
    );
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let letters = letters(&spec).await;
        let page = letters.list(false, after.as_ref(), 1).await.unwrap();
        paged.extend(page.letters);
        match page.after {
            Some(last) => after = Some(last.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(paged, all);
    let second = all.iter().find(|letter| letter.offset == Some(1)).unwrap();
    let content = letters(&spec)
        .await
        .content(&second.id.parse().unwrap())
        .await;
    assert_eq!(content.unwrap().unwrap().text.as_deref(), Some("b1"));

    let dry = Replay {
        dry_run: true,
        ..Replay::default()
    };
    let would = letters(&spec).await.replay(&dry).await.unwrap();
    assert_eq!(offsets(&spec, &would).await, [0, 1, 2]);
    assert_eq!(sent(&world, 3, 0).await, []);

    let only_b = replay(&spec, &["b"]).await;
    assert_eq!(offsets(&spec, &only_b).await, [1]);
    let rest = replay(&spec, &[]).await;
    assert_eq!(offsets(&spec, &rest).await, [0, 2]);
    assert_eq!(rest.sent[0].offset, Some(4));
    assert_eq!(
        (rest.held_count, rest.more, rest.unknown.len()),
        (0, false, 0)
    );
    assert_eq!(replay(&spec, &[]).await.sent, []);
    let again = sent(&world, 3, 3).await;
    assert_eq!(bodies(&again), ["b1", "a1", "a2"]);
    assert!(again[1].1.contains("/0/0@"), "{again:?}");
    let listing = letters(&spec).await.list(false, None, 10).await.unwrap();
    assert_eq!(listing, Listing::default());
    let all = listed(&spec).await;
    assert!(all.iter().all(|letter| letter.replayed) && all.len() >= 3);
    // It is the same message: its id is what handlers know it by.
    assert_eq!(all[0].message_id, again[1].2);

    let running = Function::taking(&world, &[]).await;
    world.until_committed(6).await;
    assert_eq!(
        running
            .bodies()
            .iter()
            .filter(|body| body.starts_with('a'))
            .collect::<Vec<_>>(),
        ["a1", "a2"]
    );
    running.stop().await;
}

/// One that cannot be sent holds back what follows of its key, and nothing else; later it goes on in order.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_letter_that_was_not_sent_is_held_back() {
    let world = World::new("held", 2).await;
    let messages = [
        ("a", "a1", "OLD"),
        ("b", "b1", "NEW"),
        ("a", "a2", "NEW"),
        ("b", "b2", "NEW"),
    ];
    given_up(&world, &messages).await;
    let filtered = world.spec(1, &[("filter", r#"{"tags": ["NEW"]}"#)]);
    let first = replay(&filtered, &[]).await;
    assert_eq!(offsets(&filtered, &first).await, [1, 3]);
    assert!(first.held_count >= 2, "{first:?}");
    let reasons: Vec<_> = first.held.iter().map(|held| &held.reason).collect();
    assert!(
        reasons[0].contains("spec.filter") && reasons[1].contains("an earlier one"),
        "{reasons:?}"
    );
    let open = world.spec(1, &[]);
    let second = replay(&open, &[]).await;
    assert_eq!(offsets(&open, &second).await, [0, 2]);
    assert_eq!(bodies(&sent(&world, 4, 4).await), ["b1", "b2", "a1", "a2"]);
}

/// Sent, and then nothing: the next one sends it again, and it is known which letter both were.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_sending_and_noting_costs_a_duplicate_that_is_known_as_one() {
    let world = World::new("crash", 2).await;
    given_up(&world, &[("a", "a1", "T"), ("a", "a2", "T")]).await;
    let spec = world.spec(1, &[]);
    drop(letters(&spec).await);
    let crashed = RocketmqSource::connect(&spec, "crashed").await.unwrap();
    crashed.route().await.unwrap();
    let queue = crashed.letter_queues().await.unwrap().remove(0);
    assert!(crashed.lock_letters(&queue).await.unwrap());
    let letter = crashed.letter(&queue, 0).await.unwrap().unwrap();
    let identity = format!("{queue}/0@{}", letter.message.stored_at_ms);
    let to = world.queue(QUEUE);
    let at = crashed.send_again(&to, &letter, &identity).await;
    assert_eq!(at.unwrap(), 2);
    // Whoever holds the lock may still be at it.
    let busy = letters(&spec).await.replay(&Replay::default()).await;
    assert!(matches!(busy, Err(LettersError::Busy(_))), "{busy:?}");
    assert_eq!(bodies(&sent(&world, 2, 1).await), ["a1"]);
    crashed.unlock_letters(&queue).await.unwrap();

    let replayed = replay(&spec, &[]).await;
    assert_eq!(offsets(&spec, &replayed).await, [0, 1]);
    let all = sent(&world, 2, 3).await;
    assert_eq!(bodies(&all), ["a1", "a1", "a2"]);
    assert_eq!((&all[0].1, &all[0].2), (&all[1].1, &all[1].2));
    assert_ne!(all[1].1, all[2].1);
}

/// The broker copies a message twice if its first answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_copied_twice_is_sent_once() {
    let world = World::new("twice", 2).await;
    given_up(&world, &[("a", "a1", "T")]).await;
    let source = world.source("back").await;
    let queue = world.queue(QUEUE);
    let pulled = source.pull(&queue, 0, 1, Duration::ZERO).await;
    let Pulled::Found { messages, .. } = pulled.unwrap() else {
        panic!("no message");
    };
    source
        .send_back(&world.queue(QUEUE), &messages[0], -1)
        .await
        .unwrap();
    let spec = world.spec(1, &[]);
    let replayed = replay(&spec, &[]).await;
    assert_eq!(offsets(&spec, &replayed).await, [0]);
    assert!(replayed.copies >= 1, "{replayed:?}");
    assert_eq!(replay(&spec, &[]).await.sent, []);
    assert_eq!(bodies(&sent(&world, 1, 1).await), ["a1"]);
}

/// What another wrote meanwhile is found out by the offset of the own note.
#[tokio::test(flavor = "multi_thread")]
async fn notes_of_two_at_once_do_not_hide_each_other_unnoticed() {
    let world = World::new("notes", 2).await;
    let source = world.source("notes").await;
    let queue: QueueId = world.queue(QUEUE);
    assert_eq!(source.last_note(&queue).await.unwrap(), (None, 0));
    source.make_notes(&queue).await.unwrap();
    for (number, text) in ["one", "two", "three"].into_iter().enumerate() {
        let at = source.note(&queue, text.into()).await.unwrap();
        assert_eq!(at, number as u64);
    }
    wait::until(Duration::from_secs(10), "the last note", async || {
        let (note, next) = source
            .last_note(&queue)
            .await
            .map_err(|error| error.to_string())?;
        let found = (note.as_deref(), next) == (Some(&b"three"[..]), 3);
        found
            .then_some(())
            .ok_or_else(|| format!("{note:?} {next}"))
    })
    .await
    .unwrap();
}

/// With redactKeys keys are hashes and nothing inside is shown; the hash names the key.
#[tokio::test(flavor = "multi_thread")]
async fn redacted_letters_tell_no_key_and_nothing_inside() {
    let world = World::new("redacted_letters", 2).await;
    given_up(
        &world,
        &[("secret-1", "secret-2", "T"), ("other", "x", "T")],
    )
    .await;
    let spec = world.spec(1, &[("redactKeys", "true")]);
    let listing = letters(&spec).await.list(false, None, 10).await.unwrap();
    let key = listing.letters[0].key.clone().unwrap();
    assert!(key.starts_with("sha256:"));
    let id = listing.letters[0].id.parse().unwrap();
    let content = letters(&spec).await.content(&id).await.unwrap().unwrap();
    let told = serde_json::to_string(&(&listing, &content)).unwrap();
    assert!(!told.contains("secret"), "{told}");
    let replayed = replay(&spec, &[&key]).await;
    assert_eq!(offsets(&spec, &replayed).await, [0]);
}

/// What a dry run says of who else gets them.
async fn other_groups(spec: &ConsumerSpec) -> Option<Vec<String>> {
    let what = Replay {
        keys: Vec::new(),
        dry_run: true,
    };
    letters(spec)
        .await
        .replay(&what)
        .await
        .unwrap()
        .other_groups
}

#[tokio::test(flavor = "multi_thread")]
async fn other_groups_of_the_topic_are_named_and_the_topic_is_none_of_them() {
    let world = World::new("read_by_others", 2).await;
    given_up(&world, &[("a", "0", "PAID")]).await;
    let spec = world.spec(1, &[]);
    // Its own group has had members, and committed.
    assert_eq!(other_groups(&spec).await, Some(Vec::new()));

    // A group that is called as the topic is one like any.
    let named = format!("{:?}", world.topic);
    let theirs = world.spec(1, &[("consumerGroup", &named)]);
    let other = RocketmqSource::connect(&theirs, "10.0.0.7@4711")
        .await
        .unwrap();
    other.route().await.unwrap();
    other.heartbeat(world.broker().name()).await.unwrap();
    wait::until(Duration::from_secs(60), "the group told", async || {
        let told = other_groups(&spec).await;
        (told.as_deref() == Some(std::slice::from_ref(&world.topic)))
            .then_some(())
            .ok_or_else(|| format!("{told:?}"))
    })
    .await
    .unwrap();
}
