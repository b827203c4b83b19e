//! The dashboard: a page of plain files, which a browser loads once and which then asks the API for everything. Owns the
//! files in `server/src/dashboard/web`, which are part of the program, and how they are served. Touches nothing.
//!
//! The files hold nothing of this server, so anybody who reaches the port may load them; whatever the page shows comes
//! from the API, with the token of whoever signs in. Nothing is loaded from elsewhere, and the policy that is sent with
//! each file forbids it: neither a script nor a style in a machine's name could run.
//!
//! The files are plain in the tree, with their comments, and there is no build step; they are packed once when the
//! program first needs them, because the page is opened over thin lines too.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What the browser may do for the page: load and ask this server, and nothing else.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// The page itself, served at `/`.
const INDEX: &str = "index.html";

#[derive(RustEmbed)]
#[folder = "src/dashboard/web"]
struct Web;

/// The files by their names, as gzip.
static PACKED: LazyLock<HashMap<String, Bytes>> = LazyLock::new(|| {
    Web::iter().filter_map(|name| Some((name.to_string(), packed(&Web::get(&name)?.data)?))).collect()
});

/// `data` as gzip; none if that fails, and then it is sent plain.
fn packed(data: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// Whether a browser takes gzip. Who refuses it in so many words (`gzip;q=0`) gets it plain, too.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let codings = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    codings.flat_map(|value| value.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("gzip"))
}

/// The routes of the dashboard's files: `/`, and each file under its path.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let one = |name: String| {
        let path = if name == INDEX { "/".to_owned() } else { format!("/{name}") };
        (path, get(async move |headers: HeaderMap| file(&name, &headers)))
    };
    Web::iter()
        .map(|name| one(name.into_owned()))
        .fold(Router::new(), |router, (path, handler)| router.route(&path, handler))
}

/// The file of this name, or nothing new for a browser that has it.
fn file(name: &str, asked: &HeaderMap) -> Response {
    let Some(file) = Web::get(name) else { return StatusCode::NOT_FOUND.into_response() };
    let tag = tag(&file);
    let known = asked.get(header::IF_NONE_MATCH).is_some_and(|has| has.as_bytes() == tag.as_bytes());
    let packed = PACKED.get(name).filter(|_| takes_gzip(asked) && !known);
    let mut answer = match packed {
        _ if known => StatusCode::NOT_MODIFIED.into_response(),
        Some(packed) => Body::from(packed.clone()).into_response(),
        None => Body::from(file.data).into_response(),
    };
    let headers = answer.headers_mut();
    let mut say = |name, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    if packed.is_some() {
        say(header::CONTENT_ENCODING, "gzip");
    }
    say(header::VARY, "Accept-Encoding");
    say(header::CONTENT_TYPE, media(name));
    say(header::CONTENT_SECURITY_POLICY, POLICY);
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::X_FRAME_OPTIONS, "DENY");
    say(header::REFERRER_POLICY, "no-referrer");
    // Asked for again at each visit, and not sent again: after an upgrade no browser runs half of the old page.
    say(header::CACHE_CONTROL, "no-cache");
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    answer
}

/// The file's tag: half of its hash, which is more than enough to tell two versions apart. A weak one, because it is the
/// same whether the file is packed or not.
fn tag(file: &EmbeddedFile) -> String {
    format!("W/\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]))
}

/// What a browser is told that the file is.
fn media(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
