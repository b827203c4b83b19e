//! Retries reads that fail because the process or the kernel is short of files or memory: that says nothing about what
//! was read. A chunk was once reported as lost while 1,000 idle connections had every file. Touches the clock.

use std::error::Error;
use std::io;
use std::time::Duration;

use common::causes::with_causes;
use nix::errno::Errno;

/// How many tries, and the pause between two: five seconds, for which a machine waits for a chunk anyway.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// Calls `read` until it does not fail for shortage, or the tries are used up. An error has the text of its causes.
pub(super) fn patiently<T, E: Error + 'static>(read: impl FnMut() -> Result<T, E>) -> io::Result<T> {
    again(read, std::thread::sleep)
}

fn again<T, E: Error + 'static>(
    mut read: impl FnMut() -> Result<T, E>,
    mut wait: impl FnMut(Duration),
) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match read() {
            Err(error) if is_scarcity(&error) && tries < TRIES => {
                tries += 1;
                wait(PAUSE);
            }
            other => return other.map_err(|error| io::Error::other(with_causes(&error))),
        }
    }
}

/// Whether a cause of `error` is a shortage of files or memory.
fn is_scarcity(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| {
            matches!(Errno::from_raw(code), Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
        }) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read chunk 3")]
    struct Unread(#[source] io::Error);

    fn unread(errno: Errno) -> Unread {
        Unread(io::Error::from_raw_os_error(errno as i32))
    }

    #[test]
    fn a_chunk_is_not_lost_because_files_are_short() {
        let mut pauses = 0;
        let mut left = 3;
        let read = || {
            left -= 1;
            if left >= 0 { Err(unread(Errno::EMFILE)) } else { Ok(7) }
        };
        assert_eq!(again(read, |_| pauses += 1).unwrap(), 7);
        assert_eq!(pauses, 3);
        let mut tries = 0;
        let never = again(
            || {
                tries += 1;
                Err::<(), _>(unread(Errno::EMFILE))
            },
            |_| {},
        );
        assert!(never.unwrap_err().to_string().contains("Too many open files"), "its cause is named");
        assert_eq!(tries, TRIES);
    }

    #[test]
    fn what_is_damaged_is_said_at_once() {
        let mut tries = 0;
        let damaged = again(
            || {
                tries += 1;
                Err::<(), _>(unread(Errno::EIO))
            },
            |_| {},
        );
        assert!(damaged.is_err());
        assert_eq!(tries, 1);
    }
}
