//! What Khufu promises, seen from outside: real processes, the HTTP API, and the files that replicas are.

mod absence;
mod apart;
mod crash;
mod every_order;
mod placement;
mod together;
