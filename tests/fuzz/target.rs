//! The readers, each with samples that are right and with what must hold of whatever is taken.

use bytes::{BufMut, BytesMut};
use keylane_consumer::config::Config;
use keylane_consumer::contract::admin::{LaneTarget, MembersGone, Stats};
use keylane_consumer::contract::offsets::ResetOffsets;
use keylane_consumer::journal::{self, Body, Finished, Keys, Progress, Record, Witness};
use keylane_consumer::message::Properties;
use keylane_consumer::source::rocketmq::groups::{Connected, Position};
use keylane_consumer::source::rocketmq::record;
use keylane_consumer::source::rocketmq::sql::Expression;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::path::Path;

/// A reader.
pub struct Target {
    /// What it reads.
    pub name: &'static str,
    /// Its share of all inputs: more where one costs less.
    pub share: u64,
    /// Whether inputs end with a CRC-32 of the rest.
    pub checksum: bool,
    /// Inputs that are right.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// Reads an input: whether it was taken, or what is wrong with how it was.
    pub read: fn(&[u8]) -> Result<bool, String>,
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "config",
        share: 5,
        checksum: false,
        samples: configurations,
        read: configuration,
    },
    Target {
        name: "journal",
        share: 20,
        checksum: true,
        samples: records,
        read: journal_record,
    },
    Target {
        name: "wire",
        share: 20,
        checksum: false,
        samples: replies,
        read: reply,
    },
    Target {
        name: "group",
        share: 10,
        checksum: false,
        samples: groups,
        read: group,
    },
    Target {
        name: "admin",
        share: 10,
        checksum: false,
        samples: bodies,
        read: body,
    },
    Target {
        name: "sql",
        share: 10,
        checksum: false,
        samples: expressions,
        read: expression,
    },
];

fn configurations() -> Vec<Vec<u8>> {
    let head = "apiVersion: keylane.dev/v1alpha1\nkind: OrderedConsumer\nmetadata: {name: orders}\nspec:\n  topic: T\n  consumerGroup: g\n";
    let tails = [
        "  rocketmq: {nameServers: [\"a:9876\"]}\n  handler: {http: {port: 8080, path: /e}, timeout: 5s}\n  lanes: {min: 2, max: 9}\n",
        "  rocketmq:\n    nameServers: [\"a:9876\", \"b:1\"]\n    credentialsSecretRef: {name: acl}\n    tls: {caSecretRef: {name: ca}, serverName: mq.test}\n\
         \x20 handler: {grpc: {unixSocket: /run/h/h.sock}, batch: {maxMessages: 8}}\n  filter: {tags: [A, B]}\n  startFrom: {position: Timestamp, timestamp: \"2026-11-11T00:00:00+08:00\"}\n",
        "  rocketmq: {nameServers: [\"a:9876\"]}\n  handler: {http: {port: 1}}\n  ordering: {mode: Queue, key: {from: JsonPointer, pointer: /a/b}, unkeyed: Parallel}\n\
         \x20 retry: {maxAttempts: 3, onExhausted: Block, budget: {blocked: 10s, per: 1h}, backoff: {initial: 1s, factor: 2, max: 1m, jitterPercent: 5}}\n\
         \x20 limits: {messages: 10, bytes: 64Mi, span: 100}\n  suspend: {queues: [b/0], keys: [k]}\n  redactKeys: true\n  filter: {sql: \"a > 1\"}\n",
    ];
    let whole = tails.map(|tail| format!("{head}{tail}").into_bytes());
    whole.into()
}

fn configuration(input: &[u8]) -> Result<bool, String> {
    let path = Path::new("input.yaml");
    let Ok(config) = Config::parse(&String::from_utf8_lossy(input), path) else {
        return Ok(false);
    };
    // What is taken is rendered for pods, which must take it too, and mean the same by it.
    let document = json!({
        "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
        "metadata": {"name": config.name()}, "spec": config.spec(),
    });
    match Config::parse(&document.to_string(), path) {
        Ok(again) if again == config => Ok(true),
        Ok(_) => Err("it means something else once it was rendered".to_owned()),
        Err(error) => Err(format!("it is refused once it was rendered: {error}")),
    }
}

fn records() -> Vec<Vec<u8>> {
    let progress = Progress {
        finished: Finished::new(7, [9..12, 1 << 33..(1 << 33) + 5]),
        witness: Some(Witness {
            offset: 11,
            stored_at_ms: 1_795_671_370_496,
            physical_offset: 4_096,
        }),
        keys: Keys::Some(vec![3, 1 << 40].into()),
        suspects: vec![(8, 2), (12, 1)],
        reset: None,
    };
    let bodies = [
        Body::Claim { predecessor: None },
        Body::Progress {
            epoch: 3,
            progress: progress.clone(),
        },
        Body::Released { epoch: 3, progress },
        Body::Withdrawn {
            epoch: 3,
            former: "pod-uid:0122".into(),
            waiting: Keys::Some(vec![3, 1 << 40].into()),
        },
    ];
    let by = |body| Record {
        by: "pod-uid:0123".into(),
        body,
    };
    bodies.map(|body| journal::encode(&by(body))).into()
}

fn journal_record(input: &[u8]) -> Result<bool, String> {
    let Ok(record) = journal::decode(input) else {
        return Ok(false);
    };
    match journal::decode(&journal::encode(&record)) {
        Ok(again) if again == record => Ok(true),
        other => Err(format!("{record:?} is read again as {other:?}")),
    }
}

