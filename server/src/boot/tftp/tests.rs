//! Port 69 over real sockets of the loopback, with requests as ROMs send them. Touches sockets.

use std::net::IpAddr;

use super::*;
use crate::traffic::LimitOrder;

fn files() -> Files {
    let program: Bytes = (0..50_000_u32).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
    Arc::new(HashMap::from([
        ("snponly.efi".to_owned(), program),
        ("undionly.kpxe".to_owned(), Bytes::from_static(b"program")),
        ("short.efi".to_owned(), Bytes::from_static(&[7; 8000])),
        ("autoexec.ipxe".to_owned(), Bytes::from_static(b"#!ipxe\n")),
    ]))
}

/// A server at a port of the loopback.
struct Bench {
    at: SocketAddr,
    seen: mpsc::Receiver<Sighting>,
    files: watch::Sender<Files>,
    served: watch::Sender<Served>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), TftpError>>,
}

impl Bench {
    fn open() -> Self {
        Self::over(Traffic::default())
    }

    /// A server whose lines are these.
    fn over(traffic: Traffic) -> Self {
        let bound = bind_at(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap().with_traffic(traffic);
        let at = bound.socket.local_addr().unwrap();
        let (sightings, seen) = mpsc::channel(8);
        let cancel = CancellationToken::new();
        let (files, files_told) = watch::channel(files());
        let network = Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).unwrap();
        let (served, networks) = watch::channel(Arc::new(vec![network]));
        let task = tokio::spawn(bound.run(files_told, networks, sightings, cancel.clone()));
        Self { at, seen, files, served, cancel, task }
    }
}

/// A ROM's socket and its receive buffer.
struct Rom {
    socket: tokio::net::UdpSocket,
    buffer: [u8; 2048],
}

impl Rom {
    async fn at(last: u8) -> Self {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).await.unwrap();
        Self { socket, buffer: [0; 2048] }
    }

    async fn say(&self, to: SocketAddr, packet: &[u8]) {
        self.socket.send_to(packet, to).await.unwrap();
    }

    /// The next packet within `millis`.
    async fn hear(&mut self, millis: u64) -> Option<(Vec<u8>, SocketAddr)> {
        let wait =
            tokio::time::timeout(Duration::from_millis(millis), self.socket.recv_from(&mut self.buffer))
                .await;
        let (length, from) = wait.ok()?.unwrap();
        Some((self.buffer[..length].to_vec(), from))
    }

    /// Fetches a file to its end; returns the bytes and the negotiated options.
    async fn fetch(&mut self, server: SocketAddr, request: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.say(server, request).await;
        let (mut whole, mut agreed, mut block_bytes) = (Vec::new(), Vec::new(), 512);
        loop {
            let (packet, from) = self.hear(5000).await.unwrap();
            match packet[1] {
                6 => {
                    agreed = packet[2..].to_vec();
                    if agreed.starts_with(b"blksize") {
                        block_bytes = usize::from(common::limits::TFTP_BLOCK_BYTES_MAX);
                    }
                    self.say(from, &[0, 4, 0, 0]).await;
                }
                3 => {
                    whole.extend(&packet[4..]);
                    self.say(from, &[0, 4, packet[2], packet[3]]).await;
                    if packet.len() - 4 < block_bytes {
                        return (whole, agreed);
                    }
                }
                other => panic!("packet {other}: {packet:?}"),
            }
        }
    }
}

fn request(name: &str, options: &[&str]) -> Vec<u8> {
    let texts = [&[name, "octet"], options].concat();
    let mut request = vec![0, 1];
    texts.iter().for_each(|text| request.extend([text.as_bytes(), b"\0"].concat()));
    request
}

