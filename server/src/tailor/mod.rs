//! Step 5, `tailor`: from a machine's report and the order, its plan or a refusal with its reason, and an agent
//! bundle with just the modules and firmware that this hardware needs. Blocking calls in `bundle`, all else pure.

// Core: which disk an admin means.
pub mod disk_rule;

// Core: warnings about the other disks of a machine.
mod neighbours;

// Core: suggests a rule that covers one disk only.
mod suggest;

// Core: warnings about an image on a machine.
mod fit;

// Core: descriptions of disks, for refusals.
mod words;

// Core: the plan, or why there is none.
pub mod plan;

// Core: the root that hooks would run in.
mod root;

// Core: memory and disk settings for one machine.
mod tuning;

// Core: which modules and firmware this hardware needs.
pub mod modules;

// Core: which modules reach the server over one NIC.
pub mod nic;

// Files that are built once and named by their hash.
pub mod built;

// Small loaders, and single drivers for those that lack them.
pub mod loaders;

// The bundle: built once for all machines that need the same.
pub mod bundle;

pub use bundle::{BundleError, Bundles};
pub use disk_rule::{BadRule, TargetRule, text_fits};
pub use fit::warnings;
pub use loaders::Loaders;
pub use modules::{Needs, needs};
pub use nic::{PciId, booted_from};
pub use plan::{ImageFacts, Refusal, Request, plan};
pub use root::root;
pub use words::known_as;

pub use neighbours::{shown as disk_shown, warnings as neighbours};
