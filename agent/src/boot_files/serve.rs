//! Gives out the files that are held over HTTP/1.1: GET and HEAD, with ranges, as iPXE and the loader use them. Bounded
//! in connections, in all and by address, and in time. Touches one listener.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::wire::objects::OBJECT;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::held::BootFiles;

/// Connections at once: all machines of a large site, each with one.
const CONNECTIONS_MAX: usize = 128;

/// ...and from one address: a machine has one, and another that its firmware has left behind.
const CONNECTIONS_PER_ADDRESS: usize = 4;

/// The timeout of a request's head, and of an idle connection.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The timeout of sent data that is not acknowledged.
const STALLED: Duration = Duration::from_secs(20);

/// The longest that one connection may last: 20 MiB at half a Mbit/s.
const CONNECTION_TIME: Duration = Duration::from_secs(320);

/// The longest head of a request, in bytes; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Open connections by address.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection's place among those of its address; given back when it is dropped.
struct Place(Counts, IpAddr);

impl Place {
    fn take(counts: &Counts, address: IpAddr) -> Option<Self> {
        let mut by_address = counts.lock();
        let count = by_address.entry(address).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self(Arc::clone(counts), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// Accepts connections for ever. Dropping the future closes all of them.
pub(super) async fn run(listener: TcpListener, files: BootFiles) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let counts = Counts::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            // No file or memory is left for another connection.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        if !files.serves(peer.ip()) {
            continue;
        }
        let Some(place) = Place::take(&counts, peer.ip()) else { continue };
        let files = files.clone();
        connections.spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_TIME, attend(stream, files)).await;
            drop((turn, place));
        });
    }
}

