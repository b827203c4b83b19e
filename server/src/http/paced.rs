//! A connection whose client must read its responses at a least rate: one that reads a byte now and then would hold a
//! connection, a file and the bytes that wait for it. Time in which the bytes waited for the site's line is not the
//! client's fault. Touches the connection that it wraps.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::limits::{ANSWER_LEAST_RATE, ANSWER_WINDOW};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::turns::Turns;

/// A stream whose writes fail with `TimedOut` when the client reads too slowly.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    turns: Turns,
    pace: Pace,
    /// The bytes written since the timer was set; `None` while nothing waits for the client.
    waiting: Option<u64>,
    timer: Pin<Box<Sleep>>,
}

/// The least rate: at least `bytes` in each window of `within`.
#[derive(Debug, Clone, Copy)]
struct Pace {
    bytes: u64,
    within: Duration,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, turns: Turns) -> Self {
        Self::at(
            stream,
            turns,
            Pace { bytes: ANSWER_LEAST_RATE * ANSWER_WINDOW.as_secs(), within: ANSWER_WINDOW },
        )
    }

    fn at(stream: S, turns: Turns, pace: Pace) -> Self {
        Self { stream, turns, pace, waiting: None, timer: Box::pin(tokio::time::sleep(pace.within)) }
    }

    /// How many of `wanted` bytes may be written now. The window is as much longer as they waited for their turn.
    fn turn(&mut self, wanted: usize, context: &mut Context<'_>) -> Poll<usize> {
        let (most, waited) = ready!(self.turns.poll_turn(wanted, context));
        if self.waiting.is_some() && !waited.is_zero() {
            let later = self.timer.deadline() + waited;
            self.timer.as_mut().reset(later);
        }
        Poll::Ready(most)
    }

    /// Passes on the result of a write, or an error when the window has ended with too few bytes written.
    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if let Some(taken) = &mut self.waiting {
                    *taken += bytes as u64;
                }
                self.turns.wrote(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                if self.waiting.is_none() {
                    self.begin();
                }
                while self.timer.as_mut().poll(context).is_ready() {
                    if self.waiting.is_some_and(|taken| taken < self.pace.bytes) {
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the answer is taken too slowly",
                        )));
                    }
                    self.begin();
                }
                Poll::Pending
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }

    fn begin(&mut self) {
        self.waiting = Some(0);
        self.timer.as_mut().reset(Instant::now() + self.pace.within);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.turns.read(into.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = ready!(self.turn(bytes.len(), context));
        let written = Pin::new(&mut self.stream).poll_write(context, &bytes[..most]);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = pieces.iter().map(|piece| piece.len()).sum();
        let most = ready!(self.turn(wanted, context));
        let written = if most == wanted {
            Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
        } else {
            let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| &piece[..]);
            Pin::new(&mut self.stream).poll_write(context, &first[..most.min(first.len())])
        };
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            // All was written; the time until the next response is not the client's fault.
            self.waiting = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::turns::Sending;
    use super::*;
    use crate::traffic::{Kind, LimitOrder, SentByKind, Traffic};

    /// A connection to a site with this limit, and the counts.
    fn metered<S>(stream: S, limit: Option<&str>, pace: Pace) -> (Paced<S>, Traffic) {
        let traffic = Traffic::default();
        let rate = limit.map(|rate| rate.parse().unwrap());
        traffic.limit(LimitOrder { site: Some("branch".to_owned()), rate });
        let sending = Sending::default();
        sending.answers("/boot/kit/vmlinuz");
        (Paced::at(stream, Turns::new(traffic.to_site("branch"), sending), pace), traffic)
    }

    const PACE: Pace = Pace { bytes: 400, within: Duration::from_millis(400) };

    /// Writes 8 KiB to a reader that takes `bytes` every 20 ms.
    async fn written(bytes: usize) -> io::Result<()> {
        let (near, mut far) = tokio::io::duplex(64);
        let reader = tokio::spawn(async move {
            let mut piece = vec![0; bytes];
            while far.read_exact(&mut piece).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let end = metered(near, None, PACE).0.write_all(&[7; 8 << 10]).await;
        reader.abort();
        end
    }

    #[tokio::test]
    async fn who_takes_a_byte_now_and_then_is_cut_off() {
        let begun = Instant::now();
        let error = written(1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < 4 * PACE.within);
    }

    #[tokio::test]
    async fn a_thin_line_is_slow_and_no_stranger() {
        assert!(written(256).await.is_ok());
    }

    /// A reader that takes everything at once over a line on which 250,000 bytes take two seconds, five windows long:
    /// nobody is cut off, the rate is kept, and every byte is counted once.
    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_line_is_not_the_readers_fault() {
        let pace = Pace { bytes: 100_000, within: Duration::from_millis(400) };
        for vectored in [false, true] {
            let (near, mut far) = tokio::io::duplex(4 << 10);
            let (mut near, traffic) = metered(near, Some("1M"), pace);
            let reader = tokio::spawn(async move {
                let mut all = vec![];
                far.read_to_end(&mut all).await.map(|_| all)
            });
            let begun = Instant::now();
            let sent: Vec<u8> = (0..250_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut left = &sent[..];
            while !left.is_empty() && vectored {
                let (head, body) = left.split_at(left.len().min(100));
                let wrote = near.write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(body)]).await;
                left = &left[wrote.unwrap()..];
            }
            near.write_all(left).await.unwrap();
            near.shutdown().await.unwrap();
            drop(near);
            assert!(reader.await.unwrap().unwrap() == sent);
            let took = begun.elapsed().as_secs_f64();
            assert!((1.98..2.2).contains(&took), "{took}");
            let wanted = SentByKind { boot_files: 250_000, ..SentByKind::default() };
            assert_eq!(traffic.shown()[0].sent, wanted);
            assert_eq!(traffic.shown()[0].sent.of(Kind::BootFiles), 250_000);
        }
    }

    /// The line's limit is no hiding place: a reader that takes nothing is cut off as without one.
    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_off_behind_a_limit_too() {
        let (near, _far) = tokio::io::duplex(4 << 10);
        let (mut near, _) = metered(near, Some("1M"), PACE);
        let error = near.write_all(&[7; 64 << 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_idle_connection_owes_nothing() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = metered(near, None, PACE).0;
        let reader = tokio::spawn(async move {
            let mut all = [0; 64];
            far.read_exact(&mut all[..32]).await.unwrap();
            tokio::time::sleep(2 * PACE.within).await;
            far.read_exact(&mut all[32..]).await.unwrap();
        });
        near.write_all(&[1; 32]).await.unwrap();
        near.flush().await.unwrap();
        tokio::time::sleep(2 * PACE.within).await;
        near.write_all(&[1; 32]).await.unwrap();
        reader.await.unwrap();
    }
}
