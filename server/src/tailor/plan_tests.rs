//! Plans as tables: which disk is chosen, and every reason to refuse.

use common::hardware::{Bus, Contents, Cpu, Device, HardwareReport, Nic};
use common::id::Hash;
use common::testing;
use common::trust::KeyPair;
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

pub(crate) fn disk(name: &str, bus: Bus, size: u64) -> Disk {
    Disk {
        bus,
        size,
        model: "Model".to_owned(),
        serial: format!("serial-{name}"),
        path: format!("pci/{name}"),
        ..testing::disk(name)
    }
}

pub(crate) fn report(disks: Vec<Disk>) -> HardwareReport {
    HardwareReport {
        cpu: Cpu { threads: 4, ..Cpu::default() },
        memory_bytes: 2 * GIB,
        disks,
        ..testing::report()
    }
}

pub(crate) fn checked(report: HardwareReport) -> CheckedHardware {
    CheckedHardware::check(report).unwrap()
}

/// A first MiB with an MBR: type, first sector and number of sectors of each entry.
fn mbr(entries: &[(u8, u32, u32)]) -> bytes::Bytes {
    let mut first = vec![0; 1 << 20];
    for (at, (kind, start, sectors)) in entries.iter().enumerate() {
        let entry = &mut first[446 + 16 * at..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    first[510..512].copy_from_slice(&[0x55, 0xaa]);
    first.into()
}

fn request(rule: &str) -> Request {
    Request {
        deployment: DeploymentId(1),
        job: JobId(2),
        attempt: 1,
        image: ImageFacts {
            id: ImageId(Hash::of(b"image")),
            size: 4 * GIB,
            sector_bytes: 512,
            wire_bytes: GIB / 4,
            deltas: None,
            first: mbr(&[(0x83, 2048, (4 << 21) - 2048)]),
        },
        target: rule.parse().unwrap(),
        bound: None,
        gather: false,
        personalise: true,
        hooks: None,
        finish: Finish::Reboot,
        seed: Seed { key: KeyPair::from_secret([2; 32]).public(), addresses: vec![] },
    }
}

fn outcome(disks: Vec<Disk>, rule: &str) -> Result<String, Refusal> {
    plan(&checked(report(disks)), &request(rule)).map(|plan| plan.target.serial)
}

#[test]
fn the_one_disk_that_is_meant_is_the_target() {
    let (sda, nvme) = (disk("sda", Bus::Ata, 8 * GIB), disk("nvme0n1", Bus::Nvme, 16 * GIB));
    let stick = Disk { removable: true, ..disk("sdb", Bus::Usb, 32 * GIB) };
    let reader = Disk { removable: true, ..disk("sdd", Bus::Usb, 0) };
    let boot_area = disk("mmcblk0boot0", Bus::Mmc, 4 << 20);
    let table = [
        (vec![sda.clone()], "auto", "serial-sda"),
        (vec![reader, boot_area, sda.clone()], "auto", "serial-sda"),
        (vec![sda.clone(), stick.clone()], "size>=8G", "serial-sda"),
        (vec![sda.clone(), nvme.clone()], "bus=nvme", "serial-nvme0n1"),
        (vec![sda.clone(), nvme], "size<10G,bus=ata", "serial-sda"),
        (vec![sda, stick], "bus=usb", "serial-sdb"),
    ];
    for (disks, rule, wanted) in table {
        assert_eq!(outcome(disks, rule).as_deref(), Ok(wanted), "{rule}");
    }
}

#[test]
fn every_reason_to_stop_is_said() {
    let sda = || disk("sda", Bus::Ata, 8 * GIB);
    let sdb = || disk("sdb", Bus::Ata, 8 * GIB);
    let small = || disk("sdc", Bus::Ata, GIB);
    type Check = fn(&Refusal) -> bool;
    let path_of_one = |path: &str| Disk {
        bus: Bus::Scsi,
        wwn: "naa.5000c500a1b2c3d4".to_owned(),
        path: path.to_owned(),
        ..sda()
    };
    let table: [(Vec<Disk>, &str, Check); 13] = [
        (vec![], "auto", |r| matches!(r, Refusal::NoDisk { .. })),
        (vec![sda(), sdb()], "auto", |r| matches!(r, Refusal::Several { .. })),
        (vec![sda(), sdb()], "size>1G", |r| matches!(r, Refusal::Ambiguous { .. })),
        (vec![sda(), sdb()], "serial=other", |r| matches!(r, Refusal::NoMatch { .. })),
        (vec![Disk { removable: true, ..sda() }], "auto", |r| matches!(r, Refusal::Outside { .. })),
        (vec![disk("sdd", Bus::Usb, 8 * GIB)], "auto", |r| matches!(r, Refusal::Outside { .. })),
        (vec![small()], "auto", |r| matches!(r, Refusal::TooSmall { .. })),
        (vec![sda(), small()], "serial=serial-sdc", |r| matches!(r, Refusal::TooSmall { .. })),
        (vec![Disk { read_only: true, ..sda() }], "auto", |r| matches!(r, Refusal::ReadOnly { .. })),
        (vec![Disk { sector_bytes: 4096, ..sda() }], "auto", |r| matches!(r, Refusal::SectorSize { .. })),
        (vec![path_of_one("p1"), path_of_one("p2")], "path=p1", |r| matches!(r, Refusal::Multipath { .. })),
        (vec![Disk { sector_bytes: 2048, ..sda() }], "auto", |r| matches!(r, Refusal::Unusable { .. })),
        (vec![Disk { size: 0, ..sda() }], "auto", |r| matches!(r, Refusal::Unusable { .. })),
    ];
    for (disks, rule, check) in table {
        let names: Vec<String> = disks.iter().map(describe).collect();
        let refusal = outcome(disks, rule).unwrap_err();
        assert!(check(&refusal), "{names:?} with {rule}: {refusal}");
        assert!(!refusal.hint().is_empty());
    }
}

/// A disk that cannot take any image neither prevents an order for another disk of the machine, nor is it chosen.
#[test]
fn the_disk_beside_an_odd_one_can_be_ordered() {
    let good = disk("sda", Bus::Ata, 8 * GIB);
    for sector_bytes in [0, 1, 520, 528, 1024, 2048, 8192, 65536] {
        let odd = Disk { sector_bytes, ..disk("sdb", Bus::Ata, 16 * GIB) };
        let both = vec![good.clone(), odd];
        assert_eq!(outcome(both.clone(), "serial=serial-sda").as_deref(), Ok("serial-sda"));
        let refusal = outcome(both.clone(), "serial=serial-sdb").unwrap_err();
        assert!(matches!(refusal, Refusal::Unusable { .. }), "{refusal}");
        assert!(refusal.to_string().contains(&format!("{sector_bytes} bytes")), "{refusal}");
    }
}

/// Cheap drives share a WWN (scrutiny#435): the serial number, which is there and differs, decides.
#[test]
fn one_wwn_does_not_make_two_disks_one() {
    for wwn in ["eui.0000000001000000", "eui.0000000000000000"] {
        let with = |name: &str| Disk { wwn: wwn.to_owned(), ..disk(name, Bus::Nvme, 8 * GIB) };
        let both = vec![with("nvme0n1"), with("nvme1n1")];
        assert_eq!(outcome(both, "serial=serial-nvme1n1").as_deref(), Ok("serial-nvme1n1"));
    }
}

#[test]
fn the_place_tells_disks_with_one_serial_number_apart() {
    let bridge = |name: &str| Disk { serial: "0123456789".to_owned(), ..disk(name, Bus::Usb, 8 * GIB) };
    let both = vec![bridge("sda"), bridge("sdb")];
    let refusal = outcome(both.clone(), "serial=0123456789").unwrap_err();
    assert!(refusal.hint().contains("path=pci/sda"), "{}", refusal.hint());
    assert!(!refusal.hint().contains("multipath"), "{}", refusal.hint());
    let made = plan(&checked(report(both.clone())), &request("path=pci/sdb")).unwrap();
    let names: Vec<&str> =
        both.iter().filter(|disk| made.target.matches(disk)).map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["sdb"]);
}

#[test]
fn without_a_rule_any_other_disk_is_a_reason_to_ask() {
    // M6: each of these disks was once ignored, so that the other one counted as the only disk.
    let own = || disk("sda", Bus::Ata, 8 * GIB);
    let beside = [
        ("a stick", Disk { removable: true, ..disk("sdb", Bus::Usb, 32 * GIB) }),
        ("a USB backup disk", disk("sdb", Bus::Usb, 4096 * GIB)),
        ("a disk that is too small", disk("sdb", Bus::Ata, GIB)),
        ("a read-only disk", Disk { read_only: true, ..disk("sdb", Bus::Ata, 8 * GIB) }),
        ("an unreadable disk", Disk { contents: Contents::Unreadable, ..disk("sdb", Bus::Ata, 8 * GIB) }),
        ("a disk with data", Disk { contents: Contents::Data, ..disk("sdb", Bus::Scsi, 8 * GIB) }),
        ("a disk with other sectors", Disk { sector_bytes: 4096, ..disk("sdb", Bus::Nvme, 8 * GIB) }),
    ];
    for (what, other) in beside {
        for disks in [vec![own(), other.clone()], vec![other.clone(), own()]] {
            let refusal = outcome(disks.clone(), "auto").unwrap_err();
            let Refusal::Several { seen, suggestion } = &refusal else { panic!("{what}: {refusal}") };
            assert_eq!(seen.len(), 2, "{what}");
            assert_eq!(outcome(disks, suggestion.as_ref().unwrap()).as_deref(), Ok("serial-sda"), "{what}");
        }
    }
    // A USB disk that is the only one, because the internal one was removed.
    assert!(matches!(outcome(vec![disk("sdb", Bus::Usb, 4096 * GIB)], "auto"), Err(Refusal::Outside { .. })));
}

#[test]
fn what_is_suggested_works() {
    let bare =
        |name: &str, bus, size| Disk { serial: String::new(), path: String::new(), ..disk(name, bus, size) };
    let table = [
        // Nothing but bus and size tells them apart.
        vec![bare("sda", Bus::Ata, 8 * GIB), bare("nvme0n1", Bus::Nvme, 8 * GIB)],
        vec![bare("sda", Bus::Ata, 8 * GIB), bare("sdb", Bus::Ata, 9 * GIB)],
        // A serial number that two share, and one with a comma and one with an asterisk in it.
        vec![
            Disk { serial: "X".to_owned(), ..disk("sda", Bus::Ata, 8 * GIB) },
            Disk { serial: "X".to_owned(), ..disk("sdb", Bus::Scsi, 8 * GIB) },
        ],
        vec![
            Disk { serial: "A,1*".to_owned(), ..disk("sda", Bus::Ata, 8 * GIB) },
            disk("sdb", Bus::Ata, 8 * GIB),
        ],
        // Two removable disks that differ only in their paths.
        vec![
            Disk { removable: true, path: "usb1/1-1".to_owned(), ..bare("sda", Bus::Usb, 8 * GIB) },
            Disk { removable: true, path: "usb1/1-2".to_owned(), ..bare("sdb", Bus::Usb, 8 * GIB) },
        ],
    ];
    for disks in table {
        let names: Vec<String> = disks.iter().map(describe).collect();
        let refusal = outcome(disks.clone(), "auto").unwrap_err();
        let Refusal::Several { suggestion: Some(rule), .. } = &refusal else {
            panic!("{names:?}: {refusal:?}")
        };
        let plan = plan(&checked(report(disks.clone())), &request(rule)).unwrap();
        assert!(plan.target.matches(&disks[0]), "{names:?}: {rule}");
    }
    let twins = vec![bare("sda", Bus::Ata, 8 * GIB), bare("sdb", Bus::Ata, 8 * GIB)];
    let refusal = outcome(twins, "auto").unwrap_err();
    assert!(matches!(refusal, Refusal::Several { suggestion: None, .. }));
    assert!(refusal.hint().contains("no rule"), "{}", refusal.hint());
}

#[test]
fn the_disk_that_was_shown_is_written_whatever_else_is_there() {
    let (shown, other) = (disk("sda", Bus::Ata, 8 * GIB), disk("sdb", Bus::Ata, 8 * GIB));
    let bound = |disks: Vec<Disk>| {
        let request = Request { bound: Some(DiskIdentity::of(&shown)), ..request("auto") };
        plan(&checked(report(disks)), &request).map(|plan| plan.target.serial)
    };
    assert_eq!(bound(vec![other.clone(), shown.clone()]).as_deref(), Ok("serial-sda"));
    assert_eq!(bound(vec![Disk { name: "sdz".to_owned(), ..shown.clone() }]).as_deref(), Ok("serial-sda"));
    assert!(matches!(bound(vec![other]), Err(Refusal::NotThere { .. })));
    assert!(matches!(bound(vec![shown.clone(), shown.clone()]), Err(Refusal::NotUnique { .. })));
    assert!(matches!(bound(vec![Disk { read_only: true, ..shown.clone() }]), Err(Refusal::ReadOnly { .. })));
}

#[test]
fn what_cannot_be_personalised_is_refused_before_the_disk_is_cleared() {
    let try_with = |disk_bytes: u64, first: bytes::Bytes, personalise: bool| {
        let mut request = Request { personalise, ..request("auto") };
        request.image.first = first;
        plan(&checked(report(vec![disk("sda", Bus::Ata, disk_bytes)])), &request).map(drop)
    };
    let image = 4 * GIB;
    let layout = |cause: LayoutError| move |got: Result<(), Refusal>| matches!(got, Err(Refusal::Layout { cause: said, .. }) if said == cause);
    let whole = || request("auto").image.first;
    assert!(layout(LayoutError::NoRoom)(try_with(image, whole(), true)));
    assert!(layout(LayoutError::NoRoom)(try_with(image + (1 << 20) - 1, whole(), true)));
    assert_eq!(try_with(image + (3 << 20), whole(), true), Ok(()));
    assert_eq!(try_with(image, whole(), false), Ok(()));

    // B1, B9: no free entry, no table. B1n: a protective MBR without a GPT.
    let four = || mbr(&[(0x83, 2048, 8), (0x83, 4096, 8), (0x83, 8192, 8), (5, 16384, 8)]);
    assert!(layout(LayoutError::NoEntry(4))(try_with(8 * GIB, four(), true)));
    assert_eq!(try_with(8 * GIB, four(), false), Ok(()));
    assert!(layout(LayoutError::NoTable)(try_with(8 * GIB, vec![0; 512].into(), true)));
    assert_eq!(try_with(image, vec![0; 512].into(), false), Ok(()));
    let broken = try_with(8 * GIB, mbr(&[(0xee, 1, 9999)]), true).unwrap_err();
    assert!(!broken.hint().contains("--no-personalise"), "{}", broken.hint());

    // A partition that ends beyond the disk's end, personalised and not.
    let long = || mbr(&[(0x83, 2048, 16 << 21)]);
    assert!(matches!(
        try_with(8 * GIB, long(), true),
        Err(Refusal::Layout { cause: LayoutError::TooSmall { number: 1, .. }, .. })
    ));
    assert!(matches!(try_with(8 * GIB, long(), false), Err(Refusal::PartitionTooLong { number: 1, .. })));
}

#[test]
fn a_refusal_names_what_it_is_about() {
    let refusal = outcome(vec![disk("sda", Bus::Ata, GIB)], "auto").unwrap_err().to_string();
    assert!(refusal.contains("4294967296") && refusal.contains("1073741824"), "{refusal}");

    let two = vec![disk("sda", Bus::Ata, 8 * GIB), disk("sdb", Bus::Nvme, 8 * GIB)];
    let refusal = outcome(two, "auto").unwrap_err();
    assert!(refusal.to_string().contains("serial-sdb"), "{refusal}");
    assert!(refusal.hint().contains("serial=serial-sda"), "{}", refusal.hint());

    let mut cut = report(vec![disk("sda", Bus::Ata, 8 * GIB)]);
    cut.truncated = vec!["disks: 12 left out".to_owned()];
    assert!(matches!(plan(&checked(cut), &request("auto")), Err(Refusal::Truncated(_))));

    let mut raid = report(vec![]);
    raid.devices = vec![Device {
        address: "0000:00:17.0".to_owned(),
        modalias: "pci:v00008086d0000282A".to_owned(),
        class: 0x01_04_00,
        driver: String::new(),
    }];
    let refusal = plan(&checked(raid), &request("auto")).unwrap_err();
    assert!(refusal.hint().contains("0000:00:17.0"), "{}", refusal.hint());
}

#[test]
fn the_steps_are_those_that_were_ordered() {
    let machine = checked(report(vec![disk("sda", Bus::Ata, 8 * GIB)]));
    let names = |request: &Request| -> Vec<String> {
        plan(&machine, request).unwrap().steps.iter().map(|step| step.name().to_owned()).collect()
    };
    let mut wish = request("auto");
    assert_eq!(names(&wish), ["join", "transfer", "verify", "personalise", "seal", "linger", "reboot"]);
    (wish.gather, wish.personalise, wish.finish) = (true, false, Finish::Exit);
    assert_eq!(names(&wish), ["join", "gather", "transfer", "verify", "seal", "linger"]);
}

fn any_machine() -> impl Strategy<Value = HardwareReport> {
    let any_disk = (0usize..4, 1u64..40, any::<(bool, bool, bool, bool)>()).prop_map(
        |(number, size, (removable, read_only, rotational, large))| Disk {
            removable,
            read_only,
            rotational,
            sector_bytes: if large { 4096 } else { 512 },
            ..disk(
                ["sda", "sdb", "sdc", "sdd"][number],
                [Bus::Ata, Bus::Nvme, Bus::Usb, Bus::Scsi][number],
                size * GIB / 4,
            )
        },
    );
    (proptest::collection::vec(any_disk, 0..5), 0u64..64, proptest::option::of(10u32..100_000)).prop_map(
        |(disks, memory, speed_mbit)| {
            let nic = Nic {
                name: "eth0".to_owned(),
                speed_mbit,
                link: true,
                boot: true,
                ..testing::nic(common::id::Mac([2; 6]))
            };
            HardwareReport { memory_bytes: memory * GIB / 4, nics: vec![nic], ..report(disks) }
        },
    )
}

proptest! {
    #[test]
    fn a_plan_names_one_disk_that_can_take_the_image(
        machine in any_machine(),
        rule in prop_oneof![Just("auto"), Just("size>1G"), Just("bus=nvme"), Just("serial=serial-sd*")],
    ) {
        let machine = checked(machine);
        let wish = request(rule);
        let first = plan(&machine, &wish);
        prop_assert_eq!(&first, &plan(&machine, &wish));
        if let Ok(plan) = first {
            let targets: Vec<&Disk> =
                machine.report().disks.iter().filter(|disk| plan.target.matches(disk)).collect();
            prop_assert_eq!(targets.len(), 1);
            prop_assert!(!targets[0].read_only && targets[0].size >= wish.image.size);
            prop_assert_eq!(targets[0].sector_bytes, wish.image.sector_bytes);
            prop_assert!(wish.target.covers(targets[0]));
            let tuning = &plan.tuning;
            let in_flight = tuning.fetch_parallel + tuning.write_backlog + tuning.upload_parallel;
            prop_assert!(tuning.fetch_parallel > 0 && tuning.write_backlog > 0 && tuning.upload_parallel > 0);
            prop_assert!(in_flight <= 80);
            let memory = machine.report().memory_bytes;
            prop_assert!(tuning.cache_bytes <= (memory / 2).max(16 << 20));
            prop_assert!(tuning.cache_bytes <= wish.image.wire_bytes);
        }
    }
}
