//! The stack that all cases share: the first case brings it up, the last takes it down.

use anyhow::Result;
use keylane_tests::cluster::Target;
use keylane_tests::stack::Stack;
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// Where RocketMQ is, and the first case.
const NAMESPACE: &str = "keylane-e2e";

/// Held by a case that measures how long things take, and by one that takes much of the machine at times.
pub static ALONE: Mutex<()> = Mutex::const_new(());

static STACK: Mutex<Weak<Stack>> = Mutex::const_new(Weak::new());

/// Runs a case on the stack.
pub async fn with_stack(case: impl AsyncFnOnce(&Stack) -> Result<()>) -> Result<()> {
    let stack = take().await?;
    let outcome = case(&stack).await;
    if outcome.is_err() {
        // Left in place when something failed, to be looked at: it stays in use for ever.
        std::mem::forget(stack);
        return outcome;
    }
    // Nobody takes it while it goes.
    let _turn = STACK.lock().await;
    match Arc::into_inner(stack) {
        Some(stack) => spawn_blocking(move || stack.remove()).await?,
        None => Ok(()),
    }
}

async fn take() -> Result<Arc<Stack>> {
    let mut known = STACK.lock().await;
    if let Some(stack) = known.upgrade() {
        return Ok(stack);
    }
    let stack = spawn_blocking(|| Stack::install(&Target::from_env(), NAMESPACE)).await??;
    let stack = Arc::new(stack);
    *known = Arc::downgrade(&stack);
    Ok(stack)
}
