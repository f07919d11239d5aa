//! Projects, roles and users.

use super::*;

#[tokio::test]
async fn projects_roles_and_users_are_made_changed_and_removed_and_those_of_others_are_left_alone() {
    let Some(cloud) = small() else { return };
    let driver = driver(cloud).await;
    let mut replica = replica("people");
    let secrets = json!({"secrets": "allow"});
    replica.options = secrets.as_object().unwrap().clone();
    let desired = json!({"resources": {
        "team": {"project": {"name": "team", "description": "of the shop"}},
        "guest": {"role": {"name": "guest"}},
        "eve": {"user": {"name": "eve", "password": "p", "default_project_id": {"$ref": "team"}}},
    }});
    let done = made(&driver, &mut replica, &desired).await;
    assert_eq!(done.output, "3 resources: 3 created, 0 changed, 0 removed");
    let eve = cloud.get(Service::Keystone, &format!("/users/{}", id(&replica, "eve")));
    assert_eq!(eve["user"]["default_project_id"], json!(id(&replica, "team")));
    let again = made(&driver, &mut replica, &desired).await;
    assert_eq!((&*again.output, again.digest), ("3 resources: 0 created, 0 changed, 0 removed", done.digest));
    // Nobody who looks is shown a password.
    let shown = look(&driver, &replica).await;
    assert!(!shown.contents.unwrap().to_string().contains("password\\\":"));
    // Found again, though nobody remembers.
    let forgotten = Replica { local_id: None, ..replica.clone() };
    let again = apply(&driver, &forgotten, &desired).await.unwrap();
    assert_eq!(
        (&*again.output, again.local_id),
        ("3 resources: 0 created, 0 changed, 0 removed", replica.local_id.clone())
    );

    let mut other = desired.clone();
    other["resources"]["team"]["project"]["description"] = json!("of the market");
    made(&driver, &mut replica, &other).await;
    let team = cloud.get(Service::Keystone, &format!("/projects/{}", id(&replica, "team")));
    assert_eq!(team["project"]["description"], "of the market");

    // One that was there before.
    let mut taken = super::replica("people-2");
    taken.options.clone_from(&replica.options);
    let admin = json!({"user": {"name": "admin", "password": "mine"}});
    let error = apply(&driver, &taken, &admin).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("uplicate"), "{error}");
    removed(&driver, &taken).await;

    removed(&super::driver(cloud).await, &forgotten).await;
    for collection in ["projects?name=team", "users?name=eve", "roles?name=guest"] {
        let all = cloud.get(Service::Keystone, &format!("/{collection}"));
        let (key, _) = collection.split_once('?').unwrap();
        assert_eq!(all[key], json!([]), "{collection}");
    }
}
