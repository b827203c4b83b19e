//! Small files by hash (bundle, manifest, kernel, loader), from neighbours first and then from the server. A neighbour
//! is given three seconds without a byte, and a least rate; what it sends counts only with the right hash. Touches the
//! network.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::causes::with_causes;
use common::id::{Hash, ImageId};
use common::limits::BUNDLE_BYTES_MAX;
use common::manifest::Manifest;
use common::wire::objects::{OBJECT, Object, PeerFault, object_path};

use super::bases::Bases;
use super::{FetchError, Server};

/// How long a neighbour may send nothing: it is on the same LAN, and the server has the file as well.
const SILENT: Duration = Duration::from_secs(3);

/// The rate below which a neighbour counts as slow, in bytes a second, counted after [`SILENT`]: an eighth of a line of
/// 4 Mbit/s, so that the server is hardly worse.
const LEAST_RATE: u64 = 64 << 10;

/// Neighbours that are tried at the most.
const TRIED_MAX: usize = 3;

/// A neighbour that failed, and how.
#[derive(Debug)]
pub struct Failed {
    /// Where it gives out files.
    pub peer: SocketAddr,
    /// What the server is told.
    pub fault: PeerFault,
    /// The reason, for the log.
    pub cause: FetchError,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.fault {
            PeerFault::Slow => "does not give out what it is said to hold",
            PeerFault::Wrong => "gave out something else",
        };
        write!(f, "the neighbour {} {what}: {}", self.peer, with_causes(&self.cause))
    }
}

impl Server {
    /// Downloads `object` into memory from the server, for whoever gives it out to its site.
    ///
    /// # Errors
    /// As [`Server::bundle`].
    pub fn object(&self, what: &'static str, object: Object) -> Result<Vec<u8>, FetchError> {
        let path = format!("{OBJECT}/{}", object.hash);
        self.download_whole(what, &path, object.hash, object.bytes, &mut |_| ())
    }

    /// Downloads `object` into memory from the first of `peers` that has it; `None` when none does. Each neighbour that
    /// failed is given to `failed`, and the server is told of it, so that it is not offered again.
    pub fn object_near(
        &self,
        what: &'static str,
        object: Object,
        peers: &[SocketAddr],
        failed: &mut dyn FnMut(&Failed),
    ) -> Option<Vec<u8>> {
        self.object_at(what, object, peers, &mut |_| (), failed)
    }

    /// As [`Server::bundle`], from the first of `peers` that has it, else from the server; neighbours that failed as in
    /// [`Server::object`].
    ///
    /// # Errors
    /// As [`Server::bundle`].
    pub fn bundle_near(
        &self,
        object: Object,
        peers: &[SocketAddr],
        progress: &mut dyn FnMut(u64),
        failed: &mut dyn FnMut(&Failed),
    ) -> Result<Vec<u8>, FetchError> {
        match self.object_at("the agent bundle", object, peers, progress, failed) {
            Some(bytes) => Ok(bytes),
            None => self.bundle(object.hash, object.bytes, progress),
        }
    }

    fn object_at(
        &self,
        what: &'static str,
        object: Object,
        peers: &[SocketAddr],
        progress: &mut dyn FnMut(u64),
        failed: &mut dyn FnMut(&Failed),
    ) -> Option<Vec<u8>> {
        let path = format!("{OBJECT}/{}", object.hash);
        // As for the server's own copy: nothing is asked for that memory cannot hold.
        let peers = if object.bytes > BUNDLE_BYTES_MAX { &[] } else { peers };
        self.first_of(object.hash, peers, failed, |peer| {
            let (mut have, since) = (Vec::new(), Instant::now());
            let mut in_time = |done| {
                progress(done);
                !too_slow(since.elapsed(), done)
            };
            peer.download_on(what, &path, object.bytes, &mut have, &mut in_time)?;
            let got = Hash::of(&have);
            if got == object.hash {
                Ok(have)
            } else {
                Err(FetchError::WrongHash { got, wanted: object.hash })
            }
        })
    }

    /// As [`Server::manifest`], from the first of `peers` that has it, else from the server; with its bytes.
    ///
    /// # Errors
    /// As [`Server::manifest`].
    pub fn manifest_near(
        &self,
        image: ImageId,
        image_bytes: u64,
        peers: &[SocketAddr],
        failed: &mut dyn FnMut(&Failed),
    ) -> Result<(Manifest, Vec<u8>), FetchError> {
        let near = self.first_of(image.0, peers, failed, |peer| {
            peer.manifest_at(&format!("{OBJECT}/{image}"), image, image_bytes)
        });
        near.map_or_else(|| self.manifest(image, image_bytes), Ok)
    }

    /// The first result of `fetch` among `peers`. One that answers that it has no such file is at no fault: it has
    /// dropped it, or not fetched it yet.
    fn first_of<T>(
        &self,
        hash: Hash,
        peers: &[SocketAddr],
        failed: &mut dyn FnMut(&Failed),
        mut fetch: impl FnMut(&Self) -> Result<T, FetchError>,
    ) -> Option<T> {
        for peer in peers.iter().take(TRIED_MAX) {
            let bases = Bases::new(vec![format!("http://{peer}")]);
            let there = Self { bases, key: self.key, http: super::http(SILENT) };
            let cause = match fetch(&there) {
                Ok(found) => return Some(found),
                Err(FetchError::Refused { .. }) => continue,
                Err(cause) => cause,
            };
            let fault = match cause {
                FetchError::WrongHash { .. } | FetchError::Manifest(_) | FetchError::TooLong { .. } => {
                    PeerFault::Wrong
                }
                _ => PeerFault::Slow,
            };
            failed(&Failed { peer: *peer, fault, cause });
            // Only a hint for the server: it may be unreachable just now.
            let told = format!("{}{}", self.url(), object_path(hash, Some((*peer, fault))));
            let _ = self.http.head(&told).call();
        }
        None
    }
}

