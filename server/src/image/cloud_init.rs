//! Core: whether cloud-init is in a root file system, and whether it would use a NoCloud partition: installers disable
//! it, or fix its list of datasources, in the system that an image was later made of.

use ext4_view::Ext4;

use crate::api::shapes::CloudInit;

/// Configuration files that have more bytes are not read.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// How many files of one folder are read.
const FILES_MAX: usize = 256;

/// Files that only a root file system has.
const ROOTS: [&str; 4] = ["/etc/os-release", "/usr/lib/os-release", "/etc/fstab", "/etc/passwd"];
const PROGRAMS: [&str; 3] = ["/usr/bin/cloud-init", "/bin/cloud-init", "/usr/local/bin/cloud-init"];
const UNITS: [&str; 3] = ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"];
const DISABLED: &str = "/etc/cloud/cloud-init.disabled";
const IDENTIFY: &str = "/etc/cloud/ds-identify.cfg";

/// What is known of cloud-init in this file system; `None` when it is no root file system.
pub(super) fn look(root: &Ext4) -> Option<CloudInit> {
    let there = |path: &str| root.exists(path).unwrap_or(false);
    if !ROOTS.iter().any(|path| there(path)) {
        return None;
    }
    let unit = |folder: &&str| {
        names(root, folder).iter().any(|name| name.starts_with("cloud-init") && name.ends_with(".service"))
    };
    if !PROGRAMS.iter().any(|path| there(path)) && !UNITS.iter().any(unit) {
        return Some(CloudInit::No);
    }
    if there(DISABLED) {
        return Some(CloudInit::Disabled { file: DISABLED.to_owned() });
    }
    let identify = read(root, IDENTIFY).unwrap_or_default();
    if identify
        .lines()
        .any(|line| line.split('#').next().unwrap_or_default().replace(' ', "") == "policy:disabled")
    {
        return Some(CloudInit::Disabled { file: IDENTIFY.to_owned() });
    }
    // Later files win, in the order of their names: the last one with a list counts.
    let mut files = names(root, "/etc/cloud/cloud.cfg.d");
    files.retain(|name| name.ends_with(".cfg"));
    files.sort();
    let files = std::iter::once("/etc/cloud/cloud.cfg".to_owned())
        .chain(files.into_iter().map(|name| format!("/etc/cloud/cloud.cfg.d/{name}")));
    let last = files.filter_map(|file| Some((sources(&read(root, &file)?)?, file))).next_back();
    match last {
        Some((sources, file)) if !sources.iter().any(|source| source == "NoCloud") => {
            Some(CloudInit::Elsewhere { file, sources })
        }
        _ => Some(CloudInit::Yes),
    }
}

fn read(root: &Ext4, path: &str) -> Option<String> {
    let small = root.metadata(path).is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX);
    if !small {
        return None;
    }
    root.read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn names(root: &Ext4, folder: &str) -> Vec<String> {
    let Ok(entries) = root.read_dir(folder) else { return vec![] };
    let names =
        entries.map_while(Result::ok).filter_map(|entry| Some(entry.file_name().as_str().ok()?.to_owned()));
    names.take(FILES_MAX * 8).collect()
}

/// The `datasource_list` of a configuration file, if it has one: in brackets, possibly over several lines, or one name
/// a line after a dash.
fn sources(text: &str) -> Option<Vec<String>> {
    let bare = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("datasource_list:"));
    let first = bare(lines.next()?.strip_prefix("datasource_list:")?);
    let mut words = first.clone();
    if first.starts_with('[') {
        for line in lines {
            if words.contains(']') {
                break;
            }
            words.push_str(&bare(line));
        }
    } else if first.is_empty() {
        let items = lines
            .map(bare)
            .filter(|line| !line.is_empty())
            .map_while(|line| Some(line.strip_prefix('-')?.to_owned()));
        words = items.collect::<Vec<_>>().join(",");
    }
    let inner = words.split(']').next().unwrap_or_default().trim_start_matches('[');
    let names = inner.split(',').map(|name| name.trim().trim_matches(['"', '\'']).to_owned());
    Some(names.filter(|name| !name.is_empty()).take(32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_cloud_init_looks() {
        let table: [(&str, Option<&[&str]>); 8] = [
            ("", None),
            ("users: []\n# datasource_list: [ Ec2 ]\n", None),
            ("datasource_list: [None]\n", Some(&["None"])),
            (
                "a: b\ndatasource_list: [ NoCloud, 'ConfigDrive', \"None\" ] # here\nc: [x]\n",
                Some(&["NoCloud", "ConfigDrive", "None"]),
            ),
            ("datasource_list: [ Ec2,\n  None ]\nc: [x]\n", Some(&["Ec2", "None"])),
            ("datasource_list:\n  - Azure\n\n- None\nother: 1\n", Some(&["Azure", "None"])),
            ("datasource_list:\nother: 1\n", Some(&[])),
            ("datasource_list: [", Some(&[])),
        ];
        for (text, wanted) in table {
            let wanted: Option<Vec<String>> =
                wanted.map(|names| names.iter().map(ToString::to_string).collect());
            assert_eq!(sources(text), wanted, "{text:?}");
        }
    }
}
