//! Messages that cost the handler its connection, as one does that kills it.

use crate::world::{Handler, Running, World};
use serde_json::json;

/// Each owner calls it once before it goes; what the owners before wrote down counts.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_a_message_that_kills_its_handler_count_on_after_a_take_over() {
    let world = World::new("suspects", 1).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    handler.lose_key("order-0", u32::MAX);
    let http = json!({"port": port, "path": "/events", "idlePath": "/idle"});
    let http = json!({"http": http, "timeout": "5s"}).to_string();
    let changes = [
        ("handler", http.as_str()),
        (
            "retry",
            r#"{"maxAttempts": 3, "backoff": {"initial": "30s", "max": "30s"}}"#,
        ),
    ];
    world.produce(1, 1).await;
    for _ in 0..2 {
        let owner = Running::with(&world, handler.clone(), port, &changes).await;
        owner
            .until_stats(|stats| stats.failed == 1, "its call lost")
            .await;
        owner.stop().await;
    }
    let last = Running::with(&world, handler.clone(), port, &changes).await;
    last.until_stats(|stats| stats.dead_lettered == 1, "given up")
        .await;
    assert_eq!(handler.done().len(), 3);
    last.stop().await;
    world.until_committed(1).await;
}
