//! Tests of the client with servers that break off, send a wrong length or too much, or lack the right key.

use common::causes::with_causes;
use common::deltas::DeltaTable;
use common::id::{ImageId, MachineId};
use common::limits::{BUNDLE_BYTES_MAX, CHUNK_BYTES};
use common::manifest::{Chunk, Manifest};
use common::plan::Instruction;

use super::testing::{Answer, Request, TestServer};

use super::*;

fn keys() -> (KeyPair, KeyPair) {
    (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]))
}

fn report(pair: &KeyPair) -> HardwareReport {
    HardwareReport { key: pair.public(), ..common::testing::report() }
}

fn wait(key: PublicKey) -> Verdict {
    let order = Instruction::Wait { seconds: 3, reason: "nothing ordered".to_owned() };
    Verdict { key, report: Hash::of(b""), seconds: 60, machine: MachineId(7), instruction: order }
}

#[test]
fn an_address_is_plain_http_without_a_path() {
    for good in ["http://10.0.0.1:8069", "http://10.0.0.1:8069/", "http://[fd00::1]:80", "http://seed"] {
        assert!(base_of(good).is_ok(), "{good}");
    }
    for bad in [
        "https://10.0.0.1",
        "10.0.0.1:8069",
        "http://",
        "http://a/b",
        "http://u@h/",
        "http://h/?q",
        "",
        "ftp://h",
    ] {
        assert!(matches!(base_of(bad), Err(FetchError::Url { .. })), "{bad}");
    }
}

