//! The scope language of Khufu: text to syntax tree to placement.
//!
//! A scope says where a resource lives: `paris & rennes`, `2 of ([zone=west])`, `image: paris, compute: here`. This
//! crate knows the language: [`parse`] reads it and says what is wrong with carets, `Display` writes it back, and
//! [`evaluate`] turns it into sites, given a [`View`] of what is known of them. It is pure: no input or output, no
//! clock, no randomness, and the same scope and view always give the same value. It must never know what a replicant
//! is, who measures or decides, or any other crate of the house. It never names a site that is not in the view, and
//! text of any kind makes it neither panic nor take long.
//!
//! ```
//! use khufu_scope::{SiteView, State, View, evaluate, parse};
//!
//! let scope = parse("paris & rennes | nantes")?;
//! let mut view = View { here: "nantes".into(), ..View::default() };
//! for site in ["paris", "rennes", "nantes"] {
//!     view.sites.insert(site.into(), SiteView::default());
//! }
//! let evaluation = evaluate(&scope, &view)?;
//! assert!(evaluation.places[0].sites.iter().eq(["paris", "rennes"]));
//!
//! view.sites.insert("rennes".into(), SiteView { state: State::Down, ..SiteView::default() });
//! let evaluation = evaluate(&scope, &view)?;
//! assert!(evaluation.places[0].sites.iter().eq(["nantes"]));
//! assert_eq!(evaluation.places[0].reasons[0], "`paris & rennes` is passed over: rennes is down");
//!
//! let errors = parse("paris & & rennes, image: nantes )").unwrap_err();
//! assert_eq!(errors.errors().len(), 2);
//! assert_eq!((errors.errors()[0].column, errors.errors()[0].found.as_str()), (9, "`&`"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod complaint;
mod duration;
mod evaluate;
mod fault;
mod grammar;
mod name;
mod parse;
mod print;
mod sets;
mod syntax;
mod token;
mod view;

pub use evaluate::{Evaluation, Mode, Place, evaluate};
pub use fault::{EvaluateError, EvaluateErrorKind, EvaluateErrors};
pub use name::{MAX_NAME_BYTES, Name};
pub use parse::{ParseError, ParseErrors, parse};
pub use syntax::{Anchor, Expr, Item, Label, MAX_BYTES, MAX_DEPTH, Scope, Spanned};
pub use view::{SiteView, State, View};

use complaint::{Complaint, clip, slice};
