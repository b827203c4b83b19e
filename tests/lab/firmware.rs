//! Owns the kinds of firmware that a machine can have. Touches nothing.

/// The firmware of a machine. All of them try the network before the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, with iPXE in the NIC's ROM, as in real BIOS machines of the last decade.
    Bios,
    /// OVMF with its own PXE client.
    Uefi,
    /// OVMF with UEFI HTTP boot only.
    UefiHttp,
    /// OVMF that enforces Secure Boot with Microsoft's keys, and tries what it finds by itself.
    UefiSecure,
}
