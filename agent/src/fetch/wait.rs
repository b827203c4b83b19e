//! Waiting for an order with a request that the server leaves open, instead of a report every few seconds: some hundred
//! bytes a minute, and an order is known at once. Where that cannot be done (an earlier server, a proxy that refuses it)
//! the machine reports again after the seconds that its verdict names, as before. Touches the network, through
//! [`Server`], and the clock.

use std::time::{Duration, Instant};

use common::id::Hash;
use common::limits::WAIT_TIME;
use common::trust::{KeyPair, PublicKey, Signed};
use common::wire::http::{News, WAIT, WaitAnswer, WaitRequest};
use ureq::http::StatusCode;

use super::{FetchError, Server};

/// The timeout of an answer: the server leaves the request open for [`WAIT_TIME`] at the most.
const PATIENCE: Duration = Duration::from_secs(WAIT_TIME.as_secs() + 20);

/// A request that breaks off after so long was open: a proxy or a NAT on the way gave it up, and the next one may wait as
/// long. One that breaks off sooner shows that the server cannot be reached.
const WAS_OPEN: Duration = Duration::from_secs(5);

/// The longest pause, in milliseconds, before a broken request is made again: a server that is restarted breaks those of
/// all machines in one moment.
const BROKEN_PAUSE_MS: u64 = 4_000;

/// The longest pause that a server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a machine that waits was told by the verdict on its last report.
#[derive(Debug, Clone, Copy)]
pub struct ToldToWait {
    /// The report, by the hash of its signed form.
    pub report: Hash,
    /// After how many seconds it reports again where the server keeps no request open; 1 to 600 are believed.
    pub seconds: u32,
}

/// What a waiting machine looks at while no request is open, between two of them or during a pause.
pub trait Lookout {
    /// Whether the machine is to report at once, because its hardware is not what it reported.
    fn has_changed(&mut self) -> bool;

    /// Whether nobody waits any more.
    fn is_over(&self) -> bool;
}

/// What follows a request.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait(Duration),
    Report(Duration),
}

/// Decides what follows each request.
struct Course {
    told: ToldToWait,
    broken_pause: Duration,
    /// Whether the server has shown that it knows the report.
    is_known: bool,
    /// How many requests in a row broke off at once.
    broken: u32,
}

impl Course {
    fn after(&mut self, outcome: &Result<WaitAnswer, FetchError>, took: Duration) -> Next {
        let fallback = Duration::from_secs(u64::from(self.told.seconds.clamp(1, 600)));
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) if may_be_the_way(error) => {
                self.broken = if took >= WAS_OPEN { 0 } else { self.broken + 1 };
                // The report, which follows, shows why and backs off.
                return if self.broken > 1 {
                    Next::Report(Duration::ZERO)
                } else {
                    Next::Wait(self.broken_pause)
                };
            }
            Err(_) => return Next::Report(fallback),
        };
        self.broken = 0;
        let pause = Duration::from_millis(u64::from(answer.pause_ms)).min(PAUSE_MAX);
        match answer.news {
            News::None => {
                self.is_known = true;
                Next::Wait(pause)
            }
            News::Report => Next::Report(pause),
            // The report was only just made, so another one would not be known either.
            News::Unknown if !self.is_known => Next::Report(fallback),
            News::Unknown => Next::Report(pause),
        }
    }
}

/// Whether an error may come of the way to the server: a connection that broke, or a proxy's word that it did.
fn may_be_the_way(error: &FetchError) -> bool {
    let of_a_proxy = [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT, StatusCode::REQUEST_TIMEOUT];
    match error {
        FetchError::Unreachable { .. } | FetchError::Broken { .. } => true,
        FetchError::Refused { status, .. } => of_a_proxy.iter().any(|code| code.as_u16() == *status),
        _ => false,
    }
}

impl Server {
    /// Waits until the machine is to report again: there is news for it, its hardware has changed, or the server keeps
    /// no requests open and the seconds are over. Returns early, within a second of a pause or at the end of an open
    /// request, when `lookout` says that it is over.
    pub fn wait(&self, pair: &KeyPair, told: ToldToWait, lookout: &mut dyn Lookout) {
        let broken_pause = broken_pause(&pair.public());
        let mut course = Course { told, broken_pause, is_known: false, broken: 0 };
        for number in 1.. {
            let begun = Instant::now();
            let outcome = self.ask_for_news(pair, told.report, number);
            let (pause, reports) = match course.after(&outcome, begun.elapsed()) {
                Next::Wait(pause) => (pause, false),
                Next::Report(pause) => (pause, true),
            };
            sleep(pause, lookout);
            if reports || lookout.is_over() || lookout.has_changed() {
                return;
            }
        }
    }

    /// Makes one request, which stays open until the server has news or its time is over.
    fn ask_for_news(&self, pair: &KeyPair, report: Hash, number: u64) -> Result<WaitAnswer, FetchError> {
        let what = "the request to wait";
        let request = pair.sign(&WaitRequest { key: pair.public(), report, number });
        let signed: Signed<WaitAnswer> = self.post(what, WAIT, &request, PATIENCE)?;
        let answer = signed.open(&self.key()).map_err(|source| FetchError::Untrusted { what, source })?;
        if answer.request == request.digest() { Ok(answer) } else { Err(FetchError::Stale) }
    }
}

/// How long the machine with this key pauses before it makes a broken request again.
fn broken_pause(own: &PublicKey) -> Duration {
    let [a, b, ..] = own.bytes();
    let spread = u64::from(u16::from_be_bytes([a, b])) % BROKEN_PAUSE_MS;
    Duration::from_millis(spread)
}

