//! The crate's promises, tested from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod carrying;
mod contents;
mod desired;
mod document;
mod document_garbage;
mod document_histories;
mod document_sites;
mod epoch_deletions;
mod epoch_documents;
mod epoch_worlds;
mod epochs;
mod histories;
mod history;
mod machine;
mod obvious;
mod oracle;
mod override_edits;
mod overrides;
mod plan;
mod plan_oracle;
mod policy;
mod resolve;
mod vectors;
