//! Fuzzes the partition table of an image, and its layout on a disk.
#![no_main]

use libfuzzer_sys::fuzz_target;

use common::table::{lay_out, read, read_any};

fuzz_target!(|input: (u64, bool, &[u8])| {
    let (disk, large, bytes) = input;
    // The first MiB of an image; bytes that the input does not have are zeros.
    let mut first = vec![0; 1 << 20];
    let given = bytes.len().min(first.len());
    first[..given].copy_from_slice(&bytes[..given]);
    let sector = if large { 4096 } else { 512 };
    let _ = read_any(&first);
    if read(&first, sector).is_ok()
        && let Ok(layout) = lay_out(&first, disk, sector, [9; 16])
    {
        assert!(layout.partition.start < layout.partition.end && layout.partition.end <= disk);
        assert_eq!(layout.first.len(), first.len());
    }
});
