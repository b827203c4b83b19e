//! The lab: a rack in a network namespace, made of virtual machines that know nothing of being tested. They start with
//! their own firmware (BIOS, UEFI PXE, UEFI HTTP boot) and boot from the network; only their serial console, their disk
//! and the server's own answers count as results.
//!
//! Everything that is started belongs to a value that ends it when it is dropped, also on panic; and waiting ends with
//! an error when the program is told to stop, so that values are dropped then, too. Names in the system begin with
//! `sbl-` and the process id, by which [`scratch::sweep`] finds what a killed run left behind.
//!
//! Needs root, and the packages that `tests/setup` installs.

// The prefix of all names in the system.
pub mod names;

// Waiting with a timeout, and the signal to stop.
pub mod wait;

// A run's folder, and the removal of what killed runs left behind.
pub mod scratch;

// Short programs whose output is wanted, and long ones that run until they are dropped.
pub mod process;

// The rack's network: a namespace with a bridge for each segment and a tap for each NIC.
pub mod net;

// Hosts on shaped lines, at sites behind slow ones.
pub mod wires;

// Disks: blank, random, copied; and comparing them afterwards.
pub mod disk;

// Disks that become full, and disks on which writing fails.
pub mod small;

// The virtual machines.
pub mod vm;

// DHCP requests of machines, kept as fixtures.
mod capture;

// The kinds of firmware.
pub mod firmware;

// The UEFI variables of a machine: which of its network cards it boots from.
mod uefi;

// Another DHCP server on the segment.
pub mod dnsmasq;

// A branch's own DHCP server, and the DHCP relay agent of its router.
pub mod branch;

// A branch of virtual machines behind a thin line.
pub mod away;

// A neighbour that flips a bit in what it gives out.
pub mod liar;

// iPXE's scripts, and the network side of firmware, as programs.
pub mod ipxe;
pub mod netboot;

// The server under test, and its command line.
pub mod server;

// A relay of a branch.
pub mod relay;

// A clean Debian as the server's host.
pub mod host;

// Agents as ordinary processes.
pub mod agent;

// Operating systems to install, and the boot kit's packages.
pub mod images;

// A server with a boot kit and images, and an admin's usual commands.
pub mod rack;

// The main job, for the demo and for the flow of the same name.
pub mod main_job;
