//! Core: the secret of a webhook, and signatures as Standard Webhooks has them (symmetric, `v1`). Touches nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What the standard puts before a secret, so that one that leaks is recognised.
const MARK: &str = "whsec_";
/// How many bytes a secret has, as the standard asks for.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How many secrets are in force at once: a new one, and the one that it replaces.
const SECRETS_MAX: usize = 2;

/// Why a text holds no secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSecret {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// Another form. The text itself is never repeated.
    #[error("a line is no base64, with or without `{MARK}` before it")]
    Form,
    /// Guessed too easily, or too long.
    #[error("a secret has 24 to 64 bytes, and one there has {0}")]
    Length(usize),
    /// More than two.
    #[error("it has more than {SECRETS_MAX} lines: a new secret and the one that it replaces")]
    Many,
}

/// The secrets of one webhook. Never shown.
pub(super) struct Secrets(Vec<hmac::Key>);

impl Secrets {
    /// The secrets in `text`, one a line: the new one, and for a while the one that it replaces.
    ///
    /// # Errors
    /// When there is none, or a line is none.
    pub(super) fn read(text: &str) -> Result<Self, BadSecret> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let key = |line: &&str| {
            let plain = line.strip_prefix(MARK).unwrap_or(line);
            let bytes = STANDARD.decode(plain).map_err(|_| BadSecret::Form)?;
            let fits = BYTES.contains(&bytes.len());
            if fits {
                Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
            } else {
                Err(BadSecret::Length(bytes.len()))
            }
        };
        match lines.len() {
            0 => Err(BadSecret::Empty),
            1..=SECRETS_MAX => lines.iter().map(key).collect::<Result<_, _>>().map(Self),
            _ => Err(BadSecret::Many),
        }
    }

    /// The header `webhook-signature` for the message `id` with this body, sent at `seconds` since 1970.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let sign = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{seconds}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the standard's own libraries (`standard-webhooks`, `libraries/*/…test…`).
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn it_signs_as_the_standard_does() {
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        for text in [SECRET.to_owned(), format!("{MARK}{SECRET}\n"), format!("\n  {SECRET}\r\n")] {
            assert_eq!(Secrets::read(&text).unwrap().sign(id, 1_614_265_330, body), wanted, "{text:?}");
        }
        let both = Secrets::read(&format!("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n{SECRET}")).unwrap();
        let both = both.sign(id, 1_614_265_330, body);
        let signatures: Vec<&str> = both.split(' ').collect();
        assert_eq!(signatures.len(), 2);
        assert_eq!(signatures[1], wanted, "the secret that is replaced is still in force");
        assert_ne!(signatures[0], wanted);
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_repeated() {
        let three = format!("{SECRET}\n{SECRET}\n{SECRET}");
        let table = [
            ("", BadSecret::Empty),
            ("\n \n", BadSecret::Empty),
            ("not base64!", BadSecret::Form),
            ("whsec_whsec_AAAA", BadSecret::Form),
            ("c2hvcnQ=", BadSecret::Length(5)),
            (&"A".repeat(88), BadSecret::Length(66)),
            (&three, BadSecret::Many),
        ];
        for (text, wrong) in table {
            let said = Secrets::read(text).err().unwrap();
            assert_eq!(said, wrong);
            assert!(text.trim().is_empty() || !said.to_string().contains(text), "{said}");
        }
    }
}
