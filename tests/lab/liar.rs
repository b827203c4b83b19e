//! Owns a neighbour that lies: in front of a program's HTTP port in one namespace, a proxy that flips one bit in the
//! middle of each long answer. Touches that namespace's nftables and two ports of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::libc;

use crate::net::Net;
use crate::process;

/// Where the proxy listens; what is for the program's port comes here.
const OWN_PORT: u16 = 9069;
/// The byte of an answer that is flipped: far behind any header, and inside every kernel and loader.
const FLIPPED: usize = 1 << 20;

/// The proxy. Dropping it ends it; connections that are open run to their end.
#[derive(Debug)]
pub struct Liar {
    flips: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Liar {
    /// Takes what comes to `program`, an address and port of `eth0` of `net`, and asks the program there from that
    /// address: an agent serves its own site only.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or nft fails.
    pub fn start(net: &Net, program: SocketAddrV4) -> Result<Self> {
        let port = program.port();
        let rules = format!(
            "add table ip liar\n\
             add chain ip liar before {{ type nat hook prerouting priority dstnat; }}\n\
             add rule ip liar before iif eth0 tcp dport {port} redirect to :{OWN_PORT}"
        );
        process::output_of(net.command("nft").arg(rules))?;
        let path = format!("/run/netns/{}", net.name());
        let (flips, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&flips), Arc::clone(&ending));
        let (tell, told) = std::sync::mpsc::channel();
        // A namespace belongs to a thread: this one's sockets are of that network, and everybody else's stay here.
        let accepting = std::thread::spawn(move || {
            let listen = || -> Result<TcpListener> {
                enter(&path)?;
                let listener = TcpListener::bind(("0.0.0.0", OWN_PORT))?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            match listen() {
                Ok(listener) => {
                    let _ = tell.send(Ok(()));
                    accept(&listener, program, &count, &end);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        });
        told.recv()
            .map_err(|_| anyhow!("the liar's thread ended"))?
            .context("cannot listen in the namespace")?;
        Ok(Self { flips, ending, accepting: Some(accepting) })
    }

    /// How many answers it has changed so far.
    #[must_use]
    pub fn flips(&self) -> usize {
        self.flips.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

/// Moves this thread into a network namespace.
fn enter(path: &str) -> Result<()> {
    let namespace = File::open(path).with_context(|| path.to_owned())?;
    // SAFETY: the descriptor is open, and the call changes nothing but which network this thread's new sockets are of.
    #[allow(unsafe_code)]
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    Errno::result(result).map(drop).context("cannot enter the namespace")
}

fn accept(listener: &TcpListener, program: SocketAddrV4, flips: &Arc<AtomicUsize>, ending: &AtomicBool) {
    while !ending.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        // A thread that is started here is in this namespace, too.
        let flips = Arc::clone(flips);
        std::thread::spawn(move || {
            let _ = client.set_nonblocking(false);
            let Ok(program) = TcpStream::connect(program) else { return };
            let (Ok(from), Ok(to)) = (client.try_clone(), program.try_clone()) else { return };
            std::thread::spawn(move || pass(from, to, None));
            pass(program, client, Some(&flips));
        });
    }
}

/// Copies bytes until the end; flips one where there is something to count the flips in.
fn pass(mut from: TcpStream, mut to: TcpStream, flips: Option<&AtomicUsize>) {
    let (mut piece, mut done) = (vec![0; 64 << 10], 0);
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if let Some(flips) = flips
            && (done..done + count).contains(&FLIPPED)
        {
            piece[FLIPPED - done] ^= 0x10;
            flips.fetch_add(1, Ordering::Relaxed);
        }
        done += count;
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_a_long_answer_is_flipped() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (net, segment) = Net::with_segment().unwrap();
        let host = crate::away::host(&net, segment, 50).unwrap();
        let (folder, length) = (tempfile::tempdir().unwrap(), 3 << 20);
        std::fs::write(folder.path().join("file"), vec![0; length]).unwrap();
        let mut serve = host.command("python3");
        serve.args(["-m", "http.server", "8069", "--bind", "0.0.0.0", "--directory"]).arg(folder.path());
        let _program = process::Beside::start("http", &mut serve, &folder.path().join("log")).unwrap();
        let liar = Liar::start(&host, SocketAddrV4::new(segment.address(50).parse().unwrap(), 8069)).unwrap();
        let url = format!("http://{}:8069/file", segment.address(50));
        let words = ["-s", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", "-o"];
        let got = folder.path().join("got");
        process::output_of(net.command("curl").args(words).arg(&got).arg(&url)).unwrap();
        let wrong = std::fs::read(&got).unwrap().iter().filter(|byte| **byte != 0).count();
        assert_eq!((wrong, liar.flips()), (1, 1));
    }
}
