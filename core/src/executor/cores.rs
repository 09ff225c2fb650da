//! How many cores are worth computing on.
//!
//! A pass is as fast as its slowest thread between two barriers, so a phone's small cores slow its big ones down. What counts as big
//! is read from the system where it says so; nothing is measured here.

/// A core at least this share as fast as the fastest takes part. Of a phone's three classes (prime, big, little) the first two do.
const FAST_ENOUGH: f64 = 0.6;

/// The cores that the process may use and that are fast enough; at least 1.
pub(super) fn performance_cores() -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let fast = if cfg!(any(target_os = "linux", target_os = "android")) {
        fast_cores(&linux_speeds())
    } else if cfg!(target_os = "macos") {
        macos_performance_cores()
    } else if cfg!(target_os = "ios") {
        // Apple's phones do not say; all of them have two fast cores and four slow ones.
        Some(2)
    } else {
        None
    };
    fast.unwrap_or(available).clamp(1, available)
}

/// How many of these speeds are near the largest; `None` where nothing is known.
fn fast_cores(speeds: &[f64]) -> Option<usize> {
    let fastest = speeds.iter().copied().fold(0.0, f64::max);
    (fastest > 0.0).then(|| speeds.iter().filter(|&&speed| speed >= FAST_ENOUGH * fastest).count())
}

/// Each core's capacity as the scheduler sees it, or else its highest frequency; empty where the kernel tells neither of every core.
fn linux_speeds() -> Vec<f64> {
    let read = |what: &str| -> Option<Vec<f64>> {
        let path = |core: usize| format!("/sys/devices/system/cpu/cpu{core}");
        let cores = (0..).take_while(|&core| std::path::Path::new(&path(core)).is_dir());
        cores.map(|core| std::fs::read_to_string(format!("{}/{what}", path(core))).ok()?.trim().parse().ok()).collect()
    };
    read("cpu_capacity").or_else(|| read("cpufreq/cpuinfo_max_freq")).unwrap_or_default()
}

fn macos_performance_cores() -> Option<usize> {
    let output = std::process::Command::new("sysctl").args(["-n", "hw.perflevel0.physicalcpu"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_cores_do_not_take_part() {
        let phone = [325.0, 325.0, 325.0, 325.0, 828.0, 828.0, 828.0, 1024.0];
        assert_eq!(fast_cores(&phone), Some(4));
        assert_eq!(fast_cores(&[1024.0; 8]), Some(8));
        assert_eq!(fast_cores(&[]), None);
        assert_eq!(fast_cores(&[0.0, 0.0]), None);
    }

    #[test]
    fn there_is_always_a_core() {
        let cores = performance_cores();
        assert!(cores >= 1 && cores <= std::thread::available_parallelism().map_or(1, usize::from));
    }
}
