//! One cloud, and two at once.

use khufu_test_servers::openstack::{Cloud, Service};
use serde_json::{Value, json};

use super::until_within;

fn make(cloud: &Cloud, service: Service, path: &str, body: &Value) -> Value {
    let answer = cloud.ask(service, "POST", path, Some(body));
    assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    answer.json()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn two_at_once_are_two_worlds_that_outlive_stops_and_tokens_can_be_forgotten() {
    let start = |name: &'static str| std::thread::spawn(move || Cloud::start(name, &[Service::Glance]));
    let (paris, rennes) = (start("paris"), start("rennes"));
    let (Some(mut paris), Some(rennes)) = (paris.join().unwrap(), rennes.join().unwrap()) else { return };
    let image = json!({"name": "small", "disk_format": "raw", "container_format": "bare"});
    let [one, other] = [&paris, &rennes].map(|cloud| make(cloud, Service::Glance, "/images", &image));
    assert_ne!(one["id"], other["id"]);
    let listed = |cloud: &Cloud| cloud.get(Service::Glance, "/images")["images"].as_array().map(Vec::len);
    assert_eq!((listed(&paris), listed(&rennes)), (Some(1), Some(1)));
    // The catalog of a copy says where the copy is.
    let catalog = paris.get(Service::Keystone, "/auth/catalog").to_string();
    assert!(catalog.contains(&format!(":{}", paris.port(Service::Glance))), "{catalog}");
    assert!(!catalog.contains(&format!(":{}/", rennes.port(Service::Keystone))), "{catalog}");
    let nova = format!(":{}", paris.port(Service::Nova));
    assert!(!catalog.contains(&nova), "what does not run is not listed: {catalog}");

    paris.stop(Service::Glance);
    paris.start_again(Service::Glance);
    assert_eq!(listed(&paris), Some(1));
    let old = paris.token();
    paris.forget_tokens();
    assert_ne!(paris.token(), old);
    assert_eq!(listed(&paris), Some(1));
    let processes = paris.processes().into_iter().map(|(_, id)| format!("/proc/{id}/exe")).collect::<Vec<_>>();
    assert_eq!(processes.len(), 2);
    drop(paris);
    assert!(!processes.iter().any(|path| std::fs::read_link(path).is_ok()));
}

#[test]
fn a_whole_cloud_makes_a_server() {
    let Some(cloud) = Cloud::start("paris", Service::ALL) else { return };
    let image = json!({"name": "small", "disk_format": "raw", "container_format": "bare", "min_disk": 0});
    let image = make(&cloud, Service::Glance, "/images", &image);
    let image = text(&image["id"]);
    let (path, octets) = (format!("/images/{image}/file"), "application/octet-stream");
    let given = cloud.send(Service::Glance, "PUT", &path, octets, b"not a system");
    assert_eq!(given.status, 204, "{given:?}");
    let network = make(&cloud, Service::Neutron, "/networks", &json!({"network": {"name": "net"}}));
    let network = text(&network["network"]["id"]);
    let subnet = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}});
    make(&cloud, Service::Neutron, "/subnets", &subnet);
    let flavor = json!({"flavor": {"name": "tiny", "ram": 64, "vcpus": 1, "disk": 1}});
    let flavor = make(&cloud, Service::Nova, "/flavors", &flavor);
    let server = json!({"server": {"name": "web", "imageRef": image, "flavorRef": flavor["flavor"]["id"],
        "networks": [{"uuid": network}]}});
    let server = make(&cloud, Service::Nova, "/servers", &server);
    let path = format!("/servers/{}", text(&server["server"]["id"]));
    // A dozen requests between five services.
    let long = 2 * khufu_test_servers::PATIENCE;
    until_within(long, "the server runs", || {
        let server = cloud.get(Service::Nova, &path);
        assert_ne!(server["server"]["status"], "ERROR", "{server}");
        (server["server"]["status"] == "ACTIVE").then_some(())
    });
    assert_eq!(cloud.ask(Service::Nova, "DELETE", &path, None).status, 204);
    until_within(long, "it is gone", || (cloud.ask(Service::Nova, "GET", &path, None).status == 404).then_some(()));
}