/// What a broker sends for two messages, in clear and compressed. Layout: see the reader.
fn replies() -> Vec<Vec<u8>> {
    // zlib of "body".
    let zlib = [
        0x78, 0x9c, 0x4b, 0xca, 0x4f, 0xa9, 0x04, 0x00, 0x04, 0x1a, 0x01, 0xaf,
    ];
    let one = |flag: u32, offset: i64, body: &[u8]| {
        let mut bytes = BytesMut::new();
        for number in [0, -626_843_481, 1, 3, 0] {
            bytes.put_i32(number);
        }
        bytes.put_i64(offset);
        bytes.put_i64(4_096);
        bytes.put_u32(flag);
        bytes.put_i64(1_000);
        bytes.put_slice(&[127, 0, 0, 1, 0, 0, 0x2a, 0x9f]);
        bytes.put_i64(2_000);
        bytes.put_slice(&[127, 0, 0, 1, 0, 0, 0x2a, 0x9f]);
        bytes.put_i32(0);
        bytes.put_i64(0);
        bytes.put_i32(body.len() as i32);
        bytes.put_slice(body);
        bytes.put_slice(b"\x01T");
        let properties = b"UNIQ_KEY\x01ID1\x02KEYS\x01a b\x02__SHARDINGKEY\x01order-7\x02";
        bytes.put_u16(properties.len() as u16);
        bytes.put_slice(properties);
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_be_bytes());
        bytes.to_vec()
    };
    let clear = one(0, 7, b"body");
    vec![
        [clear.clone(), one(0, 8, b"")].concat(),
        one(0x1 | 0x3 << 8, 9, &zlib),
        clear,
    ]
}

fn reply(input: &[u8]) -> Result<bool, String> {
    let Ok(messages) = record::messages(input) else {
        return Ok(false);
    };
    // Read to the last byte: the same once more is twice as much.
    let twice = record::messages(&[input, input].concat());
    match twice {
        Ok(twice) if twice.len() == 2 * messages.len() => Ok(true),
        Ok(twice) => Err(format!(
            "{} messages, and {} of twice the bytes",
            messages.len(),
            twice.len()
        )),
        Err(reason) => Err(format!("taken once and not twice: {reason}")),
    }
}

/// What brokers tell of a group: its offsets, as RocketMQ 5.3.3 writes them, which is no JSON, and its members.
fn groups() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"consumeTps":0.0,"offsetTable":{{"brokerName":"b","queueId":2,"topic":"T"}:{"brokerOffset":9,"consumerOffset":5,"lastTimestamp":0,"pullOffset":5},{"brokerName":"b","queueId":0,"topic":"T"}:{"brokerOffset":0,"consumerOffset":0,"lastTimestamp":0,"pullOffset":0}}}"#,
        r#"{"consumeTps":0.0,"offsetTable":{}}"#,
        r#"{"connectionSet":[{"clientAddr":"10.0.0.1:5","clientId":"c@1","language":"JAVA","version":475}],"messageModel":"CLUSTERING","subscriptionTable":{"T":{"expressionType":"TAG","subString":"*","topic":"T"}}}"#,
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

fn group(input: &[u8]) -> Result<bool, String> {
    let Ok(positions) = Position::all(input) else {
        return Ok(serde_json::from_slice::<Connected>(input).is_ok());
    };
    // Each took some bytes, and what is behind the table says nothing.
    let behind = Position::all(&[input, b"}"].concat());
    if positions.len() <= input.len() && behind.as_ref() == Ok(&positions) {
        return Ok(true);
    }
    Err(format!("{positions:?}, and {behind:?} with a byte behind"))
}

fn bodies() -> Vec<Vec<u8>> {
    let stats = Stats {
        incarnation: "i".into(),
        ..Stats::default()
    };
    let values = [
        serde_json::to_vec(&stats),
        serde_json::to_vec(&json!({"term": 3, "sequence": 9, "lanes": 64})),
        serde_json::to_vec(&MembersGone::default()),
        serde_json::to_vec(&json!({"id": "replay-1", "to": "earliest", "queue": "b/0"})),
    ];
    values.into_iter().flatten().collect()
}

fn body(input: &[u8]) -> Result<bool, String> {
    let taken = [
        again::<Stats>(input)?,
        again::<LaneTarget>(input)?,
        again::<MembersGone>(input)?,
        again::<ResetOffsets>(input)?,
    ];
    Ok(taken.contains(&true))
}

/// Reads a body of the admin API; what is taken can be written and is taken again.
fn again<T: Serialize + DeserializeOwned>(input: &[u8]) -> Result<bool, String> {
    let Ok(value) = serde_json::from_slice::<T>(input) else {
        return Ok(false);
    };
    let text = serde_json::to_string(&value).map_err(|error| error.to_string())?;
    match serde_json::from_str::<T>(&text) {
        Ok(_) => Ok(true),
        Err(error) => Err(format!("{text} is not taken again: {error}")),
    }
}

fn expressions() -> Vec<Vec<u8>> {
    let texts = [
        "amount > 100 AND region = 'eu'",
        "a BETWEEN 1 AND 2 OR NOT (b IN ('x', 'it''s') AND c IS NOT NULL)",
        "price >= 1.5 AND (d = FALSE OR e <> TRUE)",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

fn expression(input: &[u8]) -> Result<bool, String> {
    let Ok(expression) = Expression::parse(&String::from_utf8_lossy(input)) else {
        return Ok(false);
    };
    // Whatever it says of this message: it says it.
    let _ = expression.matches(&Properties::default());
    Ok(true)
}
