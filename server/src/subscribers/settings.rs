//! Core: what can be subscribed, as the configuration says it: webhooks with their URLs, and exports. Touches `hyper`'s
//! URIs only.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;

use super::wants::Wants;

/// The longest URL, in bytes.
const URL_MAX: usize = 2048;
/// The port of syslog, over UDP and TCP.
const SYSLOG_PORT: u16 = 514;

/// Why a text is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// It cannot be read as a URL at all.
    #[error("it is no URL")]
    NoUrl,
    /// Another scheme.
    #[error("only http:// and https:// can be sent to")]
    Scheme,
    /// A user or a password in it would be in logs and on screens.
    #[error("it has a user or a password in it")]
    User,
    /// What stands behind `#` is never sent.
    #[error("it has a part behind `#`, which is never sent")]
    Fragment,
    /// No name, or no port that there can be.
    #[error("it has no host, or a port that there is not")]
    Host,
    /// Too long.
    #[error("it has more than {URL_MAX} bytes")]
    Long,
    /// A target of syslog has another form.
    #[error("it is neither udp://HOST:PORT nor tcp://HOST:PORT nor unix:/PATH")]
    Syslog,
}

/// Where a webhook goes. Its path and query often hold a secret, so that it is shown without them.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    pub(super) is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// What the header `Host` names.
    pub(super) authority: String,
    /// The path with the query.
    pub(super) path: String,
}

impl WebhookUrl {
    /// Whether certificates are checked, and nobody on the way reads along.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it stays on this host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for WebhookUrl {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        if text.len() > URL_MAX {
            return Err(BadTarget::Long);
        }
        let is_tls = match text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(BadTarget::Scheme),
            None => return Err(BadTarget::NoUrl),
        };
        if text.contains('#') {
            return Err(BadTarget::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| BadTarget::NoUrl)?;
        let authority = uri.authority().ok_or(BadTarget::Host)?;
        if authority.as_str().contains('@') {
            return Err(BadTarget::User);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let said = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
        let port = match (authority.port_u16(), said.contains(':')) {
            (Some(port), _) => port,
            (None, true) => return Err(BadTarget::Host),
            (None, false) => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
        };
        if host.is_empty() || port == 0 {
            return Err(BadTarget::Host);
        }
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned());
        // `https://host?x` has no path, which a request must have.
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        Ok(Self { is_tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a webhook's secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In this file.
    File(PathBuf),
    /// In the credential of this name that systemd passes (`LoadCredential=`).
    Credential(String),
}

/// One webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its name, by which its place in the log is kept.
    pub name: String,
    /// Where it goes.
    pub url: WebhookUrl,
    /// What it is signed with.
    pub secret: Secret,
    /// The authority that alone may vouch for the target, as a PEM file; `None` for those that this host trusts.
    pub authority: Option<PathBuf>,
    /// Which events it is sent.
    pub wants: Wants,
}

/// Where syslog messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogTarget {
    /// One datagram each, to this host and port.
    Udp(String, u16),
    /// Over a connection, with the length before each message (RFC 6587).
    Tcp(String, u16),
    /// One datagram each, to this socket.
    Unix(PathBuf),
}

impl FromStr for SyslogTarget {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        if let Some(path) = text.strip_prefix("unix:") {
            // As URLs have it, and as people write it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(BadTarget::Syslog) };
        }
        let (scheme, place) = text.split_once("://").ok_or(BadTarget::Syslog)?;
        let place: hyper::http::uri::Authority = place.parse().map_err(|_| BadTarget::Syslog)?;
        if place.as_str().contains('@') {
            return Err(BadTarget::User);
        }
        let host = place.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let said = place.as_str().rsplit_once(']').map_or(place.as_str(), |(_, rest)| rest);
        let port = match (place.port_u16(), said.contains(':')) {
            (Some(port), _) if port > 0 => port,
            (None, false) => SYSLOG_PORT,
            _ => return Err(BadTarget::Host),
        };
        match scheme {
            _ if host.is_empty() => Err(BadTarget::Host),
            "udp" => Ok(Self::Udp(host, port)),
            "tcp" => Ok(Self::Tcp(host, port)),
            _ => Err(BadTarget::Syslog),
        }
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(host, port) => write!(f, "udp://{host}:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where events are exported to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The journal of this host.
    Journald,
    /// Syslog.
    Syslog(SyslogTarget),
    /// This file, as JSON lines.
    File(PathBuf),
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Where it goes.
    pub place: Place,
    /// Which events it gets.
    pub wants: Wants,
}

/// All who are told of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// The webhooks.
    pub webhooks: Vec<Webhook>,
    /// The exports, at most one for each kind of place.
    pub exports: Vec<Export>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_shown_without_its_secrets() {
        let table = [
            ("https://chat.example/hooks/T0K3N?key=s", "https://chat.example", 443, "/hooks/T0K3N?key=s"),
            ("HTTP://10.0.0.1:8080", "http://10.0.0.1:8080", 8080, "/"),
            ("http://[fd00::1]/x", "http://[fd00::1]", 80, "/x"),
            ("https://[fd00::1]:9/x", "https://[fd00::1]:9", 9, "/x"),
            ("https://a?b=c", "https://a", 443, "/?b=c"),
        ];
        for (text, shown, port, path) in table {
            let url: WebhookUrl = text.parse().unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.port, url.path.as_str()),
                (shown, port, path),
                "{text}"
            );
            assert_eq!(format!("{url:?}"), shown);
            assert!(!url.host.contains(['[', ']']), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused() {
        let long = format!("https://a/{}", "x".repeat(URL_MAX));
        let table = [
            ("", BadTarget::NoUrl),
            ("chat.example/x", BadTarget::NoUrl),
            ("ftp://a/", BadTarget::Scheme),
            ("file:///etc/passwd", BadTarget::Scheme),
            ("https://me:pw@a/", BadTarget::User),
            ("https://me@a/", BadTarget::User),
            ("https://a/x#y", BadTarget::Fragment),
            ("https://", BadTarget::NoUrl),
            ("https:///x", BadTarget::NoUrl),
            ("https://a:0/", BadTarget::Host),
            ("https://a:99999/", BadTarget::Host),
            ("https://a:/", BadTarget::Host),
            ("https://a b/", BadTarget::NoUrl),
            ("https://a/\r\nx: y", BadTarget::NoUrl),
            ("https://ä/", BadTarget::NoUrl),
            (&long, BadTarget::Long),
        ];
        for (text, wrong) in table {
            assert_eq!(text.parse::<WebhookUrl>().unwrap_err(), wrong, "{text:?}");
        }
    }

    #[test]
    fn syslog_goes_over_three_ways() {
        for (text, shown) in [
            ("udp://10.0.0.5", "udp://10.0.0.5:514"),
            ("tcp://logs.example:6514", "tcp://logs.example:6514"),
            ("tcp://[fd00::1]", "tcp://fd00::1:514"),
            ("unix:/dev/log", "unix:/dev/log"),
            ("unix:///dev/log", "unix:/dev/log"),
        ] {
            assert_eq!(text.parse::<SyslogTarget>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "10.0.0.5",
            "udp://",
            "udp://a:0",
            "udp://a:x",
            "tls://a",
            "unix:log",
            "udp://me@a",
            "udp://a/x",
        ] {
            assert!(wrong.parse::<SyslogTarget>().is_err(), "{wrong}");
        }
    }
}
