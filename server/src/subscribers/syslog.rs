//! Delivers events to syslog: over UDP or a Unix socket a datagram each, over TCP with the length before each message, so
//! that no text ends one. Syslog acknowledges nothing: what was sent counts as delivered. Touches these sockets and the
//! resolver.

use std::io;

use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};

use super::form::Item;
use super::message::syslog;
use super::outlet::{Outcome, Outlet, PATIENCE};
use super::settings::SyslogTarget;

enum Open {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix(UnixDatagram),
}

/// A syslog server, or the one of this host.
pub(super) struct ToSyslog {
    target: SyslogTarget,
    host: String,
    open: Option<Open>,
}

impl ToSyslog {
    /// The syslog at `target`; messages are from `host`.
    pub(super) fn new(target: SyslogTarget, host: String) -> Self {
        Self { target, host, open: None }
    }

    async fn connect(&self) -> io::Result<Open> {
        Ok(match &self.target {
            SyslogTarget::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                drop(stream.set_nodelay(true));
                Open::Tcp(stream)
            }
            SyslogTarget::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Open::Unix(socket)
            }
            SyslogTarget::Udp(host, port) => {
                let mut found = tokio::net::lookup_host((host.as_str(), *port)).await?;
                let address =
                    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))?;
                let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(own).await?;
                socket.connect(address).await?;
                Open::Udp(socket)
            }
        })
    }

    async fn send(&mut self, item: &Item) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if !is_closed(&open) => open,
            _ => self.connect().await?,
        };
        let message = syslog(item, &self.host);
        match &mut open {
            Open::Udp(socket) => drop(socket.send(message.as_bytes()).await?),
            Open::Unix(socket) => drop(socket.send(message.as_bytes()).await?),
            Open::Tcp(stream) => {
                stream.write_all(format!("{} {message}", message.len()).as_bytes()).await?;
            }
        }
        self.open = Some(open);
        Ok(())
    }
}

/// Whether the other side has closed a connection: what is written then would be lost without an error.
fn is_closed(open: &Open) -> bool {
    let Open::Tcp(stream) = open else { return false };
    let mut byte = [0; 64];
    match stream.try_read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

impl Outlet for ToSyslog {
    fn deliver<'a>(&'a mut self, items: &'a [Item]) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            for (sent, item) in items.iter().enumerate() {
                let cause = match tokio::time::timeout(PATIENCE, self.send(item)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("it took nothing for {} s", PATIENCE.as_secs()),
                };
                return Outcome::until(sent, cause);
            }
            Outcome::all(items.len())
        })
    }
}
