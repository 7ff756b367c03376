//! Where runs take place, one after the other: on this machine, or on its cluster.

use crate::course::Course;
use crate::pieces::Pieces;
use crate::pods::Pods;
use crate::processes::Processes;
use crate::report::Teller;
use crate::run::{self, Load, Outcome};
use crate::schedule::Planned;
use crate::subject::Subject;
use anyhow::{Result, ensure};
use keylane_tests::cluster::{Cluster, Paths, Target};
use keylane_tests::stack::{self, Stack};
use tokio::task::spawn_blocking;

/// Where runs take place.
pub enum Stage {
    /// This machine.
    Machine,
    /// Its cluster, with the operator.
    Cluster {
        /// The cluster.
        cluster: Cluster,
        /// Where each run has its brokers and pods.
        namespace: String,
        /// Whether nobody else uses the operator.
        alone: bool,
    },
}

impl Stage {
    /// The cluster, with an operator that is installed, or that others use.
    pub async fn cluster(namespace: &str, alone: bool) -> Result<Self> {
        let target = Target::from_env();
        ensure!(
            target == Target::Local,
            "--cluster: processes and networks of pods are reached on this machine, which needs the local cluster; unset KEYLANE_TEST_CONTEXT"
        );
        let up = move || -> Result<Cluster> {
            match alone {
                true => Stack::operator(&target),
                false => Ok(target.up(&Paths::from_env())?),
            }
        };
        Ok(Self::Cluster {
            cluster: spawn_blocking(up).await??,
            namespace: namespace.to_owned(),
            alone,
        })
    }

    /// Lets a plan happen there.
    pub async fn play(
        &self,
        pieces: &Pieces,
        plan: &[Planned],
        load: Load,
        subject: &Subject,
        teller: &Teller,
    ) -> Result<Outcome> {
        let (length, size) = (pieces.length, (load.queues, pieces.members));
        match self {
            Self::Machine => {
                let (ground, recorder) = Processes::start(subject, size).await?;
                let course = Course::new(teller, recorder);
                run::run(plan, length, load, ground, course).await
            }
            Self::Cluster {
                cluster,
                namespace,
                alone,
            } => {
                let (cluster, namespace) = (cluster.clone(), namespace.clone());
                let stack = spawn_blocking(move || Stack::brokers(&cluster, &namespace)).await??;
                let (ground, recorder) = Pods::start(subject, &stack, size, *alone).await?;
                let course = Course::new(teller, recorder);
                run::run(plan, length, load, ground, course).await
            }
        }
    }

    /// Removes what it brought to a cluster.
    pub async fn clear(self) -> Result<()> {
        let Self::Cluster {
            cluster,
            namespace,
            alone,
        } = self
        else {
            return Ok(());
        };
        let remove = move || match alone {
            true => stack::remove(&cluster, &namespace),
            false => stack::remove_namespace(&cluster, &namespace),
        };
        spawn_blocking(remove).await?
    }
}
