//! The login of the command line: to which server, by which certificate, with which token. Touches its file, which only
//! its owner can read.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::api::client::Target;
use crate::api::remote::{BadFingerprint, Fingerprint, Remote, ServerUrl};
use crate::fault::Fault;
use crate::whole_file;

/// What `swarmboot login` keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    token: String,
}

/// The file of the login.
///
/// # Errors
/// When neither `XDG_CONFIG_HOME` nor `HOME` is set.
pub(super) fn path() -> Result<PathBuf, Fault> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = std::env::var_os("HOME")
        .filter(|dir| !dir.is_empty())
        .map(|home| PathBuf::from(home).join(".config"));
    let dir = config.or(home).ok_or_else(|| {
        Fault::usage("there is no folder for the login: neither HOME nor XDG_CONFIG_HOME is set")
            .hint("set SWARMBOOT_SERVER, SWARMBOOT_TOKEN and SWARMBOOT_FINGERPRINT instead")
    })?;
    Ok(dir.join("swarmboot/login.toml"))
}

/// Keeps a login, in place of an earlier one.
///
/// # Errors
/// When it cannot be written.
pub(super) fn save(remote: &Remote) -> Result<PathBuf, Fault> {
    let path = path()?;
    let failed = |error: &dyn std::error::Error| {
        Fault::failed(format!("cannot write {}", path.display())).because(error)
    };
    let saved = Saved {
        server: remote.url.to_string(),
        fingerprint: remote.fingerprint.map(|print| print.to_string()),
        token: remote.token.clone(),
    };
    let text = toml::to_string(&saved).map_err(|error| failed(&error))?;
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(&error))?;
    }
    whole_file::write(&path, text.as_bytes(), 0o600).map_err(|error| failed(&error))?;
    Ok(path)
}

/// Forgets the login; whether there was one.
///
/// # Errors
/// When it cannot be removed.
pub(super) fn forget() -> Result<bool, Fault> {
    let path = path()?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Fault::failed(format!("cannot remove {}", path.display())).because(&error)),
    }
}

/// The login that is kept; `None` when there is none.
fn load() -> Result<Option<Remote>, Fault> {
    let Ok(path) = path() else { return Ok(None) };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::failed(format!("cannot read {}", path.display())).because(&error)),
    };
    let broken = |error: &dyn std::error::Error| {
        Fault::usage(format!("{} holds no login", path.display()))
            .because(error)
            .hint("`swarmboot login` writes it anew")
    };
    let saved: Saved = toml::from_str(&text).map_err(|error| broken(&error))?;
    let fingerprint = saved.fingerprint.map(|text| text.parse()).transpose();
    let fingerprint = fingerprint.map_err(|error: BadFingerprint| broken(&error))?;
    Ok(Some(Remote { url: saved.server.parse()?, fingerprint, token: saved.token }))
}

/// Which server is meant: the one that is named by a flag or in the environment, else the one on this host if its socket
/// is there, else the one of the login.
///
/// # Errors
/// When what is named cannot be understood, or there is no token for it.
pub(super) fn target(
    server: Option<String>,
    socket: Option<PathBuf>,
    default_socket: &str,
) -> Result<Target, Fault> {
    let Some(server) = server else {
        let default = PathBuf::from(default_socket);
        return match socket {
            Some(socket) => Ok(Target::Socket(socket)),
            None if default.exists() => Ok(Target::Socket(default)),
            None => Ok(load()?.map_or(Target::Socket(default), Target::Remote)),
        };
    };
    let url: ServerUrl = server.parse()?;
    let known = load()?.filter(|login| login.url == url);
    let print = std::env::var("SWARMBOOT_FINGERPRINT").ok().map(|text| text.parse::<Fingerprint>());
    let print = print
        .transpose()
        .map_err(|error| Fault::usage("SWARMBOOT_FINGERPRINT holds no fingerprint").because(&error))?;
    let token = std::env::var("SWARMBOOT_TOKEN").ok().filter(|token| !token.is_empty());
    let fingerprint = print.or(known.as_ref().and_then(|login| login.fingerprint));
    let token = token.or(known.map(|login| login.token)).ok_or_else(|| {
        Fault::usage(format!("there is no token for {url}"))
            .hint(format!("`swarmboot login {url}` keeps one, or set SWARMBOOT_TOKEN"))
    })?;
    Ok(Target::Remote(Remote { url, fingerprint, token }))
}
