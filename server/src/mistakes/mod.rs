//! Mistakes in a configuration, all at once and each with its place, for `config check` and `doctor`. Touches nothing.

// Core: mistakes in the file alone.
mod found;

// Core: everything that is wrong, of file, flags and interface together.
mod check;

pub use crate::toml_text::{Mistake, Severity};
pub use check::check;
