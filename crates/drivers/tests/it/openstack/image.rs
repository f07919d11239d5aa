//! Images.

use khufu_drivers::Condition;

use super::*;

#[tokio::test]
async fn an_image_is_made_with_its_data_changed_looked_at_and_removed() {
    let Some(cloud) = small() else { return };
    let driver = driver(cloud).await;
    let mut replica = replica("image-whole");
    let mut desired = image("whole");
    desired["image"]["data"] = json!({"base64": "bm90IGEgc3lzdGVt"});
    desired["image"]["os_distro"] = json!("debian");
    let done = made(&driver, &mut replica, &desired).await;
    assert_eq!(done.output, "1 resources: 1 created, 0 changed, 0 removed");
    assert_eq!(done.health.unwrap().condition, Condition::Current);
    let path = format!("/images/{}", id(&replica, ""));
    let live = cloud.get(Service::Glance, &path);
    assert_eq!((&live["status"], &live["size"], &live["os_distro"]), (&json!("active"), &json!(12), &json!("debian")));
    assert_eq!(cloud.ask(Service::Glance, "GET", &format!("{path}/file"), None).bytes, b"not a system");

    // As it is, nothing is written.
    let again = made(&driver, &mut replica, &desired).await;
    assert_eq!((&*again.output, &again.digest), ("1 resources: 0 created, 0 changed, 0 removed", &done.digest));
    assert_eq!(cloud.get(Service::Glance, &path)["updated_at"], live["updated_at"]);
    let seen = look(&driver, &replica).await;
    assert_eq!((seen.exists, seen.drift, &seen.digest, &seen.local_id), (true, None, &done.digest, &replica.local_id));

    // Two more that differ: changed in place.
    desired["image"]["name"] = json!("whole-2");
    desired["image"]["os_version"] = json!("13");
    let foreseen = driver.diff(&replica, &[Work::Desired(desired.clone())]).await.unwrap();
    assert!(foreseen.contains("-name: whole\n") && foreseen.contains("+name: whole-2"), "{foreseen}");
    assert_eq!(cloud.get(Service::Glance, &path)["name"], "whole");
    let done = made(&driver, &mut replica, &desired).await;
    assert_eq!(done.output, "1 resources: 0 created, 1 changed, 0 removed");
    let live = cloud.get(Service::Glance, &path);
    assert_eq!((&live["name"], &live["os_version"]), (&json!("whole-2"), &json!("13")));

    // What cannot be changed is said.
    let mut other = desired.clone();
    other["image"]["data"] = json!({"base64": "YW5vdGhlcg=="});
    let error = apply(&driver, &replica, &other).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("keeps the data"), "{error}");
    other = desired.clone();
    other["image"]["disk_format"] = json!("qcow2");
    let error = apply(&driver, &replica, &other).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("disk_format is \"raw\""), "{error}");

    // By hand.
    let patch = json!([{"op": "replace", "path": "/name", "value": "mine"}]);
    let json_patch = "application/openstack-images-v2.1-json-patch";
    let patched = cloud.send(Service::Glance, "PATCH", &path, json_patch, patch.to_string().as_bytes());
    assert_eq!(patched.status, 200);
    let seen = look(&driver, &replica).await;
    let drift = seen.drift.unwrap();
    assert!(drift.contains("name is \"mine\", wanted is \"whole-2\""), "{drift}");
    assert_ne!(seen.digest, done.digest);
    made(&driver, &mut replica, &desired).await;
    assert_eq!(cloud.get(Service::Glance, &path)["name"], "whole-2");

    removed(&driver, &replica).await;
    assert_eq!(cloud.ask(Service::Glance, "GET", &path, None).status, 404);
    let seen = look(&driver, &replica).await;
    assert!(!seen.exists && seen.drift.unwrap().contains("is gone"));
    removed(&driver, &replica).await;
}

