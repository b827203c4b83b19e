//! The API's TLS port. The handshake is made by the connection's own task, within the time that a request's head may take,
//! so that a client which never finishes it keeps nobody else waiting. Touches sockets.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use common::limits::{API_CONNECTIONS_MAX, API_CONNECTIONS_PER_ADDRESS, HEAD_BYTES_MAX};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_util::sync::CancellationToken;

use super::connections::{ConnectionBounds, CountsByAddress};
use super::server::{Accepted, Door, Ends, HttpError, Listener, notice_the_dead, receive};
use super::turns::Sending;

/// The API's TLS listener, bound but not yet accepting.
pub struct ApiBound {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    counts: Arc<CountsByAddress>,
}

impl std::fmt::Debug for ApiBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiBound").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Binds the API's TLS listener, which shows the certificate of `config`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn bind_api(address: SocketAddr, config: Arc<ServerConfig>) -> Result<ApiBound, HttpError> {
    let failed = |source| HttpError::Port { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(ApiBound { listener, address, acceptor: TlsAcceptor::from(config), counts: Arc::default() })
}

impl ApiBound {
    /// The address and port that it is bound to; the port is a real one where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `cancel`, then finishes the open requests.
    pub async fn run(self, router: Router, cancel: CancellationToken) {
        let bounds = ConnectionBounds { all: API_CONNECTIONS_MAX, per_address: API_CONNECTIONS_PER_ADDRESS };
        let connections = receive(&self, bounds, router, &cancel).await;
        drop(self.listener);
        connections.say_goodbye().await;
    }
}

impl Listener for ApiBound {
    type Stream = Handshaking;
    const HEAD_MAX: Option<usize> = Some(4 * HEAD_BYTES_MAX);

    fn counts(&self) -> Arc<CountsByAddress> {
        Arc::clone(&self.counts)
    }

    async fn accept(&self) -> io::Result<Accepted<Handshaking>> {
        let (stream, peer) = self.listener.accept().await?;
        let local = stream.local_addr().unwrap_or(self.address);
        notice_the_dead(&stream);
        let stream = Handshaking::Begun(self.acceptor.accept(stream));
        let ends = Ends { peer, local, own: local };
        Ok(Accepted { stream, ends, door: Door::Api, sending: Sending::default() })
    }
}

/// A connection whose TLS handshake is made when it is first read from or written to.
pub(super) enum Handshaking {
    /// The handshake is not finished.
    Begun(Accept<TcpStream>),
    /// It is; what follows is HTTP.
    Done(TlsStream<TcpStream>),
    /// It failed. Whoever serves the connection may ask once more before it drops it, and the handshake must not be.
    Failed,
}

impl Handshaking {
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let Self::Begun(accept) = self {
            match ready!(Pin::new(accept).poll(cx)) {
                Ok(stream) => *self = Self::Done(stream),
                Err(error) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        match self {
            Self::Done(stream) => Poll::Ready(Ok(Pin::new(stream))),
            Self::Begun(_) => Poll::Pending,
            Self::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Handshaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_done(cx))?.poll_read(cx, into)
    }
}

impl AsyncWrite for Handshaking {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_done(cx))?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_done(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Done(stream) => Pin::new(stream).poll_shutdown(cx),
            // Nothing was agreed on, so there is nothing to end; dropping it closes the connection.
            Self::Begun(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::limits::HEAD_TIME;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    async fn served() -> (SocketAddr, CancellationToken) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = made.key_pair.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let bound = bind_api(([127, 0, 0, 1], 0).into(), Arc::new(config)).await.unwrap();
        let (address, cancel) = (bound.address(), CancellationToken::new());
        tokio::spawn(bound.run(Router::new(), cancel.clone()));
        (address, cancel)
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_finishes_the_handshake_is_left_after_a_while() {
        let (address, cancel) = served().await;
        // Nothing at all; the beginning of a TLS record; and plain HTTP.
        for (said, least) in [(&b""[..], HEAD_TIME), (&[22, 3, 1, 1, 0, 1][..], HEAD_TIME)] {
            let begun = Instant::now();
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(said).await.unwrap();
            let mut answer = vec![];
            drop(client.read_to_end(&mut answer).await);
            assert!(begun.elapsed() >= least && begun.elapsed() < 2 * HEAD_TIME, "{:?}", begun.elapsed());
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![];
        drop(client.read_to_end(&mut answer).await);
        assert!(!answer.starts_with(b"HTTP"), "nothing is told without TLS");
        cancel.cancel();
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_connections() {
        let (address, cancel) = served().await;
        let mut clients = vec![];
        for _ in 0..API_CONNECTIONS_PER_ADDRESS + 1 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut last = clients.pop().unwrap();
        assert_eq!(last.read(&mut [0; 1]).await.unwrap_or(0), 0, "it is closed at once");
        cancel.cancel();
    }
}
