//! The lab: a rack in a network namespace, made of virtual machines that know nothing of being tested. They come
//! up by their own firmware (BIOS, UEFI PXE, UEFI HTTP boot), ask the network what to do, and are believed only
//! for what their serial console, their disk and the server's own answers show.
//!
//! Everything that is started belongs to a value that ends it when it is dropped, also on panic; and waiting ends
//! with an error when the program is told to stop, so that dropping happens then, too. Names in the system begin
//! with `sbl-` and the process id, which is how [`scratch::sweep`] finds what a killed run left behind.
//!
//! Needs root, and the packages that `tests/setup` installs.

// What all names in the system begin with.
pub mod names;

// Waiting, and how a run hears that it must stop.
pub mod wait;

// Where a run keeps its files, and how what killed runs left is removed.
pub mod scratch;

// Programs that are run and waited for, and programs that run beside us until they are dropped.
pub mod process;

// The rack's cables: a namespace with a bridge for each segment and a tap for each NIC.
pub mod net;

// Hosts on shaped lines, at sites behind thin ones.
pub mod wires;

// Disks: blank, random, copied; and what is on them afterwards.
pub mod disk;

// Disks that run out of room, and disks on which writing fails.
pub mod small;

// The machines.
pub mod vm;

// What machines ask of DHCP, kept as fixtures.
mod capture;

// What a machine runs first.
pub mod firmware;

// What a UEFI machine remembers: which of its network cards it boots from.
mod uefi;

// Somebody else's DHCP server on the segment.
pub mod dnsmasq;

// The server that is tried, and its command line.
pub mod server;

// Agents that are ordinary processes.
pub mod agent;

// Operating systems to install, and the boot kit's packages.
pub mod images;

// A server with a boot kit and images, and what an admin does with it.
pub mod rack;

// The main job, for the demo and for the flow of the same name.
pub mod main_job;
