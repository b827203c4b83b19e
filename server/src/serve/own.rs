//! The marks and disks of the machine that the server runs on, in the form of a hardware report, which they are
//! compared with. Touches `/sys` under the root it is given.

use std::fs;
use std::path::Path;

use common::id::Mac;
use common::text::harmless;

use crate::fleet::bound::Marks;
use crate::fleet::marks::{is_worthy_mac, uuid, worthy};
use crate::fleet::own::{Own, OwnDisk};

/// The machine whose `/sys` is below `root`. What cannot be read is left empty; a container may show nothing of it.
pub(super) fn read(root: &Path) -> Own {
    let dmi = root.join("sys/class/dmi/id");
    let mark = |name: &str| worthy(&text(&dmi.join(name)));
    let nics = entries(&root.join("sys/class/net"));
    // An interface without a device is a bridge, a tunnel or one end of a veth pair; its address was made up.
    let macs = nics.iter().filter(|nic| nic.join("device").exists()).filter_map(|nic| {
        let mac: Mac = text(&nic.join("address")).parse().ok()?;
        is_worthy_mac(mac).then_some(mac)
    });
    let marks = Marks {
        system_serial: mark("product_serial"),
        chassis_serial: mark("chassis_serial"),
        board_serial: mark("board_serial"),
        uuid: uuid(&text(&dmi.join("product_uuid"))),
        uuids: std::collections::BTreeSet::new(),
        macs: macs.collect(),
    };
    let blocks = entries(&root.join("sys/block"));
    let disks = blocks.iter().map(|dir| disk(dir));
    let known = |disk: &OwnDisk| !(disk.serial.is_empty() && disk.wwn.is_empty());
    Own { marks, disks: disks.filter(known).collect() }
}

fn disk(dir: &Path) -> OwnDisk {
    let first = |names: [&str; 2]| {
        names.iter().map(|name| text(&dir.join(name))).find(|text| !text.is_empty()).unwrap_or_default()
    };
    let serial = first(["serial", "device/serial"]);
    let serial = if serial.is_empty() { unit_serial(&dir.join("device/vpd_pg80")) } else { serial };
    // In units of 512 bytes, whatever the disk's sectors are.
    let size = text(&dir.join("size")).parse::<u64>().unwrap_or(0).saturating_mul(512);
    OwnDisk { size, serial, wwn: one_spaced(&first(["wwid", "device/wwid"])) }
}

/// The serial number in SCSI's vital product data page 0x80: four bytes of header, then text.
fn unit_serial(path: &Path) -> String {
    let page = fs::read(path).unwrap_or_default();
    let Some((&[_, 0x80, high, low], rest)) = page.split_first_chunk::<4>() else { return String::new() };
    let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    tidy(&String::from_utf8_lossy(&rest[..len]))
}

fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn text(path: &Path) -> String {
    fs::read(path).map(|bytes| tidy(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

fn tidy(text: &str) -> String {
    harmless(text).trim().to_owned()
}

fn one_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_read_as_a_machine_reports_itself() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &[u8]| {
            let path = dir.path().join("sys").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        put("class/dmi/id/product_serial", b"CZC123\n");
        put("class/dmi/id/product_uuid", b"4C4C4544-0042-3510-8052-B4C04F564432\n");
        put("class/dmi/id/board_serial", b"To be filled by O.E.M.\n");
        put("class/net/eth0/address", b"52:54:00:12:34:56\n");
        put("class/net/eth0/device/x", b"");
        put("class/net/br0/address", b"52:54:00:12:34:57\n");
        put("block/nvme0n1/size", b"2097152\n");
        put("block/nvme0n1/wwid", b"eui.0025385b01234567\n");
        put("block/nvme0n1/device/serial", b"S4EVNF0M123456A     \n");
        put("block/sda/size", b"2097152\n");
        put("block/sda/device/vpd_pg80", b"\x00\x80\x00\x06 ABC12");
        put("block/loop0/size", b"0\n");
        let own = read(dir.path());
        assert_eq!(own.marks.system_serial.as_deref(), Some("czc123"));
        assert_eq!(own.marks.uuid.as_deref(), Some("44454c4c-4200-1035-8052-b4c04f564432"));
        assert_eq!(own.marks.board_serial, None);
        assert_eq!(own.marks.macs.iter().map(Mac::to_string).collect::<Vec<_>>(), ["52:54:00:12:34:56"]);
        let mut disks = own.disks.clone();
        disks.sort_by_key(|disk| disk.serial.clone());
        let one = |serial: &str, wwn: &str| OwnDisk {
            size: 1 << 30,
            serial: serial.to_owned(),
            wwn: wwn.to_owned(),
        };
        assert_eq!(disks, [one("ABC12", ""), one("S4EVNF0M123456A", "eui.0025385b01234567")]);
        assert_eq!(read(&dir.path().join("nowhere")), Own::default());
    }
}
