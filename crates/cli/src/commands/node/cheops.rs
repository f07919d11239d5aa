//! The API of Cheops, as the configuration asks for it.

use std::sync::Arc;

use khufu_drivers::ShellDriver;
use khufu_node::CheopsConfig;

use crate::config::Settings;
use crate::exit::Failure;

/// What is missing where it is asked for alone.
pub(super) const NO_DRIVER: &str =
    "cheops_api: its resources are replicants of the driver shell, and there is none: add --driver shell=FILE";

/// How the API is served, if it is.
///
/// # Errors
/// If its address is none.
pub(super) fn config(settings: &Settings, driver: &Arc<ShellDriver>) -> Result<Option<CheopsConfig>, Failure> {
    let Some(address) = &settings.cheops_api else { return Ok(None) };
    let address = address.parse().map_err(|_| {
        Failure::Usage(format!("cheops_api: {address:?} is no address: write IP:PORT, such as 127.0.0.1:8079"))
    })?;
    Ok(Some(CheopsConfig { address, driver: driver.clone(), open: settings.cheops_open }))
}