#[tokio::test]
async fn two_sites_that_have_one_cloud_have_an_image_each_and_leave_the_others_alone() {
    let Some(cloud) = small() else { return };
    let driver = driver(cloud).await;
    let mut paris = replica("image-each");
    let mut rennes = Replica::new(paris.id.clone(), "rennes".parse().unwrap());
    let desired = image("each");
    let digests = [made(&driver, &mut paris, &desired).await.digest, made(&driver, &mut rennes, &desired).await.digest];
    assert_eq!(digests[0], digests[1]);
    assert_ne!(paris.local_id, rennes.local_id);
    assert_eq!(count(cloud, Service::Glance, "images", "each"), 2);
    // Whoever is told of the wrong one does not take it for its own.
    let wrong = Replica { local_id: rennes.local_id.clone(), ..paris.clone() };
    removed(&driver, &wrong).await;
    assert_eq!(count(cloud, Service::Glance, "images", "each"), 2);
    let forgotten = Replica { local_id: None, ..paris.clone() };
    removed(&super::driver(cloud).await, &forgotten).await;
    assert_eq!(count(cloud, Service::Glance, "images", "each"), 1);
    let keep = Replica { options: json!({"retain": true}).as_object().unwrap().clone(), ..rennes.clone() };
    removed(&driver, &keep).await;
    assert_eq!(count(cloud, Service::Glance, "images", "each"), 1);
    removed(&driver, &rennes).await;
    assert_eq!(count(cloud, Service::Glance, "images", "each"), 0);
}

#[tokio::test]
async fn what_an_attempt_has_made_that_failed_goes_when_it_is_not_asked_for_any_more() {
    let Some(cloud) = small() else { return };
    let driver = driver(cloud).await;
    let mut replica = replica("image-half");
    let bad = json!({"image": {"name": "half-2", "disk_format": "cat", "container_format": "bare"}});
    let half = json!({"resources": {"a": image("half-1"), "b": bad}});
    let error = apply(&driver, &replica, &half).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("disk_format"), "{error}");
    assert_eq!(count(cloud, Service::Glance, "images", "half-1"), 1);
    let done = made(&driver, &mut replica, &json!({"resources": {"c": image("half-3")}})).await;
    assert_eq!(done.output, "1 resources: 1 created, 0 changed, 1 removed");
    assert_eq!(count(cloud, Service::Glance, "images", "half-1"), 0);
    let done = made(&driver, &mut replica, &json!({"resources": {}})).await;
    assert_eq!((&*done.output, done.local_id.as_deref()), ("0 resources: 0 created, 0 changed, 1 removed", Some("")));
    assert_eq!(count(cloud, Service::Glance, "images", "half-3"), 0);
}

#[tokio::test]
async fn a_copy_that_a_service_has_made_is_left_alone_though_it_carries_the_mark() {
    let Some(cloud) = small() else { return };
    let mut replica = replica("image-copied");
    let driver = driver(cloud).await;
    made(&driver, &mut replica, &image("copied")).await;
    let mark = cloud.get(Service::Glance, &format!("/images/{}", id(&replica, "")))["khufu"].clone();
    assert!(mark.is_string(), "{mark}");
    // As Nova makes one of a server, which takes over what stood at its image.
    let copy = json!({"name": "copied-snapshot", "disk_format": "raw", "container_format": "bare", "khufu": mark,
        "image_type": "snapshot", "base_image_ref": id(&replica, "")});
    assert_eq!(cloud.ask(Service::Glance, "POST", "/images", Some(&copy)).status, 201);
    // It keeps the other from being found as little as it is removed with it, whether or not something was forgotten.
    let again = super::driver(cloud).await;
    let mut forgotten = Replica { local_id: None, ..replica.clone() };
    let done = made(&again, &mut forgotten, &image("copied")).await;
    assert_eq!(done.output, "1 resources: 0 created, 0 changed, 0 removed");
    removed(&super::driver(cloud).await, &Replica { local_id: None, ..replica.clone() }).await;
    let counts = ["copied", "copied-snapshot"].map(|name| count(cloud, Service::Glance, "images", name));
    assert_eq!(counts, [0, 1]);
    let own = super::driver(cloud).await;
    let error = apply(&own, &replica, &json!({"image": {"name": "x", "image_type": "snapshot"}})).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("leave it out"), "{error}");
}
