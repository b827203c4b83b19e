//! Core: what an initramfs of the loader says of the boot kit that it was made of, its `/lib/kit.json`: which agent is
//! in it, and which files of the kit are not, each with the hash by which the loader fetches it. Owns that format.
//! Touches `id`.
//!
//! The loader believes these hashes as it believes the modules beside them: both came in the same file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Hash;

/// Where an initramfs has it, from its root.
pub const LOADER_KIT: &str = "lib/kit.json";

/// The path in a small initramfs of the program that is both loader and agent.
pub const INIT: &str = "init";

/// The length and hash of a file of the kit that the initramfs does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Its length in bytes, uncompressed.
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes, uncompressed; the server sends it under this name.
    pub hash: Hash,
}

/// What an initramfs of the loader says of its boot kit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderKit {
    /// The hash of the kit's index of modules. A server whose kit has the same index need not send this machine any
    /// modules with its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drivers: Option<Hash>,
    /// The hash of the bundle whose agent is this initramfs's [`INIT`]; none where that is the loader alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Hash>,
    /// The modules and firmware that are not in the initramfs, by their paths from its root.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub remote: BTreeMap<String, RemoteFile>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let file = RemoteFile { bytes: 7, hash: Hash::of(b"module") };
        let kit = LoaderKit {
            drivers: Some(Hash::of(b"index")),
            agent: Some(Hash::of(b"bundle")),
            remote: BTreeMap::from([("lib/modules/kernel/a.ko".to_owned(), file)]),
        };
        let text = serde_json::to_string(&kit).unwrap();
        assert_eq!(serde_json::from_str::<LoaderKit>(&text).unwrap(), kit);
        assert_eq!(serde_json::from_str::<LoaderKit>("{}").unwrap(), LoaderKit::default());
        assert!(serde_json::from_str::<LoaderKit>(r#"{"agents":null}"#).is_err());
    }
}
