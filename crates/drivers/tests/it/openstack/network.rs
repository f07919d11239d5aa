//! Networks, and references.

use super::*;

fn shop(cidr: &str) -> Value {
    json!({"resources": {
        "net": {"network": {"name": "shop"}},
        "sub": {"subnet": {"name": "shop", "network_id": {"$ref": "net"}, "ip_version": 4, "cidr": cidr,
            "dns_nameservers": ["10.0.0.2"]}},
        "wall": {"security_group": {"name": "shop"}},
        "door": {"security_group_rule": {"security_group_id": {"$ref": "wall"}, "direction": "ingress",
            "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 443, "port_range_max": 443}},
        "port": {"port": {"name": "shop", "network_id": {"$ref": "net"}, "security_groups": [{"$ref": "wall"}],
            "fixed_ips": [{"subnet_id": {"$ref": "sub"}}]}},
        "out": {"router": {"name": "shop"}},
    }})
}

#[tokio::test]
async fn resources_of_one_replicant_refer_to_each_other_by_name() {
    let Some(cloud) = whole() else { return };
    let driver = driver(cloud).await;
    let mut replica = replica("net-shop");
    let done = made(&driver, &mut replica, &shop("10.9.0.0/24")).await;
    assert_eq!(done.output, "6 resources: 6 created, 0 changed, 0 removed");
    let port = cloud.get(Service::Neutron, &format!("/ports/{}", id(&replica, "port")));
    let port = &port["port"];
    assert_eq!(port["network_id"], json!(id(&replica, "net")));
    assert_eq!(port["security_groups"], json!([id(&replica, "wall")]));
    assert_eq!(port["fixed_ips"][0]["subnet_id"], json!(id(&replica, "sub")));
    let again = made(&driver, &mut replica, &shop("10.9.0.0/24")).await;
    assert_eq!((&*again.output, again.digest), ("6 resources: 0 created, 0 changed, 0 removed", done.digest.clone()));
    let seen = look(&driver, &replica).await;
    assert_eq!((seen.drift, seen.digest), (None, done.digest));

    // A field that can be changed, one that cannot, and a resource that goes.
    let mut other = shop("10.9.0.0/24");
    other["resources"]["sub"]["subnet"]["dns_nameservers"] = json!(["10.0.0.3"]);
    other["resources"]["port"]["port"]["name"] = json!("shop-2");
    other["resources"].as_object_mut().unwrap().remove("out");
    let done = made(&driver, &mut replica, &other).await;
    assert_eq!(done.output, "5 resources: 0 created, 2 changed, 1 removed");
    let subnet = cloud.get(Service::Neutron, &format!("/subnets/{}", id(&replica, "sub")));
    assert_eq!(subnet["subnet"]["dns_nameservers"], json!(["10.0.0.3"]));
    assert_eq!(count(cloud, Service::Neutron, "routers", "shop"), 0);
    let error = apply(&driver, &replica, &shop("10.10.0.0/24")).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("cidr is \"10.9.0.0/24\""), "{error}");

    // Removed by hand: said, and made anew.
    let path = format!("/ports/{}", id(&replica, "port"));
    assert_eq!(cloud.ask(Service::Neutron, "DELETE", &path, None).status, 204);
    assert!(look(&driver, &replica).await.drift.unwrap().contains("port port is gone"));
    let done = made(&driver, &mut replica, &other).await;
    assert_eq!(done.output, "5 resources: 1 created, 0 changed, 0 removed");

    // All goes, and in an order in which Neutron lets it go.
    removed(&driver, &replica).await;
    for (collection, name) in
        [("ports", "shop-2"), ("subnets", "shop"), ("networks", "shop"), ("security-groups", "shop")]
    {
        assert_eq!(count(cloud, Service::Neutron, collection, name), 0, "{collection}");
    }
}

#[tokio::test]
async fn a_resource_waits_for_that_of_another_replicant_which_is_not_removed_while_it_is_used() {
    let Some(cloud) = whole() else { return };
    let driver = driver(cloud).await;
    let mut port = replica("net-port");
    let desired = json!({"port": {"name": "far", "network_id": {"$ref": "net-far/base"}},
        "after": [{"$ref": "net-far/sub", "kind": "subnet"}]});
    let error = apply(&driver, &port, &desired).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    assert!(error.to_string().contains("waits for the subnet sub of the replicant net-far"), "{error}");
    let mut net = replica("net-far");
    let base = json!({"resources": {"base": {"network": {"name": "far"}},
        "sub": {"subnet": {"network_id": {"$ref": "base"}, "ip_version": 4, "cidr": "10.11.0.0/24"}}}});
    made(&driver, &mut net, &base).await;
    made(&driver, &mut port, &desired).await;
    let live = cloud.get(Service::Neutron, &format!("/ports/{}", id(&port, "")));
    assert_eq!(live["port"]["network_id"], json!(id(&net, "base")));
    assert_eq!(look(&driver, &port).await.drift, None);

    let error = driver.delete(&net).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("InUse"), "{error}");
    removed(&driver, &port).await;
    removed(&driver, &net).await;
    assert_eq!(count(cloud, Service::Neutron, "networks", "far"), 0);
}

