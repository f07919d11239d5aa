//! End-to-end tests: several real processes.

mod house;
