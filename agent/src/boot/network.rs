//! Links, addresses and the DHCP lease: sockets, timers and netlink around the client of [`crate::boot::dhcp`].
//!
//! Every physical interface is brought up and asks for an address at once, since a machine's firmware may have booted
//! from any; the one it booted from is preferred when several get an answer. A switch port with spanning tree carries
//! nothing for 30 to 50 s after its link comes up (openstack/ironic's troubleshooting page, and iPXE's own note), so
//! this never gives up, and says on the console what it waits for. Touches netlink, UDP port 68, `/sys/class/net`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::id::Mac;
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::boot::console::Console;
use crate::boot::dhcp::{Client, Effect, Event, Lease};
use crate::boot::init::uptime_ms;

/// The interval at which sockets and links are polled.
const LOOK: Duration = Duration::from_millis(100);

/// The interval of the console's lines about what is still being waited for.
const SAY_EVERY_MS: u64 = 12_000;

/// Seconds with a link after which spanning tree is not the likely cause of silence any more.
const TAGGED_SECONDS: u64 = 60;

/// How long other interfaces wait for the one that the machine booted from, in milliseconds.
const PREFERRED_MS: u64 = 10_000;

/// The longest DHCP packet that is read: more than any Ethernet frame that a server would send unasked.
const PACKET_BYTES_MAX: usize = 4096;

/// An interface with the lease that is configured on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The kernel's name of the interface on this boot.
    pub interface: String,
    /// The interface's Ethernet address.
    pub mac: Mac,
    /// The lease that is configured on it.
    pub lease: Lease,
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no physical interface.
    #[error("no network interface was found")]
    NoInterface,
    /// netlink or its runtime cannot be opened.
    #[error("cannot speak to the kernel about interfaces")]
    Netlink(#[source] io::Error),
    /// The kernel refused a change of an interface.
    #[error("cannot {what} {interface}")]
    Change {
        /// The change, as a verb such as `bring up`.
        what: &'static str,
        /// The kernel's name of the interface.
        interface: String,
        /// The kernel's answer over netlink.
        #[source]
        source: rtnetlink::Error,
    },
    /// The DHCP socket cannot be opened, or the interface is gone.
    #[error("cannot ask for an address on {interface}")]
    Socket {
        /// The kernel's name of the interface.
        interface: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

/// A netlink connection, over which links and addresses are changed.
#[derive(Debug)]
pub struct Links {
    runtime: tokio::runtime::Runtime,
    handle: rtnetlink::Handle,
}

impl Links {
    /// Opens netlink.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn open() -> Result<Self, NetworkError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(NetworkError::Netlink)?;
        let guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Netlink)?;
        drop(guard);
        // The task makes progress while one of our requests is waited for, and ends with the runtime.
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    /// Brings `interface` up.
    ///
    /// # Errors
    /// When the kernel refuses it, as it does when the card's firmware is missing.
    pub fn up(&self, interface: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_name(interface).up().build();
        let done = self.runtime.block_on(self.handle.link().set(message).execute());
        done.map_err(|source| change("bring up", interface, source))
    }

    /// Adds the lease's address and the default route over its router to `interface`.
    ///
    /// # Errors
    /// When the kernel refuses it, or the interface is gone.
    pub fn configure(&self, interface: &str, lease: &Lease) -> Result<(), NetworkError> {
        let index = index_of(interface)?;
        self.runtime.block_on(async {
            let address = self.handle.address().add(index, IpAddr::V4(lease.address), lease.prefix);
            address
                .replace()
                .execute()
                .await
                .map_err(|source| change("give an address to", interface, source))?;
            if let Some(router) = lease.router {
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .gateway(router)
                    .output_interface(index)
                    // Routers outside the prefix are usual at some hosting providers.
                    .onlink()
                    .build();
                let added = self.handle.route().add(route).replace().execute().await;
                added.map_err(|source| change("set the router of", interface, source))?;
            }
            Ok(())
        })
    }

    /// Removes the lease's address from `interface`, and with it every route over it.
    ///
    /// # Errors
    /// When the kernel refuses it; an address that is gone already is no error.
    pub fn deconfigure(&self, interface: &str, lease: &Lease) -> Result<(), NetworkError> {
        let index = index_of(interface)?;
        let message = rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(lease.address, lease.prefix)
            .build();
        match self.runtime.block_on(self.handle.address().del(message).execute()) {
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -(Errno::EADDRNOTAVAIL as i32) =>
            {
                Ok(())
            }
            done => done.map_err(|source| change("take the address of", interface, source)),
        }
    }
}

fn change(what: &'static str, interface: &str, source: rtnetlink::Error) -> NetworkError {
    NetworkError::Change { what, interface: interface.to_owned(), source }
}

fn index_of(interface: &str) -> Result<u32, NetworkError> {
    nix::net::if_::if_nametoindex(interface)
        .map_err(|errno| NetworkError::Socket { interface: interface.to_owned(), source: errno.into() })
}

/// The physical interfaces and their Ethernet addresses, sorted by name.
#[must_use]
pub fn interfaces() -> Vec<(String, Mac)> {
    crate::inspect::nics::physical(Path::new("/"))
}

fn has_link(interface: &str) -> bool {
    std::fs::read_to_string(format!("/sys/class/net/{interface}/carrier"))
        .is_ok_and(|text| text.trim() == "1")
}

/// A first transaction number; without a random source (early in the kernel's life) it is made of the Ethernet address
/// and the time, so that it still differs from machine to machine.
fn seed(mac: Mac) -> u32 {
    getrandom::u32().unwrap_or_else(|_| {
        let [_, _, a, b, c, d] = mac.0;
        u32::from_be_bytes([a, b, c, d]) ^ u32::try_from(uptime_ms() & 0xffff_ffff).unwrap_or_default()
    })
}

/// One interface on which an address is asked for.
struct Asking {
    name: String,
    mac: Mac,
    client: Client,
    socket: Option<Socket>,
    link: bool,
    link_since_ms: u64,
    /// Not used before this time: bringing it up failed, or the server cannot be reached over it.
    resting_until_ms: u64,
}

impl Asking {
    fn new(name: String, mac: Mac, now_ms: u64) -> Self {
        let client = Client::new(mac, seed(mac), now_ms);
        Self { name, mac, client, socket: None, link: false, link_since_ms: now_ms, resting_until_ms: 0 }
    }

    /// Polls link, timer and packets, and sends what is due. The lease, when one was given.
    fn look(&mut self, console: &Console, now_ms: u64) -> Result<Option<Lease>, NetworkError> {
        let link = has_link(&self.name);
        if link && !self.link {
            self.link_since_ms = now_ms;
            self.client.hurry(now_ms);
        }
        self.link = link;
        if !link {
            return Ok(None);
        }
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(dhcp_socket(&self.name)?),
        };
        let mut effects = self.client.handle(Event::Tick, now_ms);
        let mut packet = [0; PACKET_BYTES_MAX];
        while let Some(len) = receive(socket, &mut packet) {
            effects.extend(self.client.handle(Event::Packet(&packet[..len]), now_ms));
        }
        let mut given = None;
        for effect in effects {
            match effect {
                Effect::Send(to, packet) => send(socket, to, &packet),
                Effect::Configure(lease) => given = Some(lease),
                Effect::Deconfigure(_) => given = None,
                Effect::Refused(reason) => {
                    console.say(&format!("the DHCP server on {} said no: {reason}", self.name));
                }
            }
        }
        Ok(given)
    }

    fn start_over(&mut self, now_ms: u64, rest_ms: u64) {
        self.client = Client::new(self.mac, seed(self.mac), now_ms);
        self.socket = None;
        self.resting_until_ms = now_ms + rest_ms;
    }
}

