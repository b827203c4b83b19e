//! Images that are sent over lines that break: the real program, the real server, and a proxy between them that cuts
//! connections. Touches a temporary folder and the loopback.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::parts::Parts;
use super::{elsewhere, program_elsewhere, run_at, token_in};

/// Bytes of the image: three pieces of the program's.
const IMAGE_BYTES: usize = 40 << 20;
/// What a connection brings upward before it is cut.
const CUT_AFTER: u64 = 5 << 20;

/// Within this the server has read what was on its way to it, which a later request would end: the bounds on what is sent
/// again count on that.
const READ_TIME: Duration = Duration::from_secs(2);
/// How long a connection brings no answer before it is cut.
const MUTE_TIME: Duration = Duration::from_secs(1);

/// When a connection is cut.
#[derive(Clone, Copy)]
enum Cut {
    /// When it has brought [`CUT_AFTER`] upward, so many times.
    Upward(usize),
    /// The so many-th connection brings no answer, and is cut after [`MUTE_TIME`].
    Answer(usize),
}

/// A proxy that cuts connections; knows how many there were and what they brought upward.
#[derive(Clone)]
struct Proxy {
    url: String,
    upward: Arc<AtomicU64>,
    connections: Arc<AtomicUsize>,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    async fn before(parts: &Parts, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let to = parts.api().0.trim_start_matches("https://").to_owned();
        let proxy = Self { url, upward: Arc::default(), connections: Arc::default(), cuts: Arc::default() };
        let mine = proxy.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&to).await.unwrap();
                let number = mine.connections.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(mine.clone().carry(near, far, number, cut));
            }
        });
        proxy
    }

    async fn carry(self, mut near: TcpStream, mut far: TcpStream, number: usize, cut: Cut) {
        let (mut up, mut down, mut brought) = (vec![0; 64 << 10], vec![0; 64 << 10], 0);
        let is_mute = matches!(cut, Cut::Answer(it) if it == number);
        let end = tokio::time::Instant::now() + if is_mute { MUTE_TIME } else { Duration::from_secs(600) };
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => {
                    self.cuts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                read = near.read(&mut up) => {
                    let Ok(len @ 1..) = read else { return };
                    if far.write_all(&up[..len]).await.is_err() { return };
                    brought += len as u64;
                    self.upward.fetch_add(len as u64, Ordering::SeqCst);
                    let is_due = matches!(cut, Cut::Upward(times) if brought > CUT_AFTER && self.cuts.load(Ordering::SeqCst) < times);
                    if is_due {
                        self.cuts.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(READ_TIME).await;
                        return;
                    }
                }
                read = far.read(&mut down) => {
                    let Ok(len @ 1..) = read else { return };
                    // The handshake's answer passes: it comes before the request, which is longer.
                    if is_mute && brought > 400 {
                        continue;
                    }
                    if near.write_all(&down[..len]).await.is_err() { return };
                }
            }
        }
    }
}

