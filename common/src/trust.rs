//! Keys, signatures and what is signed. Owns the choice of the algorithm (ed25519), which no other module names.
//!
//! There are two kinds of key. The server has one for good; its public half is on the loader's kernel command line. A
//! machine makes a key in RAM at every boot and shows the public half in its report, so that an answer bound to that
//! key is fresh by construction, and what is sent to it is for this boot only.
//!
//! Every signature is made over a domain (the kind and version of the text) and the text, so that a signed text of one
//! kind cannot be passed off as another.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::id::Hash;

/// The public half of a key, written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// Why a key or a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The text is not a public key.
    #[error("`{0}` is not a key such as ed25519:<64 hexadecimal digits>")]
    Key(String),
    /// The signature is not by the expected key.
    #[error("the signature is not by {key}")]
    Signature {
        /// The key that should have signed.
        key: PublicKey,
    },
    /// The signature is right, but the signed text does not parse as the expected kind.
    #[error("signed text that cannot be read: {0}")]
    Content(String),
}

impl PublicKey {
    /// The key's 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The key with these bytes.
    ///
    /// # Errors
    /// When they are not a point of the curve.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, Untrusted> {
        match ed25519_dalek::VerifyingKey::from_bytes(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(Untrusted::Key(hex::encode(bytes))),
        }
    }

    /// The first eight digits, for log lines.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PublicKey {
    type Err = Untrusted;
    fn from_str(text: &str) -> Result<Self, Untrusted> {
        let wrong = || Untrusted::Key(crate::limits::cut(text, 80).to_owned());
        let mut bytes = [0; 32];
        let digits = text.strip_prefix("ed25519:").ok_or_else(wrong)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong())?;
        Self::from_bytes(bytes)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = Untrusted;
    fn try_from(text: String) -> Result<Self, Untrusted> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A key pair. Its secret half is never shown, in text or in a log.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public().short())
    }
}

impl KeyPair {
    /// A new key pair from the operating system's random source.
    ///
    /// # Errors
    /// When there is no random source.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self::from_secret(secret))
    }

    /// The key pair with this secret half.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&secret))
    }

    /// The secret half, for the file that keeps it and for libp2p.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half, by which others know this program.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs the JSON form of `value` under its domain.
    #[must_use]
    pub fn sign<T: Signable>(&self, value: &T) -> Signed<T> {
        // Our values always have a JSON form: no maps with keys that are not strings, no failing impl.
        let payload = serde_json::to_string(value).unwrap_or_default();
        let signature = self.0.sign(&signed_bytes::<T>(&payload));
        Signed { payload, signature: hex::encode(signature.to_bytes()), kind: PhantomData }
    }
}

/// A kind of text that can be signed: its domain is part of the signed bytes.
pub trait Signable: Serialize + DeserializeOwned {
    /// The kind and version of the text, such as `swarmboot verdict 1`.
    const DOMAIN: &'static str;
}

/// A signed text that is not checked yet: only [`Signed::open`] and its like give access to the value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed<T> {
    payload: String,
    signature: String,
    #[serde(skip)]
    kind: PhantomData<T>,
}

impl<T> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes)", self.payload.len())
    }
}

impl<T: Signable> Signed<T> {
    /// The hash of the signed text, by which an answer names what it answers.
    #[must_use]
    pub fn digest(&self) -> Hash {
        Hash::of(&signed_bytes::<T>(&self.payload))
    }

    /// The value, if `key` signed it under its domain.
    ///
    /// # Errors
    /// When the signature is not by `key`, or the signed text does not parse.
    pub fn open(&self, key: &PublicKey) -> Result<T, Untrusted> {
        let refused = Untrusted::Signature { key: *key };
        let mut bytes = [0; 64];
        hex::decode_to_slice(&self.signature, &mut bytes).map_err(|_| refused.clone())?;
        let verifying = ed25519_dalek::VerifyingKey::from_bytes(&key.0).map_err(|_| refused.clone())?;
        let signature = ed25519_dalek::Signature::from_bytes(&bytes);
        // `verify_strict` also refuses the weak keys and second forms that plain ed25519 lets pass.
        verifying.verify_strict(&signed_bytes::<T>(&self.payload), &signature).map_err(|_| refused)?;
        serde_json::from_str(&self.payload).map_err(|error| Untrusted::Content(error.to_string()))
    }

    /// The value, if it is signed by the key that `key_of` finds in the text itself: for a first report, which brings
    /// its own key. It proves only that the sender holds that key.
    ///
    /// # Errors
    /// As [`Signed::open`].
    pub fn open_self_signed(&self, key_of: impl Fn(&T) -> PublicKey) -> Result<T, Untrusted> {
        let claimed: T =
            serde_json::from_str(&self.payload).map_err(|error| Untrusted::Content(error.to_string()))?;
        self.open(&key_of(&claimed))
    }
}

fn signed_bytes<T: Signable>(payload: &str) -> Vec<u8> {
    [T::DOMAIN.as_bytes(), b"\0", payload.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Letter(String);
    impl Signable for Letter {
        const DOMAIN: &'static str = "test letter 1";
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Bill(String);
    impl Signable for Bill {
        const DOMAIN: &'static str = "test bill 1";
    }

    #[test]
    fn only_the_right_key_and_kind_open_it() {
        let (ours, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let signed = ours.sign(&Letter("hello".to_owned()));
        assert_eq!(signed.open(&ours.public()).unwrap(), Letter("hello".to_owned()));
        assert!(signed.open(&theirs.public()).is_err());

        let text = serde_json::to_string(&signed).unwrap();
        let as_bill: Signed<Bill> = serde_json::from_str(&text).unwrap();
        assert!(matches!(as_bill.open(&ours.public()), Err(Untrusted::Signature { .. })));

        let changed: Signed<Letter> = serde_json::from_str(&text.replace("hello", "jello")).unwrap();
        assert!(changed.open(&ours.public()).is_err());
    }

    #[test]
    fn a_key_is_read_as_it_is_written_and_its_secret_is_not_shown() {
        let pair = KeyPair::from_secret([7; 32]);
        assert_eq!(pair.public().to_string().parse(), Ok(pair.public()));
        assert!(!format!("{pair:?}").contains(&hex::encode([7; 32])));
        assert!("ed25519:00".parse::<PublicKey>().is_err());
    }
}
