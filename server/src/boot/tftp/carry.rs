//! One transfer: relays packets between a machine and async-tftp. Touches two sockets.
//!
//! async-tftp 0.4.2 receives only ACKs while it sends, and repeats for a forged address as long as for a machine. Here
//! an ERROR of the machine ends the transfer at once, and so do a few packets that are not answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::limits::{TFTP_PACKET_BYTES_MAX, TFTP_UNANSWERED_MAX};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::library::Ticket;
use super::repeats::Repeats;
use crate::traffic::{Kind, SiteLine};

/// The loopback loses packets only when a socket's buffer is full; then the request is sent again.
const INNER_TIMEOUT: Duration = Duration::from_millis(500);
const INNER_TRIES: u32 = 6;

/// The opcodes (RFC 1350, RFC 2347).
const DATA: u8 = 3;
const ACK: u8 = 4;
const ERROR: u8 = 5;
const OACK: u8 = 6;

/// A transfer's two sockets, one for the machine and one for async-tftp.
#[derive(Debug)]
pub(super) struct Carriage {
    outer: UdpSocket,
    inner: UdpSocket,
    library: SocketAddr,
    heard: bool,
    unanswered: u32,
    line: SiteLine,
    repeats: Repeats,
    began: Instant,
}

/// How a transfer ended for the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// async-tftp has ended it.
    Done,
    /// The machine or the server has aborted it; async-tftp has yet to be told.
    HungUp,
}

impl Carriage {
    /// Opens both sockets: a port of `local` connected to the machine, and one of the loopback for `library`.
    pub(super) async fn open(
        local: Ipv4Addr,
        client: SocketAddrV4,
        library: SocketAddr,
        line: SiteLine,
    ) -> io::Result<Self> {
        let outer = UdpSocket::bind((local, 0)).await?;
        outer.connect(client).await?;
        let inner = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self {
            outer,
            inner,
            library,
            heard: false,
            unanswered: 0,
            line,
            repeats: Repeats::default(),
            began: Instant::now(),
        })
    }

    /// The address that async-tftp sees as its client.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Relays packets until the transfer ends or `hang_up` is cancelled; calls `heard` for each ACK of the machine.
    pub(super) async fn run(
        &mut self,
        request: &[u8],
        ticket: &Ticket,
        hang_up: &CancellationToken,
        mut heard: impl FnMut(),
    ) -> io::Result<End> {
        let room = self.enter(request, ticket, hang_up).await?;
        let Some((room, first, length)) = room else { return Ok(End::HungUp) };
        let (mut down, mut up) = (first, [0; TFTP_PACKET_BYTES_MAX]);
        if !self.forward(&down[..length], hang_up).await {
            return Ok(End::HungUp);
        }
        loop {
            // In this order, so that what async-tftp repeated while a packet waited for the line is seen before the
            // machine's next answer.
            tokio::select! {
                biased;
                () = ticket.done.cancelled() => return Ok(End::Done),
                () = hang_up.cancelled() => return Ok(End::HungUp),
                got = self.inner.recv_from(&mut down) => {
                    let (length, _) = got?;
                    if !self.forward(&down[..length], hang_up).await {
                        return Ok(End::HungUp);
                    }
                }
                got = self.outer.recv(&mut up) => {
                    let Ok(length) = got else { return Ok(End::HungUp) };
                    match up[..length] {
                        [0, ACK, ..] => {
                            self.heard = true;
                            self.repeats.acknowledged();
                            heard();
                            self.inner.send_to(&up[..length], room).await?;
                        }
                        [0, ERROR, ..] => return Ok(End::HungUp),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Sends the request to async-tftp until it answers; returns the address of its transfer, and its first packet.
    /// `None` if the transfer was cancelled before that.
    async fn enter(
        &self,
        request: &[u8],
        ticket: &Ticket,
        hang_up: &CancellationToken,
    ) -> io::Result<Option<(SocketAddr, [u8; TFTP_PACKET_BYTES_MAX], usize)>> {
        let mut first = [0; TFTP_PACKET_BYTES_MAX];
        for _ in 0..INNER_TRIES {
            self.inner.send_to(request, self.library).await?;
            tokio::select! {
                () = ticket.done.cancelled() => return Ok(None),
                () = hang_up.cancelled() => return Ok(None),
                got = self.inner.recv_from(&mut first) => {
                    let (length, room) = got?;
                    return Ok(Some((room, first, length)));
                }
                () = tokio::time::sleep(INNER_TIMEOUT) => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Sends a packet to the machine when its turn on the site's line has come: later, never not at all. `false` when
    /// the transfer is over.
    async fn forward(&mut self, packet: &[u8], hang_up: &CancellationToken) -> bool {
        if self.repeats.knows(packet, self.now_ms()) {
            return true;
        }
        let turn = self.line.pass(Kind::Tftp, packet.len());
        if hang_up.run_until_cancelled(turn).await.is_none() {
            return false;
        }
        if !self.heard {
            self.unanswered += 1;
            if self.unanswered > TFTP_UNANSWERED_MAX {
                return false;
            }
        }
        match self.outer.send(packet).await {
            // The machine has closed that port: its ICMP error says so.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => false,
            // A packet that could not be sent is like a lost one; async-tftp sends it again.
            Err(_) => packet.get(1) != Some(&ERROR),
            Ok(bytes) => {
                self.line.sent(Kind::Tftp, bytes);
                self.repeats.sent(packet, self.now_ms());
                packet.get(1) != Some(&ERROR)
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Makes async-tftp end an aborted transfer: acknowledges whatever it sends, until it reads on and gets an error.
    pub(super) async fn dismiss(self, ticket: &Ticket) {
        let Self { outer, inner, .. } = self;
        drop(outer);
        ticket.aborted.store(true, Ordering::Relaxed);
        let mut packet = [0; TFTP_PACKET_BYTES_MAX];
        let acknowledge = async {
            while let Ok((length, room)) = inner.recv_from(&mut packet).await {
                let ack = match packet[..length] {
                    [0, OACK, ..] => [0, ACK, 0, 0],
                    [0, DATA, high, low, ..] => [0, ACK, high, low],
                    _ => continue,
                };
                if inner.send_to(&ack, room).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = ticket.done.cancelled() => {}
            () = acknowledge => {}
            () = tokio::time::sleep(INNER_TIMEOUT * INNER_TRIES) => {}
        }
    }
}
