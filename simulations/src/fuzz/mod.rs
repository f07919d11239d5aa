//! Random scenarios with the real engine: faults of every kind while users work, and then a world in which nothing fails.
//!
//! A scenario is a function of its seed ([`Plan::new`]), and so is its run ([`run`]): the same seed gives the same trace,
//! bit for bit, on any machine. In the first phase, anything goes wrong that may, and nothing that must never happen
//! does; in the second all heals, and what must happen does, within a bounded time. [`Broken`] lists the invariants,
//! [`Kind`] counts what really happened.
//!
//! ```
//! use khufu_simulations::fuzz::{Class, Plan, run};
//!
//! let outcome = run(&Plan::new(Class::Faults, 1), false);
//! assert_eq!(outcome.broken, None);
//! ```

mod acknowledged;
mod acts;
mod batch;
mod broken;
mod checks;
mod contents;
mod converge;
mod counters;
mod deed;
mod model;
mod panics;
mod plan;
mod report;
mod run;
mod shrink;
mod timeline;

pub use batch::{Batch, Failure, Progress, Summary};
pub use broken::Broken;
pub use counters::{Happened, Kind};
pub use deed::{At, Deed, Loss, Part, Question, Where};
pub use panics::keep as keep_panics;
pub use plan::{Class, NAMES, Plan, SETTINGS, Step, policy};
pub use report::replay;
pub use run::{Outcome, run};
pub use shrink::shrink;
pub use timeline::Timeline;
