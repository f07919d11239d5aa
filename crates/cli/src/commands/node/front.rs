//! The front for kubectl, as the configuration asks for it.

use std::path::PathBuf;

use khufu_node::FrontConfig;

use crate::config::{IN_CLUSTER, Settings};
use crate::exit::Failure;

/// How the front is served, if it is.
///
/// # Errors
/// If its address is none, or what it needs is missing.
pub(super) fn config(settings: &Settings) -> Result<Option<FrontConfig>, Failure> {
    let certificate = match (&settings.kubernetes_front_cert, &settings.kubernetes_front_key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => {
            let message = "kubernetes_front_cert and kubernetes_front_key belong together: give both, or none";
            return Err(Failure::Usage(message.into()));
        }
    };
    let Some(address) = &settings.kubernetes_front else { return Ok(None) };
    let address = address.parse().map_err(|_| {
        Failure::Usage(format!("kubernetes_front: {address:?} is no address: write IP:PORT, such as 127.0.0.1:7443"))
    })?;
    let Some(option) = settings.drivers.get("kubernetes") else {
        let message = "kubernetes_front: it is a front of the API server of the driver kubernetes, and there is none: add \
                       --driver kubernetes=KUBECONFIG";
        return Err(Failure::Usage(message.into()));
    };
    let (kubeconfig, context) = match option.split_once('#') {
        _ if option == IN_CLUSTER => (None, None),
        Some((file, context)) => (Some(PathBuf::from(file)), Some(context.to_owned())),
        None => (Some(PathBuf::from(option)), None),
    };
    Ok(Some(FrontConfig { address, kubeconfig, context, certificate }))
}
