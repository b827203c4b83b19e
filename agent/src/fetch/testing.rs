//! A server for tests: plain HTTP on loopback, one answer per connection, which can also be cut short. Owns its thread.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

/// A request, as it was received.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// N of a header `Range: bytes=N-`; none without one.
    pub(crate) from: Option<usize>,
    pub(crate) body: Vec<u8>,
}

/// The answer to a request.
pub(crate) enum Answer {
    /// A whole answer: status, further header lines, body.
    Whole(u16, Vec<String>, Vec<u8>),
    /// An answer whose length is that of the whole body, but whose connection is closed after this many bytes of it.
    Cut(u16, Vec<String>, Vec<u8>, usize),
    /// The connection is closed without an answer.
    Nothing,
}

impl Answer {
    pub(crate) fn json<T: serde::Serialize>(value: &T) -> Self {
        Self::Whole(200, vec![], serde_json::to_vec(value).unwrap())
    }
}

/// The server; dropping it ends its thread.
pub(crate) struct TestServer {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
    address: std::net::SocketAddr,
    thread: Option<JoinHandle<()>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl TestServer {
    pub(crate) fn start(answer: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(vec![]));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (seen_in, stop_in) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut answer = answer;
            for stream in listener.incoming() {
                if stop_in.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let _ = serve(stream.unwrap(), &seen_in, &mut answer);
            }
        });
        Self { url: format!("http://{address}"), seen, address, thread: Some(thread), stop }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().clone()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &mut impl FnMut(&Request) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut length, mut from) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let lower = header.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if let Some(value) = lower.strip_prefix("range: bytes=") {
            from = value.trim_end_matches('-').parse().ok();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = Request { method, path, from, body };
    let answer = answer(&request);
    seen.lock().push(request);
    let (status, headers, body, sent) = match answer {
        Answer::Nothing => return Ok(()),
        Answer::Whole(status, headers, body) => (status, headers, body.clone(), body.len()),
        Answer::Cut(status, headers, body, sent) => (status, headers, body, sent),
    };
    let mut stream = stream;
    let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n")?;
    stream.write_all(&body[..sent])
}
