//! Reads small files, links and names of sysfs and procfs, cleaned for a report. Touches files for reading only.

use std::fs;
use std::path::Path;

use common::limits::{REPORT_STRING_MAX, cut};
use common::text::harmless;

/// `text` cleaned for a report: one line, without control characters, trimmed, cut to the bound.
#[must_use]
pub(super) fn tidy(text: &str) -> String {
    cut(harmless(text).trim(), REPORT_STRING_MAX).trim_end().to_owned()
}

/// The text of the file `path`, tidied; empty when there is none. sysfs files are at most a page.
pub(super) fn text(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| tidy(&String::from_utf8_lossy(&bytes[..bytes.len().min(4096)])))
        .unwrap_or_default()
}

/// The number in the file `path`; none when there is no such file or no number in it.
pub(super) fn number(path: &Path) -> Option<u64> {
    text(path).parse().ok()
}

/// The names in the folder `path`, sorted; none when it is not there.
pub(super) fn names_in(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The last part of the target of the link `path`; empty when it is not a link.
pub(super) fn link_name(path: &Path) -> String {
    let target = fs::read_link(path).unwrap_or_default();
    target.file_name().map(|name| tidy(&name.to_string_lossy())).unwrap_or_default()
}
