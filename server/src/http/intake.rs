//! Request bodies from machines: bounded in length, in time and, over all of them at once, in memory, for each address
//! and in total. The memory is given back when the handler drops the body. Touches request bodies.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use common::limits::{
    BODIES_BYTES_MAX, BODIES_BYTES_PER_ADDRESS, BODIES_BYTES_RESERVED, BODY_GRACE, BODY_LEAST_RATE,
    BODY_TIME_MAX, SMALL_BODY_BYTES,
};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::refusal::Refusal;

/// Reads request bodies, and counts the memory of those that are held at once.
#[derive(Debug, Default)]
pub(crate) struct Intake(Mutex<Ledger>);

/// A body that was read, with its share of the memory for all bodies; dropping it frees that share.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The whole body, as it was sent.
    pub(crate) bytes: Bytes,
    _share: Share,
}

impl Intake {
    /// Reads the whole body, if it is at most `max` bytes, is not too slow, and there is memory left. `what` names it
    /// in errors.
    pub(crate) async fn read(
        self: &Arc<Self>,
        address: IpAddr,
        headers: &HeaderMap,
        mut body: Body,
        max: usize,
        what: &str,
    ) -> Result<Taken, Refusal> {
        let too_large = || {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a {what} of more than {max} bytes"))
                .hint("nothing of it was read")
        };
        let told =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if told.is_some_and(|told| told > max as u64) {
            return Err(too_large());
        }
        let mut share = Share { intake: Arc::clone(self), address, bytes: 0 };
        let mut bytes = BytesMut::new();
        let begun = Instant::now();
        loop {
            let frame = match tokio::time::timeout_at(begun + patience(bytes.len()), body.frame()).await {
                Ok(None) => return Ok(Taken { bytes: bytes.freeze(), _share: share }),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(
                        Refusal::new(StatusCode::BAD_REQUEST, format!("the {what} broke off")).because(error)
                    );
                }
                Err(_) => {
                    let error = format!("the {what} came too slowly: {} bytes so far", bytes.len());
                    return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, error).hint("send it again"));
                }
            };
            let Ok(piece) = frame.into_data() else { continue };
            if piece.len() > max - bytes.len() {
                return Err(too_large());
            }
            if !share.grow(piece.len()) {
                let error = format!("too much is being sent at once to take this {what}");
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
                    .hint("send it again in some seconds"));
            }
            bytes.extend_from_slice(&piece);
        }
    }
}

/// The timeout of a body of which `received` bytes have come: a grace, and what these bytes take at the least rate.
fn patience(received: usize) -> Duration {
    let earned = Duration::from_secs_f64(received as f64 / f64::from(BODY_LEAST_RATE));
    (BODY_GRACE + earned).min(BODY_TIME_MAX)
}

/// The share of one body in the memory for all, in bytes; given back when it is dropped.
#[derive(Debug)]
struct Share {
    intake: Arc<Intake>,
    address: IpAddr,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, more: usize) -> bool {
        let mut ledger = self.intake.0.lock();
        let granted = ledger.take(self.address, self.bytes, more);
        if granted {
            self.bytes += more;
        }
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.intake.0.lock().give(self.address, self.bytes);
    }
}

/// Bytes of bodies that are held, in total and by address.
#[derive(Debug, Default)]
struct Ledger {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Ledger {
    /// Takes `more` bytes for a body that has `had` already; false when there is no room. The last part is reserved for
    /// small bodies, which is what honest machines mostly send.
    fn take(&mut self, address: IpAddr, had: usize, more: usize) -> bool {
        let small = had + more <= SMALL_BODY_BYTES;
        let room = if small { BODIES_BYTES_MAX } else { BODIES_BYTES_MAX - BODIES_BYTES_RESERVED };
        let own = self.by_address.get(&address).copied().unwrap_or(0);
        if self.all + more > room || own + more > BODIES_BYTES_PER_ADDRESS {
            return false;
        }
        self.all += more;
        *self.by_address.entry(address).or_insert(0) += more;
        true
    }

    fn give(&mut self, address: IpAddr, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        if let Some(own) = self.by_address.get_mut(&address) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn who_sends_a_byte_now_and_then_is_given_up_soon() {
        assert_eq!(patience(0), BODY_GRACE);
        assert!(patience(60) < BODY_GRACE + Duration::from_secs(1));
        assert_eq!(patience(usize::MAX), BODY_TIME_MAX);
        // A report of 600 KiB over a line of 128 kbit/s for each of eight machines.
        let needed = Duration::from_secs_f64(f64::from(600 << 10) / 16_000.0);
        assert!(patience(600 << 10) > needed, "{needed:?}");
    }

    #[test]
    fn one_address_takes_its_share_and_no_more() {
        let mut ledger = Ledger::default();
        let most = BODIES_BYTES_PER_ADDRESS;
        assert!(ledger.take(host(1), 0, most));
        assert!(!ledger.take(host(1), 0, 1));
        assert!(ledger.take(host(2), 0, most));
        ledger.give(host(1), most);
        assert!(ledger.take(host(1), 0, 1));
        ledger.give(host(1), 1);
        ledger.give(host(2), most);
        assert_eq!((ledger.all, ledger.by_address.len()), (0, 0));
    }

    #[test]
    fn small_bodies_get_in_where_large_ones_have_filled_the_room() {
        let mut ledger = Ledger::default();
        let mut last = 0;
        while ledger.take(host(last), SMALL_BODY_BYTES, BODIES_BYTES_PER_ADDRESS) {
            last += 1;
        }
        assert!(ledger.all <= BODIES_BYTES_MAX - BODIES_BYTES_RESERVED);
        assert!(!ledger.take(host(200), SMALL_BODY_BYTES, BODIES_BYTES_PER_ADDRESS));
        assert!(ledger.take(host(200), 0, SMALL_BODY_BYTES), "a small one");
    }
}
