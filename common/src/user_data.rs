//! cloud-init's user-data as an admin gave it: bytes, because it may be compressed or in another encoding than UTF-8.
//! In JSON and CBOR it is a string if it is UTF-8, as in earlier versions, and base64 otherwise. Touches nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// User-data, byte for byte.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserData(pub Vec<u8>);

impl UserData {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether its length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for UserData {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for UserData {
    // It can hold password hashes and tokens, which must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.len())
    }
}

/// The form in JSON and CBOR.
#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    Text(String),
    Encoded { base64: String },
}

#[derive(Serialize)]
struct Encoded {
    base64: String,
}

impl Serialize for UserData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for UserData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Wire::deserialize(deserializer)? {
            Wire::Text(text) => Ok(Self(text.into_bytes())),
            Wire::Encoded { base64 } => STANDARD.decode(base64).map(Self).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_bytes_come_back_as_they_were() {
        let json = |data: &UserData| serde_json::to_string(data).unwrap();
        let text = UserData::from("#cloud-config\n{}\n");
        assert_eq!(json(&text), "\"#cloud-config\\n{}\\n\"");
        for bytes in [&b"\x1f\x8b\x08\x00gzip"[..], b"#cloud-config\nname: M\xfcller\n", b"", b"a\0b"] {
            let data = UserData(bytes.to_vec());
            assert_eq!(serde_json::from_str::<UserData>(&json(&data)).unwrap(), data);
        }
        assert!(serde_json::from_str::<UserData>(r#"{"base64":"?"}"#).is_err());
        assert_eq!(format!("{text:?}"), "UserData(17 bytes)");
    }
}
