//! The language as its users meet it: trees, messages, placements, and what holds for any text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod evaluation;
mod messages;
mod model;
mod properties;
mod trees;
