//! The last good provisioning, kept on the data partition, so that a box goes on working when the partition is removed
//! or spoiled. Both files lie in one, which is replaced whole: a power cut leaves the old pair or the new one.
//!
//! `edge-provisioning 1 LENGTH LENGTH\n`, then the bytes of both files; `-` in place of the second length where there
//! is no second file.

use edge_protocol::provisioning::FILE_MAX_BYTES;

use super::area::Files;

const NAME: &str = "edge-provisioning";
const VERSION: &str = "1";

/// The pair as it is kept.
pub(super) fn encode(files: &Files) -> Vec<u8> {
    let second = files
        .update_root
        .as_ref()
        .map_or_else(|| "-".to_owned(), |bytes| bytes.len().to_string());
    let mut bytes =
        format!("{NAME} {VERSION} {} {second}\n", files.provisioning.len()).into_bytes();
    bytes.extend_from_slice(&files.provisioning);
    bytes.extend_from_slice(files.update_root.as_deref().unwrap_or_default());
    bytes
}

/// Reads what [`encode`] wrote; none where it is something else.
pub(super) fn decode(bytes: &[u8]) -> Option<Files> {
    let end = bytes.iter().take(100).position(|byte| *byte == b'\n')?;
    let (head, rest) = bytes.split_at_checked(end)?;
    let rest = rest.get(1..)?;
    let mut words = std::str::from_utf8(head).ok()?.split(' ');
    if words.next()? != NAME || words.next()? != VERSION {
        return None;
    }
    let length = |word: &str| -> Option<usize> {
        word.parse().ok().filter(|length| *length <= FILE_MAX_BYTES)
    };
    let (provisioning, rest) = rest.split_at_checked(length(words.next()?)?)?;
    let update_root = match words.next()? {
        "-" => rest.is_empty().then_some(None)?,
        word => (rest.len() == length(word)?).then(|| Some(rest.to_vec()))?,
    };
    words.next().is_none().then(|| Files {
        provisioning: provisioning.to_vec(),
        update_root,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_read_again(
            provisioning in prop::collection::vec(any::<u8>(), 0..300),
            update_root in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
            cut in 0_usize..600,
        ) {
            let files = Files { provisioning, update_root };
            let bytes = encode(&files);
            prop_assert_eq!(decode(&bytes), Some(files));
            if cut < bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut]), None);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut ours = b"edge-provisioning 1 ".to_vec();
            ours.extend(&bytes);
            let _any = (decode(&bytes), decode(&ours));
        }
    }
}
