//! Epochs: closing one when it is long enough, and following others into the next.
//!
//! A node closes an epoch by itself as soon as it sees that it may; all nodes make the same document of it. Who is behind
//! closes it at the same place when told where, or fetches the later document; what only it has is carried over. All
//! of that is one step and one batch: there is no moment at which an acknowledged change is in neither document.

mod close;
mod follow;
