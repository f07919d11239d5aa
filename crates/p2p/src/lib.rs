//! The private network of a Khufu node: opaque frames between peers.
