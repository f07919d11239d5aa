//! The `khufu` command: run a node, and talk to one.
fn main() {}
