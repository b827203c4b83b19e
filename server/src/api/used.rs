//! When each token was last used. Touches memory only.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

/// When each token was last used, by its name, since the process started. Kept in memory: a row for each request would
/// cost a commit.
#[derive(Debug, Clone, Default)]
pub struct LastUsed(Arc<Mutex<HashMap<String, Timestamp>>>);

impl LastUsed {
    /// When the token of this name was last used.
    #[must_use]
    pub(super) fn of(&self, name: &str) -> Option<Timestamp> {
        self.0.lock().get(name).copied()
    }

    /// Notes that it was used.
    pub(super) fn note(&self, name: &str, now: Timestamp) {
        self.0.lock().insert(name.to_owned(), now);
    }

    /// Forgets it: another token may get the name.
    pub(super) fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }
}
