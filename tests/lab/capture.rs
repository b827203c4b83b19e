//! Keeps the DHCP requests that machines send, as fixtures for the server's tests: with `SWARMBOOT_CAPTURE=FOLDER` the
//! packets of every machine's network card are dumped, and the first of each kind of request becomes a file in FOLDER.
//! Touches QEMU's dumps and that folder; an existing file is left alone, so that a second run changes nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The folder for the requests; none if they are not to be kept.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os("SWARMBOOT_CAPTURE").map(PathBuf::from)
}

/// Writes the requests in a dump to `folder`.
///
/// # Errors
/// When `dump` is not a packet dump, or a file cannot be written.
pub(crate) fn keep(dump: &Path, folder: &Path) -> Result<()> {
    let bytes = fs::read(dump).with_context(|| format!("cannot read {}", dump.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for frame in frames(&bytes)? {
        let Some((port, packet)) = request(frame) else { continue };
        let Some(name) = name(port, packet) else { continue };
        let path = folder.join(format!("{name}.hex"));
        if !path.exists() {
            fs::write(&path, text(port, packet))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The frames of a file in the format of libpcap, little-endian, as QEMU writes it; one that was cut short is left out.
fn frames(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    ensure!(bytes.starts_with(&0xa1b2_c3d4_u32.to_le_bytes()), "this is no dump of a network card");
    let mut rest = bytes.get(24..).unwrap_or_default();
    let mut frames = vec![];
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let long = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let Some((frame, behind)) = behind.split_at_checked(usize::try_from(long)?) else { break };
        frames.push(frame);
        rest = behind;
    }
    Ok(frames)
}

/// The port and the payload of a frame that is a BOOTP request over UDP and IPv4. QEMU puts virtio's header before a
/// frame where the card and the tap exchange one.
fn request(dumped: &[u8]) -> Option<(u16, &[u8])> {
    const VIRTIO_HEADERS: [usize; 3] = [0, 10, 12];
    VIRTIO_HEADERS.into_iter().find_map(|head| request_in(dumped.get(head..)?))
}

fn request_in(frame: &[u8]) -> Option<(u16, &[u8])> {
    let ip = frame.get(12..)?.strip_prefix(&[8, 0])?;
    let head = usize::from(ip.first()? & 0x0f) * 4;
    let (is_udp, udp) = (*ip.get(9)? == 17, ip.get(head..)?);
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let long = u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]);
    // Bytes behind the datagram only pad a short frame.
    let packet = udp.get(8..usize::from(long))?;
    (is_udp && [67, 4011].contains(&port) && packet.first() == Some(&1)).then_some((port, packet))
}

/// The value of an option; for those inside options 43 and 175 the caller passes the outer value.
fn option(options: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = options;
    loop {
        match rest {
            [0, behind @ ..] => rest = behind,
            [code, long, behind @ ..] if *code != 255 => {
                let value = behind.get(..usize::from(*long))?;
                if *code == wanted {
                    return Some(value);
                }
                rest = &behind[value.len()..];
            }
            _ => return None,
        }
    }
}

/// A name made of the sender and the kind of request: `pxe-00007-discover`, `ipxe-1.21.1-00000-request`, `os-renew`.
fn name(port: u16, packet: &[u8]) -> Option<String> {
    let options = packet.get(240..)?;
    let uses_address = packet[12..16] != [0; 4];
    let message = match option(options, 53)? {
        [1] => "discover",
        [3] if uses_address => "renew",
        [3] => "request",
        [4] => "decline",
        [7] => "release",
        [8] => "inform",
        _ => return None,
    };
    let vendor = String::from_utf8_lossy(option(options, 60).unwrap_or_default()).into_owned();
    let architecture = vendor.split(':').nth(2).unwrap_or_default();
    let who = match vendor.split(':').next().unwrap_or_default() {
        "PXEClient" if option(options, 77) == Some(b"iPXE") => {
            let version = option(options, 175).and_then(|inside| option(inside, 235)).unwrap_or_default();
            let version: Vec<String> = version.iter().map(u8::to_string).collect();
            format!("ipxe-{}-{architecture}", version.join("."))
        }
        "PXEClient" => format!("pxe-{architecture}"),
        "HTTPClient" => format!("http-{architecture}"),
        "" => "os".to_owned(),
        other => {
            let plain = other.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c));
            plain.take(32).collect()
        }
    };
    let port = if port == 67 { String::new() } else { format!("-{port}") };
    Some(format!("{who}-{message}{port}"))
}

/// A fixture: the port, and the packet's bytes. The server's answer is added by the server's test.
fn text(port: u16, packet: &[u8]) -> String {
    let mut text = format!("port {port}\n");
    for line in packet.chunks(16) {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{}", bytes.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dump of one frame that carries `packet` to `port`.
    fn dump(virtio_header: usize, port: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; virtio_header];
        frame.extend([0xff; 12]);
        frame.extend([8, 0, 0x45]);
        frame.extend([0; 8]);
        frame.push(17);
        frame.extend([0; 10]);
        frame.extend([0, 68]);
        frame.extend(port.to_be_bytes());
        frame.extend(u16::try_from(packet.len() + 8).unwrap().to_be_bytes());
        frame.extend([0; 2]);
        frame.extend(packet);
        frame.extend([0; 7]);
        let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        bytes.extend([0; 28]);
        bytes.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(frame);
        bytes.extend([0; 5]);
        bytes
    }

    fn packet(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![0; 240];
        packet[0] = 1;
        for (code, value) in options {
            packet.extend([*code, u8::try_from(value.len()).unwrap()]);
            packet.extend(*value);
        }
        packet.push(255);
        packet
    }

    #[test]
    fn the_first_request_of_each_kind_becomes_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let keep = |port, packet: &[u8]| {
            let path = folder.path().join("dump");
            fs::write(&path, dump(packet.len() % 2 * 12, port, packet)).unwrap();
            super::keep(&path, &folder.path().join("out")).unwrap();
        };
        let rom = b"PXEClient:Arch:00007:UNDI:003001".as_slice();
        keep(67, &packet(&[(53, &[1]), (60, rom)]));
        keep(4011, &packet(&[(53, &[3]), (60, rom)]));
        keep(67, &packet(&[(53, &[3]), (175, &[235, 3, 1, 21, 1]), (77, b"iPXE"), (60, rom)]));
        keep(67, &packet(&[(53, &[1]), (60, b"../swarmboot")]));
        keep(67, &packet(&[(53, &[1])]));
        keep(67, &packet(&[(53, &[1]), (12, b"the second!")]));
        keep(69, &packet(&[(53, &[1])]));
        keep(67, &packet(&[(53, &[2])]));
        keep(67, &[1; 30]);
        let mut names: Vec<String> = fs::read_dir(folder.path().join("out"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let wanted = [
            "..swarmboot-discover.hex",
            "ipxe-1.21.1-00007-request.hex",
            "os-discover.hex",
            "pxe-00007-discover.hex",
            "pxe-00007-request-4011.hex",
        ];
        assert_eq!(names, wanted);
        let kept = fs::read_to_string(folder.path().join("out/os-discover.hex")).unwrap();
        assert!(kept.starts_with("port 67\n01 00") && kept.ends_with("35 01 01 ff\n"), "{kept}");
        assert!(super::keep(Path::new("/proc/version"), folder.path()).is_err());
    }
}
