//! Tests that the agent finds what the loader left, and that a missing or changed file is named.

use std::os::unix::fs::PermissionsExt as _;

use common::id::{Mac, MachineId};
use common::plan::Instruction;

use super::*;
use crate::boot::dhcp::Lease;

fn handover() -> Handover {
    let (server, machine) = (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]));
    let order = Instruction::BootDisk { reason: "no order".to_owned() };
    let report = common::id::Hash::of(b"report");
    let verdict =
        Verdict { key: machine.public(), report, seconds: 60, machine: MachineId(3), instruction: order };
    let lease = Lease {
        address: [10, 0, 0, 7].into(),
        prefix: 24,
        router: None,
        server: [10, 0, 0, 1].into(),
        since_ms: 5,
        seconds: 600,
        renew_s: 300,
        rebind_s: 500,
    };
    Handover {
        server_url: "http://10.0.0.1:8069".to_owned(),
        server_key: server.public(),
        verdict: server.sign(&verdict),
        asked_ms: 77,
        machine_key: machine,
        attachment: Attachment { interface: "eth0".to_owned(), mac: Mac([2; 6]), lease },
        backlog: Backlog { of: None, last_number: 9, at_ms: 1234, sent: vec![], waiting: vec![] },
    }
}

#[test]
fn the_agent_finds_what_the_loader_left_also_after_a_second_try() {
    let dir = tempfile::tempdir().unwrap();
    let (place, left) = (dir.path().join("swarmboot"), handover());
    leave(&place, &left).unwrap();
    leave(&place, &left).unwrap();
    let found = take_over_from(&place).unwrap();
    assert_eq!(found.server_url, left.server_url);
    assert_eq!(found.machine_key.public(), left.machine_key.public());
    assert_eq!(found.attachment, left.attachment);
    assert_eq!(found.asked_ms, 77);
    assert_eq!(found.backlog, left.backlog);
    let verdict = found.verdict.open(&found.server_key).unwrap();
    assert_eq!(verdict.key, found.machine_key.public());
    let mode = fs::metadata(place.join(MACHINE_KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_missing_or_changed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(take_over_from(dir.path()), Err(HandoverError::Read { .. })));
    for name in [MACHINE_KEY, KEY, VERDICT, LEASE, EVENTS] {
        leave(dir.path(), &handover()).unwrap();
        fs::write(dir.path().join(name), b"nonsense").unwrap();
        let error = take_over_from(dir.path()).unwrap_err();
        assert!(matches!(&error, HandoverError::Content { path } if path.ends_with(name)), "{error:?}");
    }
}
