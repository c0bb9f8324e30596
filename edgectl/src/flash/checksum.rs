//! SHA-256 sums: of an image, and the file beside it that says what it must be, as `sha256sum` writes it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;

/// More than a checksum file of one release has.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// A SHA-256 sum.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Sha256Sum(pub [u8; 32]);

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// It is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 sum has 64 hexadecimal digits")]
pub struct NoSha256;

impl FromStr for Sha256Sum {
    type Err = NoSha256;

    fn from_str(text: &str) -> Result<Self, NoSha256> {
        let mut sum = [0; 32];
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let pairs = text.as_bytes().as_chunks::<2>();
        if pairs.0.len() != sum.len() || !pairs.1.is_empty() {
            return Err(NoSha256);
        }
        for (byte, [high, low]) in sum.iter_mut().zip(pairs.0) {
            *byte = digit(*high)
                .zip(digit(*low))
                .map(|(high, low)| high << 4 | low)
                .ok_or(NoSha256)?;
        }
        Ok(Self(sum))
    }
}

impl TryFrom<String> for Sha256Sum {
    type Error = NoSha256;

    fn try_from(text: String) -> Result<Self, NoSha256> {
        text.parse()
    }
}

/// What is wrong with a checksum or its file.
#[derive(Debug, thiserror::Error)]
pub enum ChecksumError {
    /// The file beside the image cannot be read.
    #[error("cannot read the checksum file {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It does not name the image.
    #[error(
        "the checksum file {} has no line for {image}; make one with `sha256sum`, or remove it",
        path.display()
    )]
    NoLine {
        /// Which.
        path: PathBuf,
        /// The image's file name.
        image: String,
    },
    /// The image is not what it must be.
    #[error(
        "{} is not what its checksum says (expected {expected}, found {found}); copy or download it again",
        path.display()
    )]
    Differs {
        /// The image.
        path: PathBuf,
        /// What the checksum file says.
        expected: Sha256Sum,
        /// What the image has.
        found: Sha256Sum,
    },
}

/// What the file `IMAGE.sha256` says of the image; none where there is no such file.
///
/// # Errors
/// [`ChecksumError::File`] and [`ChecksumError::NoLine`].
pub fn beside(image: &Path) -> Result<Option<Sha256Sum>, ChecksumError> {
    let mut path = image.as_os_str().to_owned();
    path.push(".sha256");
    let path = PathBuf::from(path);
    let failed = |source| ChecksumError::File {
        path: path.clone(),
        source,
    };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > FILE_MAX_BYTES => {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    let image = image.file_name().unwrap_or_default().to_string_lossy();
    let sum = find(&text, &image);
    sum.map(Some).ok_or_else(|| ChecksumError::NoLine {
        path: path.clone(),
        image: image.into_owned(),
    })
}

/// The sum of `image` in a checksum file: the line with its name, or the only line where that has no name.
#[must_use]
pub fn find(text: &str, image: &str) -> Option<Sha256Sum> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let named = lines.clone().find_map(|line| {
        let (sum, name) = line.split_once(char::is_whitespace)?;
        // `sha256sum` writes a second blank, or a star in binary mode; the folder is of another machine.
        let name = name.trim_start().trim_start_matches('*').trim_end();
        let name = name.rsplit('/').next().unwrap_or(name);
        (name == image).then(|| sum.parse().ok())?
    });
    named.or_else(|| {
        let only = lines.next()?.trim();
        lines.next().is_none().then(|| only.parse().ok())?
    })
}

/// Whether an image has the sum that it must have.
///
/// # Errors
/// [`ChecksumError::Differs`].
pub fn compare(path: &Path, expected: Sha256Sum, found: Sha256Sum) -> Result<(), ChecksumError> {
    if expected == found {
        return Ok(());
    }
    Err(ChecksumError::Differs {
        path: path.to_owned(),
        expected,
        found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found_by_name_or_alone() {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(64));
        let text = format!("{a}  x.img\n{b} *out/y.img\n");
        assert_eq!(find(&text, "x.img"), a.parse().ok());
        assert_eq!(find(&text, "y.img"), b.parse().ok());
        assert_eq!(find(&text, "z.img"), None);
        assert_eq!(find(&format!("{a}\n"), "z.img"), a.parse().ok());
        assert_eq!(find(&format!("{a}  x.img\n"), "z.img"), None);
        assert_eq!(find("", "z.img"), None);
    }

    #[test]
    fn a_sum_prints_as_it_is_read() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(text.parse::<Sha256Sum>().unwrap().to_string(), text);
        assert!("é".repeat(32).parse::<Sha256Sum>().is_err());
        assert!(text[1..].parse::<Sha256Sum>().is_err());
    }
}
