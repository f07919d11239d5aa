//! A node as its users meet it: over HTTP, in one process and with others.
#![allow(clippy::unwrap_used)]

mod auth;
mod bulk;
mod client;
mod events;
mod forward;
mod forward_hard;
mod http;
mod lifecycle;
mod misbehave;
mod platforms;
mod replicants;
mod sites;
