//! RocketMQ's own consumers.

use super::{Java, LIMIT_SECONDS, Peer, measured, source};
use crate::load::{self, Load};
use crate::report::Measured;
use anyhow::Result;
use keylane_tests::rocketmq::{Broker, jars};

const SOURCES: [&str; 2] = [source!("Measure"), source!("RocketMq")];

pub async fn run(
    peer: Peer,
    mode: &str,
    broker: &Broker,
    topic: &str,
    load: &Load,
) -> Result<Measured> {
    let lib = tokio::task::spawn_blocking(jars).await??;
    let java = Java::compile(&lib, &SOURCES).await?;
    load::prepare(broker, topic, load).await?;
    let timed = load.rate.map_or(0, |_| load.messages);
    let mut command = java.command(&[], "RocketMq");
    command
        .args([mode, &broker.name_server(), topic, topic])
        .args([load.total(), timed, load.work_ms].map(|number| number.to_string()))
        .args([load.lanes, LIMIT_SECONDS].map(|number| number.to_string()));
    let started = async |_: u32| load::send(broker, topic, load, || Ok(())).await;
    measured(peer, &mut command, started).await
}
