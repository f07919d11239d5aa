//! End-to-end tests: several real processes.

mod cli;
mod house;
mod scenarios;
mod support;
