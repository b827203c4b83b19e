//! Requests of real firmware and systems, and what the server makes of them in both modes. Owns the fixtures in
//! `captured/`; they are recorded by the lab (`SWARMBOOT_CAPTURE`, see tests/README.md), and each has what is expected
//! of it. Touches these files.
//!
//! `SWARMBOOT_UPDATE=1 cargo test -p swarmboot --lib captured` writes what the server makes of them now: for new ones,
//! and to look at the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::decide::{Answer, BootFile, Decision, Port, ServerProfile, firmware_of};
use super::request::BootRequest;
use super::testing::{answer_everywhere, beside, decided, full};
use crate::fleet::boot_policy::BootPolicy;

/// A fixture's lines: `port 67`, the packet in hexadecimal, and what is expected of the request and in both modes.
struct Captured {
    port: Port,
    /// The hexadecimal bytes as they are in the file.
    hex: String,
    bytes: Vec<u8>,
    expected: String,
}

fn read(text: &str) -> Captured {
    let mut captured =
        Captured { port: Port::Dhcp, hex: String::new(), bytes: vec![], expected: String::new() };
    for line in text.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("port", number) => captured.port = if number == "4011" { Port::Pxe } else { Port::Dhcp },
            ("asks" | "full" | "proxy", _) => writeln!(captured.expected, "{line}").unwrap(),
            _ => {
                writeln!(captured.hex, "{line}").unwrap();
                let bytes = line.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap());
                captured.bytes.extend(bytes);
            }
        }
    }
    captured
}

/// What the server makes of it now: a line for the request and one for each mode.
fn made_of(captured: &Captured) -> String {
    let request = BootRequest::parse(&captured.bytes).unwrap();
    answer_everywhere(&request);
    let mut text = format!("asks {:?}, {:?}, {}", request.ask, request.client, firmware_of(&request));
    write!(text, ", architectures {:?}, at most {} bytes", request.architectures, request.max_bytes).unwrap();
    let wanted = request.wanted.map(|address| format!(", wants {address}")).unwrap_or_default();
    let server = request.server.map(|address| format!(", means {address}")).unwrap_or_default();
    let broadcast = if request.broadcast() { ", hears broadcasts only" } else { "" };
    writeln!(text, "{wanted}{server}{broadcast}").unwrap();
    for (mode, profile) in [("full", full()), ("proxy", beside())] {
        writeln!(text, "{mode} {}", decision(&request, captured.port, &profile)).unwrap();
    }
    text
}

fn decision(request: &BootRequest, port: Port, profile: &ServerProfile) -> String {
    match decided(request, port, BootPolicy::Load, profile) {
        Decision::Answer(answer) => words(&answer),
        Decision::Silence(why) => format!("silence: {why:?}"),
        Decision::Check(address) => format!("looks for {address}"),
    }
}

fn words(answer: &Answer) -> String {
    let lease =
        answer.lease.map(|(address, seconds)| format!(" {address} for {seconds} s")).unwrap_or_default();
    let Some(boot) = &answer.boot else {
        return format!("{:?}{lease} to {}, nothing to boot", answer.kind, answer.firmware);
    };
    let file = match &boot.file {
        Some(BootFile::Tftp(name)) => format!("{name} over TFTP"),
        Some(BootFile::Url(url)) => url.clone(),
        None => "come to 4011".to_owned(),
    };
    let vendor = boot.vendor.map(|vendor| format!(", as {vendor:?}")).unwrap_or_default();
    let no_menu = if boot.no_menu { ", no menu" } else { "" };
    let no_proxy = if boot.no_proxy { ", no proxy" } else { "" };
    format!("{:?}{lease} to {}, {file}{vendor}{no_menu}{no_proxy}", answer.kind, answer.firmware)
}

#[test]
fn captured_requests_are_answered_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dhcp4/captured");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut kinds = 0;
    for path in paths {
        let captured = read(&fs::read_to_string(&path).unwrap());
        let made = made_of(&captured);
        let port = if captured.port == Port::Pxe { 4011 } else { 67 };
        if std::env::var_os("SWARMBOOT_UPDATE").is_some() {
            fs::write(&path, format!("port {port}\n{made}{}", captured.hex)).unwrap();
        } else {
            assert_eq!(made, captured.expected, "{}", path.display());
        }
        kinds += 1;
    }
    assert!(kinds > 0, "nothing is captured");
}