fn sleep(pause: Duration, lookout: &dyn Lookout) {
    let until = Instant::now() + pause;
    while !lookout.is_over() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_secs(1)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::testing::{Answer, Request, TestServer};
    use super::*;

    fn told() -> ToldToWait {
        ToldToWait { report: Hash::of(b"report"), seconds: 7 }
    }

    fn course(is_known: bool) -> Course {
        Course { told: told(), broken_pause: Duration::from_millis(9), is_known, broken: 0 }
    }

    fn answer(news: News, pause_ms: u32) -> Result<WaitAnswer, FetchError> {
        Ok(WaitAnswer { request: Hash::of(b""), news, pause_ms })
    }

    fn refused(status: u16) -> Result<WaitAnswer, FetchError> {
        let body = common::wire::http::Refused { error: "no".to_owned(), cause: None, hint: None };
        Err(FetchError::Refused { what: "it", status, body: Box::new(body) })
    }

    #[test]
    fn what_follows_an_answer() {
        let (ms, fallback) = (Duration::from_millis, Duration::from_secs(7));
        let table = [
            ("nothing new", false, answer(News::None, 0), Next::Wait(ms(0))),
            ("no place", false, answer(News::None, 30_000), Next::Wait(ms(30_000))),
            ("a pause without end", false, answer(News::None, u32::MAX), Next::Wait(PAUSE_MAX)),
            ("an order", false, answer(News::Report, 500), Next::Report(ms(500))),
            ("a restarted server", true, answer(News::Unknown, 800), Next::Report(ms(800))),
            ("a server that does not keep it", false, answer(News::Unknown, 0), Next::Report(fallback)),
            ("an earlier server", false, refused(404), Next::Report(fallback)),
            ("a server with too much to do", false, refused(503), Next::Report(fallback)),
            ("another's answer", true, Err(FetchError::Stale), Next::Report(fallback)),
        ];
        for (what, is_known, outcome, wanted) in table {
            assert_eq!(course(is_known).after(&outcome, Duration::ZERO), wanted, "{what}");
        }
    }

    #[test]
    fn a_request_that_a_proxy_cuts_is_made_again_and_a_lost_server_is_reported_to() {
        let cut = Duration::from_secs(30);
        let mut behind_a_proxy = course(true);
        for _ in 0..9 {
            let next = behind_a_proxy.after(&refused(504), cut);
            assert_eq!(next, Next::Wait(Duration::from_millis(9)), "for ever, without a report");
        }
        let mut lost = course(true);
        assert!(matches!(lost.after(&refused(502), Duration::ZERO), Next::Wait(_)), "once");
        assert_eq!(lost.after(&refused(502), Duration::ZERO), Next::Report(Duration::ZERO));
    }

    #[test]
    fn machines_whose_requests_break_in_one_moment_come_one_after_the_other() {
        let pauses: Vec<Duration> =
            (1..=200).map(|n| broken_pause(&KeyPair::from_secret([n; 32]).public())).collect();
        assert!(pauses.iter().all(|pause| *pause < Duration::from_millis(BROKEN_PAUSE_MS)));
        for quarter in 0..4 {
            let from = Duration::from_millis(BROKEN_PAUSE_MS / 4 * quarter);
            let until = from + Duration::from_millis(BROKEN_PAUSE_MS / 4);
            let here = pauses.iter().filter(|pause| (from..until).contains(*pause)).count();
            assert!((25..75).contains(&here), "{here} of 200 within {from:?} to {until:?}");
        }
    }

    /// Says that the hardware has changed after so many looks.
    struct Looks(u32, AtomicBool);

    impl Lookout for Looks {
        fn has_changed(&mut self) -> bool {
            self.0 -= 1;
            self.0 == 0
        }

        fn is_over(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    /// A server with this key that answers the requests with these news, and whatever follows with the last.
    fn server(key: KeyPair, own: PublicKey, news: &'static [News]) -> TestServer {
        let mut made = 0;
        TestServer::start(move |request: &Request| {
            let signed: Signed<WaitRequest> = serde_json::from_slice(&request.body).unwrap();
            let request = signed.open(&own).unwrap();
            made += 1;
            assert_eq!((request.number, request.report), (made as u64, told().report));
            let news = news[(made - 1).min(news.len() - 1)];
            Answer::json(&key.sign(&WaitAnswer { request: signed.digest(), news, pause_ms: 0 }))
        })
    }

    #[test]
    fn it_ends_with_news_with_other_hardware_and_when_nobody_waits() {
        let (theirs, ours) = (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]));
        let wait = |news: &'static [News], looks: u32, over: bool| {
            let server = server(theirs.clone(), ours.public(), news);
            let client = Server::new(&server.url, theirs.public()).unwrap();
            client.wait(&ours, told(), &mut Looks(looks, AtomicBool::new(over)));
            server.requests().len()
        };
        assert_eq!(wait(&[News::None, News::None, News::Report], 99, false), 3, "news");
        assert_eq!(wait(&[News::None], 4, false), 4, "a disk was plugged in");
        assert_eq!(wait(&[News::None], 99, true), 1, "cancelled");
    }

    #[test]
    fn news_of_another_request_or_key_is_not_believed() {
        let (theirs, ours) = (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]));
        for (signer, this) in [(theirs.clone(), false), (KeyPair::from_secret([3; 32]), true)] {
            let server = TestServer::start(move |request: &Request| {
                let signed: Signed<WaitRequest> = serde_json::from_slice(&request.body).unwrap();
                let request = if this { signed.digest() } else { Hash::of(b"an earlier one") };
                Answer::json(&signer.sign(&WaitAnswer { request, news: News::Report, pause_ms: 0 }))
            });
            let client = Server::new(&server.url, theirs.public()).unwrap();
            assert!(client.ask_for_news(&ours, told().report, 1).is_err());
        }
    }
}
