//! Which machines a request is about. Touches nothing.

use serde::{Deserialize, Serialize};

/// Machines named by an admin: ids, names, serials, Ethernet addresses, hostlists such as `rack1-[01-16]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Selection {
    /// Ids, names, serials or Ethernet addresses, each possibly a hostlist.
    pub machines: Vec<String>,
    /// Selectors, such as `role=web,memory>=16G` or `rack in (a, b)`: a machine must fit all of them.
    pub labels: Vec<String>,
}
