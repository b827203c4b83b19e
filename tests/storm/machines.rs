//! The machines of the storm, all in one process of their namespace: each with its Ethernet address, its lease, and its
//! own sockets. Touches one packet socket, and TCP and UDP.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use common::trust::KeyPair;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::mpsc;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const HTTP: u16 = 8069;
/// How many connections are idle, and how many send a byte now and then.
const IDLE: u32 = 1000;
const TRICKLE: u32 = 32;
/// The timeout of everything that one machine does; firmware would have given up and begun again long before.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the machines: WHO PARTS NUMBER.
pub(super) fn main(words: &[String]) -> Result<()> {
    let [who, parts, number] = words else { bail!("machines WHO PARTS NUMBER") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(storm(who, parts, number.parse()?))
}

async fn storm(who: &str, parts: &str, number: u32) -> Result<()> {
    let has = |part: &str| parts.split(',').any(|one| one == part);
    let beside = if has("beside") { beside().await } else { Vec::new() };
    let ether = Arc::new(Ether::open()?);
    let parts: Arc<[String]> = parts.split(',').map(str::to_owned).collect();
    let tasks: Vec<_> = (0..number)
        .map(|n| {
            tokio::spawn(tokio::time::timeout(PATIENCE, machine(n, Arc::clone(&ether), Arc::clone(&parts))))
        })
        .collect();
    let (mut times, mut lost): (HashMap<&'static str, Vec<Duration>>, Vec<String>) = Default::default();
    for task in tasks {
        match task.await? {
            Ok(Ok(steps)) => {
                for (step, time) in steps {
                    times.entry(step).or_default().push(time);
                }
            }
            Ok(Err(error)) => lost.push(format!("{error:#}")),
            Err(_) => lost.push("it took too long".to_owned()),
        }
    }
    for step in ["dhcp", "tftp", "dhcp of iPXE", "script", "kernel", "loader", "report"] {
        let Some(times) = times.get_mut(step) else { continue };
        times.sort();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
        println!(
            "{:<24}{:>8}{:>9.0}{:>9.0}{:>9.0}",
            format!("{who}: {step}"),
            times.len(),
            at(50),
            at(99),
            at(100)
        );
    }
    if let Some(first) = lost.first() {
        println!("{who}: LOST {} machines, the first: {first}", lost.len());
    }
    drop(beside);
    Ok(())
}

/// Opens the idle and the slow connections, from many addresses.
async fn beside() -> Vec<tokio::net::TcpStream> {
    let mut open = Vec::new();
    for n in 0..IDLE + TRICKLE {
        let from = Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 5, 0).to_bits() + n % 250);
        let Ok(mut stream) = connect(from).await else { continue };
        if n < TRICKLE {
            tokio::spawn(async move {
                let head = b"POST /v1/report HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
                let mut sent = stream.write_all(head).await;
                while sent.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    sent = stream.write_all(b"x").await;
                }
            });
        } else {
            open.push(stream);
        }
    }
    open
}

type Steps = Vec<(&'static str, Duration)>;

async fn machine(n: u32, ether: Arc<Ether>, parts: Arc<[String]>) -> Result<Steps> {
    let has = |part: &str| parts.iter().any(|one| one == part);
    let mut steps = Vec::new();
    let [_, _, high, low] = n.to_be_bytes();
    let mac = [0x52, 0x54, 0, 7, high, low];
    let mut address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 1, 0).to_bits() + n);
    let mut began = Instant::now();
    let mut lap = |step, steps: &mut Steps| {
        steps.push((step, began.elapsed()));
        began = Instant::now();
    };
    if has("dhcp") {
        address = dhcp(&ether, n * 2 + 1, mac, b"").await.context("dhcp")?;
        lap("dhcp", &mut steps);
    }
    if has("tftp") {
        tftp(address).await.context("tftp")?;
        lap("tftp", &mut steps);
    }
    if has("ipxe") {
        let again = dhcp(&ether, n * 2 + 2, mac, b"iPXE").await.context("dhcp of iPXE")?;
        ensure!(again == address, "it had {address} and got {again}");
        lap("dhcp of iPXE", &mut steps);
    }
    let mut files = ["/boot/kit/vmlinuz".to_owned(), "/boot/kit/loader.img".to_owned()];
    if has("http") {
        get(address, "/boot.ipxe").await?;
        let hyphens = mac.map(|byte| format!("{byte:02x}")).join("-");
        let (_, script) = get(address, &format!("/boot.ipxe?mac={hyphens}")).await.context("script")?;
        let script = String::from_utf8_lossy(&script).into_owned();
        for (file, end) in files.iter_mut().zip(["vmlinuz", "loader.img"]) {
            let url = script.split_whitespace().find(|word| word.starts_with("http") && word.ends_with(end));
            *file = url
                .and_then(|url| url.splitn(4, '/').nth(3))
                .map(|path| format!("/{path}"))
                .context("no kernel")?;
        }
        lap("script", &mut steps);
    }
    if has("http") || has("files") {
        for (file, step) in files.iter().zip(["kernel", "loader"]) {
            let (status, bytes) = get(address, file).await.context(step)?;
            ensure!(status == 200 && bytes.len() > 1000, "{file}: {status}, {} bytes", bytes.len());
            lap(step, &mut steps);
        }
    }
    if has("report") {
        let status = report(n, mac, address).await.context("report")?;
        ensure!(status < 500, "report: {status}");
        lap("report", &mut steps);
    }
    Ok(steps)
}

