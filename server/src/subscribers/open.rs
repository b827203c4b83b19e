//! Opens what is configured: reads secrets and authorities, so that a mistake in them is found at the start and not with
//! the first event. Touches these files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::file::ToFile;
use super::handle::Ready;
use super::journald::{SOCKET, ToJournald};
use super::outlet::Outlet;
use super::run::Opened;
use super::settings::{Export, Place, Secret, Subscriptions, Webhook};
use super::signing::{BadSecret, Secrets};
use super::syslog::ToSyslog;
use super::webhook::ToWebhook;

/// Where systemd puts the credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The longest file of secrets, in bytes.
const SECRET_FILE_MAX: u64 = 4096;

/// Why a webhook cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SubscriberError {
    /// Its secret cannot be read.
    #[error("the secret of the webhook `{name}` cannot be read from {}", path.display())]
    Unreadable {
        /// The webhook.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There are no credentials.
    #[error("the secret of the webhook `{name}` is to be a credential, and systemd passed none")]
    NoCredentials {
        /// The webhook.
        name: String,
    },
    /// What is there is no secret.
    #[error("the secret of the webhook `{name}` in {} is none: {why}", path.display())]
    Secret {
        /// The webhook.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Its authority cannot be used.
    #[error("the authority of the webhook `{name}` in {} cannot be used: {why}", path.display())]
    Authority {
        /// The webhook.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl SubscriberError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "`secret_file` names a file that the service's user can read",
            Self::NoCredentials { .. } => {
                "add `LoadCredential=NAME:/path` to the service (`systemctl edit swarmboot`), or use `secret_file`"
            }
            Self::Secret { .. } => "make one with `openssl rand -base64 32`, and give it to the receiver too",
            Self::Authority { .. } => "`ca_file` names a PEM file with the certificate of an authority",
            Self::Tls(_) => "look at the versions of the programs",
        }
    }
}

/// Opens all `subscriptions`. Events of this server name `source` as where they come from; `host` is this host's name.
///
/// # Errors
/// When a secret or an authority cannot be read.
pub fn open(subscriptions: &Subscriptions, source: &str, host: &str) -> Result<Opened, SubscriberError> {
    let source: Arc<str> = source.into();
    let mut all = vec![];
    for webhook in &subscriptions.webhooks {
        all.push(open_webhook(webhook, &source)?);
    }
    all.extend(subscriptions.exports.iter().map(|export| open_export(export, host)));
    Ok(Opened::new(all))
}

/// What `serve` would refuse of `subscriptions` here, as this user: secrets and authorities that cannot be used.
#[must_use]
pub fn refused(subscriptions: &Subscriptions) -> Vec<SubscriberError> {
    let opened = subscriptions.webhooks.iter().map(|webhook| open_webhook(webhook, &Arc::from("")));
    opened.filter_map(Result::err).collect()
}

impl SubscriberError {
    /// Whether it may be otherwise for the service's user: rights and credentials are that user's.
    #[must_use]
    pub fn is_of_this_user(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            Self::NoCredentials { .. } => true,
            Self::Secret { .. } | Self::Authority { .. } | Self::Tls(_) => false,
        }
    }
}

fn open_webhook(webhook: &Webhook, source: &Arc<str>) -> Result<Ready, SubscriberError> {
    let secrets = secrets(&webhook.name, &webhook.secret)?;
    let tls = match webhook.url.is_tls {
        true => Some(Arc::new(tls(&webhook.name, webhook.authority.as_deref())?)),
        false => None,
    };
    Ok(Ready {
        name: format!("webhook {}", webhook.name).into(),
        target: webhook.url.to_string(),
        wants: webhook.wants.clone(),
        outlet: Box::new(ToWebhook::new(webhook.url.clone(), tls, secrets, Arc::clone(source))),
    })
}

fn open_export(export: &Export, host: &str) -> Ready {
    let (name, target, outlet): (_, _, Box<dyn Outlet>) = match &export.place {
        Place::Journald => ("export journald", SOCKET.to_owned(), Box::new(ToJournald::new(SOCKET.into()))),
        Place::Syslog(to) => {
            ("export syslog", to.to_string(), Box::new(ToSyslog::new(to.clone(), host.to_owned())))
        }
        Place::File(path) => ("export file", path.display().to_string(), Box::new(ToFile::new(path.clone()))),
    };
    Ready { name: name.into(), target, wants: export.wants.clone(), outlet }
}

fn secrets(name: &str, secret: &Secret) -> Result<Secrets, SubscriberError> {
    let name = || name.to_owned();
    let path = match secret {
        Secret::File(path) => path.clone(),
        Secret::Credential(credential) => {
            let folder = std::env::var_os(CREDENTIALS);
            Path::new(&folder.ok_or_else(|| SubscriberError::NoCredentials { name: name() })?)
                .join(credential)
        }
    };
    let text = read(&path).map_err(|source| SubscriberError::Unreadable {
        name: name(),
        path: path.clone(),
        source,
    })?;
    Secrets::read(&text).map_err(|why: BadSecret| SubscriberError::Secret {
        name: name(),
        path,
        why: why.to_string(),
    })
}

/// The text of a small file; one that is longer has another meaning.
fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// What a target's certificate is checked against: the given authority alone, or those that this host trusts.
fn tls(name: &str, authority: Option<&Path>) -> Result<ClientConfig, SubscriberError> {
    let mut roots = RootCertStore::empty();
    match authority {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            let wrong = |why: String| SubscriberError::Authority {
                name: name.to_owned(),
                path: path.to_owned(),
                why,
            };
            let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            let all = all.map_err(|error| wrong(error.to_string()))?;
            for certificate in all {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("there is no certificate in it".to_owned()));
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
