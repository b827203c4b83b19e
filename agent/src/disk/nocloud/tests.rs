//! Tests of cloud-init's files: their contents, and the call-home script run by the host's own shell and Python.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use common::id::Mac;
use common::user_data::UserData;
use common::wire::call_home::CallHome;

use super::*;

fn personality() -> Personality {
    Personality {
        hostname: "rack1-01".to_owned(),
        ssh_keys: vec!["ssh-ed25519 AAAA someone@\"quoted\"".to_owned()],
        user_data: None,
        instance_id: "j12-1".to_owned(),
        confirm_url: Some("http://10.0.0.1:8069/v1/confirm/abc".to_owned()),
        seed_mark: SeedMark(0x0A1B_2C3D),
        boot_mac: Some(Mac([0x52, 0x54, 0, 0, 0, 7])),
        hooks: None,
    }
}

fn json_of(text: &str) -> serde_json::Value {
    let text = text.strip_prefix("#cloud-config-archive\n").unwrap_or(text);
    serde_json::from_str(text.trim_start_matches("#cloud-config\n")).unwrap()
}

/// The script among vendor-data's parts.
fn script(files: &Files) -> String {
    json_of(&files.vendor_data)[1]["content"].as_str().unwrap().to_owned()
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
    assert_eq!(told.user_data, b"#cloud-config\n{}\n");
    assert!(told.vendor_data.starts_with("#cloud-config-archive\n["));
    let parts = json_of(&told.vendor_data);
    assert_eq!(
        json_of(parts[0]["content"].as_str().unwrap())["phone_home"],
        json!({
            "url": "http://10.0.0.1:8069/v1/confirm/abc",
            "post": ["hostname", "instance_id"],
            "tries": 20,
        })
    );
    assert_eq!(parts[1]["type"], "text/x-shellscript");
    let script = script(&told);
    assert!(
        script.starts_with("#!/bin/sh\n") && script.contains("URL = \"http://10.0.0.1:8069/v1/confirm/abc\"")
    );
    assert!(script.contains("struct.pack(\"<I\", 169552957)") && !script.contains('@'), "{script}");
}

#[test]
fn the_card_that_booted_is_named_to_the_installed_os() {
    let told = files(&personality()).unwrap();
    assert_eq!(
        json_of(&told.network_config.unwrap()),
        json!({
            "version": 2,
            "ethernets": { "boot": { "match": { "macaddress": "52:54:00:00:00:07" }, "dhcp4": true } },
        })
    );
    let unknown = Personality { boot_mac: None, ..personality() };
    assert_eq!(files(&unknown).unwrap().network_config, None);
}

#[test]
fn user_data_is_the_admins_byte_for_byte_and_bounded() {
    let own: &[u8] = b"#!/bin/sh\necho 'M\xfcller' \x1f\x8b\x00\n";
    let mut person = Personality { user_data: Some(UserData(own.to_vec())), ..personality() };
    person.ssh_keys.clear();
    person.confirm_url = None;
    let told = files(&person).unwrap();
    assert_eq!(told.user_data, own);
    assert!(json_of(&told.meta_data).get("public-keys").is_none());
    assert!(json_of(&told.vendor_data).get("phone_home").is_none());

    person.user_data = Some(UserData(vec![b'x'; USER_DATA_BYTES_MAX + 1]));
    assert!(matches!(files(&person), Err(NoCloudError::UserData(_))));
}

#[test]
fn the_largest_user_data_fits_the_smallest_partition() {
    let person = Personality { user_data: Some(UserData(vec![b'x'; USER_DATA_BYTES_MAX])), ..personality() };
    for sector in [512, 4096] {
        for bytes in common::table::layout::PARTITION_BYTES {
            let size = usize::try_from(bytes).unwrap();
            let made = file_system(&files(&person).unwrap(), size, sector, person.seed_mark).unwrap();
            assert_eq!(made.len(), size);
            let read = fatfs::FileSystem::new(Cursor::new(made), fatfs::FsOptions::new()).unwrap();
            assert_eq!(read.volume_label(), "CIDATA");
            assert_eq!(read.volume_id(), 0x0A1B_2C3D);
            let mut text = String::new();
            read.root_dir().open_file("user-data").unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text.len(), USER_DATA_BYTES_MAX);
        }
    }
}

#[test]
fn others_read_the_file_system_too() {
    let made = file_system(&files(&personality()).unwrap(), 4 << 20, 512, personality().seed_mark).unwrap();
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
    let listed = Command::new("mdir").arg("-i").arg(&path).arg("::").output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("0A1B-2C3D") && listed.contains("network-config"), "{listed}");
}

/// The offsets at which the script looks for the mark are where this file system and others have it.
#[test]
fn the_mark_is_where_the_script_looks() {
    for (bytes, sector) in [(1 << 20, 512), (4 << 20, 512), (4 << 20, 4096), (64 << 20, 512)] {
        let made =
            file_system(&files(&personality()).unwrap(), bytes, sector, personality().seed_mark).unwrap();
        let mark = 0x0A1B_2C3D_u32.to_le_bytes();
        let fat16 = made[54..57] == *b"FAT" && made[39..43] == mark;
        let fat32 = made[82..87] == *b"FAT32" && made[67..71] == mark;
        assert!((fat16 || fat32) && made[510..512] == [0x55, 0xaa], "{bytes} {sector}");
    }
}

#[test]
fn the_script_calls_home_and_says_where_root_is() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("left out: python3 is not installed");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/confirm/j1-ab", listener.local_addr().unwrap());
    let told = files(&Personality { confirm_url: Some(url), ..personality() }).unwrap();
    let mut shell = Command::new("sh").arg("-s").stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(script(&told).as_bytes()).unwrap();

    let (mut call, _) = listener.accept().unwrap();
    let mut heard = String::new();
    let body = loop {
        let mut piece = [0; 4096];
        let got = call.read(&mut piece).unwrap();
        heard.push_str(std::str::from_utf8(&piece[..got]).unwrap());
        let Some((head, body)) = heard.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if body.len() >= length.parse().unwrap() {
            break body;
        }
    };
    assert!(heard.starts_with("POST /v1/confirm/j1-ab "), "{heard}");
    assert!(heard.contains("Content-Type: application/json\r\n"), "{heard}");
    let said: CallHome = serde_json::from_str(body).unwrap();
    assert!(!said.root.is_empty() && !said.root.starts_with("unknown"), "{said:?}");
    call.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    drop(call);
    assert!(shell.wait().unwrap().success());
}
