//! Core: which subvolume of a btrfs is the root, where its default one holds no system: installers put the root into one
//! and name it on the kernel's command line. Touches nothing.

use super::error::HookError;

/// The inode number of the top of every subvolume.
pub(super) const SUBVOLUME_INODE: u64 = 256;

/// What installers call the subvolume with the root: Ubuntu and openSUSE, Debian, Fedora.
const USUAL: [&str; 3] = ["@", "@rootfs", "root"];

/// The one of `found`, the subvolumes with a system, that is the root; none when there is none. Where there are several,
/// as beside snapshots, the only one with a usual name.
///
/// # Errors
/// When several could be meant.
pub(super) fn root_subvolume(mut found: Vec<String>) -> Result<Option<String>, HookError> {
    found.sort();
    let usual: Vec<&String> = found.iter().filter(|name| USUAL.contains(&name.as_str())).collect();
    match (found.as_slice(), usual.as_slice()) {
        ([], _) => Ok(None),
        ([one], _) => Ok(Some(one.clone())),
        (_, [one]) => Ok(Some((*one).clone())),
        (several, _) => Err(HookError::SeveralSystems(several.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_only_system_or_the_one_with_a_usual_name() {
        let chosen = |found: &[&str]| {
            root_subvolume(found.iter().map(|&name| name.to_owned()).collect()).map_err(|e| e.to_string())
        };
        for (found, wanted) in [
            (&[][..], None),
            (&["@"], Some("@")),
            (&["main,1"], Some("main,1")),
            (&["@.before", "@", "@2"], Some("@")),
            (&["snapshot", "@rootfs"], Some("@rootfs")),
            (&["root", "root.old"], Some("root")),
        ] {
            assert_eq!(chosen(found).unwrap().as_deref(), wanted, "{found:?}");
        }
        for found in [&["b", "a"][..], &["@", "root"]] {
            let said = chosen(found).unwrap_err();
            assert!(said.contains(found[1]) && said.contains("set-default"), "{said}");
        }
    }
}
