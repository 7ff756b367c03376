//! The rules of others, written anew from what they publish, each with the settings it is tried at. They
//! see what the real ones would see of the same group, and run a fixed number of lanes.

mod flink;
mod hpa;
mod keda;
mod numaflow;

use keylane_operator::simulate::Controller;

/// Lanes the peers run with, each setting with each.
pub const LANES: [u32; 2] = [8, 16];

/// One setting of one controller, and how to make it.
pub struct Setting {
    /// The controller.
    pub controller: &'static str,
    /// Its settings in words.
    pub name: String,
    /// Lanes at the start.
    pub lanes: u32,
    make: Box<dyn Fn(u32) -> Box<dyn Controller> + Send + Sync>,
}

impl Setting {
    fn new(
        controller: &'static str,
        name: String,
        lanes: u32,
        make: impl Fn(u32) -> Box<dyn Controller> + Send + Sync + 'static,
    ) -> Self {
        Self {
            controller,
            name: format!("{name} lanes={lanes}"),
            lanes,
            make: Box::new(make),
        }
    }

    /// A controller for a topic with so many queues.
    pub fn make(&self, queues: u32) -> Box<dyn Controller> {
        (self.make)(queues)
    }
}

/// The settings of a peer, given the lanes of a pod.
type Settings = fn(u32) -> Vec<Setting>;

/// Every setting of every peer whose name is asked for.
pub fn settings(wanted: &dyn Fn(&str) -> bool) -> Vec<Setting> {
    let all: [(&str, Settings); 4] = [
        ("keda", keda::settings),
        ("flink", flink::settings),
        ("numaflow", numaflow::settings),
        ("hpa", hpa::settings),
    ];
    let chosen = all.iter().filter(|(name, _)| wanted(name));
    chosen
        .flat_map(|(_, settings)| LANES.into_iter().flat_map(settings))
        .collect()
}
