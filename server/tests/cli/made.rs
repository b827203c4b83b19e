//! The files that the transcripts' commands name: images, keys, configurations, and a root file system with the
//! smallest kernel that a kit can be made of. Touches the folder that it is given.

use std::fs;
use std::path::Path;

const RELEASE: &str = "6.1.0-9-amd64";

/// Writes all files into `folder`.
pub(crate) fn files(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("disk.img", &disk());
    write("words.txt", b"no image at all\n");
    write("empty.img", b"");
    write(
        "key.pub",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f admin@example\n",
    );
    write("user-data", b"#cloud-config\npackages: [htop]\n");
    write("keeps-silent", b"#cloud-config\nvendor_data: {enabled: false}\n");
    write("unknown.toml", b"interfaces = \"nowhere0\"\n");
    write("range.toml", b"interface = \"nowhere0\"\ndhcp_range = \"10.0.0.9\"\n");
    write("keep.toml", b"interface = \"nowhere0\"\nkeep_events = \"long\"\n");
    write(
        "site.toml",
        b"interface = \"nowhere0\"\n[[site]]\nname = \"branch\"\nsubnets = [\"10.1.0.0/16\"]\nlimit = \"fast\"\n",
    );
    write(&format!("root/boot/vmlinuz-{RELEASE}"), &kernel());
    write(&format!("root/boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n");
    let driver = format!("root/lib/modules/{RELEASE}/kernel/drivers/net/ethernet/realtek/r8169.ko");
    let magic = format!("vermagic={RELEASE} SMP");
    write(&driver, &module(&["alias=pci:v000010ECd00008168sv*sd*bc*sc*i*", "depends=", &magic]));
    write("root/usr/lib/ipxe/undionly.kpxe", b"bios");
    write("root/boot/ipxe.efi", b"uefi");
}

/// A disk of 2 MiB with an MBR, boot code, and one partition.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 2 << 20];
    disk[..4].copy_from_slice(&[0xfa, 0x31, 0xc0, 0x8e]);
    disk[0x1be] = 0x80;
    disk[0x1c2] = 0x83;
    disk[0x1c6..0x1ca].copy_from_slice(&2048_u32.to_le_bytes());
    disk[0x1ca..0x1ce].copy_from_slice(&2048_u32.to_le_bytes());
    disk[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    disk[1 << 20..(1 << 20) + 5].copy_from_slice(b"hello");
    disk
}

/// A file with the header of a bzImage and no code.
fn kernel() -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x0600_u16.to_le_bytes());
    image[0x236] = 0b1001;
    let text = format!("{RELEASE} (builder@example) #1 SMP");
    image[0x800..0x800 + text.len()].copy_from_slice(text.as_bytes());
    image
}

/// The smallest ELF file with a `.modinfo` section: header, the two sections' bytes, three section headers.
fn module(info: &[&str]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info: Vec<u8> = info.iter().flat_map(|entry| [entry.as_bytes(), b"\0"].concat()).collect();
    let (info_at, names_at) = (64, 64 + info.len());
    let headers_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([1, 0, 62, 0, 1, 0, 0, 0]); // relocatable, x86-64, version 1
    file.extend([0; 16]); // no entry, no program headers
    file.extend((headers_at as u64).to_le_bytes());
    file.extend([0; 4]);
    file.extend([64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    file.extend(&info);
    file.extend(names);
    file.resize(headers_at + 64, 0);
    for (name, kind, at, len) in [(1u32, 1u32, info_at, info.len()), (10, 3, names_at, names.len())] {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend([0; 16]);
        file.extend((at as u64).to_le_bytes());
        file.extend((len as u64).to_le_bytes());
        file.extend([0; 8]);
        file.extend(1u64.to_le_bytes());
        file.extend([0; 8]);
    }
    file
}
