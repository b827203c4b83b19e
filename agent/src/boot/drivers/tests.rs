//! Tests that a module which is not there is fetched with its firmware, and only as the loader's list has it.

use std::collections::BTreeMap;

use common::modules::RemoteFile;
use common::trust::KeyPair;

use super::*;
use crate::fetch::testing::{Answer, TestServer};

fn module(name: &str, depends: &[&str], firmware: &[&str]) -> Module {
    let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    Module {
        name: name.to_owned(),
        path: format!("kernel/{name}.ko"),
        depends: own(depends),
        firmware: own(firmware),
        ..Module::default()
    }
}

/// Bytes that no kernel takes for a module.
fn content(path: &str) -> Vec<u8> {
    path.as_bytes().repeat(40)
}

/// A small loader's root with the module `near`; `far` with its firmware, and `behind`, are on the server.
fn small() -> (tempfile::TempDir, Drivers) {
    let dir = tempfile::tempdir().unwrap();
    let modules = vec![
        module("near", &[], &[]),
        module("far", &["near"], &["card/*.fw"]),
        module("behind", &["far"], &[]),
    ];
    let index = ModuleIndex::new("6.1".to_owned(), modules, []).unwrap();
    let remote = [
        "lib/modules/kernel/far.ko",
        "lib/modules/kernel/behind.ko",
        "lib/firmware/card/a.fw",
        "lib/firmware/other.fw",
    ];
    let entry = |path: &str| {
        let bytes = content(path);
        (path.to_owned(), RemoteFile { bytes: bytes.len() as u64, hash: Hash::of(&bytes) })
    };
    let kit = LoaderKit { remote: remote.map(entry).into(), ..LoaderKit::default() };
    let lib = dir.path().join("lib");
    fs::create_dir_all(lib.join("modules/kernel")).unwrap();
    fs::write(lib.join("modules/kernel/near.ko"), b"near").unwrap();
    fs::write(lib.join("modules.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(lib.join("kit.json"), serde_json::to_vec(&kit).unwrap()).unwrap();
    let drivers = Drivers::open(dir.path()).unwrap();
    (dir, drivers)
}

/// A server that has the drivers, as `sent` changes their frames.
fn server(sent: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static) -> (TestServer, Server) {
    let (_dir, drivers) = small();
    let files: BTreeMap<String, Vec<u8>> = drivers
        .kit
        .remote
        .iter()
        .map(|(path, file)| (format!("/v1/driver/{}", file.hash), content(path)))
        .collect();
    let server = TestServer::start(move |request| match files.get(&request.path) {
        Some(bytes) => Answer::Whole(200, vec![], sent(zstd::encode_all(&bytes[..], 3).unwrap())),
        None => Answer::Whole(404, vec![], vec![]),
    });
    let client = Server::new(&server.url, KeyPair::from_secret([1; 32]).public()).unwrap();
    (server, client)
}

#[test]
fn what_is_lacking_waits_for_a_server_and_then_comes_with_its_firmware() {
    let (dir, mut drivers) = small();
    drivers.load_with_needs("behind", None).unwrap();
    assert_eq!(drivers.lacking, BTreeSet::from(["behind".to_owned()]));
    assert!(drivers.tried.is_empty());

    let (seen, client) = server(|frame| frame);
    drivers.load_with_needs("behind", Some(&client)).unwrap();
    assert!(drivers.lacking.is_empty());
    for path in ["lib/modules/kernel/far.ko", "lib/modules/kernel/behind.ko", "lib/firmware/card/a.fw"] {
        assert_eq!(fs::read(dir.path().join(path)).unwrap(), content(path), "{path}");
    }
    assert!(!dir.path().join("lib/firmware/other.fw").exists());
    assert_eq!(seen.seen.lock().len(), 3);
    assert_eq!(drivers.tried.len(), 3);
    drivers.load_with_needs("far", Some(&client)).unwrap();
    assert_eq!(seen.seen.lock().len(), 3, "nothing is fetched twice");

    // What is forgotten is what no loaded driver can ask for.
    fs::write(dir.path().join("lib/firmware/other.fw"), b"x").unwrap();
    drivers.forget();
    assert!(dir.path().join("lib/firmware/card/a.fw").exists());
    assert!(!dir.path().join("lib/firmware/other.fw").exists() && !dir.path().join("lib/modules").exists());
}

#[test]
fn a_wrong_or_short_or_endless_driver_is_not_loaded_and_tried_again() {
    let spoiled: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |_| zstd::encode_all(&b"another module"[..], 3).unwrap(),
        |frame| frame[..frame.len() / 2].to_vec(),
        |_| zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap(),
        |_| b"no frame".to_vec(),
    ];
    for spoil in spoiled {
        let (dir, mut drivers) = small();
        let (_seen, client) = server(spoil);
        let error = drivers.load_with_needs("far", Some(&client)).unwrap_err();
        assert!(matches!(error, FetchError::Driver { .. }), "{error:?}");
        assert!(!dir.path().join("lib/modules/kernel/far.ko").exists() && drivers.tried.is_empty());
        let (_seen, client) = server(|frame| frame);
        drivers.settle(Duration::ZERO, Duration::ZERO, Some(&client)).unwrap();
        assert!(drivers.tried.contains("far"), "{:?}", drivers.lacking);
    }
}

#[test]
fn a_list_that_leads_outside_brings_nothing() {
    let (dir, mut drivers) = small();
    let bytes = content("lib/firmware/../../../card/a.fw");
    let file = RemoteFile { bytes: bytes.len() as u64, hash: Hash::of(&bytes) };
    drivers.kit.remote.insert("lib/firmware/card/../../../out.fw".to_owned(), file);
    let (_seen, client) = server(|frame| frame);
    drivers.load_with_needs("far", Some(&client)).unwrap();
    assert!(!dir.path().parent().unwrap().join("out.fw").exists());
}
