//! Core: what of a script's output goes to the log. A script can say anything and as much as it likes: every line is
//! made harmless and cut, the first ones are told as they come, and of the rest the last ones at its end. So its cause of
//! failure is in the log, and no script fills the log. Touches `common`.

use std::collections::VecDeque;

use common::limits::cut;
use common::text::harmless;

/// Lines that are told as they come.
const FIRST: usize = 100;
/// Of the lines after those, how many are told at the end.
const LAST: usize = 50;
/// The most bytes of the last lines together.
const LAST_BYTES: usize = 16 << 10;
/// The most bytes of one line; what is longer is cut, as base64 of something large would be.
const LINE: usize = 500;
/// How many of the last lines go into the cause of a failure, and how many bytes.
const SAID: usize = 3;
const SAID_BYTES: usize = 600;

/// The output of one script.
#[derive(Debug, Default)]
pub(super) struct Output {
    line: Vec<u8>,
    told: usize,
    last: VecDeque<String>,
    left_out: usize,
    said: VecDeque<String>,
}

impl Output {
    /// Takes more bytes; returns the lines to tell now.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut now = vec![];
        for &byte in bytes {
            // A bar of progress ends its lines with a carriage return.
            if byte == b'\n' || byte == b'\r' {
                now.extend(self.end_line());
            } else if self.line.len() < LINE {
                self.line.push(byte);
            }
        }
        now
    }

    /// Takes the end of the output; returns the lines to tell then.
    pub(super) fn end(&mut self) -> Vec<String> {
        let mut now: Vec<String> = self.end_line().into_iter().collect();
        if self.left_out > 0 {
            now.push(format!("({} lines left out)", self.left_out));
        }
        now.extend(self.last.drain(..));
        now
    }

    /// The last words, with a colon before them, for the cause of a failure; empty when nothing was said.
    pub(super) fn said(&self) -> String {
        let all: Vec<&str> = self.said.iter().map(String::as_str).collect();
        if all.is_empty() { String::new() } else { format!(": {}", cut(&all.join("; "), SAID_BYTES)) }
    }

    fn end_line(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
        let line = cut(&harmless(&line), LINE).to_owned();
        if line.trim().is_empty() {
            return None;
        }
        self.said.push_back(line.clone());
        if self.said.len() > SAID {
            self.said.pop_front();
        }
        if self.told < FIRST {
            self.told += 1;
            return Some(line);
        }
        self.last.push_back(line);
        while self.last.len() > LAST || self.last.iter().map(String::len).sum::<usize>() > LAST_BYTES {
            self.last.pop_front();
            self.left_out += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_as_they_come_and_harmless() {
        let mut output = Output::default();
        assert_eq!(output.take(b"one\ntw"), ["one"]);
        assert_eq!(output.take(b"o\r\n\n  \n10 %\r20 %\r"), ["two", "10 %", "20 %"]);
        assert_eq!(output.take(b"\x1b[2J\xff\xfe\0name\n"), [" [2J\u{fffd}\u{fffd} name"]);
        assert!(output.take(b"no end").is_empty());
        assert_eq!(output.end(), ["no end"]);
        assert_eq!(output.said(), ": 20 %;  [2J\u{fffd}\u{fffd} name; no end");
        assert_eq!(Output::default().said(), "");
    }

    #[test]
    fn whatever_a_script_says_the_log_gets_so_much() {
        let mut output = Output::default();
        let mut told = 0;
        for n in 0..100_000 {
            told += output.take(format!("line {n}\n").as_bytes()).len();
        }
        assert_eq!(told, FIRST);
        let end = output.end();
        assert_eq!((end.len(), end[0].as_str()), (LAST + 1, "(99850 lines left out)"));
        assert_eq!(end.last().unwrap(), "line 99999");

        let mut output = Output::default();
        assert!(output.take(&vec![b'x'; 10 << 20]).is_empty());
        assert!(output.line.len() <= LINE, "one endless line is not kept");
        assert_eq!(output.end()[0].len(), LINE);
        let mut output = Output::default();
        for _ in 0..1000 {
            output.take(&[vec![b'x'; LINE], vec![b'\n']].concat());
        }
        assert!(output.end().iter().map(String::len).sum::<usize>() <= LAST_BYTES + 40);
    }
}
