//! A receiver of webhooks: a small HTTP server that does with each request what a test tells it, and then answers 200.
//! It checks signatures by an implementation of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What is done with one request.
#[derive(Debug, Clone)]
pub(in super::super) enum Does {
    /// It is answered with this status and header, and the connection stays open.
    Says(u16, String),
    /// The connection is closed when the first bytes have come.
    ClosesInTheMiddle,
    /// The connection is closed when the whole request has come.
    ClosesUnanswered,
    /// Nothing is answered, and the connection stays open.
    Hangs,
    /// The head of a good answer comes, and a body without an end.
    AnswersWithoutEnd,
    /// Something else than HTTP comes back.
    Babbles,
}

impl Does {
    /// It is answered with this status.
    pub(in super::super) fn says(status: u16) -> Self {
        Self::Says(status, "x: y".to_owned())
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(in super::super) struct Received {
    pub(in super::super) line: String,
    pub(in super::super) headers: Vec<(String, String)>,
    pub(in super::super) body: String,
    /// Whether it was answered with 2xx.
    pub(in super::super) is_taken: bool,
}

impl Received {
    pub(in super::super) fn header(&self, name: &str) -> &str {
        let all: Vec<&str> =
            self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
        assert_eq!(all.len(), 1, "{name}: {:?}", self.headers);
        all[0]
    }

    pub(in super::super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether the signature is right: HMAC-SHA256 as RFC 2104 has it.
    pub(in super::super) fn is_signed_with(&self, secret: &str) -> bool {
        let secret = STANDARD.decode(secret).unwrap();
        let pad = |with: u8| {
            let mut block = [with; 64];
            block.iter_mut().zip(&secret).for_each(|(byte, own)| *byte ^= own);
            block
        };
        let said =
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body);
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(said).finalize();
        let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        self.header("webhook-signature") == format!("v1,{}", STANDARD.encode(outer))
    }
}

#[derive(Debug, Default)]
struct Kept {
    does: VecDeque<Does>,
    received: Vec<Received>,
}

/// The receiver. It ends when it is dropped.
#[derive(Debug)]
pub(in super::super) struct Receiver {
    pub(in super::super) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    _task: AbortOnDropHandle<()>,
}

impl Receiver {
    /// A receiver that does all of `does`, and then takes everything.
    pub(in super::super) async fn open(does: Vec<Does>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), does, None)
    }

    /// The same on `listener`, over TLS if there is an acceptor.
    pub(in super::super) fn on(listener: TcpListener, does: Vec<Does>, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Mutex::new(Kept { does: does.into(), received: vec![] }));
        let shared = Arc::clone(&kept);
        let task = tokio::spawn(async move {
            // They end with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => drop(serve(stream, &kept).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(serve(stream, &kept).await);
                            }
                        }
                    }
                });
            }
        });
        Self { address, kept, _task: AbortOnDropHandle::new(task) }
    }

    pub(in super::super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request that came whole.
    pub(in super::super) fn received(&self) -> Vec<Received> {
        self.kept.lock().received.clone()
    }

    /// The numbers of the events that it answered with 2xx.
    pub(in super::super) fn taken(&self) -> Vec<String> {
        let all = self.received();
        all.iter().filter(|one| one.is_taken).map(|one| one.header("webhook-id").to_owned()).collect()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, kept: &Mutex<Kept>) -> std::io::Result<()> {
    let mut buffer = vec![];
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..count]);
        if matches!(kept.lock().does.front(), Some(Does::ClosesInTheMiddle)) {
            kept.lock().does.pop_front();
            return Ok(());
        }
        let Some(mut received) = whole(&buffer) else { continue };
        buffer.clear();
        let does = kept.lock().does.pop_front().unwrap_or_else(|| Does::says(200));
        received.is_taken = matches!(does, Does::Says(200..=299, _) | Does::AnswersWithoutEnd);
        kept.lock().received.push(received);
        match does {
            Does::Says(status, header) => {
                let answer = format!("HTTP/1.1 {status} Word\r\n{header}\r\ncontent-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await?;
            }
            Does::ClosesInTheMiddle | Does::ClosesUnanswered => return Ok(()),
            Does::Hangs => std::future::pending().await,
            Does::AnswersWithoutEnd => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b'x'; 4096]).await?;
                }
            }
            Does::Babbles => return stream.write_all(b"220 smtp ready\r\n").await,
        }
    }
}

/// A request, once all of it is there.
fn whole(bytes: &[u8]) -> Option<Received> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (line, rest) = head.split_once("\r\n")?;
    let header = |line: &str| {
        let (key, value) = line.split_once(": ").unwrap();
        (key.to_lowercase(), value.to_owned())
    };
    let headers: Vec<(String, String)> = rest.split("\r\n").map(header).collect();
    let length = headers.iter().find(|(key, _)| key == "content-length")?.1.parse::<usize>().ok()?;
    (body.len() >= length).then(|| Received {
        line: line.to_owned(),
        headers,
        body: body.to_owned(),
        is_taken: false,
    })
}
