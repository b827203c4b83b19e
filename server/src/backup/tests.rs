//! Whole state folders: written, restored, damaged, interrupted.

use std::fs;
use std::path::Path;

use super::form::{HEAD, MANIFEST, RECORDS};
use super::*;
use crate::fleet::state::Change;
use crate::image::{AddSpec, ImageSource, Images};
use crate::records::Records;

const IDENTITY: &str = "0707070707070707070707070707070707070707070707070707070707070707\n";

/// A state folder with an image of 3 MiB, a kit's file, and records that are frozen for a reason.
fn state(at: &Path) -> Backup {
    fs::create_dir_all(at.join("kits/6.1")).unwrap();
    fs::write(at.join("kits/6.1/kernel"), [1; 5000]).unwrap();
    fs::write(at.join("identity.key"), IDENTITY).unwrap();
    fs::create_dir_all(at.join("bundles")).unwrap();
    fs::write(at.join("bundles/made again"), "x").unwrap();
    add(at);
    let mut records = Records::open(&at.join(RECORDS)).unwrap();
    let since = jiff::Timestamp::UNIX_EPOCH;
    let frozen = crate::api::shapes::Frozen { since, reason: Some("audit".to_owned()) };
    records.commit(&[Change::Frozen(Some(frozen))]).unwrap();
    let configuration = at.with_extension("toml");
    fs::write(&configuration, "interface = \"eth1\"\n").unwrap();
    Backup { state: at.to_owned(), configuration: Some(configuration) }
}

fn add(at: &Path) {
    let image: Vec<u8> =
        (0..3_u32 << 18).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let source = ImageSource::Stream {
        reader: Box::new(std::io::Cursor::new(image)),
        name: "test".to_owned(),
        length: None,
    };
    let spec = AddSpec { name: "debian".to_owned(), source, sector_size: None, no_table: true };
    Images::open(at).unwrap().add(spec, &mut |_| ()).unwrap();
}

fn written(backup: &Backup, images: bool) -> Vec<u8> {
    let mut out = vec![];
    backup.write(images, &mut out).unwrap();
    out
}

fn reason(at: &Path) -> Option<String> {
    Records::open(&at.join(RECORDS)).unwrap().load().unwrap().frozen.and_then(|frozen| frozen.reason)
}

#[test]
fn what_was_backed_up_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let backup = state(&old);
    let restored = restore(written(&backup, true).as_slice(), &new, false).unwrap();
    assert!(restored.gone.is_empty() && restored.head.images, "{restored:?}");
    assert_eq!(reason(&new).as_deref(), Some("audit"));
    assert_eq!(fs::read_to_string(new.join("identity.key")).unwrap(), IDENTITY);
    assert_eq!(fs::read(new.join("kits/6.1/kernel")).unwrap(), [1; 5000]);
    assert_eq!(fs::read_to_string(restored.configuration.unwrap()).unwrap(), "interface = \"eth1\"\n");
    assert!(!new.join("bundles").exists(), "what is made again is not kept");
    let images = Images::open(&new).unwrap();
    let info = images.get("debian").unwrap();
    assert!(images.verify(info.id, &mut |_| ()).unwrap().damaged.is_empty());
    let left: Vec<_> = fs::read_dir(&old).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".backup-")), "{left:?}");
}

#[test]
fn an_image_whose_chunks_were_left_out_is_mended_by_adding_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let backup = state(&old);
    let small = written(&backup, false);
    assert!(small.len() < written(&backup, true).len());
    restore(small.as_slice(), &new, false).unwrap();
    let damaged = |at: &Path| {
        let images = Images::open(at).unwrap();
        images.verify(images.get("debian").unwrap().id, &mut |_| ()).unwrap().damaged.len()
    };
    assert!(damaged(&new) > 0, "its name is known, its chunks are not there");
    add(&new);
    assert_eq!(damaged(&new), 0);
}

#[test]
fn what_is_there_is_left_or_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let backup = written(&state(&old), true);
    fs::create_dir_all(new.join("images")).unwrap();
    fs::write(new.join("precious"), "x").unwrap();
    let error = restore(backup.as_slice(), &new, false).unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty(_)), "{error}");
    // A server that runs there has this lock.
    let lock = fs::File::create(new.join("images/lock")).unwrap();
    lock.lock().unwrap();
    let error = restore(backup.as_slice(), &new, true).unwrap_err();
    assert!(matches!(error, BackupError::Running(_)), "{error}");
    drop(lock);
    let restored = restore(backup.as_slice(), &new, true).unwrap();
    assert_eq!(fs::read_to_string(restored.aside.unwrap().join("precious")).unwrap(), "x");
    assert!(!new.join("precious").exists());
    assert_eq!(reason(&new).as_deref(), Some("audit"));
}

