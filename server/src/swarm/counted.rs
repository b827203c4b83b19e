//! A control stream whose bytes are counted. They wait for no turn, because they are few and show that both ends are
//! alive; chunks wait the longer for them. Touches the stream that it wraps and the site's line.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use crate::traffic::{Kind, SiteLine};

/// A stream, and the way into the site at its other end.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    line: SiteLine,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, line: SiteLine) -> Self {
        Self { stream, line }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if let Poll::Ready(Ok(bytes)) = &read {
            self.line.received(*bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, from);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.line.charge(Kind::Control, *bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
