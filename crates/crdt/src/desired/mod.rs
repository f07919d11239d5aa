//! The part of a replicant that is a value: read as a tree, edited by difference.

pub(crate) mod diff;
pub(crate) mod edit;
pub(crate) mod overlay;
pub(crate) mod patch;
pub(crate) mod view;
