//! What a process used: processor time and memory, as the kernel counts them.

use anyhow::{Context, Result};
use std::time::Duration;

/// The kernel counts processor time in hundredths of a second for programs that read it (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process so far, user and system.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} has ended"))?;
    // The second field is the program's name in parentheses and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<_, _>>().context("/proc/PID/stat")?;
    Ok(TICK * ticks)
}

/// Largest resident memory of a process so far, in MiB.
pub fn peak_memory(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} has ended"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = kib.context("/proc/PID/status names no VmHWM")?.parse()?;
    Ok(kib / 1024.0)
}
