//! The certificate of the API: a given one, or one of the server's own, made at its first start and kept in the state
//! folder. Touches these files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::api::remote::Fingerprint;
use crate::fault::Fault;
use crate::whole_file;

/// The API's certificate with its key, ready for TLS.
pub(super) struct Certificate {
    /// What the listener shows.
    pub(super) config: Arc<ServerConfig>,
    /// The fingerprint of the server's certificate, by which clients know it.
    pub(super) fingerprint: Fingerprint,
}

/// Reads the given certificate and key, or else the server's own from `state`, which is made if there is none.
///
/// # Errors
/// When they cannot be read or made, or do not belong together.
pub(super) fn open(
    given: Option<&(PathBuf, PathBuf)>,
    state: &Path,
    names: Vec<String>,
) -> Result<Certificate, Fault> {
    let own = (state.join("api.crt"), state.join("api.key"));
    if given.is_none() && !own.0.exists() {
        make(&own, names)?;
    }
    let (certificate, key) = given.unwrap_or(&own);
    read(certificate, key)
}

fn read(certificate: &Path, key: &Path) -> Result<Certificate, Fault> {
    let unreadable = |path: &Path, error: &dyn std::error::Error| {
        Fault::usage(format!("cannot read {}", path.display()))
            .because(error)
            .hint("`tls_certificate` and `tls_key` name PEM files: a certificate with those that sign it, and its key")
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(certificate, &error))?;
    let Some(first) = chain.first() else {
        return Err(Fault::usage(format!("{} holds no certificate", certificate.display()))
            .hint("it begins with `-----BEGIN CERTIFICATE-----`"));
    };
    let fingerprint = Fingerprint::of(first);
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| {
            Fault::usage(format!("{} and {} cannot be used", certificate.display(), key.display()))
                .because(&error)
                .hint("the key must be that of the first certificate")
        })?;
    let mut config = config;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Certificate { config: Arc::new(config), fingerprint })
}

/// Makes a certificate that signs itself, for `names`. Clients know it by its fingerprint, so that it need not end.
fn make(paths: &(PathBuf, PathBuf), names: Vec<String>) -> Result<(), Fault> {
    let failed =
        |error: &dyn std::error::Error| Fault::failed("cannot make the API's certificate").because(error);
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    // The key first: a certificate without its key would be read at the next start.
    let write = |path, text: String, mode| whole_file::write(path, text.as_bytes(), mode);
    write(&paths.1, made.key_pair.serialize_pem(), 0o600).map_err(|error| failed(&error))?;
    write(&paths.0, made.cert.pem(), 0o644).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_once_and_its_key_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let names = || vec!["10.0.0.1".to_owned(), "seed".to_owned()];
        let first = open(None, dir.path(), names()).unwrap();
        let second = open(None, dir.path(), names()).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint);
        let mode = fs::metadata(dir.path().join("api.key")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(None, other.path(), names()).unwrap().fingerprint, first.fingerprint);
        // A key of another certificate is told, and nothing is replaced.
        let mixed = (dir.path().join("api.crt"), other.path().join("api.key"));
        let fault = open(Some(&mixed), dir.path(), names()).err().unwrap();
        assert!(fault.text().contains("the key must be that"), "{}", fault.text());
        fs::write(dir.path().join("api.crt"), "nonsense").unwrap();
        assert!(open(None, dir.path(), names()).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("api.crt")).unwrap(), "nonsense");
    }
}
