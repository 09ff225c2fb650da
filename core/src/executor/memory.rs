//! How much memory the system can still give.
//!
//! Linux hands out memory it does not have and kills the process when it is used, so what is large is asked for here first.

use crate::error::{ErrorKind, Result};

/// Fails with `OutOfMemory` if `needed` bytes for `what` are more than what the system says it can give.
pub(crate) fn check_available(what: &'static str, needed: u64) -> Result<()> {
    match available_memory() {
        Some(available) if needed > available => {
            Err(ErrorKind::OutOfMemory { what, needed, available: Some(available) }.into())
        }
        _ => Ok(()),
    }
}

/// Bytes that can be allocated without swapping, where the system says so (Linux and Android).
pub(crate) fn available_memory() -> Option<u64> {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        parse_available(&std::fs::read_to_string("/proc/meminfo").ok()?)
    } else {
        None
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_kernel_is_read() {
        assert_eq!(parse_available("MemTotal: 8 kB\nMemAvailable:    4123 kB\n"), Some(4123 * 1024));
        assert_eq!(parse_available("MemTotal: 8 kB\n"), None);
        assert_eq!(parse_available("MemAvailable: lots kB"), None);
    }
}
