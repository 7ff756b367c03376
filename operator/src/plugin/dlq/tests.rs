use super::*;
use crate::broker::letters::{DeadLetter, Held, Sent, Unknown};

fn letter(id: &str, attempts: Option<u32>) -> DeadLetter {
    DeadLetter {
        id: id.into(),
        key: Some("order-7".into()),
        queue: Some("broker-a/3".into()),
        offset: Some(70),
        given_up_at: "2026-11-11T00:00:01.234Z".into(),
        attempts,
        last_error: attempts.map(|_| "500 no stock".into()),
        ..DeadLetter::default()
    }
}

#[test]
fn letters_are_listed_with_why_and_what_is_not_known_is_said() {
    let listing = Listing {
        letters: vec![
            letter("broker-a/0/1", Some(16)),
            letter("broker-a/0/2", None),
        ],
        after: Some("broker-a/0/2".into()),
        unknown: vec![Unknown {
            queue: "broker-b/0".into(),
            reason: "no answer".into(),
        }],
    };
    let text = table(&listing, Paint::PLAIN);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[1],
        [
            "broker-a/0/1",
            "order-7",
            "broker-a/3",
            "70",
            "2026-11-11T00:00:01Z",
            "16",
            "500",
            "no",
            "stock"
        ]
    );
    assert_eq!(rows[2][5..], ["?", "?"]);
    for said in [
        "each does of its last 64",
        "There are more",
        "Not known of broker-b/0: no answer",
    ] {
        assert!(text.contains(said), "{text}");
    }
    assert!(table(&Listing::default(), Paint::PLAIN).contains("There are no dead letters"));
}

#[test]
fn what_would_be_sent_is_said_first_and_what_is_held_fails() {
    let what = |yes| Resend {
        name: "orders".into(),
        keys: Vec::new(),
        yes,
        output: None,
    };
    let mut replayed = Replayed {
        dry_run: true,
        sent: vec![Sent {
            id: "broker-a/0/1".into(),
            key: None,
            queue: "broker-a/3".into(),
            offset: None,
        }],
        other_groups: Some(vec!["billing".into()]),
        ..Replayed::default()
    };
    assert!(is_well(&replayed));
    let text = told(&replayed, &what(false), "shop", Paint::PLAIN);
    assert_eq!(
        text,
        "\
shop/orders: 1 dead letter would be sent again:
  broker-a/0/1  (no key)  to broker-a/3
Other groups consume the topic and get them, too: billing
Nothing is sent. Once the handler takes them: the same with --yes
"
    );
    replayed.held_count = 1;
    replayed.held.push(Held {
        id: "broker-a/0/2".into(),
        key: Some("order-7".into()),
        reason: "no queue".into(),
    });
    assert!(!is_well(&replayed));
    let text = told(&replayed, &what(false), "shop", Paint::PLAIN);
    assert!(text.contains("broker-a/0/2  order-7  no queue"), "{text}");
    let first = Replayed {
        sent: replayed.sent.clone(),
        held_count: 5,
        ..Replayed::default()
    };
    let both = together(first, replayed);
    assert_eq!((both.sent.len(), both.held_count), (2, 1));
    let text = told(&both, &what(false), "shop", Paint::PLAIN);
    assert!(
        text.contains("2 dead letters would be sent again"),
        "{text}"
    );
}

#[test]
fn what_is_inside_is_shown_unless_keys_are_redacted() {
    let mut content = Content {
        letter: letter("broker-a/0/1", None),
        properties: Some([("KEYS".to_owned(), "order-7".to_owned())].into()),
        text: Some("{\"paid\": true}".into()),
        ..Content::default()
    };
    let text = inside(&content, Paint::PLAIN);
    assert!(text.contains("came from    broker-a/3 at 70"), "{text}");
    assert!(text.ends_with("Body\n{\"paid\": true}\n"), "{text}");
    content.properties = None;
    let text = inside(&content, Paint::PLAIN);
    assert!(
        text.contains("redactKeys") && !text.contains("paid"),
        "{text}"
    );
}
