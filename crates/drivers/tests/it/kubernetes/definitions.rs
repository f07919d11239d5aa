//! Kinds that are defined and not served for a while.

use super::*;

const EVERY: Duration = Duration::from_secs(1);

impl Scene {
    /// A driver that has just started.
    async fn another(&self) -> KubernetesDriver {
        KubernetesDriver::hurried(&self.cluster.kubeconfig(ADMIN), 128, EVERY).await.unwrap()
    }

    /// A definition of this kind, whose objects are called so, in a group.
    fn define(&self, group: &str, kind: &str, plural: &str) {
        let mut definition = kinds::definition(group);
        definition["metadata"]["name"] = json!(format!("{plural}.{group}"));
        definition["spec"]["names"] = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind});
        self.apply_by_hand(&definition);
    }

    pub(super) async fn serve(&self, name: &str, served: bool) {
        let patch = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": served}]).to_string();
        self.kubectl(&["patch", "crd", name, "--type=json", "-p", &patch]);
        let (plural, group) = name.split_once('.').unwrap();
        let path = format!("/apis/{group}/v1/{plural}");
        until("it is served as was said", async || {
            self.cluster.kubectl(&["get", "--raw", &path]).status.success() == served
        })
        .await;
    }
}

fn object(scene: &Scene, group: &str, kind: &str) -> Value {
    let mut object = kinds::well(scene, group, json!(1));
    object["kind"] = json!(kind);
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_not_served_holds_up_only_those_who_may_have_something_of_it() {
    let Some(scene) = Scene::alone("held-up").await else { return };
    let (group, name) = ("held.example.org", "wells.held.example.org");
    scene.define(group, "Well", "wells");
    let (wells, maps, nobody) = (scene.replica("wells"), scene.replica("maps"), scene.replica("nobody"));
    let well = object(&scene, group, "Well");
    until("the well is made", async || scene.apply(&wells, &well).await.is_ok()).await;
    scene.apply(&maps, &scene.config_map("a", json!({}))).await.unwrap();
    // One that has made them, and one that has found them; neither is told what they are called.
    let later = scene.another().await;
    assert!(later.observe(&maps).await.unwrap().exists);
    scene.serve(name, false).await;
    for driver in [&scene.driver, &later] {
        assert!(driver.observe(&maps).await.unwrap().exists);
        for error in [driver.observe(&wells).await.unwrap_err(), driver.delete(&wells).await.unwrap_err()] {
            assert!(!error.is_permanent() && error.to_string().contains("Well"), "{error}");
        }
        driver.delete(&nobody).await.unwrap();
    }
    assert_eq!(later.delete(&maps).await.unwrap().output, "1 objects removed, 0 left");
    // Whoever has not seen it while it was served knows of nobody.
    let new = scene.another().await;
    for replica in [&wells, &nobody] {
        let error = new.delete(replica).await.unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains(name), "{error}");
    }
    let mut named = scene.replica("named");
    named.local_id = Some("ConfigMap/held-up/b".into());
    new.delete(&named).await.unwrap();
    scene.serve(name, true).await;
    until("it is removed", async || new.delete(&wells).await.is_ok()).await;
    assert_eq!(scene.get(name, "w"), None);
    new.delete(&nobody).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn which_kind_a_definition_is_of_is_read_in_it() {
    let Some(scene) = Scene::alone("geese").await else { return };
    let (group, name) = ("farm.example.org", "geese.farm.example.org");
    // One of another kind, which is called as if it were of that which is looked for.
    scene.define(group, "Gander", "goosemen");
    let mut goose = scene.replica("goose");
    goose.local_id = Some(format!("Goose.{group}/geese/w"));
    until("there is no such kind", async || scene.another().await.delete(&goose).await.is_ok()).await;
    scene.define(group, "Goose", "geese");
    let wanted = object(&scene, group, "Goose");
    until("the goose is made", async || scene.apply(&goose, &wanted).await.is_ok()).await;
    scene.serve(name, false).await;
    for driver in [scene.driver.delete(&goose).await, scene.another().await.delete(&goose).await] {
        let error = driver.unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains("Goose"), "{error}");
    }
    scene.serve(name, true).await;
    assert!(scene.get(name, "w").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_a_kind_that_has_just_stopped_being_served_is_not_gone() {
    let Some(scene) = Scene::alone("stopped").await else { return };
    let (group, name) = ("stopped.example.org", "wells.stopped.example.org");
    scene.define(group, "Well", "wells");
    let mut wells = scene.replica("wells");
    let well = object(&scene, group, "Well");
    until("the well is made", async || scene.apply(&wells, &well).await.is_ok()).await;
    (wells.local_id, wells.written) = (Some(format!("Well.{group}/stopped/w")), Some(well));
    scene.serve(name, false).await;
    // It has not seen it when it looked through all kinds, and remembers it from a moment ago.
    let driver = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
    assert!(!driver.delete(&scene.replica("nobody")).await.unwrap_err().is_permanent());
    scene.serve(name, true).await;
    until("the well is seen", async || driver.observe(&wells).await.is_ok_and(|seen| seen.exists)).await;
    scene.serve(name, false).await;
    // Also where it is one of more than are named.
    let many = Replica { local_id: Some("*".into()), ..wells.clone() };
    let looked = [driver.observe(&wells).await, driver.observe(&many).await].map(Result::unwrap_err);
    for error in [driver.delete(&wells).await.unwrap_err()].into_iter().chain(looked) {
        assert!(!error.is_permanent() && error.to_string().contains("Well"), "{error}");
    }
    scene.serve(name, true).await;
    until("it is removed", async || driver.delete(&wells).await.is_ok_and(|done| done.output.starts_with("1 "))).await;
}
