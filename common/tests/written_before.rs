//! Tests that data of earlier versions can still be read: a hardware report from a database, a manifest from the image
//! store, and a plan in a signed verdict. The files in `written-by-COMMIT` were written by that commit's own code; they
//! are never changed, only added to.

use std::path::Path;

use common::hardware::{CheckedHardware, Contents, Firmware, HardwareReport, SentReport};
use common::id::{Hash, ImageId};
use common::manifest::{BadManifest, Encoding, Manifest};
use common::plan::{Finish, Instruction, Plan, Verdict};
use common::step::Step;
use common::trust::{PublicKey, Signed};
use serde_json::Value;

fn written(name: &str) -> std::io::Result<Vec<u8>> {
    written_by("837dfd5", name)
}

fn written_by(commit: &str, name: &str) -> std::io::Result<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(format!("written-by-{commit}"));
    std::fs::read(folder.join(name))
}

/// Whether `new` has all values of `old`: an object may have gained fields.
fn says_all_of(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.iter().all(|(key, value)| new.get(key).is_some_and(|now| says_all_of(value, now)))
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| says_all_of(old, new))
        }
        _ => old == new,
    }
}

#[test]
fn a_recorded_report_opens_and_loses_nothing() {
    let old: Value = serde_json::from_slice(&written("report.json").unwrap()).unwrap();
    let report: HardwareReport = serde_json::from_slice(&written("report.json").unwrap()).unwrap();
    let checked = CheckedHardware::check(report).unwrap();
    let report = checked.report();
    assert_eq!((report.firmware, report.disks.len(), report.nics.len()), (Firmware::UefiSecure, 5, 2));
    let contents: Vec<Contents> = report.disks.iter().map(|disk| disk.contents).collect();
    let wanted =
        [Contents::Bootable, Contents::Blank, Contents::Partitioned, Contents::Data, Contents::Unreadable];
    assert_eq!(contents, wanted);
    assert!(report.disks.iter().all(|disk| disk.unusable().is_none()));
    let new = serde_json::to_value(report).unwrap();
    assert!(says_all_of(&old, &new), "{old:#}\nbecame\n{new:#}");
}

#[test]
fn a_signed_report_of_the_loader_before_is_a_recorded_one() {
    let signed: Signed<SentReport> = serde_json::from_slice(&written("report.signed.json").unwrap()).unwrap();
    // It has no nonce of the server. Loaders come from their server, and so have its version.
    assert!(signed.open_self_signed(|sent| sent.hardware.key).is_err());
}

#[test]
fn a_manifest_in_the_store_keeps_its_name() {
    let bytes = written("manifest.bin").unwrap();
    let name: Hash = String::from_utf8(written("manifest.id").unwrap()).unwrap().trim().parse().unwrap();
    let manifest = Manifest::from_bytes_named(&bytes, ImageId(name)).unwrap();
    assert_eq!(manifest.to_bytes(), bytes, "the same bytes, or every image would have another name");
    assert_eq!((manifest.size(), manifest.sector_bytes(), manifest.len()), ((3 << 20) + 8192, 4096, 4));
    let encodings: Vec<Option<Encoding>> =
        manifest.iter().map(|(index, _)| manifest.stored(index).map(|stored| stored.encoding)).collect();
    assert_eq!(encodings, [Some(Encoding::Zstd), None, Some(Encoding::Raw), Some(Encoding::Raw)]);
}

#[test]
fn the_report_before_issue_16_is_written_again_byte_for_byte() {
    let text = written_by("aa0dcaf", "report.json").unwrap();
    let report: HardwareReport = serde_json::from_slice(&text).unwrap();
    assert_eq!(serde_json::to_vec_pretty(&report).unwrap(), text);
    let signed = written_by("aa0dcaf", "report.signed.json").unwrap();
    let signed: Signed<SentReport> = serde_json::from_slice(&signed).unwrap();
    let sent = signed.open_self_signed(|sent| sent.hardware.key).unwrap();
    assert_eq!((sent.nonce.as_str(), sent.salt.as_str(), sent.hardware), ("n-1", "s-1", report));
}

#[test]
fn the_plan_before_issue_16_is_obeyed_and_written_again_byte_for_byte() {
    let text = written_by("aa0dcaf", "plan.json").unwrap();
    let plan: Plan = serde_json::from_slice(&text).unwrap();
    assert_eq!(serde_json::to_vec_pretty(&plan).unwrap(), text);
    assert_eq!((plan.attempt, plan.finish, plan.target.serial.as_str()), (2, Finish::PowerOff, "S-sda"));
    assert_eq!(plan.steps.last(), Some(&Step::Other("defragment".to_owned())));
    assert_eq!((plan.tuning.upload_parallel, plan.bundle.map(|(_, bytes)| bytes)), (5, Some(77)));
    let key: PublicKey =
        String::from_utf8(written_by("aa0dcaf", "server.key").unwrap()).unwrap().parse().unwrap();
    let verdict = written_by("aa0dcaf", "verdict.signed.json").unwrap();
    let verdict: Signed<Verdict> = serde_json::from_slice(&verdict).unwrap();
    let verdict = verdict.open(&key).unwrap();
    assert_eq!((verdict.seconds, &verdict.instruction), (7200, &Instruction::Deploy(Box::new(plan))));
}

#[test]
fn a_manifest_before_issue_16_keeps_its_name_and_a_later_one_is_refused() {
    let mut bytes = written_by("aa0dcaf", "manifest.bin").unwrap();
    let name = String::from_utf8(written_by("aa0dcaf", "manifest.id").unwrap()).unwrap();
    let manifest = Manifest::from_bytes_named(&bytes, ImageId(name.trim().parse().unwrap())).unwrap();
    assert_eq!(manifest.to_bytes(), bytes);
    bytes[4..6].copy_from_slice(&99_u16.to_le_bytes());
    let refused = Manifest::from_bytes(&bytes).unwrap_err();
    assert_eq!(refused, BadManifest::Version(99));
    assert!(refused.to_string().contains("99") && refused.to_string().contains("version 1"), "{refused}");
}
