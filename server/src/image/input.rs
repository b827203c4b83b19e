//! A buffered reader with look-ahead that counts the bytes read. Exists because an error in a compressed image must
//! name its byte, and must tell a failed connection from corrupt data. Owns the reader and one buffer.

use std::io::{self, BufRead, Read};

/// Bytes read at once: the precision of the place that an error names.
pub(super) const READ_BYTES: usize = 256 << 10;

/// A buffered reader that counts the bytes taken, and knows whether a read ever failed.
pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    consumed: u64,
    failed: bool,
}

impl Input {
    /// An input of which nothing was taken yet.
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, buf: vec![0; READ_BYTES], start: 0, end: 0, consumed: 0, failed: false }
    }

    /// An empty input, as a placeholder while another is moved.
    pub(super) fn none() -> Self {
        Self { reader: Box::new(io::empty()), buf: Vec::new(), start: 0, end: 0, consumed: 0, failed: false }
    }

    /// How many bytes were taken so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether a read ever failed: then an error that a decompressor reports is not its own.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// The next `n` bytes without taking them; fewer only at the end.
    pub(super) fn peek(&mut self, n: usize) -> io::Result<&[u8]> {
        if self.buf.len() - self.start < n {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < n && self.more()? > 0 {}
        Ok(&self.buf[self.start..self.end.min(self.start + n)])
    }

    /// Takes zeros up to the first other byte or the end.
    pub(super) fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let zeros = self.fill_buf()?.iter().take_while(|&&byte| byte == 0).count();
            self.consume(zeros);
            if zeros == 0 || self.start < self.end {
                return Ok(());
            }
        }
    }

    /// Reads into the free rest of the buffer.
    fn more(&mut self) -> io::Result<usize> {
        loop {
            match self.reader.read(&mut self.buf[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.more()?;
        }
        Ok(&self.buf[self.start..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        self.consumed += n as u64;
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let part = self.fill_buf()?;
        let n = part.len().min(buf.len());
        buf[..n].copy_from_slice(&part[..n]);
        self.consume(n);
        Ok(n)
    }
}
