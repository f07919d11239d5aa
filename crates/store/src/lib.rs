//! Durable storage of a Khufu node.