/// Bytes that no compression makes fewer and no chunk shares, and which are the same at every run.
fn noise(seed: &str) -> Vec<u8> {
    let mut bytes = vec![0; IMAGE_BYTES];
    blake3::Hasher::new_derive_key("swarmboot test").update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

async fn token(parts: &Parts, name: &str, role: &str) -> String {
    let made = run_at(parts.folder(), &["token", "create", name, "--role", role]).await;
    token_in(&String::from_utf8_lossy(&made.stdout)).unwrap().to_owned()
}

/// The program that sends `disk` through `url` under `name`.
fn sending(parts: &Parts, url: &str, token: &str, name: &str) -> std::process::Command {
    let mut place = elsewhere(parts, token.to_owned());
    url.clone_into(&mut place[0].1);
    let mut command = program_elsewhere(parts.folder(), &place);
    command.args(["image", "add", name, "noise.img", "--no-table"]);
    command
}

async fn done(mut command: std::process::Command) -> (bool, String) {
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

/// The image `name` as the server gives it back.
async fn kept(parts: &Parts, name: &str) -> Vec<u8> {
    let out = format!("{name}.out");
    let export = run_at(parts.folder(), &["image", "export", name, &out]).await;
    assert!(export.status.success(), "{export:?}");
    fs::read(parts.folder().join(out)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_on_where_the_line_broke() {
    let parts = Parts::start().await;
    let image = noise("broken line");
    fs::write(parts.folder().join("noise.img"), &image).unwrap();
    let chief = token(&parts, "chief", "admin").await;

    // Cut twice: nothing that had come is sent again.
    let proxy = Proxy::before(&parts, Cut::Upward(2)).await;
    let (ok, said) = done(sending(&parts, &proxy.url, &chief, "twice")).await;
    assert!(ok && said.contains("the line broke; going on after"), "{said}");
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 2);
    let upward = proxy.upward.load(Ordering::SeqCst);
    assert!(upward < IMAGE_BYTES as u64 + 2 * (3 << 20), "{upward} bytes were sent");
    assert!(kept(&parts, "twice").await == image);

    // The program is killed; the same command goes on.
    let proxy = Proxy::before(&parts, Cut::Upward(0)).await;
    let mut command = sending(&parts, &proxy.url, &chief, "killed");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while proxy.upward.load(Ordering::SeqCst) < 20 << 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    tokio::time::sleep(READ_TIME).await;
    let before = proxy.upward.load(Ordering::SeqCst);
    let (ok, said) = done(sending(&parts, &proxy.url, &chief, "killed")).await;
    assert!(ok && said.contains("of it from before"), "{said}");
    let after = proxy.upward.load(Ordering::SeqCst) - before;
    assert!(after < IMAGE_BYTES as u64 - (15 << 20), "{after} bytes were sent again");
    assert!(kept(&parts, "killed").await == image);
    parts.verdict();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_found_whose_addition_nobody_heard_of() {
    let parts = Parts::start().await;
    fs::write(parts.folder().join("noise.img"), noise("no answer")).unwrap();
    let chief = token(&parts, "chief", "admin").await;
    // What was begun, announced, three pieces, and then the addition.
    let proxy = Proxy::before(&parts, Cut::Answer(6)).await;
    let (ok, said) = done(sending(&parts, &proxy.url, &chief, "unheard")).await;
    assert!(ok && proxy.cuts.load(Ordering::SeqCst) == 1, "{said}");
    let connections = proxy.connections.load(Ordering::SeqCst);
    assert!(connections >= 8, "it asked again, and then for the image: {connections}");
    let upward = proxy.upward.load(Ordering::SeqCst);
    assert!(upward < IMAGE_BYTES as u64 + (1 << 20), "{upward} bytes were sent: it began again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_its_owners_and_takes_only_what_follows() {
    let parts = Parts::start().await;
    let (anna, bert) = (token(&parts, "anna", "admin").await, token(&parts, "bert", "admin").await);
    let viewer = token(&parts, "vera", "viewer").await;
    let ask = async |token: &str, method: &str, path: &str, headers: &str, body: &str| {
        let text = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let mut stream = parts.sent(&text).await;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let opened = ask(&anna, "POST", "/uploads", "", r#"{"name": "disk", "bytes": 4}"#).await;
    assert_eq!(status(&opened), "200", "{opened}");
    let shown: Value = serde_json::from_str(opened.rsplit("\r\n\r\n").next().unwrap()).unwrap();
    let place = format!("/uploads/{}", shown["id"].as_str().unwrap());
    assert!(opened.to_lowercase().contains(&format!("location: /api/v1{place}")), "{opened}");
    for (token, method, path, headers, body, wanted) in [
        (&viewer, "GET", place.as_str(), "", "", "403"),
        (&bert, "GET", &place, "", "", "404"),
        (&bert, "PATCH", &place, "Upload-Offset: 0\r\n", "abcd", "404"),
        (&bert, "DELETE", &place, "", "", "404"),
        (&anna, "PATCH", &place, "", "abcd", "400"),
        (&anna, "PATCH", &place, "Upload-Offset: one\r\n", "abcd", "400"),
        (&anna, "PATCH", &place, "Upload-Offset: 1\r\n", "abcd", "409"),
        (&anna, "PATCH", &place, "Upload-Offset: 0\r\n", "abcde", "413"),
        (&anna, "PATCH", &place, "Upload-Offset: 0\r\n", "abcd", "200"),
        (&anna, "PATCH", &place, "Upload-Offset: 0\r\n", "abcd", "409"),
        (&anna, "POST", &format!("{place}/image"), "", &end(5, b"abcde"), "409"),
        (&anna, "POST", &format!("{place}/image"), "", &end(4, b"abce"), "422"),
        // What came was not what was sent: it is gone.
        (&anna, "GET", &place, "", "", "404"),
        (&anna, "POST", "/uploads", "", r#"{"name": "../disk"}"#, "422"),
        (&anna, "POST", "/uploads", "", r#"{"name": "disk", "bytes": 18446744073709551615}"#, "413"),
        (&anna, "POST", "/uploads", "", r#"{"name": "disk", "bytes": 17592186044416}"#, "422"),
    ] {
        let answer = ask(token, method, path, headers, body).await;
        assert_eq!(status(&answer), wanted, "{method} {path} {headers}: {answer}");
    }
    parts.verdict();
}

/// What ends an upload of `bytes`.
fn end(len: usize, bytes: &[u8]) -> String {
    format!(r#"{{"bytes": {len}, "blake3": "{}"}}"#, blake3::hash(bytes).to_hex())
}