/// Brings every interface up and asks for an address on all of them, until one gets a lease over which `reaches` finds
/// the server; that one is configured and returned. Never gives up while there is an interface.
///
/// # Errors
/// When there is no interface, or netlink cannot be used.
pub fn attach(
    console: &Console,
    preferred: Option<Mac>,
    mut reaches: impl FnMut(&Attachment) -> bool,
) -> Result<Attachment, NetworkError> {
    let links = Links::open()?;
    if let Err(error) = links.up("lo") {
        console.failed("the loopback interface", &error, "going on without it");
    }
    let start_ms = uptime_ms();
    let mut asking: Vec<Asking> = vec![];
    let mut said_ms = start_ms;
    loop {
        let now_ms = uptime_ms();
        welcome(&mut asking, &links, console, now_ms);
        if asking.is_empty() {
            return Err(NetworkError::NoInterface);
        }
        let boots_elsewhere = |this: &Asking| {
            preferred.is_some_and(|mac| this.mac != mac && asking.iter().any(|other| other.mac == mac))
        };
        let second: Vec<bool> = asking.iter().map(boots_elsewhere).collect();
        for (this, second) in asking.iter_mut().zip(second) {
            if now_ms < this.resting_until_ms || (second && now_ms < start_ms + PREFERRED_MS) {
                continue;
            }
            let lease = match this.look(console, now_ms) {
                Ok(Some(lease)) => lease,
                Ok(None) => continue,
                Err(error) => {
                    console.failed("the network", &error, "trying again in 10 s");
                    this.start_over(now_ms, 10_000);
                    continue;
                }
            };
            let attachment = Attachment { interface: this.name.clone(), mac: this.mac, lease };
            match try_out(&links, console, &attachment, &mut reaches) {
                true => return Ok(attachment),
                false => this.start_over(uptime_ms(), 15_000),
            }
        }
        if now_ms >= said_ms + SAY_EVERY_MS {
            said_ms = now_ms;
            asking.iter().for_each(|this| console.say(&patience(this, now_ms)));
        }
        std::thread::sleep(LOOK);
    }
}

