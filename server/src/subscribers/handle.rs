//! How far each subscriber is, for those who look from outside. Touches memory only.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::outlet::Outlet;
use super::wants::Wants;
use crate::api::shapes::{SubscriberShown, SubscriberState};

/// One subscriber, ready to begin.
pub(super) struct Ready {
    /// What it is and its name, by which its cursor is kept.
    pub(super) name: Arc<str>,
    /// Where it is, for people.
    pub(super) target: String,
    pub(super) wants: Wants,
    pub(super) outlet: Box<dyn Outlet>,
}

/// How far each subscriber is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) shown: Arc<Vec<Mutex<SubscriberShown>>>,
    pub(super) newest: Arc<watch::Sender<u64>>,
}

impl Default for Handle {
    /// Of nobody.
    fn default() -> Self {
        Self::of(&[])
    }
}

impl Handle {
    pub(super) fn of(all: &[Ready]) -> Self {
        let shown = |ready: &Ready| {
            Mutex::new(SubscriberShown {
                name: ready.name.to_string(),
                target: ready.target.clone(),
                state: SubscriberState::Working,
                cursor: 0,
                behind: 0,
                since: None,
                next: None,
                cause: None,
            })
        };
        Self { shown: Arc::new(all.iter().map(shown).collect()), newest: Arc::new(watch::Sender::new(0)) }
    }

    /// How far each is now, in the order of the configuration.
    #[must_use]
    pub fn shown(&self) -> Vec<SubscriberShown> {
        let newest = *self.newest.borrow();
        let now = |shown: &Mutex<SubscriberShown>| {
            let mut shown = shown.lock().clone();
            // Before its task has begun, nothing is known of it.
            shown.behind =
                if shown.cursor == 0 && newest == 0 { 0 } else { newest.saturating_sub(shown.cursor) };
            shown
        };
        self.shown.iter().map(now).collect()
    }

    /// What an admin should look at, each in one sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let bad = self.shown().into_iter().filter(|shown| shown.state != SubscriberState::Working);
        bad.map(|shown| format!("{} {shown}", shown.name)).collect()
    }
}
