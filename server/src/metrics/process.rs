//! Memory, processor and files of this process, under the names that all of Prometheus' clients use. Touches `/proc`.

use super::reading::Reading;

/// What the kernel says of this process. What it does not say is left out.
#[must_use]
pub fn process() -> Vec<Reading> {
    let mut readings = vec![];
    let mut add = |name, about, value: Option<f64>| {
        readings.extend(value.map(|value| Reading::gauge(name, about).is(value)));
    };
    let page = page_bytes();
    let memory = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = memory.and_then(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
    add("process_resident_memory_bytes", "Resident memory", resident.map(|pages| pages * page));
    let open = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    add("process_open_fds", "Open files", open.map(as_f64));
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok();
    add("process_max_fds", "The limit on open files", limit.map(|(soft, _)| amount(soft)));
    let stat = std::fs::read_to_string("/proc/self/stat").ok();
    let times = stat.as_deref().and_then(times);
    let booted = std::fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
    let started = times.zip(booted).map(|((_, started), booted)| booted + started);
    add("process_start_time_seconds", "When the process started, since 1970", started);
    readings.extend(times.map(|(used, _)| {
        Reading::counter("process_cpu_seconds", "Processor time, of user and system").is(used)
    }));
    readings
}

/// Whole numbers as the library takes them; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(super) fn amount(value: u64) -> f64 {
    value as f64
}

fn as_f64(value: usize) -> f64 {
    amount(value as u64)
}

/// Processor time used, and the start after boot, both in seconds, from `/proc/self/stat`: fields 14, 15 and 22, counted
/// from the end of the name, which may hold spaces and brackets.
fn times(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = |skip: usize| fields.nth(skip)?.parse::<f64>().ok();
    let (user, system, started) = (ticks(0)?, ticks(0)?, ticks(6)?);
    let second = ticks_a_second();
    Some(((user + system) / second, started / second))
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// A page of memory: 4 KiB on every processor that this runs on.
fn page_bytes() -> f64 {
    4096.0
}

/// The kernel's unit of processor time for user space, which is the same everywhere.
fn ticks_a_second() -> f64 {
    100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 12300 1000 200";
        assert_eq!(times(stat), Some((3.0, 123.0)));
        assert_eq!(times("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_is_described() {
        let text = crate::metrics::Metrics::new().text(process());
        for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total "] {
            assert!(text.contains(name), "{name} is not in {text}");
        }
    }
}
