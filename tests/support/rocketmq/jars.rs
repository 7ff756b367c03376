//! What RocketMQ's servers, tools and client consist of.

use std::path::PathBuf;

use super::error::Result;
use crate::jars::Jars;

/// The version everything here was tried with.
pub const VERSION: &str = "5.3.3";

const JARS: Jars = Jars {
    name: "RocketMQ",
    version: VERSION,
    pom: include_str!("pom.xml"),
    parts: &[
        "rocketmq-namesrv-5.3.3.jar",
        "rocketmq-broker-5.3.3.jar",
        "rocketmq-tools-5.3.3.jar",
        "rocketmq-client-5.3.3.jar",
    ],
};

/// The directory of RocketMQ's jars; see [`Jars::dir`].
pub fn jars() -> Result<PathBuf> {
    Ok(JARS.dir()?)
}
