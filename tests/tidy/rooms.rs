//! No import from a lower room to a higher one. Owns the order of the rooms, one list for each crate; a room may import
//! those below it.

use super::modules::{Import, imports};
use super::{Finding, files, none, shown};

/// Each crate's rooms, the highest first: folders or files right under `src`; a folder in one may be a room too.
const ROOMS: [(&str, &[&str]); 3] = [
    (
        "server",
        &[
            "cli",
            "relay",
            "serve",
            "backup",
            "doctor",
            "mistakes",
            "config",
            "provision",
            "records",
            "api",
            "http",
            "dhcp4",
            "boot",
            "subscribers",
            "fleet",
            "tailor",
            "kit",
            "image",
            "swarm",
            "peers",
            "metrics",
            "api/shapes",
            "traffic",
            "dashboard",
            "docs",
            "toml_text",
            "magic",
            "whole_file",
            "noise",
            "fault",
            "units",
        ],
    ),
    ("agent", &["steps", "hooks", "disk", "swarm", "boot_files", "boot", "outbox", "fetch", "inspect"]),
    (
        "common",
        &[
            "swarm",
            "line",
            "schema",
            "wire",
            "hooks",
            "plan",
            "step",
            "manifest",
            "table",
            "deltas",
            "chunk",
            "modules",
            "hardware",
            "disks",
            "filesystem",
            "user_data",
            "trust",
            "id",
            "text",
            "causes",
            "list",
            "limits",
        ],
    ),
];

/// The room of a file, and its place in the order of its crate; the crate's root file has none.
fn room(file: &str) -> Option<(&'static str, String, Option<usize>)> {
    let (krate, rooms) = ROOMS.iter().find(|(krate, _)| file.starts_with(&format!("{krate}/src/")))?;
    let path = file.strip_prefix(&format!("{krate}/src/"))?.trim_end_matches(".rs");
    let own = path.split('/').next().unwrap_or_default();
    if own == "lib" {
        return None;
    }
    // The longest name that matches counts: `api/shapes` before `api`.
    let is_in = |room: &&&str| path == **room || path.starts_with(&format!("{room}/"));
    let found = rooms.iter().filter(is_in).max_by_key(|room| room.len());
    let at = found.and_then(|found| rooms.iter().position(|room| room == found));
    Some((krate, found.map_or_else(|| own.to_owned(), |found| (*found).to_owned()), at))
}

fn upward(imports: &[Import]) -> Vec<Finding> {
    let climbs = |import: &Import| {
        let ((krate, from, low), (_, to, high)) = (room(&import.from)?, room(&import.to)?);
        let text = match (low, high) {
            _ if from == to => return None,
            (Some(low), Some(high)) if low < high => return None,
            (Some(_), Some(_)) => format!(
                "`{}`: the room {to} stands above {from}: let {to} pass it in, move it down, or put a trait into {from}",
                import.path
            ),
            (None, _) => {
                format!("the room {from} of {krate} is not in ROOMS: give it a place in tests/tidy/rooms.rs")
            }
            (_, None) => {
                format!("the room {to} of {krate} is not in ROOMS: give it a place in tests/tidy/rooms.rs")
            }
        };
        let key = format!("{} -> {}", import.from, import.to);
        Some(Finding { file: import.from.clone(), line: import.line, key, text })
    };
    imports.iter().filter_map(climbs).collect()
}

#[test]
fn no_room_uses_a_higher_one() {
    none(&shown(upward(&imports(&files()))));
}

#[test]
fn the_way_up_is_found() {
    let import = |from: &str, to: &str| Import {
        from: from.to_owned(),
        line: 7,
        to: to.to_owned(),
        path: "crate::x".to_owned(),
    };
    assert!(upward(&[import("server/src/cli/mod.rs", "server/src/fleet/job.rs")]).is_empty());
    assert!(upward(&[import("server/src/fleet/mod.rs", "server/src/fleet/job.rs")]).is_empty());
    assert!(
        upward(&[import("server/src/http/mod.rs", "server/src/api/shapes.rs")]).is_empty(),
        "a room in a room"
    );
    assert!(upward(&[import("server/src/api/shapes/a.rs", "server/src/http/mod.rs")]).len() == 1);
    let found = upward(&[import("server/src/fleet/job.rs", "server/src/cli/mod.rs")]);
    assert_eq!(found[0].key, "server/src/fleet/job.rs -> server/src/cli/mod.rs");
    assert!(found[0].text.contains("the room cli stands above fleet"), "{found:?}");
    let found = upward(&[import("server/src/unheard_of.rs", "server/src/cli/mod.rs")]);
    assert!(found[0].text.contains("unheard_of of server is not in ROOMS"), "{found:?}");
}
