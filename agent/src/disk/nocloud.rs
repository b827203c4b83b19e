//! Core: the files that cloud-init reads from its NoCloud partition, and the FAT file system with them, in memory.
//!
//! All files of ours are JSON, which is YAML, so no text of an admin can break out of its string. The SSH keys and the
//! call home go into meta-data and vendor-data: user-data is the admin's alone, byte for byte, and wins where both say
//! something. The call home is a script among vendor-data's parts, because a list such as `runcmd` would be replaced by
//! one in user-data, and because `phone_home` cannot say which disk it comes from; `phone_home` is given as well, for
//! images in which scripts do not run.
//!
//! network-config names the card that the machine booted from: without one cloud-init takes the first card with a link,
//! which on a machine with several may reach nothing (metal3-io/baremetal-operator#183). It names no other card, as
//! cloud-init itself would not: a management controller's USB card answers DHCP, too. Touches `common`'s messages.

use std::io::{self, Cursor, Write as _};

use common::limits::USER_DATA_BYTES_MAX;
use common::wire::call_home::SeedMark;
use common::wire::swarm::Personality;
use serde_json::json;

/// The label by which cloud-init finds the file system.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// How often the installed OS tries to call home; cloud-init waits a little longer after each try.
const CALL_HOME_TRIES: u32 = 20;

/// The script that calls home, with placeholders for the URL and the volume serial number.
const CALL_HOME: &str = include_str!("call_home.sh");

/// Why the file system for cloud-init cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NoCloudError {
    /// The user-data is longer than an order may carry; its length in bytes.
    #[error("user-data of {0} bytes, more than {USER_DATA_BYTES_MAX}")]
    UserData(usize),
    /// The FAT file system could not be made or filled.
    #[error("cannot make the file system for cloud-init")]
    FileSystem(#[source] io::Error),
}

/// The contents of the files of a NoCloud source.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    /// meta-data: instance id, host name and SSH keys.
    pub meta_data: String,
    /// user-data: the admin's, byte for byte, or an empty cloud-config.
    pub user_data: Vec<u8>,
    /// vendor-data: host name, and the call home if the order waits for one.
    pub vendor_data: String,
    /// network-config: the card that the machine booted from; none where that is not known.
    pub network_config: Option<String>,
}

impl std::fmt::Debug for Files {
    // They hold the same secrets as `Personality`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// The files for `personality`.
///
/// # Errors
/// When the user-data is longer than an order may carry.
pub fn files(personality: &Personality) -> Result<Files, NoCloudError> {
    let given = personality.user_data.as_ref();
    let user_data = given.map_or_else(|| b"#cloud-config\n{}\n".to_vec(), |given| given.0.clone());
    if user_data.len() > USER_DATA_BYTES_MAX {
        return Err(NoCloudError::UserData(user_data.len()));
    }
    let mut meta = json!({
        "instance-id": personality.instance_id,
        "local-hostname": personality.hostname,
    });
    if !personality.ssh_keys.is_empty() {
        meta["public-keys"] = json!(personality.ssh_keys);
    }
    Ok(Files {
        meta_data: format!("{meta:#}\n"),
        user_data,
        vendor_data: vendor_data(personality),
        network_config: network_config(personality),
    })
}

/// vendor-data: a cloud-config, and the script that calls home if there is a URL for it.
fn vendor_data(personality: &Personality) -> String {
    let mut config = json!({ "hostname": personality.hostname, "preserve_hostname": false });
    let Some(url) = &personality.confirm_url else { return format!("#cloud-config\n{config:#}\n") };
    config["phone_home"] =
        json!({ "url": url, "post": ["hostname", "instance_id"], "tries": CALL_HOME_TRIES });
    // A JSON string is also a string of Python.
    let script = CALL_HOME
        .replace("@URL@", &json!(url).to_string())
        .replace("@MARK@", &personality.seed_mark.0.to_string());
    let parts = json!([
        { "type": "text/cloud-config", "content": format!("#cloud-config\n{config}\n") },
        { "type": "text/x-shellscript", "filename": "swarmboot-call-home", "content": script },
    ]);
    format!("#cloud-config-archive\n{parts:#}\n")
}

fn network_config(personality: &Personality) -> Option<String> {
    let mac = personality.boot_mac?.to_string();
    let card = json!({ "match": { "macaddress": mac }, "dhcp4": true });
    Some(format!("{:#}\n", json!({ "version": 2, "ethernets": { "boot": card } })))
}

/// A FAT file system of `bytes` bytes with `files` and the volume serial number `mark`, for a disk with sectors of
/// `sector_bytes`: the kernel mounts no FAT whose sectors are smaller than the disk's.
///
/// # Errors
/// When it does not fit.
pub fn file_system(
    files: &Files,
    bytes: usize,
    sector_bytes: u32,
    mark: SeedMark,
) -> Result<Vec<u8>, NoCloudError> {
    let sector = u16::try_from(sector_bytes).unwrap_or(512);
    let mut image = Cursor::new(vec![0; bytes]);
    let options = fatfs::FormatVolumeOptions::new()
        .bytes_per_sector(sector)
        .bytes_per_cluster(u32::from(sector))
        .volume_id(mark.0)
        .volume_label(LABEL);
    fatfs::format_volume(&mut image, options).map_err(NoCloudError::FileSystem)?;
    fill(&mut image, files).map_err(NoCloudError::FileSystem)?;
    Ok(image.into_inner())
}

fn fill(image: &mut Cursor<Vec<u8>>, files: &Files) -> io::Result<()> {
    image.set_position(0);
    let file_system = fatfs::FileSystem::new(image, fatfs::FsOptions::new())?;
    {
        let root = file_system.root_dir();
        let named = [
            ("meta-data", Some(files.meta_data.as_bytes())),
            ("user-data", Some(&files.user_data)),
            ("vendor-data", Some(files.vendor_data.as_bytes())),
            ("network-config", files.network_config.as_deref().map(str::as_bytes)),
        ];
        for (name, bytes) in named.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
            let mut file = root.create_file(name)?;
            file.write_all(bytes)?;
            file.flush()?;
        }
    }
    file_system.unmount()
}

#[cfg(test)]
mod tests;
