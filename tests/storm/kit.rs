//! A boot kit that cannot boot: as small as an import accepts, with files as large as a real one's may be in a storm on
//! two processors. Touches files.

use std::path::Path;

use anyhow::Result;

const RELEASE: &str = "6.1.0-9-amd64";

/// The bytes of a made-up BIOS boot program.
pub(super) fn program() -> Vec<u8> {
    (0..72_000_u32).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect()
}

/// A kernel's header, with zeros around it.
pub(super) fn kernel() -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x0600_u16.to_le_bytes());
    image[0x236] = 0b1001;
    let text = format!("{RELEASE} (builder@example) #1 SMP");
    image[0x800..0x800 + text.len()].copy_from_slice(text.as_bytes());
    image
}

/// A kernel module for a network card, without dependencies: ELF with a `.modinfo` section.
fn module() -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info = format!("vermagic={RELEASE} SMP\0alias=pci:v000010ECd00008168sv*sd*bc*sc*i*\0depends=\0");
    let (info_at, names_at) = (64, 64 + info.len());
    let headers_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([0; 16]);
    file.extend((headers_at as u64).to_le_bytes());
    file.extend([0; 4]);
    file.extend([64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    file.extend(info.as_bytes());
    file.extend(names);
    file.resize(headers_at + 64, 0);
    for (name, kind, at, len) in [(1_u32, 1_u32, info_at, info.len()), (10, 3, names_at, names.len())] {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend([0; 16]);
        file.extend((at as u64).to_le_bytes());
        file.extend((len as u64).to_le_bytes());
        file.extend([0; 8]);
        file.extend(1_u64.to_le_bytes());
        file.extend([0; 8]);
    }
    file
}

/// Writes the folder that `kit import --folder` takes.
pub(super) fn write(folder: &Path) -> Result<()> {
    let modules = format!("lib/modules/{RELEASE}");
    let files = [
        (format!("boot/vmlinuz-{RELEASE}"), kernel()),
        (format!("boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n".to_vec()),
        (format!("{modules}/modules.builtin"), b"kernel/lib/built-in.ko\n".to_vec()),
        (format!("{modules}/kernel/drivers/net/ethernet/realtek/r8169.ko"), module()),
        ("usr/lib/ipxe/undionly.kpxe".to_owned(), program()),
    ];
    for (path, bytes) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}