#[test]
fn a_verdict_counts_only_from_our_server_and_for_our_key() {
    let (server_key, ours) = keys();
    let other = KeyPair::from_secret([3; 32]);
    let table: [(KeyPair, PublicKey, bool, &str); 4] = [
        (server_key.clone(), ours.public(), true, "good"),
        (other.clone(), ours.public(), true, "untrusted"),
        (server_key.clone(), other.public(), true, "not ours"),
        (server_key.clone(), ours.public(), false, "stale"),
    ];
    for (signer, answers, to_this, wanted) in table {
        let verdict = wait(answers);
        let (told, expected, known_as) = (verdict.clone(), ours.public(), server_key.public());
        let server = TestServer::start(move |request: &Request| {
            if request.path == IDENTITY {
                let (version, nonce) = ("1".to_owned(), "n".to_owned());
                return Answer::json(&Identity { key: known_as, version, nonce });
            }
            let signed: Signed<SentReport> = serde_json::from_slice(&request.body).unwrap();
            let sent = signed.open(&expected).unwrap();
            assert_eq!((sent.hardware.key, sent.nonce.as_str()), (expected, "n"));
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", REPORT));
            // A replayed answer: it answers an earlier report of the same machine with the same hardware.
            let report = if to_this { signed.digest() } else { Hash::of(b"an earlier report") };
            Answer::json(&signer.sign(&Verdict { report, ..told.clone() }))
        });
        let client = Server::new(&server.url, server_key.public()).unwrap();
        let got = match client.report(&ours, &report(&ours)) {
            Ok((read, _)) if read.instruction == verdict.instruction => "good",
            Err(FetchError::Stale) => "stale",
            Err(FetchError::Untrusted { .. }) => "untrusted",
            Err(FetchError::NotOurs { .. }) => "not ours",
            other => panic!("{other:?}"),
        };
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_refusal_is_told_in_the_servers_words_or_safely_in_anybodys() {
    let (server_key, ours) = keys();
    let refused = Refused {
        error: "the report is too long".to_owned(),
        cause: None,
        hint: Some("update the loader".to_owned()),
    };
    let body = serde_json::to_vec(&refused).unwrap();
    let server = TestServer::start(move |_| Answer::Whole(413, vec![], body.clone()));
    let client = Server::new(&server.url, server_key.public()).unwrap();
    let error = client.report(&ours, &report(&ours)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("413: the report is too long; update the loader"), "{text}");

    let server = TestServer::start(|_| Answer::Whole(404, vec![], b"<html>\x1b[2J no".to_vec()));
    let client = Server::new(&server.url, server_key.public()).unwrap();
    let text = client.identity().unwrap_err().to_string();
    assert!(text.contains("404: <html> [2J no") && !text.contains('\x1b'), "{text}");

    // The body may be in our own format, and still hold characters that control a terminal.
    let steering = "\u{1b}[2J\u{202e}no";
    let refused = Refused {
        error: steering.to_owned(),
        cause: Some(steering.to_owned()),
        hint: Some(steering.to_owned()),
    };
    let body = serde_json::to_vec(&refused).unwrap();
    let server = TestServer::start(move |_| Answer::Whole(400, vec![], body.clone()));
    let client = Server::new(&server.url, server_key.public()).unwrap();
    let text = client.identity().unwrap_err().to_string();
    assert!(text.ends_with("400:  [2Jno;  [2Jno;  [2Jno"), "{text:?}");
}

#[test]
fn an_answer_longer_than_its_bound_is_not_read() {
    let server = TestServer::start(|_| Answer::Cut(200, vec![], vec![b'a'; VERDICT_BYTES_MAX + 1], 10));
    let error = identity_of(&server.url).unwrap_err();
    assert!(matches!(error, FetchError::TooLong { .. }), "{error:?}");
}

/// Serves `bundle`, closing the connection after `step` bytes of every answer.
fn dribble(bundle: Vec<u8>, step: usize, ranges: bool) -> TestServer {
    TestServer::start(move |request: &Request| {
        let from = if ranges { request.from.unwrap_or(0) } else { 0 };
        let rest = bundle[from..].to_vec();
        let sent = step.min(rest.len());
        if from == 0 {
            return Answer::Cut(200, vec![], rest, sent);
        }
        let range = format!("Content-Range: bytes {from}-{}/{}", bundle.len() - 1, bundle.len());
        Answer::Cut(206, vec![range], rest, sent)
    })
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let bundle: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let server = dribble(bundle.clone(), 150_000, true);
    let client = Server::new(&server.url, keys().0.public()).unwrap();
    let mut told = vec![];
    let got = client.bundle(Hash::of(&bundle), bundle.len() as u64, &mut |at| told.push(at)).unwrap();
    assert!(got == bundle);
    assert!(told.is_sorted() && told.last() == Some(&(bundle.len() as u64)));
    let from: Vec<_> = server.requests().iter().map(|request| request.from).collect();
    assert_eq!(from, [None, Some(150_000), Some(300_000)]);
}

#[test]
fn a_bundle_with_another_hash_or_length_is_refused() {
    let bundle = vec![7; 1000];
    let client = |server: &TestServer| Server::new(&server.url, keys().0.public()).unwrap();
    let server = dribble(bundle.clone(), 1000, true);
    let wrong = client(&server).bundle(Hash::of(b"other"), 1000, &mut |_| {}).unwrap_err();
    assert!(matches!(wrong, FetchError::WrongHash { .. }), "{wrong:?}");
    let longer = client(&server).bundle(Hash::of(&bundle), 999, &mut |_| {}).unwrap_err();
    assert!(matches!(longer, FetchError::TooLong { bytes: 1000, max: 999, .. }), "{longer:?}");
    let huge = client(&server).bundle(Hash::of(&bundle), BUNDLE_BYTES_MAX + 1, &mut |_| {}).unwrap_err();
    assert!(matches!(huge, FetchError::TooLong { .. }), "{huge:?}");
}

#[test]
fn a_manifest_is_the_one_asked_for() {
    let manifest = Manifest::new(u64::from(CHUNK_BYTES), 512, vec![Chunk::Zero]).unwrap();
    let bytes = manifest.to_bytes();
    let server = TestServer::start(move |_| Answer::Whole(200, vec![], bytes.clone()));
    let client = Server::new(&server.url, keys().0.public()).unwrap();
    let encoded = manifest.to_bytes();
    assert_eq!(client.manifest(manifest.id(), manifest.size()).unwrap(), (manifest.clone(), encoded));
    let other = ImageId(Hash::of(b"other"));
    assert!(matches!(client.manifest(other, manifest.size()), Err(FetchError::Manifest(_))));
}

#[test]
fn a_table_of_deltas_is_the_one_that_the_plan_names() {
    let bytes = DeltaTable::default().to_bytes();
    let (image, sent) = (ImageId(Hash::of(b"image")), bytes.clone());
    let server = TestServer::start(move |_| Answer::Whole(200, vec![], sent.clone()));
    let client = |server: &TestServer| Server::new(&server.url, keys().0.public()).unwrap();
    assert_eq!(client(&server).deltas(image, Hash::of(&bytes)).unwrap(), DeltaTable::default());
    let other = client(&server).deltas(image, Hash::of(b"other"));
    assert!(matches!(other, Err(FetchError::OtherDeltas)), "{other:?}");
    let server = TestServer::start(|_| Answer::Whole(200, vec![], b"no table".to_vec()));
    let nonsense = client(&server).deltas(image, Hash::of(b"no table"));
    assert!(matches!(nonsense, Err(FetchError::Deltas(_))), "{nonsense:?}");
}

#[test]
fn only_a_connection_that_nobody_accepts_costs_a_line_nothing() {
    let client = |url: &str| Server::new(url, keys().0.public()).unwrap();
    assert!(client("http://127.0.0.1:1").identity().unwrap_err().is_unsent(), "nobody listens");
    let answers: [fn() -> Answer; 3] = [
        || Answer::Nothing,
        || Answer::Whole(503, vec![], b"busy".to_vec()),
        || Answer::Cut(200, vec![], vec![b' '; 100], 10),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let server = TestServer::start(move |_| answer());
        let error = client(&server.url).identity().unwrap_err();
        assert!(!error.is_unsent(), "{number}: {error:?}");
    }
}

#[test]
fn causes_are_told_once_each() {
    let error = Server::new("http://127.0.0.1:1", keys().0.public()).unwrap().identity().unwrap_err();
    let text = with_causes(&error);
    assert_eq!(text.to_lowercase().matches("refused").count(), 1, "{text}");
}

#[test]
fn a_server_has_several_addresses_and_each_is_checked() {
    let key = keys().0.public();
    for wrong in ["", ",", "http://a:1,", "http://a:1,ftp://b"] {
        assert!(Server::new(wrong, key).is_err(), "{wrong}");
    }
    let urls = "http://10.1.0.2:8069,http://10.0.0.1:8069";
    let server = Server::new(urls, key).unwrap();
    assert_eq!((server.url(), server.urls().as_str()), ("http://10.1.0.2:8069", urls));
}

#[test]
fn a_relay_that_is_gone_or_without_its_server_is_passed_over() {
    let refused = |status: u16| FetchError::Refused {
        what: "it",
        status,
        body: Box::new(Refused { error: String::new(), cause: None, hint: None }),
    };
    for (status, passed) in [(403, false), (404, false), (500, false), (502, true), (503, true), (504, true)]
    {
        assert_eq!(refused(status).is_silence(), passed, "{status}");
    }
    let identity = Identity { key: keys().0.public(), version: "1".to_owned(), nonce: "n".to_owned() };
    let server = TestServer::start(move |_| Answer::json(&identity));
    let gone = format!("http://127.0.0.1:1,{}", server.url);
    let client = Server::new(&gone, keys().0.public()).unwrap();
    client.identity().unwrap();
    assert_eq!(client.url(), server.url, "what answers is kept");
}
