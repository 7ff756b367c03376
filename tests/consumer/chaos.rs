//! A piece of `cargo chaos`: the rest of its hours are run by command.
//!
//! It is one test among those of this target, and not a target of its own, because it mostly waits: five
//! minutes beside the others instead of after them.

use crate::process::program;
use keylane_tests::piece::Piece;

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");

/// Processes come, go, crash with their pods or alone, freeze and are cut off, broker and name server go
/// and come back, handlers fail: order is kept and nothing is lost. How long queues stand still and what
/// runs again is told, and not judged here, where everything else runs beside it.
#[tokio::test(flavor = "multi_thread")]
async fn five_minutes_of_chaos_break_no_order_and_lose_nothing() {
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    let consumer = format!("--consumer={}", program.display());
    let arguments = ["--minutes=5", "--seed=2", &consumer];
    let piece = Piece::run(CHAOS, &arguments).await.unwrap();
    for name in ["inversions", "overlaps", "lost", "crashed", "uncommitted"] {
        assert_eq!(piece.count(name), Some(0), "{name}: {}", piece.course);
    }
    assert!(piece.count("events") > Some(60), "{}", piece.course);
    assert!(piece.passed, "{}", piece.course);
}

/// RocketMQ's own ordered consumer runs in the harness too and is told of in the same terms. Only its
/// beginning is tried here: what faults do to it is measured, and not ours to promise.
#[tokio::test(flavor = "multi_thread")]
async fn rocketmqs_ordered_consumer_is_recorded_and_judged_as_keylane_is() {
    let arguments = ["--minutes=0.5", "--seed=7", "--peer=java-orderly"];
    let piece = Piece::run(CHAOS, &arguments).await.unwrap();
    let course = &piece.course;
    assert_eq!(piece.summary["summary"], "java-orderly", "{course}");
    let messages = piece.count("messages");
    // Some 2,000, and fewer where the machine does much else.
    assert!(messages > Some(300), "{course}");
    assert_eq!(piece.count("handled"), messages, "{course}");
    assert_eq!(piece.count("uncommitted"), Some(0), "{course}");
    assert_eq!(piece.count("clean_exits"), piece.count("exits"), "{course}");
    assert!(piece.passed, "{course}");
}