/// Whether `done` bytes are too few after this time.
fn too_slow(after: Duration, done: u64) -> bool {
    let counted = after.saturating_sub(SILENT);
    done < counted.as_secs().saturating_mul(LEAST_RATE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::trust::KeyPair;
    use common::wire::http::BUNDLE;
    use parking_lot::Mutex;

    use super::super::testing::{Answer, Request, TestServer};
    use super::*;

    const FILE: &[u8] = b"a kernel, or a loader, or a bundle";

    fn object() -> Object {
        Object { hash: Hash::of(FILE), bytes: FILE.len() as u64 }
    }

    fn peer(answer: impl FnMut(&Request) -> Answer + Send + 'static) -> (TestServer, SocketAddr) {
        let server = TestServer::start(answer);
        let at = server.url.strip_prefix("http://").unwrap().parse().unwrap();
        (server, at)
    }

    fn whole(bytes: &'static [u8]) -> impl FnMut(&Request) -> Answer + Send {
        move |_| Answer::Whole(200, vec![], bytes.to_vec())
    }

    /// Fetches a bundle from `peers`, with a server that has it: what came, whose fault, and what the server was asked.
    fn fetched(peers: &[SocketAddr]) -> (Vec<u8>, Vec<(SocketAddr, PeerFault)>, Vec<String>) {
        let (server, _) = peer(whole(FILE));
        let client = Server::new(&server.url, KeyPair::from_secret([1; 32]).public()).unwrap();
        let faults = Mutex::new(vec![]);
        let mut failed = |failed: &Failed| faults.lock().push((failed.peer, failed.fault));
        let got = client.bundle_near(object(), peers, &mut |_| (), &mut failed).unwrap();
        let asked =
            server.requests().into_iter().map(|request| format!("{} {}", request.method, request.path));
        (got, faults.into_inner(), asked.collect())
    }

    #[test]
    fn what_only_neighbours_are_asked_for_never_crosses_the_line_again() {
        let (server, _) = peer(whole(FILE));
        let client = Server::new(&server.url, KeyPair::from_secret([1; 32]).public()).unwrap();
        let (_there, at) = peer(|_| Answer::Whole(404, vec![], vec![]));
        assert_eq!(client.object_near("a file", object(), &[at], &mut |_| ()), None);
        assert!(server.requests().is_empty(), "the server was asked");
    }

    #[test]
    fn a_neighbour_that_has_it_spares_the_server() {
        let (_there, at) = peer(whole(FILE));
        assert_eq!(fetched(&[at]), (FILE.to_vec(), vec![], vec![]));
    }

    #[test]
    fn whatever_a_neighbour_does_the_file_comes_and_the_server_hears_of_it() {
        let long: &'static [u8] = b"a kernel, or a loader, or a bundle, and more";
        let wrong: &'static [u8] = b"a kernel, or a loader, or A bundle";
        type Does = Box<dyn FnMut(&Request) -> Answer + Send>;
        let cases: [(&str, Does, Option<PeerFault>); 6] = [
            ("another file", Box::new(whole(wrong)), Some(PeerFault::Wrong)),
            ("a longer one", Box::new(whole(long)), Some(PeerFault::Wrong)),
            ("a short one", Box::new(|_| Answer::Cut(200, vec![], FILE.to_vec(), 9)), Some(PeerFault::Slow)),
            ("nothing", Box::new(|_| Answer::Nothing), Some(PeerFault::Slow)),
            ("none", Box::new(|_| Answer::Whole(404, vec![], vec![])), None),
            (
                "another place",
                Box::new(|_| Answer::Whole(302, vec!["Location: http://192.0.2.1/".to_owned()], vec![])),
                None,
            ),
        ];
        for (what, does, fault) in cases {
            let (_there, at) = peer(does);
            let (got, faults, asked) = fetched(&[at]);
            assert_eq!(got, FILE, "{what}");
            assert_eq!(faults, fault.map(|fault| (at, fault)).into_iter().collect::<Vec<_>>(), "{what}");
            let hash = object().hash;
            let told = fault.map(|fault| format!("HEAD {OBJECT}/{hash}?peer={at}&fault={}", fault.word()));
            let wanted: Vec<String> = told.into_iter().chain([format!("GET {BUNDLE}/{hash}")]).collect();
            assert_eq!(asked, wanted, "{what}");
        }
    }

    #[test]
    fn a_neighbour_that_is_gone_costs_seconds_and_only_so_many_are_tried() {
        // A port on which nobody listens any more.
        let gone = peer(whole(FILE)).1;
        let (_there, at) = peer(whole(FILE));
        let (got, faults, _) = fetched(&[gone, at]);
        assert_eq!((got.as_slice(), faults), (FILE, vec![(gone, PeerFault::Slow)]));
        let (_, faults, _) = fetched(&[gone; 10]);
        assert_eq!(faults.len(), TRIED_MAX);
    }

    #[test]
    fn a_trickle_is_too_slow_and_a_late_start_is_not() {
        let cases =
            [(0, 0, false), (3, 1, false), (4, 65_535, true), (4, 65_536, false), (60, 1 << 20, true)];
        for (seconds, done, slow) in cases {
            assert_eq!(too_slow(Duration::from_secs(seconds), done), slow, "{done} bytes in {seconds} s");
        }
    }
}
