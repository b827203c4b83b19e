//! Core: what a file of the cache is known by, and its name in the folder. Touches nothing.

use std::fmt;

use common::id::Hash;

/// What a file's hash is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::relay) enum Form {
    /// Its own bytes.
    Plain,
    /// The bytes that it is a zstd frame of: a driver is asked for by its hash, and sent compressed.
    Frame,
}

/// What a file is known by. A driver and its frame are two files, of one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::relay) struct Name {
    pub(in crate::relay) hash: Hash,
    pub(in crate::relay) form: Form,
}

/// What the name of a file with a frame ends in.
const FRAME: &str = ".zst";

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.form == Form::Frame { FRAME } else { "" };
        write!(f, "{}{end}", self.hash)
    }
}

impl Name {
    /// The file that is called `name` in the folder; `None` when it is none of the cache's.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (hash, form) = match name.strip_suffix(FRAME) {
            Some(hash) => (hash, Form::Frame),
            None => (name, Form::Plain),
        };
        Some(Self { hash: hash.parse().ok()?, form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for form in [Form::Plain, Form::Frame] {
            let name = Name { hash: Hash::of(b"x"), form };
            assert_eq!(Name::of(&name.to_string()), Some(name));
        }
        assert_eq!(Name::of("part"), None);
        assert_eq!(Name::of(".zst"), None);
    }
}
