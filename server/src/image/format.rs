//! Core: how an image came, and how its bytes were packed; each with the word that people and records have for it.
//! Touches nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the bytes of an input are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As they are.
    Raw,
    /// gzip, RFC 1952.
    Gz,
    /// xz.
    Xz,
    /// Zstandard, RFC 8878.
    Zst,
}

impl Format {
    /// All that there are.
    const ALL: [Self; 4] = [Self::Raw, Self::Gz, Self::Xz, Self::Zst];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw",
            Self::Gz => "gz",
            Self::Xz => "xz",
            Self::Zst => "zst",
        })
    }
}

/// How an image came. Written as its words: `raw`, `qcow2`, `raw in xz` and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ImageFormat {
    /// The bytes of the disk, in order, packed so.
    Raw(Format),
    /// A qcow2 image, packed so.
    Qcow2(Format),
    /// The words of another version's record, which this one only shows.
    Other(String),
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (inner, packed) = match self {
            Self::Raw(packed) => ("raw", packed),
            Self::Qcow2(packed) => ("qcow2", packed),
            Self::Other(words) => return f.pad(words),
        };
        match packed {
            Format::Raw => f.pad(inner),
            packed => write!(f, "{inner} in {packed}"),
        }
    }
}

impl From<String> for ImageFormat {
    fn from(words: String) -> Self {
        // Compared with what is written, so that there is one place for the words.
        let mut known = Format::ALL.into_iter().flat_map(|packed| [Self::Raw(packed), Self::Qcow2(packed)]);
        known.find(|format| format.to_string() == words).unwrap_or(Self::Other(words))
    }
}

impl From<ImageFormat> for String {
    fn from(format: ImageFormat) -> Self {
        format.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_the_same_words_again() {
        let table = [
            ("raw", ImageFormat::Raw(Format::Raw)),
            ("raw in gz", ImageFormat::Raw(Format::Gz)),
            ("raw in xz", ImageFormat::Raw(Format::Xz)),
            ("raw in zst", ImageFormat::Raw(Format::Zst)),
            ("qcow2", ImageFormat::Qcow2(Format::Raw)),
            ("qcow2 in zst", ImageFormat::Qcow2(Format::Zst)),
            ("vhdx in xz", ImageFormat::Other("vhdx in xz".to_owned())),
            ("raw in raw", ImageFormat::Other("raw in raw".to_owned())),
            ("", ImageFormat::Other(String::new())),
        ];
        for (words, format) in table {
            let json = serde_json::to_string(words).unwrap();
            assert_eq!(serde_json::from_str::<ImageFormat>(&json).unwrap(), format);
            assert_eq!(
                (serde_json::to_string(&format).unwrap(), format.to_string()),
                (json, words.to_owned())
            );
        }
    }
}
