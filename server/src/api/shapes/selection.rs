//! Which machines an admin means. Touches nothing.

use serde::{Deserialize, Serialize};

/// Machines named by an admin: ids, names, serials, Ethernet addresses, hostlists such as `rack1-[01-16]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Names, each maybe a hostlist.
    pub machines: Vec<String>,
    /// `key=value`: all of them must match.
    pub labels: Vec<String>,
}
