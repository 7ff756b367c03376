//! Filters: what does not match is finished, and never seen.

use crate::function::Function;
use crate::world::World;
use keylane_consumer::contract::spec::Filter;
use keylane_consumer::message;
use keylane_consumer::source::rocketmq::RocketmqSource;
use keylane_consumer::source::rocketmq::subscription::Subscription;
use keylane_consumer::source::{Pulled, Source};
use keylane_tests::rocketmq::Message;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// "Aa" and "BB" have one hash code, which is all that the broker compares.
#[tokio::test(flavor = "multi_thread")]
async fn tags_are_told_apart_even_if_their_hashes_are_the_same() {
    let world = World::new("tags", 1).await;
    let producer = world.producer().await;
    for (number, tag) in ["Aa", "BB", "C", "Aa", "BB", "C"].iter().enumerate() {
        let message = Message::keyed("k", format!("{tag}{number}")).tag(tag);
        producer.send_to(0, &message).await.unwrap();
    }
    producer
        .send_to(0, &Message::keyed("k", "untagged"))
        .await
        .unwrap();
    let running = Function::taking(&world, &[("filter", r#"{"tags": ["Aa", "D"]}"#)]).await;
    world.until_committed(7).await;
    assert_eq!(running.bodies(), ["Aa0", "Aa3"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_is_applied_by_a_broker_that_filters_properties() {
    let world = World::with_settings("sql", 1, &[("enablePropertyFilter", "true")]).await;
    let producer = world.producer().await;
    for amount in 1..=10 {
        let message =
            Message::keyed("k", format!("{amount}")).property("amount", &amount.to_string());
        producer.send_to(0, &message).await.unwrap();
    }
    let filter = r#"{"sql": "amount > 3 AND amount BETWEEN 1 AND 6"}"#;
    let running = Function::taking(&world, &[("filter", filter)]).await;
    world.until_committed(10).await;
    assert_eq!(running.bodies(), ["4", "5", "6"]);
    running.stop().await;

    let wrong = Function::taking(&world, &[("filter", r#"{"sql": "amount >"}"#)]).await;
    wrong
        .until_stats("a complaint about the expression", |stats| {
            stats
                .broker_error
                .as_ref()
                .is_some_and(|error| error.contains("spec.filter.sql"))
        })
        .await;
    wrong.stop().await;
}

/// Of the messages, what they have as `a` and `b`; none where it is empty.
const PROPERTIES: [(&str, &str); 32] = [
    ("", ""),
    ("7", ""),
    ("", "7"),
    ("7", "7"),
    ("7", "8"),
    ("8", "7"),
    ("-7", "7"),
    ("+7", "7"),
    ("07", "7"),
    (" 7", "7"),
    ("7.0", "7"),
    ("2.5", "7"),
    ("2.5f", "2.5"),
    ("2.50", "2.5"),
    (" 2.5 ", "2.5d"),
    (".5", "5e-1"),
    ("-0.0", "0.0"),
    ("0", "-0"),
    ("NaN", "Infinity"),
    ("-Infinity", "NaN"),
    ("inf", "nan"),
    ("2147483647", "2147483648"),
    ("3000000000", "-3000000000"),
    ("9223372036854775808", "1e400"),
    ("true", "7"),
    ("TRUE", "false"),
    ("it's blue", "blue"),
    ("Blue", "blue"),
    ("bl\u{fc}\u{1f980}", "\u{1f980}"),
    ("_", "%"),
    ("null", "NULL"),
    ("1e1", "10"),
];

/// Expressions, and what the broker ignores after some.
const EXPRESSIONS: [(&str, &str); 75] = [
    ("a = 7", ""),
    ("a <> 7", ""),
    ("7 = a", ""),
    ("7 <> a", ""),
    ("a = '7'", ""),
    ("a <> '7'", ""),
    ("a = b", ""),
    ("a <> b", ""),
    ("a > b", ""),
    ("a <= b", ""),
    ("a > 7", ""),
    ("a >= 7", ""),
    ("a < 7", ""),
    ("a <= 7L", ""),
    ("7 < a", ""),
    ("a > -7", ""),
    ("a > --7", ""),
    ("-a > 7", ""),
    ("a > 2.", ""),
    ("a >= .25e1", ""),
    ("a <= 1E+2", ""),
    ("a = 2.5", ""),
    ("a > 2147483647", ""),
    ("a >= 2147483648", ""),
    ("a < 1e308", ""),
    ("a BETWEEN 7 AND 8", ""),
    ("a NOT BETWEEN 7 AND 8", ""),
    ("a BETWEEN 2.5 AND b", ""),
    ("a NOT BETWEEN b AND 8", ""),
    ("8 BETWEEN a AND b", ""),
    ("a IN ('7', 'it''s blue')", ""),
    ("a NOT IN ('7', 'Blue', '_')", ""),
    ("a IN ('1', '2', '3', '4', '5', '6', '7')", ""),
    ("NOT (a IN ('7'))", ""),
    ("a IS NULL", ""),
    ("a IS NOT NULL", ""),
    ("(a = 7) IS NULL", ""),
    ("a IS NULL = FALSE", ""),
    ("a CONTAINS 'l'", ""),
    ("a NOT CONTAINS 'l'", ""),
    ("a CONTAINS ''", ""),
    ("a NOT CONTAINS ''", ""),
    ("a STARTSWITH 'bl'", ""),
    ("a NOT STARTSWITH '7'", ""),
    ("a ENDSWITH '\u{1f980}'", ""),
    ("a NOT ENDSWITH 'blue'", ""),
    ("NOT (a CONTAINS 'l')", ""),
    ("a = TRUE", ""),
    ("a <> TRUE", ""),
    ("TRUE = a", ""),
    ("(b = 7) = (a = 7)", ""),
    ("(b = '7') = 1", ""),
    ("1 <> (b = '7')", ""),
    ("a", ""),
    ("NOT a", ""),
    ("NOT a = TRUE", ""),
    ("NOT a OR b IS NULL", ""),
    ("TRUE", ""),
    ("FALSE", ""),
    ("NULL OR a = '7'", ""),
    ("NOT NULL", ""),
    ("a = '7' AND b = 7", ""),
    ("b = '7' AND a > 7", ""),
    ("b = '7' OR a > 7", ""),
    ("a = '7' AND b = '7' OR a = '8'", ""),
    ("a = '7' AND (b = '7' OR a = '8')", ""),
    ("NOT (a > 7)", ""),
    ("a > 7 OR TRUE", ""),
    ("TRUE OR a > 7", ""),
    ("+a = + '7'", ""),
    ("a /* * c ** */ = -- seven\n 7", ""),
    ("A = '7' oR a iS nUlL", ""),
    ("a = 0", "7 AND a = 8"),
    ("a", "LIKE 'b%'"),
    ("a = '7'", "DROP ; all"),
];

/// What is nested this deep is not read here: then the broker alone decides.
fn too_deep(expression: &str) -> String {
    format!("{}{expression}{}", "(".repeat(65), ")".repeat(65))
}

fn filter(sql: &str) -> Filter {
    Filter {
        tags: Vec::new(),
        sql: Some(sql.to_owned()),
    }
}

/// What a consumer with this filter gets of the first `count` messages of queue 0.
async fn pulled(world: &World, filter: &Filter, count: u64) -> Vec<message::Message> {
    let spec = world.spec(1, &[("filter", &json!(filter).to_string())]);
    let source = RocketmqSource::connect(&spec, "one").await.unwrap();
    source.route().await.unwrap();
    let (queue, wait) = (world.queue(0), Duration::from_secs(5));
    let (mut offset, mut all) = (0, Vec::new());
    while offset < count {
        match source.pull(&queue, offset, 32, wait).await.unwrap() {
            Pulled::Found { messages, next } => {
                all.extend(messages);
                offset = next;
            }
            Pulled::NoMatch { next } => offset = next,
            other => panic!("{filter:?} from {offset}: {other:?}"),
        }
    }
    all
}

fn offsets<'m>(messages: impl IntoIterator<Item = &'m message::Message>) -> BTreeSet<u64> {
    messages.into_iter().map(|message| message.offset).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_means_here_what_it_means_to_the_broker() {
    let world = World::with_settings("verdicts", 1, &[("enablePropertyFilter", "true")]).await;
    let producer = world.producer().await;
    for (a, b) in PROPERTIES {
        let mut message = Message::keyed("k", "");
        for (name, value) in [("a", a), ("b", b)] {
            if !value.is_empty() {
                message = message.property(name, value);
            }
        }
        producer.send_to(0, &message).await.unwrap();
    }
    let script = Message::keyed("k", "").property("script", "\u{667}");
    producer.send_to(0, &script).await.unwrap();
    let count = PROPERTIES.len() as u64 + 1;
    let messages = pulled(&world, &Filter::default(), count).await;
    assert_eq!(messages.len() as u64, count);

    let mut wrong = Vec::new();
    for (expression, ignored) in EXPRESSIONS {
        let here = Subscription::new(&filter(&format!("{expression} {ignored}")));
        assert_eq!(here.unread(), None, "{expression}");
        let here = offsets(messages.iter().filter(|message| here.wants(message)));
        let there = filter(&format!("{} {ignored}", too_deep(expression)));
        assert!(Subscription::new(&there).unread().is_some());
        let there = offsets(&pulled(&world, &there, count).await);
        if here != there {
            wrong.push(format!(
                "{expression}: here {here:?}, at the broker {there:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    // Digits of other scripts are numbers to the broker only: what it says of them is believed.
    for (expression, delivered) in [("script = 7", 1), ("script > 7", 0)] {
        assert!(Subscription::new(&filter(expression)).wants(&messages[PROPERTIES.len()]));
        let there = pulled(&world, &filter(expression), count).await;
        assert_eq!(there.len(), delivered, "{expression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_filter_properties_is_named_with_what_to_do() {
    let world = World::new("nosql", 1).await;
    world.produce(3, 1).await;
    let running = Function::taking(&world, &[("filter", r#"{"sql": "a = 1"}"#)]).await;
    running
        .until_stats("a complaint about the broker", |stats| {
            stats
                .broker_error
                .as_ref()
                .is_some_and(|error| error.contains("enablePropertyFilter=true"))
        })
        .await;
    assert!(running.bodies().is_empty());
    running.stop().await;
}
