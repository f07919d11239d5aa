//! What Khufu promises, seen from outside: real processes, the HTTP API, and the files that replicas are.

mod absence;
mod apart;
mod bad_input;
mod cheops;
mod crash;
mod damage;
mod earlier;
mod every_order;
mod hosts;
mod http;
mod http_front;
mod kubectl;
mod kubernetes;
mod merge_keys;
mod operations;
mod order;
mod placement;
mod shell;
mod together;
