//! How much memory this process holds, as the system counts it.

use std::fs;

/// Most memory that this process has held resident, in bytes, where Linux says it.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Makes [`peak`] count from now on, where Linux allows it: a process that does several things has a peak of each.
pub fn forget_peak() {
    // Where it is not allowed the peak stays that of the whole process, which is no less true.
    drop(fs::write("/proc/self/clear_refs", "5"));
}

/// Memory that this process holds resident now, in bytes, where Linux says it.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn status(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
