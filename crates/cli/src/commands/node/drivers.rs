//! The drivers that a node can be given on its command line.

use std::path::Path;
use std::sync::Arc;

use khufu_drivers::{Driver, FilesDriver, HttpDriver, KubernetesDriver, OpenStackDriver, ShellDriver};

use crate::config::{ENVIRONMENT, IN_CLUSTER};
use crate::exit::Failure;

/// Makes the driver of a kind from its option.
///
/// # Errors
/// If there is no such kind, or its option is of no use.
pub(super) async fn make(kind: &str, option: &str) -> Result<Arc<dyn Driver>, Failure> {
    match kind {
        "files" => {
            let driver =
                FilesDriver::new(option).map_err(|error| Failure::Failed(format!("driver files={option}: {error}")))?;
            Ok(Arc::new(driver))
        }
        "http" => {
            let driver = HttpDriver::from_file(Path::new(option)).await;
            let driver = driver.map_err(|error| Failure::Failed(format!("driver http={option}: {error}")))?;
            Ok(Arc::new(driver))
        }
        "kubernetes" => {
            let made = match option.split_once('#') {
                _ if option == IN_CLUSTER => KubernetesDriver::in_cluster(),
                Some((file, context)) => KubernetesDriver::from_kubeconfig(Path::new(file), Some(context)).await,
                None => KubernetesDriver::from_kubeconfig(Path::new(option), None).await,
            };
            let driver = made.map_err(|error| Failure::Failed(format!("driver kubernetes={option}: {error}")))?;
            Ok(Arc::new(driver))
        }
        "openstack" => {
            let made = match option.split_once('#') {
                _ if option == ENVIRONMENT => OpenStackDriver::from_environment().await,
                Some((file, cloud)) => OpenStackDriver::from_file(Path::new(file), Some(cloud)).await,
                None => OpenStackDriver::from_file(Path::new(option), None).await,
            };
            let driver = made.map_err(|error| Failure::Failed(format!("driver openstack={option}: {error}")))?;
            Ok(Arc::new(driver))
        }
        other => Err(Failure::Usage(format!(
            "driver {other}={option}: no driver is called {other:?}; there are files=DIR, http=FILE, \
             kubernetes=KUBECONFIG[#CONTEXT] (or kubernetes={IN_CLUSTER}), openstack=CLOUDS.YAML[#CLOUD] \
             (or openstack={ENVIRONMENT}) and shell=FILE"
        ))),
    }
}

/// Makes the driver `shell` from the file that configures it.
///
/// # Errors
/// If the file cannot be read, or what it says cannot be done here.
pub(super) async fn shell(option: &str) -> Result<Arc<ShellDriver>, Failure> {
    let driver = ShellDriver::from_file(Path::new(option)).await;
    driver.map(Arc::new).map_err(|error| Failure::Failed(format!("driver shell={option}: {error}")))
}
