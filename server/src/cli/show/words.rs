//! Core: the text of cells and lines of an answer. Touches `api` and `common`.

use common::step::Sources;
use common::text::{bytes, percent};

use crate::api::shapes::{ImageShown, JobShown, LogEvent, MachineShown, StagedAt};
use crate::toml_text::{Mistake, Severity};

/// How many bytes the server sent, and how many copies of `wire` bytes that is.
#[must_use]
pub(in crate::cli) fn sent_copies(sent: u64, wire: u64) -> String {
    let hundredths = u128::from(sent) * 100 / u128::from(wire.max(1));
    format!("the server sent {} = {}.{:02} copies", bytes(sent), hundredths / 100, hundredths % 100)
}

/// A mistake as compilers write it, so that editors find the place.
#[must_use]
pub(in crate::cli) fn mistake_line(name: &str, mistake: &Mistake) -> String {
    let place = match (mistake.line, mistake.column) {
        (Some(line), Some(column)) => format!("{name}:{line}:{column}"),
        _ => name.to_owned(),
    };
    let severity = match mistake.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let hint = mistake.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{place}: {severity}: {}{hint}", mistake.text)
}

/// The state of a machine, with what an admin has said of it.
#[must_use]
pub(super) fn state_words(machine: &MachineShown) -> String {
    let held = if machine.held { ", held" } else { "" };
    let stays = if machine.stays { ", stays in the loader" } else { "" };
    format!("{}{held}{stays}", machine.state.name())
}

/// Where an image is staged, a line a relay.
pub(super) fn staged_lines(image: &ImageShown) -> Vec<String> {
    let of_site = |site: &str, relays: &[StagedAt]| -> Vec<String> {
        let line =
            |at: &StagedAt| format!("{} is staged at {site}: {} has {}", image.name, at.relay, has(at));
        relays.iter().map(line).collect()
    };
    image.staged.iter().flat_map(|staged| of_site(&staged.site, &staged.relays)).collect()
}

/// How much a relay has of an image, and what keeps it from going on.
pub(in crate::cli) fn has(at: &StagedAt) -> String {
    let held = at.chunks.map_or_else(
        || "nothing yet".to_owned(),
        |(held, total)| format!("{}%", percent(held.into(), total.into())),
    );
    at.trouble.iter().fold(held, |held, trouble| format!("{held}: {trouble}"))
}

/// `text`, or a dash where it is empty, so that no cell of a table is blank.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Maker, product, threads, memory and firmware of a machine; a dash without a hardware report.
pub(super) fn hardware(machine: &MachineShown) -> String {
    let Some(hardware) = &machine.hardware else { return "-".to_owned() };
    let made = format!("{} {}", hardware.system.manufacturer, hardware.system.product);
    let firmware = serde_json::to_value(hardware.firmware).unwrap_or_default();
    format!(
        "{}, {} threads, {}, {}",
        or_dash(made.trim()),
        hardware.cpu.threads,
        bytes(hardware.memory_bytes),
        firmware.as_str().unwrap_or("?")
    )
}

/// The disks of a machine, of which the first eight are named; a dash when none is known.
pub(super) fn disks(machine: &MachineShown) -> String {
    let all = machine.hardware.iter().flat_map(|hardware| &hardware.disks);
    let shown = all.clone().take(DISKS_SHOWN).map(|disk| format!("{} {}", disk.name, bytes(disk.size)));
    let mut words: Vec<String> = shown.collect();
    let more = all.count().saturating_sub(DISKS_SHOWN);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    or_dash(&words.join(", ")).to_owned()
}

/// How many disks a line of the list names: a machine with 4,096 once made a line of 60,441 characters.
const DISKS_SHOWN: usize = 8;

/// The step that a job is at, and how much of it is done; before the first what it waits for, or a dash.
#[must_use]
pub(in crate::cli) fn step_words(job: &JobShown) -> String {
    if let Some(waits) = &job.waits {
        return format!("waits: {waits}");
    }
    match &job.step {
        Some(step) if job.total > 0 && !job.state.is_over() => {
            format!("{step} {}%", percent(job.done, job.total))
        }
        Some(step) => step.to_string(),
        None => "-".to_owned(),
    }
}

/// A job's image, state and step, and why it failed.
pub(super) fn job_line(job: &JobShown) -> String {
    let cause = job.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{} {} {}{cause}", job.image, job.state.name(), step_words(job))
}

/// A time for people, in UTC to the second.
pub(in crate::cli) fn when(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// An event as one line of the log.
#[must_use]
pub(super) fn event_line(event: &LogEvent) -> String {
    let attempt =
        event.attempt.filter(|&attempt| attempt > 1).map(|n| format!(" (try {n})")).unwrap_or_default();
    let sources = event.sources.as_ref().map(sources_words).unwrap_or_default();
    format!(
        "{}  {:<17} {:<12} {}{attempt}{sources}",
        event.at.strftime("%Y-%m-%d %H:%M:%S%.3fZ"),
        event.name,
        event.step,
        event.what.in_log()
    )
}

fn sources_words(sources: &Sources) -> String {
    format!(
        " [server {}, peers {}, on disk {}, not sent {}, to peers {}]",
        bytes(sources.server),
        bytes(sources.peers),
        bytes(sources.disk),
        bytes(sources.unsent),
        bytes(sources.uploaded)
    )
}
