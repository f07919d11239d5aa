//! The driver `openstack` with real services. Tests that disturb nobody share a whole cloud; the others have a small one.

mod auth;
mod away;
mod crash;
mod identity;
mod image;
mod middle;
mod network;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use khufu_drivers::{Done, Driver as _, DriverError, Observed, OpenStackDriver, Replica, Work};
use khufu_test_servers::openstack::{Cloud, Service};
use serde_json::{Value, json};

/// How long is tried what does not succeed at once.
const PATIENCE: Duration = Duration::from_secs(240);

/// The cloud that tests share; none where there are no servers. It lives in a thread of its own, since it ends with the
/// thread that has started it.
fn whole() -> Option<&'static Cloud> {
    static CLOUD: OnceLock<Option<Cloud>> = OnceLock::new();
    CLOUD
        .get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || {
                sender.send(Cloud::start("paris", Service::ALL)).unwrap();
                loop {
                    std::thread::park();
                }
            });
            receiver.recv().unwrap()
        })
        .as_ref()
}

/// The small cloud that tests share which need no more than Keystone and Glance, and disturb nobody.
fn small() -> Option<&'static Cloud> {
    static CLOUD: OnceLock<Option<Cloud>> = OnceLock::new();
    CLOUD
        .get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || {
                sender.send(Cloud::start("rennes", &[Service::Glance])).unwrap();
                loop {
                    std::thread::park();
                }
            });
            receiver.recv().unwrap()
        })
        .as_ref()
}

async fn driver(cloud: &Cloud) -> OpenStackDriver {
    OpenStackDriver::from_file(&cloud.clouds_yaml(), None).await.unwrap()
}

/// A driver for a cloud that is described in another way than by its own file.
async fn described(dir: &Path, entry: Value) -> Result<OpenStackDriver, DriverError> {
    let path = dir.join("clouds.yaml");
    std::fs::write(&path, json!({"clouds": {"other": entry}}).to_string()).unwrap();
    OpenStackDriver::from_file(&path, Some("other")).await
}

/// How the administrator of a cloud is described.
fn admin(cloud: &Cloud) -> Value {
    let text = std::fs::read_to_string(cloud.clouds_yaml()).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["clouds"][cloud.name()].take()
}

fn replica(id: &str) -> Replica {
    Replica::new(id.parse().unwrap(), "paris".parse().unwrap())
}

async fn apply(driver: &OpenStackDriver, replica: &Replica, desired: &Value) -> Result<Done, DriverError> {
    driver.apply(replica, Work::Desired(desired.clone())).await
}

/// Applies, and remembers what it was called last, as the engine does. Also as the engine does, it tries again what takes
/// longer than one attempt: machines that build in parallel are slow.
async fn made(driver: &OpenStackDriver, replica: &mut Replica, desired: &Value) -> Done {
    let end = Instant::now() + PATIENCE;
    let done = loop {
        match apply(driver, replica, desired).await {
            Ok(done) => break done,
            Err(error) => assert!(!error.is_permanent() && Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    replica.local_id.clone_from(&done.local_id);
    replica.written = Some(desired.clone());
    done
}

/// Removes, and goes on as [`made`] does.
async fn removed(driver: &OpenStackDriver, replica: &Replica) {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = driver.delete(replica).await {
        assert!(!error.is_permanent() && Instant::now() < end, "{error}");
    }
}

async fn look(driver: &OpenStackDriver, replica: &Replica) -> Observed {
    driver.observe(replica).await.unwrap()
}

/// The local id of a resource of a replica.
fn id(replica: &Replica, name: &str) -> String {
    let all = replica.local_id.as_deref().unwrap_or_default();
    let part = all.split(',').find(|part| name.is_empty() || part.starts_with(&format!("{name}=")));
    let part = part.unwrap_or_else(|| panic!("{all} has no {name}"));
    part.rsplit('/').next().unwrap().to_owned()
}

/// How many resources of a collection are called so.
fn count(cloud: &Cloud, service: Service, collection: &str, name: &str) -> usize {
    let all = cloud.get(service, &format!("/{collection}?name={name}"));
    let key = collection.split('/').next().unwrap().replace('-', "_");
    all[&key].as_array().unwrap_or_else(|| panic!("{all}")).iter().filter(|one| one["name"] == name).count()
}

fn image(name: &str) -> Value {
    json!({"image": {"name": name, "disk_format": "raw", "container_format": "bare"}})
}

/// Waits for something, and says for what if it does not come.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
