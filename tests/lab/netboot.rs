//! The network side of firmware, as a program: DHCP as a PXE client and as iPXE, TFTP, and HTTP with one connection for
//! each download. Real packets through the interface `eth0` of the namespace that it runs in, which has its address
//! already: DHCP is asked all the same, and has to give that one. Touches sockets.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};

/// The interface that the machine boots from.
const INTERFACE: &str = "eth0";
/// How long a client collects further offers once it has one: a proxy's comes later than that of the server beside it.
const COLLECT: Duration = Duration::from_millis(1500);
/// The waits for an answer, in seconds, as PXE ROMs have them (PXE 2.1 section 2.2.7 without its random part).
const WAITS: [u64; 4] = [4, 8, 16, 32];
/// iPXE's own wait for a connection or the next byte, where a script names none.
const STALLED: Duration = Duration::from_secs(60);
/// Data of a TFTP block that fits an Ethernet frame, and the blocks for each acknowledgement, as EDK2 asks for them.
const BLOCK: usize = 1468;
const WINDOW: u16 = 4;

/// Which program of the firmware asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The firmware's PXE client.
    Pxe,
    /// iPXE, loaded by it.
    Ipxe,
}

/// A machine's identity for DHCP.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The bytes of option 97 behind its type: the SMBIOS UUID, little-endian in its first three fields.
    pub guid: [u8; 16],
    /// Its architecture: 0 for BIOS, 7 for UEFI on x86-64.
    pub architecture: u16,
}

/// What to boot, as DHCP said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The machine's address.
    pub address: Ipv4Addr,
    /// The server that has the file.
    pub server: Ipv4Addr,
    /// A file name for TFTP, or a URL.
    pub file: String,
}

/// An answer, as far as it counts here.
#[derive(Debug, Clone)]
struct Answer {
    kind: u8,
    address: Ipv4Addr,
    next: Ipv4Addr,
    server: Ipv4Addr,
    file: String,
    pxe: bool,
}

impl Client {
    /// Asks for an address and a boot file until there are both.
    ///
    /// # Errors
    /// When no server gives an address, or none says what to boot.
    pub fn boot(&self, asks: Asks) -> Result<Boot> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).context("port 68 is taken")?;
        socket.set_broadcast(true)?;
        setsockopt(&socket, sockopt::BindToDevice, &INTERFACE.into()).context("cannot use the interface")?;
        let first = u32::from_be_bytes([self.mac[2], self.mac[3], self.mac[4], self.mac[5]]) << 4;
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        for (xid, wait) in (first..).zip(WAITS) {
            let talk = Talk { socket: &socket, client: self, asks, xid };
            let offers = talk.offers(everybody, wait)?;
            let Some(given) = offers.iter().find(|offer| !offer.address.is_unspecified()) else { continue };
            let Some(boots) = offers.iter().find(|offer| offer.pxe || !offer.file.is_empty()) else {
                continue;
            };
            let wanted = [(50, given.address.octets().to_vec()), (54, given.server.octets().to_vec())];
            if talk
                .ask(everybody, 3, &wanted, Ipv4Addr::UNSPECIFIED, wait, |answer| answer.kind == 5)?
                .is_none()
            {
                continue;
            }
            let found = |answer: &Answer| Boot {
                address: given.address,
                server: if answer.next.is_unspecified() { answer.server } else { answer.next },
                file: answer.file.clone(),
            };
            if !boots.file.is_empty() {
                return Ok(found(boots));
            }
            // A proxy that names no file has it at port 4011 (PXE 2.1 section 2.2.3).
            let later = SocketAddrV4::new(boots.server, 4011);
            let asked = talk.ask(later, 3, &[], given.address, wait, |answer| !answer.file.is_empty())?;
            if let Some(answer) = asked {
                return Ok(found(&answer));
            }
        }
        bail!("no DHCP server says what to boot")
    }
}

/// One transaction.
struct Talk<'a> {
    socket: &'a UdpSocket,
    client: &'a Client,
    asks: Asks,
    xid: u32,
}

