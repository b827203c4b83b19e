//! Core: what cloud-init finds in its NoCloud partition, and the FAT file system that holds it, in memory.
//!
//! Everything of ours is JSON, which is YAML, so no text of an admin can break out of its place. The SSH keys
//! and the call home go into meta-data and vendor-data: user-data is the admin's alone, byte for byte, and wins
//! where both say something. There is no network-config: the image's default (DHCP) stays.

use std::io::{self, Cursor, Write as _};

use common::limits::USER_DATA_BYTES_MAX;
use common::wire::swarm::Personality;
use serde_json::json;

/// The label by which cloud-init finds the file system.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// How often the installed OS tries to call home. cloud-init waits a little longer after each try.
const CALL_HOME_TRIES: u32 = 20;

/// Why there is nothing for cloud-init.
#[derive(Debug, thiserror::Error)]
pub enum NoCloudError {
    /// More than an order may carry.
    #[error("user-data of {0} bytes, more than {USER_DATA_BYTES_MAX}")]
    UserData(usize),
    /// The file system could not be made.
    #[error("cannot make the file system for cloud-init")]
    FileSystem(#[source] io::Error),
}

/// The three files of a NoCloud source.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    /// Name and keys.
    pub meta_data: String,
    /// The admin's.
    pub user_data: String,
    /// Ours: the call home.
    pub vendor_data: String,
}

impl std::fmt::Debug for Files {
    // They hold what the `Personality` does not show either.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// The files for `personality`.
///
/// # Errors
/// When the user-data is longer than an order may carry.
pub fn files(personality: &Personality) -> Result<Files, NoCloudError> {
    let user_data = personality.user_data.clone().unwrap_or_else(|| "#cloud-config\n{}\n".to_owned());
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
    let mut vendor = json!({ "hostname": personality.hostname, "preserve_hostname": false });
    if let Some(url) = &personality.confirm_url {
        vendor["phone_home"] =
            json!({ "url": url, "post": ["hostname", "instance_id"], "tries": CALL_HOME_TRIES });
    }
    Ok(Files {
        meta_data: format!("{meta:#}\n"),
        user_data,
        vendor_data: format!("#cloud-config\n{vendor:#}\n"),
    })
}

/// A FAT file system of `bytes` bytes with `files`, for a disk with sectors of `sector_bytes`: the kernel
/// mounts no FAT whose sectors are smaller than the disk's.
///
/// # Errors
/// When it does not fit.
pub fn file_system(files: &Files, bytes: usize, sector_bytes: u32) -> Result<Vec<u8>, NoCloudError> {
    let sector = u16::try_from(sector_bytes).unwrap_or(512);
    let mut image = Cursor::new(vec![0; bytes]);
    let options = fatfs::FormatVolumeOptions::new()
        .bytes_per_sector(sector)
        .bytes_per_cluster(u32::from(sector))
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
            ("meta-data", &files.meta_data),
            ("user-data", &files.user_data),
            ("vendor-data", &files.vendor_data),
        ];
        for (name, text) in named {
            let mut file = root.create_file(name)?;
            file.write_all(text.as_bytes())?;
            file.flush()?;
        }
    }
    file_system.unmount()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    fn personality() -> Personality {
        Personality {
            hostname: "rack1-01".to_owned(),
            ssh_keys: vec!["ssh-ed25519 AAAA someone@\"quoted\"".to_owned()],
            user_data: None,
            instance_id: "j12-1".to_owned(),
            confirm_url: Some("http://10.0.0.1:8069/v1/confirm/abc".to_owned()),
        }
    }

    fn json_of(text: &str) -> serde_json::Value {
        serde_json::from_str(text.trim_start_matches("#cloud-config\n")).unwrap()
    }

    #[test]
    fn what_cloud_init_is_told() {
        let told = files(&personality()).unwrap();
        assert_eq!(
            json_of(&told.meta_data),
            json!({
                "instance-id": "j12-1",
                "local-hostname": "rack1-01",
                "public-keys": ["ssh-ed25519 AAAA someone@\"quoted\""],
            })
        );
        assert_eq!(told.user_data, "#cloud-config\n{}\n");
        assert!(told.vendor_data.starts_with("#cloud-config\n{"));
        assert_eq!(
            json_of(&told.vendor_data)["phone_home"],
            json!({
                "url": "http://10.0.0.1:8069/v1/confirm/abc",
                "post": ["hostname", "instance_id"],
                "tries": 20,
            })
        );
    }

    #[test]
    fn user_data_is_the_admins_byte_for_byte_and_bounded() {
        let own = "#!/bin/sh\necho 'hello'\n";
        let mut person = Personality { user_data: Some(own.to_owned()), ..personality() };
        person.ssh_keys.clear();
        person.confirm_url = None;
        let told = files(&person).unwrap();
        assert_eq!(told.user_data, own);
        assert!(json_of(&told.meta_data).get("public-keys").is_none());
        assert!(json_of(&told.vendor_data).get("phone_home").is_none());

        person.user_data = Some("x".repeat(USER_DATA_BYTES_MAX + 1));
        assert!(matches!(files(&person), Err(NoCloudError::UserData(_))));
    }

    #[test]
    fn the_largest_user_data_fits_the_smallest_partition() {
        let person = Personality { user_data: Some("x".repeat(USER_DATA_BYTES_MAX)), ..personality() };
        for sector in [512, 4096] {
            for bytes in common::table::layout::PARTITION_BYTES {
                let size = usize::try_from(bytes).unwrap();
                let made = file_system(&files(&person).unwrap(), size, sector).unwrap();
                assert_eq!(made.len(), size);
                let read = fatfs::FileSystem::new(Cursor::new(made), fatfs::FsOptions::new()).unwrap();
                assert_eq!(read.volume_label(), "CIDATA");
                let mut text = String::new();
                read.root_dir().open_file("user-data").unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text.len(), USER_DATA_BYTES_MAX);
            }
        }
    }

    #[test]
    fn others_read_the_file_system_too() {
        let made = file_system(&files(&personality()).unwrap(), 4 << 20, 512).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fat");
        std::fs::write(&path, made).unwrap();
        let Ok(shown) = Command::new("mtype").arg("-i").arg(&path).arg("::meta-data").output() else {
            println!("left out: mtools are not installed");
            return;
        };
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert_eq!(shown.stdout, files(&personality()).unwrap().meta_data.as_bytes());
        let label = Command::new("mlabel").arg("-i").arg(&path).args(["-s", "::"]).output().unwrap();
        assert!(String::from_utf8_lossy(&label.stdout).contains("CIDATA"));
    }
}
