//! Cuts in the network of one pod, by packet filters in its own network namespace: they go with the pod,
//! whatever becomes of the harness.

use super::containers::Processes;
use anyhow::Result;
use keylane_tests::cluster::run;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Ports of name server and broker; clients may use the broker's second one.
const SERVERS: [u16; 3] = [9876, 10911, 10909];

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections to broker and name server are closed and refused.
    Servers,
    /// Nothing passes between the pod and broker or name server.
    Silence,
    /// Connections to a port of the pod itself are closed and refused.
    Within(u16),
}

impl Cut {
    /// The filters, as `iptables-restore` takes them; none let everything pass.
    fn rules(cut: Option<Self>) -> String {
        // What refuses a connection must itself get out, or the other end never learns of it.
        const RESET: &str = "REJECT --reject-with tcp-reset";
        const BUT_RESETS: &str = " ! --tcp-flags RST RST";
        let (ports, but, verdict): (&[u16], &str, &str) = match &cut {
            None => (&[], "", ""),
            Some(Self::Servers) => (&SERVERS, BUT_RESETS, RESET),
            Some(Self::Silence) => (&SERVERS, "", "DROP"),
            Some(Self::Within(port)) => (std::slice::from_ref(port), BUT_RESETS, RESET),
        };
        let within = matches!(cut, Some(Self::Within(_)));
        let back = if within { "OUTPUT" } else { "INPUT" };
        let mut rules =
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
                .to_owned();
        for port in ports {
            // Writing to a string does not fail.
            let _ = writeln!(rules, "-A OUTPUT -p tcp --dport {port}{but} -j {verdict}");
            let _ = writeln!(rules, "-A {back} -p tcp --sport {port}{but} -j {verdict}");
        }
        rules + "COMMIT\n"
    }
}

/// The network of a pod.
pub struct Network(File);

impl Network {
    /// The one that these processes are in.
    pub fn of(processes: &Processes) -> Result<Self> {
        Ok(Self(processes.network()?))
    }

    /// Cuts it, or lets everything pass. Blocks for a moment.
    pub fn set(&self, cut: Option<Cut>) -> Result<()> {
        let mut restore = run::command("nsenter");
        let own = std::process::id();
        restore.arg(format!("--net=/proc/{own}/fd/{}", self.0.as_raw_fd()));
        restore.args(["iptables-restore", "--wait"]);
        run::feed(
            "setting the packet filters of a pod",
            &mut restore,
            &Cut::rules(cut),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_cut_to_each_server_and_nothing_else() {
        let filters = |cut| {
            let rules = Cut::rules(cut);
            assert!(rules.starts_with("*filter\n:INPUT ACCEPT") && rules.ends_with("COMMIT\n"));
            let lines = rules.lines().filter(|line| line.starts_with("-A"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(filters(None), [""; 0]);
        let silence = filters(Some(Cut::Silence));
        assert_eq!(silence.len(), 2 * SERVERS.len());
        assert_eq!(silence[0], "-A OUTPUT -p tcp --dport 9876 -j DROP");
        assert_eq!(silence[1], "-A INPUT -p tcp --sport 9876 -j DROP");
        let refused = filters(Some(Cut::Within(80)));
        let reset = "REJECT --reject-with tcp-reset";
        let but = "! --tcp-flags RST RST";
        assert_eq!(
            refused,
            [
                format!("-A OUTPUT -p tcp --dport 80 {but} -j {reset}"),
                format!("-A OUTPUT -p tcp --sport 80 {but} -j {reset}"),
            ]
        );
    }
}
