//! A connection whose client must read its responses at a least rate: one that reads a byte now and then would hold a
//! connection, a file and the bytes that wait for it. Touches the connection that it wraps.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use common::limits::{ANSWER_LEAST_RATE, ANSWER_WINDOW};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose writes fail with `TimedOut` when the client reads too slowly.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
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
    pub(super) fn new(stream: S) -> Self {
        Self::at(stream, Pace { bytes: ANSWER_LEAST_RATE * ANSWER_WINDOW.as_secs(), within: ANSWER_WINDOW })
    }

    fn at(stream: S, pace: Pace) -> Self {
        Self { stream, pace, waiting: None, timer: Box::pin(tokio::time::sleep(pace.within)) }
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
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
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

    use super::*;

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
        let end = Paced::at(near, PACE).write_all(&[7; 8 << 10]).await;
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

    #[tokio::test]
    async fn an_idle_connection_owes_nothing() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = Paced::at(near, PACE);
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
