//! A Khufu node: engine, storage, network and drivers behind an HTTP API.
