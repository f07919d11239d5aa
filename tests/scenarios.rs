//! What Khufu promises, seen from outside: real processes, the HTTP API, and the files that replicas are.

mod every_order;
mod together;