impl Talk<'_> {
    /// Sends a DISCOVER and collects offers: all that come within [`COLLECT`] of the first, for at most `wait` seconds.
    fn offers(&self, to: SocketAddrV4, wait: u64) -> Result<Vec<Answer>> {
        self.send(to, 1, &[], Ipv4Addr::UNSPECIFIED)?;
        let mut until = Instant::now() + Duration::from_secs(wait);
        let mut offers: Vec<Answer> = vec![];
        while let Some(answer) = self.hear(until)? {
            if answer.kind == 2 {
                if offers.is_empty() {
                    until = until.min(Instant::now() + COLLECT);
                }
                offers.push(answer);
            }
        }
        Ok(offers)
    }

    fn ask(
        &self,
        to: SocketAddrV4,
        kind: u8,
        more: &[(u8, Vec<u8>)],
        own: Ipv4Addr,
        wait: u64,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Option<Answer>> {
        self.send(to, kind, more, own)?;
        let until = Instant::now() + Duration::from_secs(wait);
        while let Some(answer) = self.hear(until)? {
            if wanted(&answer) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn send(&self, to: SocketAddrV4, kind: u8, more: &[(u8, Vec<u8>)], own: Ipv4Addr) -> Result<()> {
        let mut packet = vec![0; 240];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        packet[4..8].copy_from_slice(&self.xid.to_be_bytes());
        packet[10] = 0x80;
        packet[12..16].copy_from_slice(&own.octets());
        packet[28..34].copy_from_slice(&self.client.mac);
        packet[236..].copy_from_slice(&[99, 130, 83, 99]);
        let class = format!("PXEClient:Arch:{:05}:UNDI:003016", self.client.architecture);
        let mut options: Vec<(u8, Vec<u8>)> = vec![
            (53, vec![kind]),
            (57, 1472_u16.to_be_bytes().to_vec()),
            (60, class.into_bytes()),
            (93, self.client.architecture.to_be_bytes().to_vec()),
            (94, vec![1, 3, 16]),
            (97, [&[0], self.client.guid.as_slice()].concat()),
            (55, vec![1, 3, 6, 12, 43, 54, 60, 66, 67]),
        ];
        if self.asks == Asks::Ipxe {
            options.push((77, b"iPXE".to_vec()));
            options.push((175, vec![19, 1, 1, 24, 1, 1, 36, 1, 1]));
        }
        for (code, value) in options.iter().chain(more) {
            packet.extend([*code, u8::try_from(value.len())?]);
            packet.extend(value);
        }
        packet.push(255);
        self.socket.send_to(&packet, to)?;
        Ok(())
    }

    /// The next answer to this transaction; none at the timeout.
    fn hear(&self, until: Instant) -> Result<Option<Answer>> {
        let mut packet = [0; 2048];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match self.socket.recv_from(&mut packet) {
                Ok((length, _)) => length,
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if let Some(answer) = parse(&packet[..length], self.xid) {
                return Ok(Some(answer));
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    [TimedOut, WouldBlock, Interrupted].contains(&error.kind())
}

/// A server's answer to transaction `xid`; none if it is anything else.
fn parse(packet: &[u8], xid: u32) -> Option<Answer> {
    if packet.first() != Some(&2) || packet.get(4..8)? != xid.to_be_bytes() {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let text = |bytes: &[u8]| {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut answer = Answer {
        kind: 0,
        address: address(16)?,
        next: address(20)?,
        server: Ipv4Addr::UNSPECIFIED,
        file: text(packet.get(108..236)?),
        pxe: false,
    };
    let mut rest = packet.get(240..)?;
    while let [code, tail @ ..] = rest {
        match *code {
            0 => rest = tail,
            255 => break,
            code => {
                let [length, tail @ ..] = tail else { break };
                let value = tail.get(..usize::from(*length))?;
                rest = &tail[value.len()..];
                match code {
                    53 => answer.kind = *value.first()?,
                    54 => answer.server = Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?),
                    60 => answer.pxe = value.starts_with(b"PXEClient"),
                    67 if !value.is_empty() => answer.file = text(value),
                    _ => {}
                }
            }
        }
    }
    Some(answer)
}

/// Downloads `file` over TFTP.
///
/// # Errors
/// When the server refuses, or is silent for twenty seconds.
pub fn tftp(server: Ipv4Addr, file: &str) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let options = format!("octet\0blksize\0{BLOCK}\0tsize\00\0windowsize\0{WINDOW}\0");
    let request = [b"\0\x01".as_slice(), file.as_bytes(), b"\0", options.as_bytes()].concat();
    let first: SocketAddr = SocketAddrV4::new(server, 69).into();
    socket.send_to(&request, first)?;
    let (mut peer, mut size, mut window) = (None, 512, 1);
    let (mut last, mut acked, mut silent, mut bytes) = (0_u16, 0_u16, 0, vec![]);
    let mut buffer = [0; 2048];
    let ack =
        |block: u16, to: SocketAddr| socket.send_to(&[&[0, 4], block.to_be_bytes().as_slice()].concat(), to);
    loop {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(got) => got,
            Err(error) if is_timeout(&error) => {
                silent += 1;
                ensure!(silent < 20, "no answer from {server} for {file} behind block {last}");
                match peer {
                    None => drop(socket.send_to(&request, first)?),
                    Some(peer) => drop(ack(last, peer)?),
                }
                acked = last;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        silent = 0;
        peer = Some(from);
        match buffer[..length] {
            [0, 6, ref options @ ..] => {
                let words: Vec<&[u8]> = options.split(|byte| *byte == 0).collect();
                let value = |name: &str| -> Option<usize> {
                    let at = words.iter().position(|word| word.eq_ignore_ascii_case(name.as_bytes()))?;
                    std::str::from_utf8(words.get(at + 1)?).ok()?.parse().ok()
                };
                size = value("blksize").unwrap_or(512);
                window = value("windowsize").and_then(|blocks| u16::try_from(blocks).ok()).unwrap_or(1);
                ack(0, from)?;
            }
            [0, 3, high, low, ref data @ ..] => {
                let number = u16::from_be_bytes([high, low]);
                let wanted = number == last.wrapping_add(1);
                if wanted {
                    bytes.extend_from_slice(data);
                    last = number;
                }
                let end = wanted && data.len() < size;
                // RFC 7440 section 4: a lost block is asked for again by acknowledging the last one before it.
                if end || !wanted || last.wrapping_sub(acked) >= window {
                    ack(last, from)?;
                    acked = last;
                }
                if end {
                    return Ok(bytes);
                }
            }
            [0, 5, ..] => bail!("{server} refuses {file}: {}", buffer[4..length].escape_ascii()),
            _ => {}
        }
    }
}

/// Downloads `url` over HTTP with a connection of its own. `timeout` is for each wait without progress.
///
/// # Errors
/// When it is no such URL, nobody answers, the answer is no success, or the body ends early.
pub fn get(url: &str, timeout: Option<Duration>) -> Result<Vec<u8>> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is no URL for HTTP"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address: SocketAddr = if host.contains(':') { host.parse() } else { format!("{host}:80").parse() }
        .with_context(|| format!("{host} is no address"))?;
    let timeout = timeout.unwrap_or(STALLED);
    let mut stream = TcpStream::connect_timeout(&address, timeout).with_context(|| url.to_owned())?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let head = format!(
        "GET /{path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: iPXE/2.0.0\r\nHost: {host}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::with_capacity(64 << 10);
    let mut piece = vec![0; 64 << 10];
    let mut body = None;
    loop {
        if let (None, Some(end)) = (body, answer.windows(4).position(|four| four == b"\r\n\r\n")) {
            body = Some((end + 4, length_of(url, &answer[..end])?));
        }
        if let Some((start, length)) = body
            && answer.len() >= start + length
        {
            ensure!(answer.len() == start + length, "{url}: more than {length} bytes came");
            return Ok(answer.split_off(start));
        }
        match stream.read(&mut piece).with_context(|| url.to_owned())? {
            0 => bail!("{url}: the connection was closed early"),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
}

/// The length of the body that the answer's head names.
fn length_of(url: &str, head: &[u8]) -> Result<usize> {
    let head = String::from_utf8_lossy(head);
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{url}: status {status}");
    let named = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    named.with_context(|| format!("{url}: the answer has no length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read() {
        let mut packet = vec![0; 240];
        packet[0] = 2;
        packet[4..8].copy_from_slice(&7_u32.to_be_bytes());
        packet[16..20].copy_from_slice(&[10, 0, 0, 9]);
        packet[108..115].copy_from_slice(b"a.efi\0x");
        packet.extend([53, 1, 2, 0, 54, 4, 10, 0, 0, 1, 60, 9]);
        packet.extend(b"PXEClient");
        packet.push(255);
        let answer = parse(&packet, 7).unwrap();
        assert_eq!((answer.kind, answer.file.as_str(), answer.pxe), (2, "a.efi", true));
        assert_eq!((answer.address, answer.server), ([10, 0, 0, 9].into(), [10, 0, 0, 1].into()));
        assert!(parse(&packet, 8).is_none());
    }

    #[test]
    fn a_body_that_ends_early_is_no_file() {
        let serve = |text: &'static str| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/x", listener.local_addr().unwrap());
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 512];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(text.as_bytes());
            });
            url
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        assert_eq!(get(&serve("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"), None).unwrap(), b"abcd");
        for bad in ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", "HTTP/1.1 404 No\r\n\r\n", head] {
            assert!(get(&serve(bad), None).is_err(), "{bad}");
        }
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", silent.local_addr().unwrap());
        assert!(get(&url, Some(Duration::from_millis(50))).is_err());
    }
}