/// Adds the interfaces that have appeared since the last poll: some drivers take seconds.
fn welcome(asking: &mut Vec<Asking>, links: &Links, console: &Console, now_ms: u64) {
    for (name, mac) in interfaces() {
        if asking.iter().any(|known| known.name == name) {
            continue;
        }
        let mut new = Asking::new(name, mac, now_ms);
        if let Err(error) = links.up(&new.name) {
            console.failed("the network", &error, "going on with what else there is");
            new.resting_until_ms = u64::MAX;
        }
        asking.push(new);
    }
}

fn try_out(
    links: &Links,
    console: &Console,
    attachment: &Attachment,
    reaches: &mut impl FnMut(&Attachment) -> bool,
) -> bool {
    let Attachment { interface, lease, .. } = attachment;
    if let Err(error) = links.configure(interface, lease) {
        console.failed("the network", &error, "looking on");
        return false;
    }
    console.say(&format!("{interface} has address {}/{} from {}", lease.address, lease.prefix, lease.server));
    if reaches(attachment) {
        return true;
    }
    console.say(&format!("the server does not answer over {interface}; trying every interface again"));
    if let Err(error) = links.deconfigure(interface, lease) {
        console.failed("the network", &error, "looking on");
    }
    false
}

/// A line for a person about what `this` interface is waiting for.
fn patience(this: &Asking, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(this.link_since_ms) / 1000;
    let name = &this.name;
    if this.resting_until_ms == u64::MAX {
        format!("{name} cannot be brought up")
    } else if !this.link {
        format!("{name} has no link after {seconds} s: is its cable plugged in?")
    } else {
        let cause = if seconds < TAGGED_SECONDS {
            "switch ports with spanning tree take 30 to 50 s"
        } else {
            "is its network a tagged VLAN? Firmware can be set to one, this program asks without a tag: make it the \
             switch port's native VLAN. Or does no DHCP server answer there?"
        };
        format!("no answer on {name} after {seconds} s: still trying ({cause})")
    }
}

fn dhcp_socket(interface: &str) -> Result<Socket, NetworkError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    open().map_err(|source| NetworkError::Socket { interface: interface.to_owned(), source })
}

/// The next packet, if one has come.
fn receive(mut socket: &Socket, packet: &mut [u8]) -> Option<usize> {
    io::Read::read(&mut socket, packet).ok()
}

/// Sends a packet; one that cannot be sent counts as lost on the way, and the client sends another.
fn send(socket: &Socket, to: Ipv4Addr, packet: &[u8]) {
    let _ = socket.send_to(packet, &SocketAddrV4::new(to, 67).into());
}

/// Renews a lease in the background, and gets another when it is lost. Owns one thread, until it is dropped.
#[derive(Debug)]
pub struct LeaseKeeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Attachment>>,
}

impl LeaseKeeper {
    /// Keeps the lease of `attachment`; trouble is shown on `console`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(attachment: Attachment, console: Console) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || keep(attachment, &console, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the thread and returns the lease as it is now; none if the thread has panicked.
    #[must_use]
    pub fn stop(mut self) -> Option<Attachment> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| {
            thread.thread().unpark();
            thread.join().ok()
        })
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been shown by the panic hook.
            let _ = thread.join();
        }
    }
}

fn keep(mut attachment: Attachment, console: &Console, stop: &AtomicBool) -> Attachment {
    let lease = attachment.lease.clone();
    let mut client = Client::resume(attachment.mac, seed(attachment.mac), uptime_ms(), lease);
    let mut socket = None;
    while !stop.load(Ordering::Relaxed) {
        std::thread::park_timeout(LOOK);
        let now_ms = uptime_ms();
        // The socket is open only while something is asked: one on port 68 also receives the answers to other programs.
        if socket.is_none() && now_ms >= client.due_ms() {
            socket = dhcp_socket(&attachment.interface).ok();
        }
        let Some(open) = &socket else { continue };
        let mut effects = client.handle(Event::Tick, now_ms);
        let mut packet = [0; PACKET_BYTES_MAX];
        while let Some(len) = receive(open, &mut packet) {
            effects.extend(client.handle(Event::Packet(&packet[..len]), now_ms));
        }
        let bound = effects.iter().any(|effect| matches!(effect, Effect::Configure(_)));
        for effect in effects {
            carry_out(effect, open, &mut attachment, console);
        }
        if bound {
            socket = None;
        }
    }
    attachment
}

fn carry_out(effect: Effect, socket: &Socket, attachment: &mut Attachment, console: &Console) {
    let interface = &attachment.interface;
    let done = match effect {
        Effect::Send(to, packet) => {
            send(socket, to, &packet);
            Ok(())
        }
        Effect::Refused(reason) => {
            console.say(&format!("the DHCP server on {interface} took our address back: {reason}"));
            Ok(())
        }
        Effect::Configure(lease) => {
            let done = Links::open().and_then(|links| links.configure(interface, &lease));
            attachment.lease = lease;
            done
        }
        Effect::Deconfigure(lease) => {
            console
                .say(&format!("the lease of {} on {interface} has ended: asking for another", lease.address));
            Links::open().and_then(|links| links.deconfigure(interface, &lease))
        }
    };
    if let Err(error) = done {
        console.failed("the network", &error, "going on");
    }
}

#[cfg(test)]
mod tests;
