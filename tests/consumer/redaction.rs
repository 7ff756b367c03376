//! Keys that are personal data: with redactKeys nothing that tells shows them.

use crate::function::{Function, failed};
use crate::world::World;
use keylane_consumer::contract::admin::Stats;
use keylane_consumer::exec::Measures;
use keylane_consumer::lane::CallResult;
use keylane_consumer::metrics::Metrics;

/// Keys that are hot, long, stuck, blocked, split and suspended, in stats, lanes and metrics.
#[tokio::test(flavor = "multi_thread")]
async fn with_redacted_keys_no_key_is_shown_anywhere() {
    let world = World::new("redact", 2).await;
    let changes = [
        ("retry", r#"{"maxAttempts": 1, "onExhausted": "Block"}"#),
        ("suspend", r#"{"keys": ["order-3"]}"#),
    ];
    let start = async |more: &[(&'static str, &'static str)]| {
        let changes: Vec<_> = changes.iter().chain(more).copied().collect();
        Function::start(&world, &changes, |delivery| match delivery.key.as_str() {
            "order-7" => failed().into(),
            _ => CallResult::Done.into(),
        })
        .await
    };
    let until_troubled = async |running: &Function| {
        let troubled = |stats: &Stats| {
            stats.blocked.len() == 1
                && !stats.long_keys.is_empty()
                && !stats.stuck_keys.is_empty()
                && !stats.split_keys.is_empty()
        };
        // Others move, or nothing is stuck.
        let moves = async {
            loop {
                world.produce(10, 10).await;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            stats = running.until_stats("every kind of trouble", troubled) => stats,
            () = moves => unreachable!("it goes on for ever"),
        }
    };
    let shown = async |running: &Function, stats: &Stats| {
        let lanes = running.control.lanes().await.unwrap();
        let metrics = Metrics::new(Measures::new().unwrap()).render(stats);
        format!("{stats:?} {lanes:?} {metrics}")
    };
    let producer = world.producer().await;
    for queue in [0, 1] {
        let split = keylane_tests::rocketmq::Message::keyed("order-split", "m");
        producer.send_to(queue, &split).await.unwrap();
    }

    let running = start(&[]).await;
    let stats = until_troubled(&running).await;
    let text = shown(&running, &stats).await;
    for key in ["order-3", "order-7", "order-split"] {
        assert!(text.contains(key), "{key}: {text}");
    }
    running.stop().await;

    for queue in [0, 1] {
        let split = keylane_tests::rocketmq::Message::keyed("order-split", "m");
        producer.send_to(queue, &split).await.unwrap();
    }
    let running = start(&[("redactKeys", "true")]).await;
    let stats = until_troubled(&running).await;
    let text = shown(&running, &stats).await;
    assert!(!text.contains("order-"), "{text}");
    assert!(stats.blocked[0].key.starts_with("sha256:"), "{text}");
    assert!(
        text.contains(r#"keylane_stuck_key_seconds{broker="#),
        "{text}"
    );
    running.stop().await;
}