/// One packet socket for all machines: a packet is given to the machine of its transaction.
struct Ether {
    socket: OwnedFd,
    waiting: Arc<Mutex<HashMap<u32, mpsc::Sender<Vec<u8>>>>>,
}

impl Ether {
    fn open() -> Result<Self> {
        let open = || -> Result<OwnedFd> {
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
            let mut links = nix::ifaddrs::getifaddrs()?.filter(|entry| entry.interface_name == "rom");
            let link =
                links.find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()));
            bind(socket.as_raw_fd(), &link.context("there is no rom")?)?;
            Ok(socket)
        };
        let (out, ears) = (open()?, open()?);
        let room = 16 << 20;
        nix::sys::socket::setsockopt(&ears, nix::sys::socket::sockopt::RcvBufForce, &room)?;
        let waiting: Arc<Mutex<HashMap<u32, mpsc::Sender<Vec<u8>>>>> = Arc::default();
        let heard = Arc::clone(&waiting);
        std::thread::spawn(move || {
            let mut frame = [0; 2048];
            while let Ok(length) = recv(ears.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                let frame = &frame[..length];
                let ours = frame.len() > 282
                    && frame[12..14] == [8, 0]
                    && frame[23] == 17
                    && frame[36..38] == [0, 68];
                if !ours || frame[42] != 2 {
                    continue;
                }
                let xid = u32::from_be_bytes([frame[46], frame[47], frame[48], frame[49]]);
                let waiting = heard.lock();
                if let Some(machine) = waiting.get(&xid) {
                    let _ = machine.try_send(frame[42..].to_vec());
                }
            }
        });
        Ok(Self { socket: out, waiting })
    }

    fn say(&self, mac: [u8; 6], packet: &[u8]) {
        let mut frame = [&[0xff; 6][..], &mac, &[8, 0]].concat();
        let length = |more: usize| u16::try_from(packet.len() + more).unwrap_or(0).to_be_bytes();
        let mut ip = [&[0x45, 0][..], &length(28), &[0, 0, 0, 0, 64, 17, 0, 0], &[0; 4], &[255; 4]].concat();
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend([&[0, 68, 0, 67][..], &length(8), &[0, 0]].concat());
        frame.extend(packet);
        let _ = send(self.socket.as_raw_fd(), &frame, MsgFlags::empty());
    }
}

fn discover(xid: u32, mac: [u8; 6], user_class: &[u8], more: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = vec![0; 240];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[4..8].copy_from_slice(&xid.to_be_bytes());
    packet[10] = 0x80;
    packet[28..34].copy_from_slice(&mac);
    packet[236..].copy_from_slice(&[99, 130, 83, 99]);
    let options: [(u8, &[u8]); 4] =
        [(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0]), (94, &[1, 2, 1]), (77, user_class)];
    for (code, value) in more.iter().chain(&options).filter(|(_, value)| !value.is_empty()) {
        packet.extend([*code, u8::try_from(value.len()).unwrap_or(0)]);
        packet.extend(*value);
    }
    if !user_class.is_empty() {
        packet.extend([175, 6, 19, 1, 1, 24, 1, 1]);
    }
    packet.push(255);
    packet
}

