//! The lab: a private network and virtual machines.