#[test]
fn a_backup_that_is_cut_off_or_changed_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let backup = written(&state(&old), false);
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("precious"), "x").unwrap();
    let untouched = || {
        let left: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["precious"]);
        assert!(!dir.path().join(".new.restoring").exists());
    };
    for part in 0..40 {
        let cut = backup.len() * part / 40;
        assert!(restore(&backup[..cut], &new, true).is_err(), "cut at {cut}");
        untouched();
    }
    let plain = zstd::decode_all(backup.as_slice()).unwrap();
    for part in 0..40 {
        let mut changed = plain.clone();
        changed[plain.len() * part / 40 / 512 * 512 + 2] ^= 1;
        let changed = zstd::encode_all(changed.as_slice(), 1).unwrap();
        let other = dir.path().join(format!("other-{part}"));
        // A flipped bit in the padding behind a member changes nothing that is restored.
        if restore(changed.as_slice(), &other, true).is_ok() {
            for path in ["identity.key", "kits/6.1/kernel", "images/names/debian.json"] {
                assert_eq!(fs::read(other.join(path)).unwrap(), fs::read(old.join(path)).unwrap(), "{path}");
            }
            assert_eq!(reason(&other).as_deref(), Some("audit"));
        }
        untouched();
    }
}

#[test]
fn a_member_that_was_changed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let backup = written(&state(&dir.path().join("old")), false);
    let mut plain = zstd::decode_all(backup.as_slice()).unwrap();
    let at = plain.windows(IDENTITY.len()).position(|part| part == IDENTITY.as_bytes()).unwrap();
    plain[at] ^= 1;
    let changed = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let error = restore(changed.as_slice(), &dir.path().join("new"), false).unwrap_err();
    assert_eq!(error.to_string(), "the backup is damaged or none of swarmboot's: identity.key was changed");
    assert!(!dir.path().join("new").exists());
}

/// An archive of these members, with a head of this form and a right manifest.
fn made(format: u32, members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(vec![], 1).unwrap());
    let head = Head { format, version: "9.9.9".to_owned(), made: jiff::Timestamp::UNIX_EPOCH, images: false };
    let mut manifest = Manifest::default();
    let mut put = |path: &str, kind, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        // Set as bytes: the library refuses to write what an attacker would.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    put(HEAD, tar::EntryType::Regular, &serde_json::to_vec(&head).unwrap());
    for (path, kind, content) in members {
        put(path, *kind, content);
        let blake3 = blake3::hash(content).to_hex().to_string();
        manifest.members.push(Member { path: (*path).to_owned(), bytes: content.len() as u64, blake3 });
    }
    put(MANIFEST, tar::EntryType::Regular, &serde_json::to_vec(&manifest).unwrap());
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_hostile_or_later_backup_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let try_it = |format, members: &[(&str, tar::EntryType, &[u8])]| {
        let error = restore(made(format, members).as_slice(), &dir.path().join("new"), false).unwrap_err();
        assert!(!dir.path().join("new").exists() && !dir.path().join("out").exists(), "{error}");
        error
    };
    use tar::EntryType::{Link, Regular, Symlink};
    assert!(matches!(try_it(2, &[]), BackupError::Newer { found: 2, known: 1, .. }));
    for (path, kind) in
        [("../out", Regular), ("/tmp/out", Regular), ("a", Symlink), ("a", Link), ("a/../../out", Regular)]
    {
        let error = try_it(1, &[(path, kind, b"x")]);
        assert!(matches!(error, BackupError::Damaged(_)), "{path}: {error}");
    }
    assert!(matches!(try_it(1, &[]), BackupError::Damaged(_)), "no records");
    let twice: [(&str, tar::EntryType, &[u8]); 2] = [("a", Regular, b"x"), ("a", Regular, b"y")];
    assert!(matches!(try_it(1, &twice), BackupError::File { .. }), "a name that comes twice");
    let empty: [(&str, tar::EntryType, &[u8]); 2] =
        [(RECORDS, Regular, b""), ("identity.key", Regular, b"x")];
    assert!(matches!(try_it(1, &empty), BackupError::Records(_)), "records that are none");
}

#[test]
fn one_backup_is_written_at_a_time_and_leftovers_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old");
    let backup = state(&old);
    fs::create_dir_all(old.join(".backup-killed")).unwrap();
    let lock = fs::File::create(old.join(".backup.lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(backup.write(false, &mut vec![]), Err(BackupError::Busy)));
    drop(lock);
    written(&backup, false);
    assert!(!old.join(".backup-killed").exists());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A whole state folder as aa0dcaf wrote it opens, and so does one that was restored from a backup of it.
#[test]
fn a_state_folder_of_the_version_before_opens_and_goes_through_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    copy(&source.join("image/tests/written-by-aa0dcaf"), &old);
    copy(&source.join("kit/written-by-aa0dcaf"), &old);
    fs::write(old.join("identity.key"), IDENTITY).unwrap();
    let connection = rusqlite::Connection::open(old.join(RECORDS)).unwrap();
    connection.pragma_update(None, "foreign_keys", "off").unwrap();
    connection.execute_batch(include_str!("../records/fixture_aa0dcaf.sql")).unwrap();
    drop(connection);
    let backup = Backup { state: old.clone(), configuration: None };
    restore(written(&backup, true).as_slice(), &new, false).unwrap();
    for state in [&old, &new] {
        assert_eq!(reason(state).as_deref(), Some("audit"));
        let images = Images::open(state).unwrap();
        let image = images.get("debian").unwrap();
        assert!(images.verify(image.id, &mut |_| ()).unwrap().damaged.is_empty());
        assert_eq!(crate::kit::Kits::open(state).unwrap().list().unwrap().len(), 1);
        assert_eq!(fs::read_to_string(state.join("identity.key")).unwrap(), IDENTITY);
    }
}
