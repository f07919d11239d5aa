//! The drivers that a node can be given on its command line.

use std::sync::Arc;

use khufu_drivers::{Driver, FilesDriver};

use crate::exit::Failure;

/// Makes the driver of a kind from its option.
///
/// # Errors
/// If there is no such kind, or its option is of no use.
pub(super) fn make(kind: &str, option: &str) -> Result<Arc<dyn Driver>, Failure> {
    match kind {
        "files" => {
            let driver =
                FilesDriver::new(option).map_err(|error| Failure::Failed(format!("driver files={option}: {error}")))?;
            Ok(Arc::new(driver))
        }
        other => {
            Err(Failure::Usage(format!("driver {other}={option}: no driver is called {other:?}; there is files=DIR")))
        }
    }
}
