//! Core: the answer to an order as it is on record. Touches `common` only.

use common::id::Hash;
use jiff::Timestamp;

/// An order under its caller's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// Who orders.
    pub who: String,
    /// The caller's own name for the order.
    pub key: String,
    /// The hash of the order: another one under the same key is refused.
    pub order: Hash,
}

/// The answer that was given to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The order, under its caller's key.
    pub of: Keyed,
    /// The answer, as JSON.
    pub answer: String,
    /// When it was given.
    pub at: Timestamp,
}
