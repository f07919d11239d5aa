//! The command line: arguments, exit codes, configuration, and each command against a real node.

mod offline;
mod online;
mod start;