async fn attend(stream: TcpStream, files: BootFiles) {
    let socket = socket2::SockRef::from(&stream);
    // If these fail, a dead machine is only noticed later.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(STALLED));
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = answer(&files, request.method(), request.uri().path(), request.headers());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
    // A client that breaks off has found what it needs, or lost its power.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// The answer to a request: the file of the path, or the one range of it that is asked for.
fn answer(
    files: &BootFiles,
    method: &Method,
    path: &str,
    headers: &hyper::HeaderMap,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let hash = path.strip_prefix(OBJECT).and_then(|rest| rest.strip_prefix('/')?.parse().ok());
    let Some(bytes) = hash.and_then(|hash| files.get(hash)) else { return empty(StatusCode::NOT_FOUND) };
    let whole = bytes.len();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (start, end) = match range.map(|range| range_of(range, whole)) {
        None | Some(Range::Whole) => (0, whole),
        Some(Range::Part(start, end)) => (start, end),
        Some(Range::Outside) => return empty(StatusCode::RANGE_NOT_SATISFIABLE),
    };
    let part = bytes.slice(start..end);
    let length = part.len();
    let body = if method == Method::HEAD { Bytes::new() } else { part };
    let mut response = Response::new(Full::new(body));
    let out = response.headers_mut();
    out.insert(header::CONTENT_LENGTH, length.into());
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if length < whole {
        let text = format!("bytes {start}-{}/{whole}", end.saturating_sub(1));
        if let Ok(value) = HeaderValue::from_str(&text) {
            out.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// None that is understood: the whole file, which RFC 9110 section 14.2 allows.
    Whole,
    /// From the first to before the second.
    Part(usize, usize),
    Outside,
}

fn range_of(text: &str, whole: usize) -> Range {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::Whole;
    };
    let to =
        if to.is_empty() { Some(whole) } else { to.parse().ok().map(|last: usize| last.saturating_add(1)) };
    match (from.parse::<usize>().ok(), to) {
        (Some(start), _) if start >= whole => Range::Outside,
        (Some(start), Some(end)) if end > start => Range::Part(start, end.min(whole)),
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use common::id::Hash;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;

    use super::*;

    const FILE: &[u8] = b"0123456789";

    fn serving(nets: &[super::super::held::Net]) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let files = BootFiles::new(1 << 20, nets.to_vec(), at.port(), mpsc::channel(1).0);
        files.put(FILE.to_vec());
        (at, tokio::spawn(run(listener, files)))
    }

    async fn asked(at: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text.to_ascii_lowercase()
    }

    fn request(method: &str, path: &str, range: &str) -> String {
        let range = if range.is_empty() { String::new() } else { format!("Range: bytes={range}\r\n") };
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{range}\r\n")
    }

    #[tokio::test]
    async fn a_file_is_given_out_whole_and_in_part_as_firmware_asks() {
        let (at, task) = serving(&[([127, 0, 0, 1].into(), 8)]);
        let path = format!("{OBJECT}/{}", Hash::of(FILE));
        // What is asked, the status, the length, and the end of the answer.
        let cases = [
            ("GET", path.clone(), "", "200", Some(10), "0123456789"),
            ("GET", format!("{path}?peer=1.2.3.4:5&fault=slow"), "", "200", Some(10), "0123456789"),
            ("HEAD", path.clone(), "", "200", Some(10), "\r\n\r\n"),
            ("GET", path.clone(), "7-", "206", Some(3), "789"),
            ("GET", path.clone(), "0-3", "206", Some(4), "0123"),
            ("GET", path.clone(), "8-99", "206", Some(2), "89"),
            ("GET", path.clone(), "3-1", "200", Some(10), "9"),
            ("GET", path.clone(), "x-", "200", Some(10), "9"),
            ("GET", path.clone(), "10-", "416", None, "\r\n\r\n"),
            ("POST", path.clone(), "", "405", None, "\r\n\r\n"),
            ("GET", format!("{OBJECT}/{}", Hash::of(b"other")), "", "404", None, "\r\n\r\n"),
            ("GET", format!("{OBJECT}/../../etc/passwd"), "", "404", None, "\r\n\r\n"),
            ("GET", "/".to_owned(), "", "404", None, "\r\n\r\n"),
            // Only the one path, and nothing before or behind it.
            ("GET", format!("/{}", Hash::of(FILE)), "", "404", None, "\r\n\r\n"),
            ("GET", format!("/other{path}"), "", "404", None, "\r\n\r\n"),
            ("GET", format!("{path}/x"), "", "404", None, "\r\n\r\n"),
        ];
        for (method, path, range, status, length, end) in cases {
            let text = asked(at, &request(method, &path, range)).await;
            assert!(text.starts_with(&format!("http/1.1 {status}")), "{method} {path} {range}: {text}");
            assert!(text.ends_with(end), "{method} {path} {range}: {text}");
            if let Some(length) = length {
                assert!(text.contains(&format!("content-length: {length}\r\n")), "{text}");
            }
        }
        task.abort();
    }

    #[tokio::test]
    async fn others_than_the_site_get_nothing() {
        let (at, task) = serving(&[([10, 0, 0, 1].into(), 24)]);
        assert_eq!(asked(at, &request("GET", &format!("{OBJECT}/{}", Hash::of(FILE)), "")).await, "");
        task.abort();
    }

    #[tokio::test]
    async fn one_address_has_only_so_many_connections() {
        let (at, task) = serving(&[([127, 0, 0, 1].into(), 8)]);
        let mut idle = vec![];
        for _ in 0..CONNECTIONS_PER_ADDRESS {
            idle.push(TcpStream::connect(at).await.unwrap());
        }
        let path = format!("{OBJECT}/{}", Hash::of(FILE));
        assert_eq!(asked(at, &request("GET", &path, "")).await, "", "one too many");
        idle.clear();
        for _ in 0..100 {
            if asked(at, &request("GET", &path, "")).await.ends_with("0123456789") {
                task.abort();
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the places of connections that have ended are not given back");
    }

    /// Connects from this address of the loopback, and keeps silent.
    async fn idle(from: [u8; 4], at: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(at).await.unwrap()
    }

    #[tokio::test]
    async fn many_addresses_together_have_only_so_many_connections() {
        let (at, task) = serving(&[([127, 0, 0, 1].into(), 8)]);
        let mut idle = vec![];
        for number in 0..CONNECTIONS_MAX {
            let host = u8::try_from(2 + number / CONNECTIONS_PER_ADDRESS).unwrap();
            idle.push(self::idle([127, 0, 1, host], at).await);
        }
        let request = request("GET", &format!("{OBJECT}/{}", Hash::of(FILE)), "");
        let one_more = asked(at, &request);
        tokio::pin!(one_more);
        let waits = tokio::time::timeout(Duration::from_millis(300), &mut one_more).await;
        assert!(waits.is_err(), "one too many: {waits:?}");
        idle.pop();
        let answer = tokio::time::timeout(Duration::from_secs(5), one_more).await.unwrap();
        assert!(answer.ends_with("0123456789"), "it had to wait for a place: {answer}");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_silent_or_without_end_is_closed() {
        let (at, task) = serving(&[([127, 0, 0, 1].into(), 8)]);
        let begun = tokio::time::Instant::now();
        let mut silent = TcpStream::connect(at).await.unwrap();
        let mut text = String::new();
        let _ = silent.read_to_string(&mut text).await;
        assert!(begun.elapsed() < HEAD_TIME * 2, "{:?}", begun.elapsed());
        let (begun, mut busy) = (tokio::time::Instant::now(), TcpStream::connect(at).await.unwrap());
        let mut block = [0; 1024];
        while busy.write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok() {
            match busy.read(&mut block).await {
                Ok(1..) => tokio::time::sleep(HEAD_TIME / 2).await,
                Ok(0) | Err(_) => break,
            }
            assert!(begun.elapsed() < CONNECTION_TIME + HEAD_TIME, "{:?}", begun.elapsed());
        }
        assert!(begun.elapsed() > CONNECTION_TIME / 2, "{:?}", begun.elapsed());
        task.abort();
    }
}