#[tokio::test]
async fn what_is_there_already_can_be_named_and_is_never_touched() {
    let Some(cloud) = whole() else { return };
    let driver = driver(cloud).await;
    let make = || cloud.ask(Service::Neutron, "POST", "/networks", Some(&json!({"network": {"name": "public"}})));
    let theirs = make().json()["network"]["id"].as_str().unwrap().to_owned();
    let mut replica = replica("net-named");
    let desired = json!({"subnet": {"name": "named", "network_id": {"$name": "public"}, "ip_version": 4,
        "cidr": "10.12.0.0/24"}});
    made(&driver, &mut replica, &desired).await;
    let live = cloud.get(Service::Neutron, &format!("/subnets/{}", id(&replica, "")));
    assert_eq!(live["subnet"]["network_id"], json!(theirs));
    // Two of that name: nobody can say which is meant.
    make();
    let mut other = super::replica("net-named-2");
    let error = apply(&driver, &other, &desired).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("several are called so"), "{error}");
    other.local_id = Some(format!("network/{theirs}"));
    // A local id alone makes nothing ours.
    removed(&driver, &other).await;
    removed(&driver, &replica).await;
    assert_eq!(count(cloud, Service::Neutron, "networks", "public"), 2);
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_said_and_not_tried_again_at_once() {
    let Some(cloud) = whole() else { return };
    let driver = driver(cloud).await;
    let mut replica = replica("net-quota");
    // Nobody else here makes any.
    let project =
        cloud.get(Service::Keystone, "/projects?name=admin")["projects"][0]["id"].as_str().unwrap().to_owned();
    let set = |most: i64| {
        let body = json!({"quota": {"subnetpool": most, "rbac_policy": most, "floatingip": most}});
        cloud.ask(Service::Neutron, "PUT", &format!("/quotas/{project}"), Some(&body)).status
    };
    assert_eq!(set(0), 200);
    let desired = json!({"resources": {
        "out": {"network": {"name": "quota", "router:external": true}},
        "sub": {"subnet": {"network_id": {"$ref": "out"}, "ip_version": 4, "cidr": "10.13.0.0/24"}},
        "door": {"floatingip": {"floating_network_id": {"$ref": "out"}}, "after": [{"$ref": "sub"}]}}});
    let error = apply(&driver, &replica, &desired).await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
    assert!(error.to_string().contains("floatingip door") && error.to_string().contains("uota exceeded"), "{error}");
    assert_eq!(set(10), 200);
    let done = made(&driver, &mut replica, &desired).await;
    assert_eq!(done.output, "3 resources: 1 created, 0 changed, 0 removed");
    removed(&driver, &replica).await;
    assert_eq!(count(cloud, Service::Neutron, "networks", "quota"), 0);
}
