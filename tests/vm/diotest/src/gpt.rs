// SPDX-License-Identifier: GPL-2.0

//! Partition tables of the GPT kind.

use std::ops::Range;

/// Bytes of an entry, of the part of a header that is in use, and number of entries.
const ENTRY: usize = 128;
const HEADER: usize = 92;
const ENTRIES: usize = 128;

/// The CRC-32 of Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(!0, byte)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Writes a table with these partitions, in sectors, to both ends of an image.
pub fn write(image: &mut [u8], sector: usize, partitions: &[Range<u64>]) {
    let last = (image.len() / sector) as u64 - 1;
    let table = (ENTRIES * ENTRY / sector) as u64;
    // The sector before all, for those who do not know of GPT.
    image[..sector].fill(0);
    put(image, 446 + 4, &[0xee]);
    put(image, 446 + 8, &1u32.to_le_bytes());
    put(image, 446 + 12, &(last as u32).to_le_bytes());
    put(image, 510, &[0x55, 0xaa]);
    let mut entries = vec![0; ENTRIES * ENTRY];
    for (nr, part) in partitions.iter().enumerate() {
        let entry = &mut entries[nr * ENTRY..][..ENTRY];
        // A kind, and a name, that is nobody else's: numbers that are not zero.
        entry[..16].fill(0x4c);
        entry[16..32].fill(1 + nr as u8);
        put(entry, 32, &part.start.to_le_bytes());
        put(entry, 40, &(part.end - 1).to_le_bytes());
    }
    for (mine, other, at) in [(1, last, 2), (last, 1, last - table)] {
        let mut header = vec![0; sector];
        put(&mut header, 0, b"EFI PART");
        put(&mut header, 8, &0x1_0000u32.to_le_bytes());
        put(&mut header, 12, &(HEADER as u32).to_le_bytes());
        put(&mut header, 24, &mine.to_le_bytes());
        put(&mut header, 32, &other.to_le_bytes());
        put(&mut header, 40, &(2 + table).to_le_bytes());
        put(&mut header, 48, &(last - table - 1).to_le_bytes());
        header[56..72].fill(0x77);
        put(&mut header, 72, &at.to_le_bytes());
        put(&mut header, 80, &(ENTRIES as u32).to_le_bytes());
        put(&mut header, 84, &(ENTRY as u32).to_le_bytes());
        put(&mut header, 88, &crc32(&entries).to_le_bytes());
        let crc = crc32(&header[..HEADER]);
        put(&mut header, 16, &crc.to_le_bytes());
        put(image, mine as usize * sector, &header);
        put(image, at as usize * sector, &entries);
    }
}
