//! How large an image will be once unpacked, as its file says without being unpacked.
//!
//! Only a promise: it serves to refuse early what does not fit, and to tell the time that is left.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use zstd::zstd_safe;

/// Header and footer of an .xz stream (.xz file format 1.2.0, sections 2.1.1 and 2.1.2).
const XZ_FOOTER_BYTES: usize = 12;
/// An index of a million blocks is more than anybody writes.
const XZ_INDEX_MAX_BYTES: u64 = 16 << 20;
/// More than the longest header of a frame (RFC 8878, section 3.1.1.1), with its magic.
const ZSTD_HEADER_BYTES: u64 = 18;

/// The image's size by the index at the end of an .xz file of `stored_bytes`; none where it is no single stream.
pub(super) fn of_xz_file(file: &mut File, stored_bytes: u64) -> io::Result<Option<u64>> {
    let Some(footer_at) = stored_bytes.checked_sub(XZ_FOOTER_BYTES as u64) else {
        return Ok(None);
    };
    let mut footer = [0; XZ_FOOTER_BYTES];
    file.seek(SeekFrom::Start(footer_at))?;
    file.read_exact(&mut footer)?;
    let [_, _, _, _, size @ .., _, _, b'Y', b'Z'] = footer else {
        return Ok(None);
    };
    let index_bytes = (u64::from(u32::from_le_bytes(size)) + 1) * 4;
    let Some(index_at) = footer_at.checked_sub(index_bytes) else {
        return Ok(None);
    };
    if index_bytes > XZ_INDEX_MAX_BYTES {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(index_at))?;
    let mut index = Vec::new();
    file.take(index_bytes).read_to_end(&mut index)?;
    Ok(xz_image_bytes(&index, index_at))
}

/// The image's size by the index of an .xz stream (section 4), which begins `index_at` bytes into the file; none where
/// the index is not of the whole file.
#[must_use]
pub fn xz_image_bytes(index: &[u8], index_at: u64) -> Option<u64> {
    let mut rest = index.strip_prefix(&[0])?;
    let records = variable(&mut rest)?;
    let (mut stored, mut image) = (XZ_FOOTER_BYTES as u64, 0_u64);
    for _ in 0..records {
        let unpadded = variable(&mut rest)?;
        stored = stored.checked_add(unpadded.checked_next_multiple_of(4)?)?;
        image = image.checked_add(variable(&mut rest)?)?;
    }
    (stored == index_at).then_some(image)
}

/// A multibyte integer (section 1.2).
fn variable(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The image's size by the first frame of a zstd file.
pub(super) fn of_zstd_file(file: &mut File) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let mut first = Vec::new();
    file.take(ZSTD_HEADER_BYTES).read_to_end(&mut first)?;
    Ok(zstd_image_bytes(&first))
}

/// The image's size by the first frame's header; none where it does not say.
#[must_use]
pub fn zstd_image_bytes(first: &[u8]) -> Option<u64> {
    zstd_safe::get_frame_content_size(first)
        .ok()
        .flatten()
        .filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_integers_end_or_are_none() {
        assert_eq!(variable(&mut &[0x05][..]), Some(5));
        assert_eq!(variable(&mut &[0x80, 0x01][..]), Some(128));
        assert_eq!(variable(&mut &[0x80][..]), None);
        assert_eq!(variable(&mut &[0xff; 10][..]), None);
    }

    #[test]
    fn an_index_counts_only_if_it_is_of_the_whole_file() {
        // Two blocks, 21 (24 with padding) and 40 bytes, of 100 and 300 bytes.
        let index = [0, 2, 21, 100, 40, 0xac, 2];
        assert_eq!(xz_image_bytes(&index, 12 + 24 + 40), Some(400));
        assert_eq!(xz_image_bytes(&index, 12 + 24 + 44), None);
        assert_eq!(xz_image_bytes(&index[..5], 76), None);
        assert_eq!(xz_image_bytes(&[1, 0], 12), None);
    }
}