#[test]
fn a_file_is_found_as_firmware_names_it() {
    for name in ["snponly.efi", "/snponly.efi", "\\SNPONLY.EFI", "boot\\snponly.efi", "//a/b/Snponly.efi"] {
        assert_eq!(find(&files(), name).unwrap().0, "snponly.efi", "{name}");
    }
    for name in ["", "/", "..", "../../etc/passwd", "snponly.efi/", "snponly"] {
        assert!(find(&files(), name).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_rom_gets_the_whole_file_in_blocks_that_fit() {
    let mut bench = Bench::open();
    bench.files.send(Files::default()).unwrap();
    // A boot kit that is imported later is served without a restart.
    bench.files.send(files()).unwrap();
    let mut rom = Rom::at(9).await;
    let options = ["blksize", "9000", "tsize", "0", "timeout", "9"];
    let (bytes, agreed) = rom.fetch(bench.at, &request("/SNPONLY.efi", &options)).await;
    assert_eq!(bytes, files()["snponly.efi"]);
    let agreed = String::from_utf8(agreed).unwrap();
    assert!(agreed.contains("blksize\x001428\0") && agreed.contains("tsize\x0050000\0"), "{agreed:?}");
    assert!(!agreed.contains("timeout"), "{agreed:?}");
    let wanted = Sighting::BootProgram {
        address: IpAddr::from([127, 0, 0, 9]),
        file: "snponly.efi".to_owned(),
        over: "tftp",
        bytes: 50_000,
        whole: true,
    };
    assert_eq!(bench.seen.recv().await, Some(wanted));
    let (script, _) = rom.fetch(bench.at, &request("autoexec.ipxe", &[])).await;
    assert_eq!(script, b"#!ipxe\n");

    bench.cancel.cancel();
    bench.task.await.unwrap().unwrap();
    assert!(UdpSocket::bind(bench.at).is_ok(), "the port is free again");
}

#[tokio::test]
async fn requests_that_are_not_quite_in_order_get_their_file() {
    let bench = Bench::open();
    let odd: [&[u8]; 8] = [
        b"\0\x01undionly.kpxe\xff\0octet\0tsize\x000\0",
        b"\0\x01undionly.kpxe\xff\xfe\xff\0octet\0tsize\x000\0",
        b"\0\x01undionly.kpxe\0octet\0blksize\x001456\0\0",
        b"\0\x01undionly.kpxe\0octet\0blksize\x001456",
        b"\0\x01undionly.kpxe\0octet\0blksize\0",
        b"\0\x01undionly.kpxe\0octet\0blks",
        b"\0\x01undionly.kpxe\0octet",
        b"\0\x01undionly.kpxe \r\n\0octet\0",
    ];
    for packet in odd {
        let (bytes, _) = Rom::at(9).await.fetch(bench.at, packet).await;
        assert_eq!(bytes, b"program", "{}", packet.escape_ascii());
    }
    let refused: [(&[u8], u8); 4] = [
        (b"\0\x01\xff\xff\0octet\0", 1),
        (b"\0\x01other.efi\0octet\0", 1),
        (b"\0\x01undionly.kpxe\0mail\0", 4),
        (b"\0\x02undionly.kpxe\0octet\0", 2),
    ];
    for (packet, code) in refused {
        let mut rom = Rom::at(9).await;
        rom.say(bench.at, packet).await;
        let (answer, _) = rom.hear(5000).await.unwrap();
        assert_eq!(answer[..4], [0, 5, 0, code], "{}", packet.escape_ascii());
        assert_eq!(answer.last(), Some(&0));
    }
}

#[tokio::test]
async fn an_error_ends_a_transfer_and_the_same_port_is_heard_at_once() {
    let mut bench = Bench::open();
    let mut rom = Rom::at(9).await;
    for size in [["tsize", "0"], ["blksize", "1456"]] {
        rom.say(bench.at, &request("snponly.efi", &size)).await;
        let (oack, from) = rom.hear(5000).await.unwrap();
        assert_eq!(oack[1], 6);
        rom.say(from, b"\0\x05\0\0User aborted\0").await;
        let began = Instant::now();
        let (bytes, _) = rom.fetch(bench.at, &request("undionly.kpxe", &["tsize", "0"])).await;
        assert_eq!(bytes, b"program");
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    }
    assert!(rom.hear(600).await.is_none(), "nothing of what was given up comes later");
    let Some(Sighting::BootProgram { file, .. }) = bench.seen.recv().await else { panic!("not seen") };
    assert_eq!(file, "undionly.kpxe", "a question for the size is no transfer");
}

#[tokio::test]
async fn a_forged_sender_is_sent_few_packets_and_no_network_that_is_not_served_any() {
    let bench = Bench::open();
    let mut victim = Rom::at(9).await;
    for _ in 0..200 {
        victim.say(bench.at, &request("snponly.efi", &[])).await;
        Rom::at(9).await.say(bench.at, &request("snponly.efi", &[])).await;
    }
    let mut packets = 0;
    while victim.hear(1000).await.is_some() {
        packets += 1;
    }
    assert!((1..=6).contains(&packets), "{packets}");

    let other = Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 0), 24).unwrap();
    bench.served.send(Arc::new(vec![other])).unwrap();
    victim.say(bench.at, &request("snponly.efi", &[])).await;
    victim.say(bench.at, &request("absent", &[])).await;
    assert!(victim.hear(700).await.is_none());
}

#[tokio::test]
async fn a_machine_that_falls_silent_in_the_middle_is_given_time() {
    let bench = Bench::open();
    let mut rom = Rom::at(9).await;
    rom.say(bench.at, &request("snponly.efi", &[])).await;
    let (_, from) = rom.hear(5000).await.unwrap();
    rom.say(from, &[0, 4, 0, 1]).await;
    let mut packets = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        packets += usize::from(rom.hear(300).await.is_some_and(|(packet, _)| packet[..4] == [0, 3, 0, 2]));
    }
    assert!(packets > 8, "{packets}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let bound = bind_at(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(at) = bound.socket.local_addr().unwrap() else { panic!("not IPv4") };
    let error = bind_at(at).unwrap_err();
    assert!(
        error.to_string().contains(&at.port().to_string()) && error.hint().contains("another TFTP server")
    );
}

/// A line of 1 Mbit/s that others keep busy, so that each packet waits longer than async-tftp does for an answer: it
/// comes later, and once.
#[tokio::test]
async fn a_packet_that_waits_for_the_line_is_sent_once() {
    let traffic = Traffic::default();
    traffic.limit(LimitOrder { site: None, rate: Some("1M".parse().unwrap()) });
    let others = traffic.to_site("elsewhere");
    let busy = tokio::spawn(async move {
        loop {
            others.charge(Kind::Chunks, 40_000);
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    });
    let bench = Bench::over(traffic.clone());
    let mut rom = Rom::at(11).await;
    let (bytes, _) = rom.fetch(bench.at, &request("short.efi", &["blksize", "1428"])).await;
    busy.abort();
    assert_eq!(bytes, files()["short.efi"]);
    let shown = traffic.shown();
    let tftp: u64 = shown.iter().map(|site| site.sent.tftp).sum();
    // Six blocks with their heads, and the answer to the options.
    assert!((8_000 + 6 * 4..8_100).contains(&tftp), "{tftp} in {shown:?}");
    bench.cancel.cancel();
    bench.task.await.unwrap().unwrap();
}
