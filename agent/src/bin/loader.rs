//! The loader: `/init` of the initramfs, PID 1 of a machine that has just booted from the network. Calls the library.

fn main() {
    agent::boot::loader::run()
}
