//! What is served of the dashboard, and rules for its files that a browser would only enforce at run time.

#![allow(clippy::unwrap_used)]

use std::io::Read as _;

use axum::http::HeaderMap;

use super::*;

/// The most that all files together may have as they are sent, packed, in bytes: over a line of 1 Mbit/s the page is there
/// in half a second. And as they are in the tree.
const SENT_MAX: usize = 70 << 10;
const BYTES_MAX: usize = 178 << 10;
/// The longest file, in lines, as for the code of the server.
const LINES_MAX: usize = 500;

fn texts() -> Vec<(String, String)> {
    let text = |name: &str| String::from_utf8(Web::get(name).unwrap().data.into_owned()).unwrap();
    Web::iter().map(|name| (name.to_string(), text(&name))).collect()
}

#[test]
fn every_file_is_of_a_kind_that_browsers_know_and_short() {
    let all = texts();
    assert!(all.len() > 10 && all.iter().any(|(name, _)| name == INDEX));
    for (name, text) in &all {
        assert_ne!(media(name), "application/octet-stream", "{name}");
        assert!(text.lines().count() <= LINES_MAX, "{name}: divide the file");
    }
    let sum: usize = all.iter().map(|(_, text)| text.len()).sum();
    assert!(sum <= BYTES_MAX, "{sum} bytes");
    let sent: usize = all.iter().map(|(name, _)| PACKED[name].len()).sum();
    assert!(sent <= SENT_MAX, "{sent} bytes are sent");
}

#[tokio::test]
async fn a_file_is_sent_packed_to_who_takes_that() {
    let sent = async |encodings: &'static str| {
        let mut asked = HeaderMap::new();
        asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encodings));
        let answer = file("js/main.js", &asked);
        let coding = answer.headers().get(header::CONTENT_ENCODING).cloned();
        assert_eq!(answer.headers()[header::VARY], "Accept-Encoding");
        (coding, axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap())
    };
    let plain = Web::get("js/main.js").unwrap().data;
    for encodings in ["gzip, deflate, br, zstd", "br,GZIP"] {
        let (coding, bytes) = sent(encodings).await;
        assert_eq!(coding.unwrap(), "gzip");
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, plain.as_ref());
    }
    for encodings in ["", "br", "gzip;q=0", "xgzip"] {
        let (coding, bytes) = sent(encodings).await;
        assert!(coding.is_none() && bytes == plain.as_ref(), "{encodings}");
    }
}

/// Neither the page nor any of its files is shown in somebody else's frame, where a click could be stolen; no cookie
/// stands for a person, so nobody else's form does anything in their name.
#[test]
fn every_file_has_the_headers_that_protect_it() {
    for name in Web::iter() {
        let answer = file(&name, &HeaderMap::new());
        let headers = answer.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in ["default-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{name}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{name}: {policy}");
        assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert!(!headers.contains_key(header::SET_COOKIE));
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}

#[test]
fn nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
    // What makes markup or code of a text, and what the policy would refuse.
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "javascript:",
        "style=\"",
        "onclick=",
        "<style",
        "srcdoc",
    ];
    for (name, text) in texts() {
        for word in forbidden {
            assert!(!text.contains(word), "{name} has `{word}`");
        }
        let far = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!far.contains("http://") && !far.contains("https://"), "{name} names another host");
    }
}

#[test]
fn what_a_file_imports_or_names_is_there() {
    let all = texts();
    for (name, text) in &all {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let imported = text.split("from \"./").skip(1).map(|rest| (0, rest));
        let above = text.split("from \"../").skip(1).map(|rest| (1, rest));
        for (up, rest) in imported.chain(above) {
            let path = rest.split('"').next().unwrap();
            let base = if up == 0 { folder } else { folder.rsplit_once('/').map_or("", |(base, _)| base) };
            let wanted = if base.is_empty() { path.to_owned() } else { format!("{base}/{path}") };
            assert!(all.iter().any(|(other, _)| *other == wanted), "{name} imports {wanted}");
        }
    }
    let index = &all.iter().find(|(name, _)| name == INDEX).unwrap().1;
    for rest in index.split("href=\"").chain(index.split("src=\"")).skip(1) {
        let path = rest.split('"').next().unwrap();
        assert!(path.is_empty() || all.iter().any(|(name, _)| name == path) || !path.contains('.'), "{path}");
    }
}

#[test]
fn a_browser_that_has_a_file_is_not_sent_it_again() {
    let first = file(INDEX, &HeaderMap::new());
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(first.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
    let mut asked = HeaderMap::new();
    asked.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
    assert_eq!(file(INDEX, &asked).status(), StatusCode::NOT_MODIFIED);
    asked.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"another\""));
    assert_eq!(file(INDEX, &asked).status(), StatusCode::OK);
}

/// The page says in words what the API says by a name: each name has its words there.
#[test]
fn every_warning_and_conclusion_has_its_words() {
    let words = texts().into_iter().find(|(name, _)| name == "js/words.js").unwrap().1;
    let shapes = [include_str!("../api/shapes/warning.rs"), include_str!("../api/shapes/silence.rs")];
    let mut found = 0;
    for shape in shapes {
        let body = shape.split("pub enum ").nth(1).unwrap().split("\n}").next().unwrap();
        for line in body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
            let name: String = line.trim().chars().take_while(char::is_ascii_alphanumeric).collect();
            if !name.starts_with(|first: char| first.is_ascii_uppercase()) {
                continue;
            }
            let kebab: String = name
                .char_indices()
                .flat_map(|(at, one)| {
                    let dash = (at > 0 && one.is_ascii_uppercase()).then_some('-');
                    dash.into_iter().chain([one.to_ascii_lowercase()])
                })
                .collect();
            assert!(words.contains(&format!("case \"{kebab}\"")), "js/words.js has no words for {kebab}");
            found += 1;
        }
    }
    assert!(found > 15, "{found}");
}
