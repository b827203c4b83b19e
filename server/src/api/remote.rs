//! The way of the command line to a server on another host: TLS, with a certificate that is known by its fingerprint or
//! signed by an authority that this host trusts. Touches sockets and the host's trusted authorities.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fault::Fault;

/// The default port of the API.
pub const API_PORT: u16 = 8470;

/// How long a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// The SHA-256 of a certificate, by which a server's own one is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits, with or without colons")]
pub struct BadFingerprint;

impl Fingerprint {
    /// That of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::with_capacity(95);
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            let _ = write!(text, "{colon}{byte:02X}");
        }
        f.write_str(&text)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let plain: String = text.trim().trim_start_matches("sha256:").chars().filter(|c| *c != ':').collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(plain, &mut bytes).map_err(|_| BadFingerprint)?;
        Ok(Self(bytes))
    }
}

/// A server's place: `https://name:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    host: String,
    port: u16,
}

impl ServerUrl {
    /// What the header `Host` names.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl std::str::FromStr for ServerUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            Fault::usage(format!("`{}` is no server: {why}", text.escape_debug()))
                .hint("write https://seed.example:8470, or just the name or address")
        };
        let text = text.trim();
        let text = text.strip_suffix('/').filter(|text| !text.ends_with('/')).unwrap_or(text);
        if text.starts_with("http://") {
            return Err(wrong("the API is served over TLS only"));
        }
        let place = text.strip_prefix("https://").unwrap_or(text);
        let uri: hyper::http::uri::Authority =
            place.parse().map_err(|_| wrong("it has no name or address"))?;
        if place.matches(':').count() == 1 && uri.port_u16().is_none() {
            return Err(wrong("its port is none"));
        }
        let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || place.contains('@') || place.contains('/') {
            return Err(wrong("only a name or address and a port may stand there"));
        }
        Ok(Self { host, port: uri.port_u16().unwrap_or(API_PORT) })
    }
}

/// A server on another host, and the token that is shown to it.
#[derive(Clone)]
pub struct Remote {
    /// Where it is.
    pub url: ServerUrl,
    /// The fingerprint of its certificate; `None` where an authority of this host vouches for it.
    pub fingerprint: Option<Fingerprint>,
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    /// Connects, and checks the certificate.
    ///
    /// # Errors
    /// When nobody answers, or the certificate is another one.
    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, Fault> {
        let check = Check::new(self.fingerprint);
        let stream = shake_hands(&self.url, Arc::clone(&check)).await;
        match (stream, check.seen.get(), self.fingerprint) {
            (Ok(stream), _, _) => Ok(stream),
            (Err(_), Some(seen), Some(known)) if *seen != known => Err(Fault::failed(format!(
                "{} shows another certificate than the one that is known",
                self.url
            ))
            .because(&Differs { seen: *seen, known })
            .hint("if the server has a new one, `swarmboot login` again; otherwise somebody is in between")),
            (Err(_), Some(seen), None) => Err(Fault::failed(format!(
                "no authority vouches for the certificate of {}",
                self.url
            ))
            .hint(format!(
                "its fingerprint is {seen}: compare with `swarmboot status` there, and `swarmboot login`"
            ))),
            (Err(fault), _, _) => Err(fault),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it is {seen}, and {known} is known")]
struct Differs {
    seen: Fingerprint,
    known: Fingerprint,
}

/// The fingerprint of the certificate that the server at `url` shows, and whether an authority of this host vouches for
/// it.
///
/// # Errors
/// When nobody answers there.
pub async fn look(url: &ServerUrl) -> Result<(Fingerprint, bool), Fault> {
    let check = Check::new(None);
    let ended = shake_hands(url, Arc::clone(&check)).await;
    match (check.seen.get(), ended) {
        (Some(seen), ended) => Ok((*seen, ended.is_ok())),
        (None, Err(fault)) => Err(fault),
        (None, Ok(_)) => Err(Fault::failed(format!("{url} showed no certificate"))),
    }
}

async fn shake_hands(url: &ServerUrl, check: Arc<Check>) -> Result<TlsStream<TcpStream>, Fault> {
    let absent = |error: &dyn std::error::Error| {
        Fault::no_server(format!("no server answers at {url}"))
            .because(error)
            .hint("look at its name, its port (`api_port`), and firewalls in between")
    };
    let late =
        |_| Fault::no_server(format!("no server answers at {url} within {} s", CONNECT_TIME.as_secs()));
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::failed("TLS cannot be set up").because(&error))?
        .dangerous()
        .with_custom_certificate_verifier(check)
        .with_no_client_auth();
    let name = ServerName::try_from(url.host.clone()).map_err(|error| absent(&error))?;
    let making = async {
        let tcp = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|error| absent(&error))?;
        drop(tcp.set_nodelay(true));
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| absent(&error))
    };
    tokio::time::timeout(CONNECT_TIME, making).await.map_err(late)?
}

/// Checks a server's certificate, and remembers which one it saw.
#[derive(Debug)]
struct Check {
    known: Option<Fingerprint>,
    seen: OnceLock<Fingerprint>,
    provider: CryptoProvider,
}

impl Check {
    fn new(known: Option<Fingerprint>) -> Arc<Self> {
        Arc::new(Self { known, seen: OnceLock::new(), provider: ring::default_provider() })
    }

    /// Whether an authority that this host trusts vouches for the certificate and the name.
    fn vouched(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(self.provider.clone()))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(certificate, others, name, &[], now)
    }
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = Fingerprint::of(certificate);
        let _ = self.seen.set(seen);
        match self.known {
            // Whoever has its key is the server, whatever names and dates the certificate has.
            Some(known) if known == seen => Ok(ServerCertVerified::assertion()),
            Some(_) => Err(rustls::Error::General("it shows another certificate".to_owned())),
            None => self.vouched(certificate, others, name, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown_and_as_others_write_it() {
        let print = Fingerprint::of(b"certificate");
        let shown = print.to_string();
        assert_eq!(shown.len(), 95);
        for text in [shown.clone(), shown.to_lowercase(), shown.replace(':', ""), format!("sha256:{shown}\n")]
        {
            assert_eq!(text.parse(), Ok(print), "{text}");
        }
        for wrong in ["", "AB", "zz", &shown[..90]] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(BadFingerprint), "{wrong}");
        }
    }

    #[test]
    fn a_server_is_named_in_many_ways() {
        for (text, shown) in [
            ("seed", "https://seed:8470"),
            ("https://seed.example:9000/", "https://seed.example:9000"),
            ("10.0.0.1", "https://10.0.0.1:8470"),
            ("https://[fd00::1]:1", "https://[fd00::1]:1"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), shown);
        }
        for wrong in ["", "https://", "http://seed", "a b", "https://me@seed", "https://seed/x", "seed:99999"]
        {
            assert!(wrong.parse::<ServerUrl>().is_err(), "{wrong}");
        }
    }
}
