//! The fleet: all machines, deployments and jobs; who is who and what is ordered for whom.

// What the doors may know of a machine without asking: deploy it, inspect it, leave it alone.
pub mod standing;
