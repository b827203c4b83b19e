//! Tests on machines as trees of files under `/sys` and `/proc`, in a folder of their own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use common::hardware::{Bus, CheckedHardware, Contents, Device, Firmware};
use common::limits::REPORT_STRING_MAX;
use common::trust::KeyPair;

use super::*;

/// A folder that looks like a machine's `/`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
    }

    /// Adds a disk `name` of `sectors` sectors below the device `device`, whose first bytes are `head`.
    fn disk(&self, name: &str, device: &str, sectors: u64, head: &[u8]) -> PathBuf {
        let dir = format!("sys/devices/{device}/block/{name}");
        self.file(&format!("{dir}/size"), format!("{sectors}\n"));
        self.file(&format!("{dir}/queue/logical_block_size"), "512\n");
        self.file(&format!("{dir}/queue/rotational"), "1\n");
        self.file(&format!("{dir}/removable"), "0\n");
        self.file(&format!("{dir}/ro"), "0\n");
        self.link(&format!("{dir}/device"), "../../");
        self.link(&format!("sys/block/{name}"), &format!("../devices/{device}/block/{name}"));
        self.file(&format!("dev/{name}"), head);
        let device = fs::OpenOptions::new().write(true).open(self.root().join("dev").join(name)).unwrap();
        device.set_len(device.metadata().unwrap().len().max(sectors * 512)).unwrap();
        self.root().join(dir)
    }
}

fn reporter() -> Reporter {
    Reporter {
        key: KeyPair::from_secret([1; 32]).public(),
        booted: true,
        boot_mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])),
        address: Some(("eth0".to_owned(), "10.0.0.7/24".to_owned())),
        name: None,
        site: None,
    }
}

#[test]
fn disks_are_told_by_marks_that_stay() {
    let tree = Tree::new();
    let ata = "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0";
    tree.disk("sda", ata, 2048, &[0; 4096]);
    tree.file(&format!("sys/devices/{ata}/vendor"), "ATA     \n");
    tree.file(&format!("sys/devices/{ata}/model"), "QEMU HARDDISK   \n");
    tree.file(&format!("sys/devices/{ata}/vpd_pg80"), b"\x00\x80\x00\x08 QM00001\x00\x00");
    tree.file(&format!("sys/devices/{ata}/wwid"), "t10.ATA     QEMU HARDDISK      QM00001 \n");
    let nvme = tree.disk("nvme0n1", "pci0000:00/0000:00:03.0/nvme/nvme0", 4096, b"data");
    fs::write(nvme.join("wwid"), "eui.0123\n").unwrap();
    tree.file("sys/devices/pci0000:00/0000:00:03.0/nvme/nvme0/serial", "S1  \n");
    tree.file("sys/devices/pci0000:00/0000:00:03.0/nvme/nvme0/model", "Fast One\n");
    let virtio = tree.disk("vda", "pci0000:00/0000:00:04.0/virtio1", 8, b"");
    fs::write(virtio.join("serial"), "vm-disk-1").unwrap();
    tree.file("sys/devices/pci0000:00/0000:00:04.0/virtio1/vendor", "0x1af4\n");
    fs::remove_file(tree.root().join("dev/vda")).unwrap();
    tree.disk("sdb", "pci0000:00/0000:00:14.0/usb1/1-1/host2/target2:0:0/2:0:0:0", 8, b"x");
    let parts = ["mmcblk0boot0", "mmcblk0rpmb", "mmcblk0gp0", "mmcblk1gp3"];
    for other in ["loop0", "ram0", "dm-0", "md0", "sr0", "fd0", "zram0", "bcache0"].into_iter().chain(parts) {
        tree.disk(other, &format!("virtual/{other}"), 8, b"x");
    }
    let reader = tree.disk("sdc", "pci0000:00/card-reader-without-a-card", 0, b"");
    fs::write(reader.join("removable"), "1\n").unwrap();
    // A drive with sectors of 528 bytes, which Linux shows with a size of 0.
    tree.disk("sdd", "pci0000:00/drive-of-an-array", 0, b"");
    tree.disk("mmcblk0", "pci0000:00/mmc0", 8, b"x");

    let disks = disks::list(tree.root());
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["mmcblk0", "nvme0n1", "sda", "sdb", "sdd", "vda"]);
    let [mmc, nvme, sda, sdb, sdd, vda] = &disks[..] else { panic!() };
    assert_eq!((mmc.bus, mmc.contents), (Bus::Mmc, Contents::Data));
    assert_eq!(sdd.unusable(), Some(common::hardware::Unusable::Empty));
    assert_eq!((nvme.bus, nvme.model.as_str(), nvme.serial.as_str()), (Bus::Nvme, "Fast One", "S1"));
    assert_eq!((nvme.wwn.as_str(), nvme.contents, nvme.size), ("eui.0123", Contents::Data, 4096 * 512));
    assert_eq!((sda.bus, sda.model.as_str(), sda.serial.as_str()), (Bus::Ata, "QEMU HARDDISK", "QM00001"));
    assert_eq!(sda.wwn, "t10.ATA QEMU HARDDISK QM00001");
    assert_eq!((sda.path.as_str(), sda.contents, sda.rotational), (ata, Contents::Blank, true));
    assert_eq!(sdb.bus, Bus::Usb);
    assert_eq!((vda.bus, vda.serial.as_str(), vda.model.as_str()), (Bus::Virtio, "vm-disk-1", ""));
    assert_eq!(vda.contents, Contents::Unreadable);
}

