//! A second broker at the name server of another.

use super::admin;
use super::broker::{
    Broker, PROBE_TOPIC, START_LIMIT, free_ports, start_broker, write_configuration,
};
use super::door::Door;
use super::error::{Result, RocketMqError};
use crate::processes::{Sweeper, Tied};
use crate::wait;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use tempfile::TempDir;

/// A broker of another name beside a [`Broker`], for topics with queues on both. It ends when this is
/// dropped, and when this process ends in any way.
#[derive(Debug)]
pub struct Second {
    // Dropped in this order: the process before its directory.
    broker: Tied,
    _sweeper: Sweeper,
    dir: TempDir,
    lib: PathBuf,
    name: String,
    name_server: String,
    port: u16,
}

impl Broker {
    /// Starts a broker of this name at the same name server; it serves when this returns. Topics that are
    /// there already get queues on it when they are created again.
    pub async fn beside(&self, name: &str) -> Result<Second> {
        let temp = std::env::temp_dir();
        let dir = tempfile::Builder::new()
            .prefix("keylane-rocketmq-")
            .tempdir()
            .map_err(RocketMqError::io("create a directory in", &temp))?;
        let sweeper = Sweeper::of(dir.path())?;
        let [_, port] = free_ports()?;
        let name_server = self.name_server();
        // Of two lines with the same name the last counts.
        let named = [("brokerName", name)];
        write_configuration(dir.path(), Ipv4Addr::LOCALHOST, [0, port], &named)?;
        let second = Second {
            broker: start_broker(self.lib(), dir.path(), &name_server, &[])?,
            _sweeper: sweeper,
            dir,
            lib: self.lib().to_path_buf(),
            name: name.to_owned(),
            name_server,
            port,
        };
        second.serves().await?;
        Ok(second)
    }
}

impl Second {
    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.broker.kill();
    }

    /// Starts it again after [`Second::kill`]; returns when it serves. Its queue locks and its list of
    /// members are gone.
    pub async fn restart(&mut self) -> Result<()> {
        self.broker.kill();
        self.broker = start_broker(&self.lib, self.dir.path(), &self.name_server, &[])?;
        self.serves().await
    }

    async fn serves(&self) -> Result<()> {
        let address = format!("127.0.0.1:{}", self.port);
        let what = format!("{} serving", self.name);
        wait::until(START_LIMIT, what, async || {
            // Creating a topic makes the broker register.
            admin::create_on(&Door::default(), &address, PROBE_TOPIC, 1)
                .await
                .map_err(|error| error.to_string())?;
            let masters = admin::masters(&Door::default(), &self.name_server, PROBE_TOPIC)
                .await
                .map_err(|error| error.to_string())?;
            let known = masters.iter().any(|master| master.broker == self.name);
            known.then_some(()).ok_or(format!("known: {masters:?}"))
        })
        .await?;
        Ok(())
    }
}
