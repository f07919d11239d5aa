//! What was made and never answered.

use super::middle::Middle;
use super::*;

#[tokio::test]
async fn what_was_made_is_found_again_though_the_answer_was_lost() {
    let Some(cloud) = whole() else { return };
    let dir = tempfile::tempdir().unwrap();
    let parts = [("image", Service::Glance), ("network", Service::Neutron), ("compute", Service::Nova)];
    let middles = parts.map(|(_, service)| Middle::before(cloud.port(service)));
    let mut entry = admin(cloud);
    for ((name, _), middle) in parts.iter().zip(&middles) {
        entry[format!("{name}_endpoint_override")] = json!(format!("http://127.0.0.1:{}", middle.port));
    }
    let driver = described(dir.path(), entry).await.unwrap();
    let [glance, neutron, nova] = &middles;
    let flavor = json!({"flavor": {"name": "lost", "ram": 64, "vcpus": 1, "disk": 1}});
    let base = json!({"resources": {"net": {"network": {"name": "lost-base"}}, "disk": {"image": {"name": "lost-base",
        "disk_format": "raw", "container_format": "bare", "data": {"base64": "eA=="}}},
        "sub": {"subnet": {"network_id": {"$ref": "net"}, "ip_version": 4, "cidr": "10.30.0.0/24"}},
        "size": {"flavor": {"name": "lost-base", "ram": 64, "vcpus": 1, "disk": 1}}}});
    let mut needed = replica("lost-base");
    made(&driver, &mut needed, &base).await;
    let server = json!({"server": {"name": "lost", "imageRef": {"$ref": "lost-base/disk"},
        "flavorRef": {"$ref": "lost-base/size"}, "networks": [{"uuid": {"$ref": "lost-base/net"}}]}});
    let all = [
        (glance, "POST /v2/images ", image("lost"), Service::Glance, "images"),
        (neutron, "POST /v2.0/networks ", json!({"network": {"name": "lost"}}), Service::Neutron, "networks"),
        (nova, "POST /v2.1/flavors ", flavor, Service::Nova, "flavors"),
        (nova, "POST /v2.1/servers ", server, Service::Nova, "servers/detail"),
    ];
    for (number, (middle, request, desired, service, collection)) in all.into_iter().enumerate() {
        let mut replica = replica(&format!("lost-{number}"));
        let before = middle.lost();
        middle.lose(request);
        let error = apply(&driver, &replica, &desired).await.unwrap_err();
        assert!(matches!(error, DriverError::Unanswered { .. }), "{request}: {error:?}");
        assert_eq!(middle.lost(), before + 1);
        // It is there, and the next attempt knows it.
        let done = made(&driver, &mut replica, &desired).await;
        assert_eq!(done.output, "1 resources: 0 created, 0 changed, 0 removed", "{request}");
        assert_eq!(count(cloud, service, collection, "lost"), 1, "{request}");
        // So does another process, which removes it without ever having been told of it.
        let forgotten = Replica { local_id: None, ..replica.clone() };
        removed(&super::driver(cloud).await, &forgotten).await;
        assert_eq!(count(cloud, service, collection, "lost"), 0, "{request}");
    }
    removed(&driver, &needed).await;
    // What is not wanted any more before anybody has seen it goes, too.
    let unseen = replica("lost-unseen");
    glance.lose("POST /v2/images ");
    let error = apply(&driver, &unseen, &image("unseen")).await.unwrap_err();
    assert!(matches!(error, DriverError::Unanswered { .. }), "{error:?}");
    assert_eq!(count(cloud, Service::Glance, "images", "unseen"), 1);
    driver.delete(&unseen).await.unwrap();
    assert_eq!(count(cloud, Service::Glance, "images", "unseen"), 0);
}

#[tokio::test]
async fn a_keypair_stays_since_nothing_tells_whose_it_is() {
    let Some(cloud) = whole() else { return };
    let driver = driver(cloud).await;
    let mut replica = replica("kept-key");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUm";
    let done = made(&driver, &mut replica, &json!({"keypair": {"name": "kept-key", "public_key": key}})).await;
    assert_eq!(done.output, "1 resources: 1 created, 0 changed, 0 removed");
    removed(&driver, &replica).await;
    assert_eq!(cloud.get(Service::Nova, "/os-keypairs/kept-key")["keypair"]["public_key"], key);
}