#[test]
fn what_stands_in_partitions_is_told() {
    let tree = Tree::new();
    let mut disk = vec![0; 3 << 20];
    disk[446 + 4] = 0x8e;
    disk[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 8, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[(1 << 20) + 512..][..8].copy_from_slice(b"LABELONE");
    disk[(1 << 20) + 536..][..8].copy_from_slice(b"LVM2 001");
    tree.disk("sda", "pci0000:00/host0", 6144, &disk);
    let disks = disks::list(tree.root());
    assert_eq!(disks[0].contents, Contents::Member);
    assert_eq!(disks[0].found, ["mbr", "partition 1: lvm2"]);
}

/// One disk with an odd sector size must not make the report of its machine invalid.
#[test]
fn an_odd_disk_does_not_hide_its_machine() {
    let tree = Tree::new();
    for (name, sector) in [("sda", "512"), ("sdb", "2048"), ("sdc", "528"), ("sdd", "0"), ("sde", "65536")] {
        let dir = tree.disk(name, &format!("pci0000:00/{name}"), 8192, b"x");
        fs::write(dir.join("queue/logical_block_size"), sector).unwrap();
    }
    let checked = CheckedHardware::check(report(tree.root(), &reporter())).unwrap();
    let usable: Vec<bool> = checked.report().disks.iter().map(|disk| disk.unusable().is_none()).collect();
    assert_eq!(usable, [true, false, false, false, false]);
}

#[test]
fn a_disk_is_blank_only_when_all_places_that_are_looked_at_are_zeros() {
    let tree = Tree::new();
    let size = 64 << 20;
    let with = |name: &str, at: usize, bytes: &[u8]| {
        let mut disk = vec![0; size];
        disk[at..at + bytes.len()].copy_from_slice(bytes);
        tree.disk(name, &format!("pci0000:00/{name}"), size as u64 / 512, &disk);
    };
    with("sda", 0, &[]);
    with("sdb", size - 8192, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    // A table that was wiped, or a deployment that was broken off: data behind zeros.
    with("sdc", 1 << 20, &[7; 60 << 20]);
    // The device ends before the size that the kernel gives.
    with("sdd", 0, &[]);
    fs::OpenOptions::new().write(true).open(tree.root().join("dev/sdd")).unwrap().set_len(2 << 20).unwrap();
    let seen: Vec<Contents> = disks::list(tree.root()).iter().map(|disk| disk.contents).collect();
    assert_eq!(seen, [Contents::Blank, Contents::Member, Contents::Data, Contents::Unreadable]);
}

/// A partition's end is read, too: md 0.90 and 1.0 leave its start to the file system.
#[test]
fn a_mirror_inside_a_partition_is_told() {
    let tree = Tree::new();
    let mut disk = vec![0; 8 << 20];
    disk[446 + 4] = 0x83;
    // A partition from 1 MiB on, 4 MiB long.
    disk[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 32, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let end = 5 << 20;
    disk[end - 65536..end - 65528].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 0, 0, 0, 0]);
    tree.disk("sda", "pci0000:00/host0", 16384, &disk);
    let disks = disks::list(tree.root());
    assert_eq!(disks[0].found, ["mbr", "partition 1: md raid"]);
    assert_eq!(disks[0].contents, Contents::Member);
}

/// Passive paths and dying disks block every read: together they cost one timeout, and one thread each
/// (ironic-agent-image#50).
#[test]
fn sixty_disks_that_do_not_answer_cost_one_time_out() {
    let tree = Tree::new();
    for at in 0..60 {
        let name = format!("sd{}{}", char::from(b'a' + at / 26), char::from(b'a' + at % 26));
        tree.disk(&name, &format!("pci0000:00/{name}"), 8, b"");
        let device = tree.root().join("dev").join(&name);
        fs::remove_file(&device).unwrap();
        // Opening a pipe that nobody writes to blocks for ever.
        nix::unistd::mkfifo(&device, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    tree.disk("vda", "pci0000:00/vda", 8, b"data");
    // Long enough for the one that answers, on a computer that emulates machines at the same time.
    let time = std::time::Duration::from_secs(8);
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        let disks = disks::list_within(tree.root(), time);
        assert!(begun.elapsed() < 4 * time, "{:?}", begun.elapsed());
        assert_eq!(disks.len(), 61);
        assert!(disks[..60].iter().all(|disk| disk.contents == Contents::Unreadable));
        assert_eq!(disks[0].found, ["does not answer"]);
        assert_eq!(disks[60].contents, Contents::Data, "the one that answers is read all the same");
        // Their threads hang; each disk has one, however often the report is made.
        let hanging = disks[..60].iter().filter(|disk| !disk.found.is_empty()).count();
        assert_eq!(hanging, 60);
        assert!((60..120).contains(&reading::stuck()), "{}", reading::stuck());
    }
}

#[test]
fn only_interfaces_that_a_cable_fits_are_told() {
    let tree = Tree::new();
    let nic = |name: &str, mac: &str, kind: &str| {
        tree.file(&format!("sys/class/net/{name}/address"), format!("{mac}\n"));
        tree.file(&format!("sys/class/net/{name}/type"), format!("{kind}\n"));
    };
    nic("lo", "00:00:00:00:00:00", "772");
    nic("br0", "52:54:00:00:00:09", "1");
    nic("eth0", "52:54:00:00:00:01", "1");
    tree.file("sys/class/net/eth0/device/modalias", "virtio:d00000001v00001AF4\n");
    tree.link("sys/class/net/eth0/device/driver", "../../bus/virtio/drivers/virtio_net");
    tree.file("sys/class/net/eth0/speed", "-1\n");
    tree.file("sys/class/net/eth0/carrier", "1\n");
    nic("wlan0", "52:54:00:00:00:02", "1");
    tree.file("sys/class/net/wlan0/device/x", "");
    tree.file("sys/class/net/wlan0/phy80211/x", "");
    nic("ib0", "52:54:00:00:00:03", "32");
    tree.file("sys/class/net/ib0/device/x", "");
    let reporter = reporter();
    let nics = nics::list(tree.root(), reporter.boot_mac, reporter.address.as_ref());
    assert_eq!(nics.len(), 1);
    let eth0 = &nics[0];
    assert_eq!(
        (eth0.driver.as_str(), eth0.speed_mbit, eth0.link, eth0.boot),
        ("virtio_net", None, true, true)
    );
    assert_eq!(eth0.address.as_deref(), Some("10.0.0.7/24"));
}

#[test]
fn a_whole_machine_is_believed_by_the_server_whatever_its_firmware_says() {
    let tree = Tree::new();
    tree.file("sys/class/dmi/id/sys_vendor", "Maker\n");
    tree.file("sys/class/dmi/id/product_serial", "\u{1b}[2J serial \u{7}\n");
    tree.file("sys/class/dmi/id/product_name", "x".repeat(9000));
    tree.file("sys/class/dmi/id/product_uuid", "ABCD-EF\n");
    tree.file("sys/class/dmi/id/board_serial", [0xff, 0xfe, b'a']);
    tree.file("proc/meminfo", "MemTotal:        2030040 kB\nMemFree: 1 kB\n");
    tree.file(
        "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: A CPU @ 1\n\nprocessor\t: 1\nmodel name\t: A CPU @ 1\n",
    );
    tree.file("sys/bus/pci/devices/0000:00:03.0/modalias", "pci:v00001AF4d00001000\n");
    tree.file("sys/bus/pci/devices/0000:00:03.0/class", "0x020000\n");
    tree.link("sys/bus/pci/devices/0000:00:03.0/driver", "../../drivers/virtio-pci");
    tree.file("sys/bus/scsi/devices/0:0:0:0/modalias", "scsi:t-0x00\n");
    tree.file("sys/bus/usb/devices/usb1/power", "no modalias here");

    let report = report(tree.root(), &reporter());
    let checked = CheckedHardware::check(report.clone()).unwrap();
    let report = checked.report();
    assert_eq!((report.system.manufacturer.as_str(), report.system.uuid.as_str()), ("Maker", "abcd-ef"));
    assert_eq!(report.system.serial, "[2J serial");
    assert_eq!(report.system.product.len(), REPORT_STRING_MAX);
    assert_eq!((report.cpu.threads, report.cpu.model.as_str()), (2, "A CPU @ 1"));
    assert_eq!(report.memory_bytes, 2_030_040 * 1024);
    assert_eq!(report.devices.len(), 1);
    assert_eq!((report.devices[0].class, report.devices[0].driver.as_str()), (0x02_0000, "virtio-pci"));
    assert_eq!(devices::modaliases(tree.root()), ["pci:v00001AF4d00001000", "scsi:t-0x00"]);
    assert_eq!(report.firmware, Firmware::Bios);
}

#[test]
fn firmware_is_told_by_what_the_kernel_shows() {
    let tree = Tree::new();
    assert_eq!(system::firmware(tree.root(), true), Firmware::Bios);
    let variable = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    tree.file(variable, [6, 0, 0, 0, 0]);
    assert_eq!(system::firmware(tree.root(), true), Firmware::Uefi);
    tree.file(variable, [6, 0, 0, 0, 1]);
    assert_eq!(system::firmware(tree.root(), true), Firmware::UefiSecure);
    assert_eq!(system::firmware(tree.root(), false), Firmware::None);
}

#[test]
fn a_machine_with_more_than_the_bounds_says_what_it_left_out() {
    let tree = Tree::new();
    let mut report = report(tree.root(), &reporter());
    let device = Device {
        address: "0000:00:01.0".to_owned(),
        modalias: "\"".repeat(REPORT_STRING_MAX),
        class: 0,
        driver: String::new(),
    };
    let many = vec![device; REPORT_LIST_MAX + 3];
    report.devices = shorten(List::Devices, many, REPORT_LIST_MAX, &mut report.truncated);
    fit(&mut report);
    assert_eq!(report.truncated.len(), 2, "{:?}", report.truncated);
    assert!(report.truncated[0].starts_with("devices: 3 of 4099 left out"));
    assert!(!report.devices.is_empty());
    let signed = KeyPair::from_secret([1; 32]).sign(&common::hardware::SentReport {
        nonce: "0".repeat(48),
        salt: "0".repeat(32),
        hardware: report.clone(),
    });
    assert!(serde_json::to_vec(&signed).unwrap().len() <= REPORT_BYTES_MAX);
    assert!(CheckedHardware::check(report).is_ok());
}

#[test]
fn an_empty_tree_is_still_a_report() {
    let tree = Tree::new();
    assert!(CheckedHardware::check(report(tree.root(), &reporter())).is_ok());
}
