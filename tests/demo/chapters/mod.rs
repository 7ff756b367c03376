//! Chapters of a peak night, each told on the demo that is up: what happens, what to look at, what came of it.

mod hot_seller;
mod killed_pod;
mod poison_order;
mod sale;
mod slow_database;

use crate::story::Story;
use anyhow::Result;
use keylane_tests::stack::Stack;

/// Something that happens to the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Chapter {
    /// Eight times as many orders arrive for a minute.
    Sale,
    /// One key gets three times what its lane can do.
    HotSeller,
    /// One message fails whatever is done, until its handler is repaired and it is sent again.
    PoisonOrder,
    /// What is behind the handlers can do less than arrives.
    SlowDatabase,
    /// A pod is killed while all are busy.
    KilledPod,
}

/// Tells a chapter; an error if it did not come out as promised.
pub async fn tell(stack: &Stack, chapter: Chapter) -> Result<()> {
    keylane_operator::install_crypto();
    println!("Bringing the shop's consumer to rest.");
    let story = Story::begin(stack).await?;
    match chapter {
        Chapter::Sale => sale::tell(&story).await,
        Chapter::HotSeller => hot_seller::tell(&story).await,
        Chapter::PoisonOrder => poison_order::tell(&story).await,
        Chapter::SlowDatabase => slow_database::tell(&story).await,
        Chapter::KilledPod => killed_pod::tell(&story).await,
    }
}