async fn dhcp(ether: &Ether, xid: u32, mac: [u8; 6], user_class: &[u8]) -> Result<Ipv4Addr> {
    let (tell, mut told) = mpsc::channel(8);
    ether.waiting.lock().insert(xid, tell);
    let kind =
        |packet: &[u8], kind: u8| packet.get(240..).is_some_and(|o| o.windows(3).any(|w| w == [53, 1, kind]));
    let mut offered = None;
    for wait in [1, 2, 4, 8, 16, 32] {
        let packet = match offered {
            None => discover(xid, mac, user_class, &[(53, &[1])]),
            Some(address) => {
                let address: Ipv4Addr = address;
                discover(xid, mac, user_class, &[(53, &[3]), (50, &address.octets()), (54, &SERVER.octets())])
            }
        };
        ether.say(mac, &packet);
        let until = tokio::time::Instant::now() + Duration::from_secs(wait);
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, told.recv()).await {
            let address = Ipv4Addr::new(answer[16], answer[17], answer[18], answer[19]);
            if offered.is_none() && kind(&answer, 2) {
                offered = Some(address);
                let request = discover(
                    xid,
                    mac,
                    user_class,
                    &[(53, &[3]), (50, &address.octets()), (54, &SERVER.octets())],
                );
                ether.say(mac, &request);
            } else if kind(&answer, 5) {
                ether.waiting.lock().remove(&xid);
                return Ok(address);
            }
        }
    }
    bail!("no {}", if offered.is_some() { "acknowledgement" } else { "offer" })
}

async fn tftp(address: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind(SocketAddrV4::new(address, 0)).await?;
    let request = b"\0\x01undionly.kpxe\0octet\0blksize\x001456\0tsize\x000\0";
    let (mut size, mut block, mut peer) = (512, 0_u16, None);
    let (mut bytes, mut buffer, mut silent) = (0, [0; 2048], 0);
    socket.send_to(request, SocketAddrV4::new(SERVER, 69)).await?;
    loop {
        let got = tokio::time::timeout(Duration::from_millis(1000), socket.recv_from(&mut buffer)).await;
        let Ok((length, from)) = got.map(|got| got.unwrap_or((0, std::net::SocketAddr::from((SERVER, 0)))))
        else {
            silent += 1;
            ensure!(silent < 20, "silence at block {block}");
            match peer {
                None => socket.send_to(request, SocketAddrV4::new(SERVER, 69)).await?,
                Some(peer) => socket.send_to(&[&[0, 4][..], &block.to_be_bytes()].concat(), peer).await?,
            };
            continue;
        };
        peer = Some(from);
        match buffer[..length] {
            [0, 6, ref options @ ..] => {
                let words: Vec<&[u8]> = options.split(|byte| *byte == 0).collect();
                let at = words.iter().position(|word| *word == b"blksize").context("no blksize")?;
                size = std::str::from_utf8(words[at + 1])?.parse()?;
                socket.send_to(&[0, 4, 0, 0], from).await?;
            }
            [0, 3, high, low, ref data @ ..] => {
                let number = u16::from_be_bytes([high, low]);
                if number == block + 1 {
                    (block, bytes) = (number, bytes + data.len());
                }
                socket.send_to(&[0, 4, high, low], from).await?;
                if number == block && data.len() < size {
                    ensure!(bytes == 72_000, "{bytes} bytes");
                    return Ok(());
                }
            }
            [0, 5, ..] => bail!("{}", buffer[4..length].escape_ascii()),
            _ => {}
        }
    }
}

async fn connect(from: Ipv4Addr) -> Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddrV4::new(from, 0).into())?;
    Ok(socket.connect(SocketAddrV4::new(SERVER, HTTP).into()).await?)
}

async fn talk(from: Ipv4Addr, request: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut stream = connect(from).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
    let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default())?.parse()?;
    Ok((status, answer.split_off(end + 4)))
}

async fn get(from: Ipv4Addr, path: &str) -> Result<(u16, Vec<u8>)> {
    talk(from, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await
}

/// Sends a hardware report, signed as the loader signs; the verdict itself is not checked here.
async fn report(n: u32, mac: [u8; 6], from: Ipv4Addr) -> Result<u16> {
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&n.to_be_bytes());
    let key = KeyPair::from_secret(secret);
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let report: common::hardware::HardwareReport = serde_json::from_value(serde_json::json!({
        "version": 1, "reporter": "storm", "key": key.public(), "firmware": "bios", "memory_bytes": 1 << 30,
        "system": {"serial": format!("STORM{n}")},
        "disks": [{"name": "sda", "bus": "ata", "size": 1_u64 << 33, "sector_bytes": 512, "model": "M",
            "serial": format!("D{n}"), "wwn": "", "path": "p1"}],
        "nics": [{"name": "e0", "mac": mac, "link": true, "boot": true}],
    }))?;
    let identity: common::wire::http::Identity = serde_json::from_slice(&get(from, "/v1/identity").await?.1)?;
    let sent = common::hardware::SentReport { nonce: identity.nonce, salt: n.to_string(), hardware: report };
    let body = serde_json::to_vec(&key.sign(&sent))?;
    let head = format!(
        "POST /v1/report HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Ok(talk(from, &[head.as_bytes(), &body].concat()).await?.0)
}
