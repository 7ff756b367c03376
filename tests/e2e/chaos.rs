//! A piece of `cargo chaos -- --cluster`: the rest of its hours are run by command.

use crate::shared::{ALONE, with_stack};
use anyhow::{Result, ensure};
use keylane_tests::piece::Piece;
use keylane_tests::stack::Stack;

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");

/// Pods come, go, are deleted in good order and by force, end with their grace period, crash container by
/// container, freeze and are cut off, broker and name server are killed: order is kept and nothing is lost.
/// How long queues stand still is told, and not judged here, where everything else runs beside it.
#[tokio::test(flavor = "multi_thread")]
async fn two_minutes_of_chaos_among_pods_break_no_order_and_lose_nothing() -> Result<()> {
    with_stack(async |stack: &Stack| {
        if !stack.cluster().is_local() {
            println!("left out: processes of pods are reached only where the cluster is local");
            return Ok(());
        }
        let _turn = ALONE.lock().await;
        let arguments = [
            "--cluster",
            "--shared-operator",
            "--namespace=keylane-e2e-chaos",
            "--minutes=2",
            "--seed=14",
        ];
        let piece = Piece::run(CHAOS, &arguments).await?;
        for name in ["inversions", "overlaps", "lost", "crashed", "uncommitted"] {
            let count = piece.count(name);
            ensure!(count == Some(0), "{name}: {count:?}: {}", piece.course);
        }
        ensure!(piece.count("events") >= Some(20), "{}", piece.course);
        ensure!(piece.passed, "{}", piece.course);
        Ok(())
    })
    .await
}
