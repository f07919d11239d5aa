//! Operations on objects.

use khufu_crdt::{Hlc, Operation, OperationId, Payload};

use super::*;

fn operation(id: &str, op_type: &str, payload: Value) -> Operation {
    Operation {
        id: OperationId::new(id).unwrap(),
        op_type: op_type.to_owned(),
        parents: Vec::new(),
        cut: false,
        at: Hlc::from_ms(1_800_000_000_123),
        by: "rennes".parse().unwrap(),
        payload: Payload::Value(payload),
    }
}

impl Scene {
    async fn operate(&self, replica: &Replica, id: &str, of: &str, payload: Value) -> Result<Done, DriverError> {
        self.driver.apply(replica, Work::Operation(operation(id, of, payload))).await
    }

    /// Runs an operation, and remembers what it was called last, as the engine does.
    pub(super) async fn ran(&self, replica: &mut Replica, id: &str, of: &str, payload: Value) -> Done {
        let done = self.operate(replica, id, of, payload).await.unwrap();
        if done.local_id.is_some() {
            replica.local_id.clone_from(&done.local_id);
        }
        done
    }

    fn deployment(&self, name: &str) -> Value {
        self.get("deployment", name).unwrap()
    }
}

#[tokio::test]
async fn operations_change_what_is_there_and_the_next_desired_state_takes_it_back() {
    let Some(scene) = Scene::new("operate").await else { return };
    let mut replica = scene.replica("operated");
    let desired = deployment(&scene, "web");
    let new = scene.made(&mut replica, &desired).await;
    assert_eq!(scene.look(&replica).await.marker, None);

    let scaled = scene.ran(&mut replica, "s1", "scale", json!({"replicas": 5})).await;
    assert_eq!(scene.deployment("web")["spec"]["replicas"], 5);
    assert_ne!(scaled.digest, new.digest);
    let uid = scene.deployment("web")["metadata"]["uid"].clone();
    scene.ran(&mut replica, "r1", "restart", json!(null)).await;
    let at = &scene.deployment("web")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(at["kubectl.kubernetes.io/restartedAt"], "2027-01-15T08:00:00.123Z");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let patch = |how: &str, patch: Value| json!({"target": target, "type": how, "patch": patch});
    let more = json!({"metadata": {"labels": {"tier": "front"}}});
    scene.ran(&mut replica, "p1", "patch", patch("merge", more)).await;
    let env = json!({"name": "web", "env": [{"name": "A", "value": "1"}]});
    let more = json!({"spec": {"template": {"spec": {"containers": [env]}}}});
    scene.ran(&mut replica, "p2", "patch", patch("strategic", more)).await;
    let added = json!({"name": "B", "value": "2"});
    let path = "/spec/template/spec/containers/[name=web]/env/-";
    let append = patch("json", json!([{"op": "add", "path": path, "value": added}]));
    let done = scene.ran(&mut replica, "p3", "patch", append.clone()).await;
    let live = scene.deployment("web");
    let container = &live["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"], json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
    assert_eq!(container["image"], "nginx:1");
    assert_eq!((&live["spec"]["replicas"], &live["metadata"]["labels"]["tier"]), (&json!(5), &json!("front")));
    // Nothing of it is drift, and it is known what ran last.
    let seen = scene.look(&replica).await;
    assert_eq!((seen.drift, &seen.digest), (None, &done.digest));
    assert_eq!(seen.marker.unwrap().as_str(), "p3");

    // After a crash it is found done, and not done twice.
    let again = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
    assert_eq!(again.observe(&replica).await.unwrap().marker.unwrap().as_str(), "p3");
    let version = live["metadata"]["resourceVersion"].clone();
    let once = again.apply(&replica, Work::Operation(operation("p3", "patch", append))).await.unwrap();
    assert_eq!(once.digest, done.digest);
    assert_eq!(scene.deployment("web")["metadata"]["resourceVersion"], version);

    // What somebody else changes is drift against what the operation made.
    scene.kubectl(&["scale", "deployment", "web", "--replicas=9"]);
    let drift = scene.look(&replica).await.drift.unwrap();
    assert!(drift.contains("spec.replicas is 9") && drift.contains("wanted is 5"), "{drift}");
    scene.kubectl(&["scale", "deployment", "web", "--replicas=5"]);

    // It would be shown, and what it cannot do is said.
    let text = scene
        .driver
        .diff(&replica, &[Work::Operation(operation("s2", "scale", json!({"replicas": 7})))])
        .await
        .unwrap();
    assert!(text.contains("-  replicas: 5") && text.contains("+  replicas: 7"), "{text}");

    // The desired state takes back what operations did, without making another object.
    replica.options = json!({"force": true}).as_object().unwrap().clone();
    let done = scene.made(&mut replica, &desired).await;
    assert_eq!(done.digest, new.digest);
    let live = scene.deployment("web");
    assert_eq!((&live["spec"]["replicas"], &live["metadata"]["uid"]), (&json!(2), &uid));
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0].get("env"), None);
    assert_eq!(live["metadata"]["labels"].get("tier"), None);
    assert_eq!(live["metadata"]["annotations"].get("khufu.dev/operation"), None);
    assert_eq!(scene.look(&replica).await.marker, None);
}

#[tokio::test]
async fn what_operations_make_and_remove_is_what_there_is() {
    let Some(scene) = Scene::new("made").await else { return };
    let mut replica = scene.replica("made");
    let both = json!({"objects": [scene.config_map("a", json!({"x": "1"})), scene.config_map("b", json!({}))]});
    scene.ran(&mut replica, "a1", "apply", json!({ "manifest": both })).await;
    assert_eq!(replica.local_id.as_deref(), Some("ConfigMap/made/a,ConfigMap/made/b"));
    let seen = scene.look(&replica).await;
    assert_eq!((seen.exists, seen.drift, seen.marker.unwrap().as_str()), (true, None, "a1"));

    // Of several objects the one is named.
    let change = |target: Value| json!({"target": target, "type": "merge", "patch": {"data": {"y": "2"}}});
    let error = scene.operate(&replica, "p", "patch", change(json!(null))).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("payload.target"), "{error}");
    let of = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "namespace": "made"});
    scene.ran(&mut replica, "p1", "patch", change(of("a"))).await;
    assert_eq!(scene.get("configmap", "a").unwrap()["data"], json!({"x": "1", "y": "2"}));
    assert_eq!(scene.look(&replica).await.marker.unwrap().as_str(), "p1");

    // One goes, also if it is asked for twice, and is not missed.
    for id in ["d1", "d1", "d2"] {
        scene.ran(&mut replica, id, "delete", json!({"target": of("b")})).await;
        assert_eq!(scene.get("configmap", "b"), None);
    }
    assert_eq!(replica.local_id.as_deref(), Some("ConfigMap/made/a"));
    assert_eq!(scene.look(&replica).await.drift, None);
    let error = scene.operate(&replica, "p2", "patch", change(of("b"))).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("no object"), "{error}");

    // Another manifest is all there is then.
    let other = scene.config_map("c", json!({}));
    let done = scene.ran(&mut replica, "a2", "apply", json!({ "manifest": other })).await;
    assert_eq!((scene.get("configmap", "a"), scene.get("configmap", "c").is_some()), (None, true));
    assert_eq!(scene.look(&replica).await.digest, done.digest);
    scene.kubectl(&["delete", "configmap", "c"]);
    let drift = scene.look(&replica).await.drift.unwrap();
    assert!(drift.contains("ConfigMap/made/c is gone"), "{drift}");
    scene.ran(&mut replica, "a2", "apply", json!({ "manifest": both })).await;

    // Made as new, there is nothing; and what nobody remembers is found and removed.
    let reset = scene.driver.reset(&replica).await.unwrap();
    if reset.local_id.is_some() {
        replica.local_id = reset.local_id;
    }
    assert_eq!((scene.get("configmap", "a"), scene.look(&replica).await.drift), (None, None));
    scene.ran(&mut replica, "a3", "apply", json!({ "manifest": both })).await;
    let forgotten = scene.replica("made");
    assert!(scene.look(&forgotten).await.digest.is_some());
    scene.driver.delete(&forgotten).await.unwrap();
    assert_eq!((scene.get("configmap", "a"), scene.get("configmap", "b")), (None, None));
}

#[tokio::test]
async fn an_object_that_an_operation_removed_is_not_missed_though_it_is_desired() {
    let Some(scene) = Scene::new("without").await else { return };
    let mut replica = scene.replica("without");
    let both = json!({"objects": [scene.config_map("a", json!({})), scene.config_map("b", json!({}))]});
    scene.made(&mut replica, &both).await;
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "b", "namespace": "without"});
    let done = scene.ran(&mut replica, "d1", "delete", json!({ "target": target })).await;
    let seen = scene.look(&replica).await;
    assert_eq!((seen.drift, seen.digest), (None, done.digest));
    // It comes back with the next desired state.
    scene.made(&mut replica, &both).await;
    assert!(scene.get("configmap", "b").is_some());
    assert_eq!(scene.look(&replica).await.drift, None);
}

#[tokio::test]
async fn what_is_retained_says_nothing_of_operations_any_more() {
    let Some(scene) = Scene::new("retain-operated").await else { return };
    let mut replica = scene.told("retain-operated", json!({"retain": true}));
    scene.made(&mut replica, &deployment(&scene, "web")).await;
    scene.ran(&mut replica, "s1", "scale", json!({"replicas": 5})).await;
    assert!(scene.deployment("web")["metadata"]["annotations"].to_string().contains("khufu.dev/manifest"));
    scene.driver.delete(&replica).await.unwrap();
    let live = scene.deployment("web");
    assert_eq!(live["spec"]["replicas"], 5);
    assert!(!live["metadata"]["annotations"].to_string().contains("khufu.dev/"), "{live}");
}

#[tokio::test]
async fn operations_have_no_more_rights_than_the_desired_state() {
    let Some(scene) = Scene::new("operate-rights").await else { return };
    let mut replica = scene.replica("mine");
    scene.made(&mut replica, &deployment(&scene, "web")).await;
    scene.apply_by_hand(&scene.config_map("theirs", json!({"x": "1"})));
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "namespace": "operate-rights"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}});
    let nine = r#"{"spec":{"replicas":9}}"#;
    scene.kubectl(&["patch", "deployment", "web", "--type=merge", "--field-manager=somebody", "-p", nine]);
    for (of, payload, word) in [
        ("patch", json!({"target": theirs, "type": "merge", "patch": {"data": {"x": "2"}}}), "no object"),
        ("apply", json!({"manifest": scene.config_map("theirs", json!({}))}), "adopt"),
        ("apply", json!({ "manifest": secret }), "secrets"),
        ("apply", json!({"manifest": {"kind": "ConfigMap"}}), "apiVersion"),
        ("patch", json!({"type": "merge", "patch": {"metadata": {"name": "other"}}}), "another object"),
        ("patch", json!({"type": "merge", "patch": []}), "payload.patch"),
        ("patch", json!({"type": "json", "patch": [{"op": "remove", "path": "/spec/nothing"}]}), "/spec/nothing"),
        ("patch", json!({"type": "loose", "patch": {}}), "strategic"),
        ("scale", json!({"replicas": -1}), "payload"),
        ("scale", json!({"replicas": 3, "size": 4}), "size"),
        // Somebody else has set it.
        ("scale", json!({"replicas": 3}), "spec.replicas is of"),
        ("explode", json!({}), "apply, patch, scale, restart and delete"),
    ] {
        let error = scene.operate(&replica, "x", of, payload.clone()).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(word), "{of} {payload}: {error}");
    }
    assert_eq!(scene.get("configmap", "theirs").unwrap()["data"], json!({"x": "1"}));
    assert_eq!(scene.deployment("web")["spec"]["replicas"], 9);
    // A secret that may be there is still no business of operations.
    replica.options = json!({"secrets": "allow"}).as_object().unwrap().clone();
    let error = scene.operate(&replica, "x", "apply", json!({ "manifest": secret })).await.unwrap_err();
    assert!(error.to_string().contains("desired state only"), "{error}");
    replica.options = json!({"ignore": ["spec.replicas"]}).as_object().unwrap().clone();
    let error = scene.operate(&replica, "x", "scale", json!({"replicas": 3})).await.unwrap_err();
    assert!(error.to_string().contains("ignore"), "{error}");
}

/// A value whose lists of maps are in one order: servers put what is new where they like.
fn unordered(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(unordered).collect();
            if items.iter().all(Value::is_object) {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), unordered(value))).collect(),
        other => other.clone(),
    }
}

/// What this crate makes of a strategic merge patch is what the server makes of it.
#[tokio::test]
async fn strategic_merge_patches_do_what_the_server_does() {
    let Some(scene) = Scene::new("strategic").await else { return };
    let mut manifest = deployment(&scene, "web");
    let pod = &mut manifest["spec"]["template"]["spec"];
    pod["containers"][0]["env"] = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    pod["containers"][0]["args"] = json!(["a", "b"]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]);
    pod["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    pod["tolerations"] = json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
    pod["hostAliases"] = json!([{"ip": "10.0.0.1", "hostnames": ["a"]}]);
    manifest["metadata"]["finalizers"] = json!(["example.org/a"]);
    let mut theirs = manifest.clone();
    theirs["metadata"]["name"] = json!("theirs");
    scene.apply_by_hand(&theirs);
    let template = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let web = |fields: Value| {
        let mut container = fields;
        container["name"] = json!("web");
        template(json!({"containers": [container]}))
    };
    for (number, patch) in [
        web(json!({"image": "nginx:2", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]})),
        web(json!({"env": [{"$patch": "delete", "name": "A"}], "args": ["c"]})),
        web(json!({"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 443}]})),
        web(json!({"volumeMounts": [{"name": "v", "mountPath": "/b", "readOnly": true}, {"name": "v", "mountPath": "/c"}]})),
        web(json!({"env": [{"$patch": "replace"}, {"name": "Z", "value": "1"}]})),
        template(json!({"containers": [{"name": "side", "image": "s:1"}], "$setElementOrder/containers": [{"name": "web"}, {"name": "side"}]})),
        template(json!({"tolerations": [{"key": "c", "operator": "Exists"}]})),
        template(json!({"hostAliases": [{"ip": "10.0.0.2", "hostnames": ["b"]}], "volumes": [{"name": "w", "emptyDir": {}}]})),
        template(json!({"hostAliases": [{"ip": "10.0.0.9", "$patch": "replace"}, {"ip": "10.0.0.3", "hostnames": ["c"]}]})),
        template(json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]})),
        template(json!({"tolerations": null, "hostAliases": []})),
        json!({"metadata": {"finalizers": ["example.org/b"], "labels": {"x": "1"}}, "spec": {"replicas": null}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "RollingUpdate"}}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.org/a"]}}),
    ]
    .into_iter()
    .enumerate()
    {
        let text = patch.to_string();
        let arguments =
            ["patch", "deployment", "theirs", "--type=strategic", "--dry-run=server", "-o", "json", "-p", &text];
        let server: Value = serde_json::from_str(&scene.kubectl(&arguments)).unwrap();
        let id = format!("strategic-{number}");
        let mut replica = scene.replica(&id);
        let mut ours = manifest.clone();
        ours["metadata"]["name"] = json!(id);
        ours["metadata"].as_object_mut().unwrap().remove("finalizers");
        let finalizers = text.contains("finalizers");
        if finalizers {
            ours["metadata"]["finalizers"] = json!(["example.org/a"]);
        }
        scene.made(&mut replica, &ours).await;
        scene.ran(&mut replica, "p", "patch", json!({"type": "strategic", "patch": patch})).await;
        let live = scene.deployment(&id);
        assert_eq!(unordered(&live["spec"]), unordered(&server["spec"]), "{text}");
        if finalizers {
            let sorted = |value: &Value| {
                let mut list: Vec<_> = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
                list.sort_by_key(Value::to_string);
                list
            };
            assert_eq!(sorted(&live), sorted(&server), "{text}");
            let none = r#"{"metadata":{"finalizers":null}}"#;
            scene.kubectl(&["patch", "deployment", &id, "--type=merge", "-p", none]);
        }
    }
    scene.kubectl(&["patch", "deployment", "theirs", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
}

#[tokio::test]
async fn an_operation_with_more_names_than_are_remembered_is_refused_and_changes_nothing() {
    let Some(scene) = Scene::new("names").await else { return };
    let mut replica = scene.replica("names");
    scene
        .made(&mut replica, &json!({"objects": [scene.config_map("a", json!({})), scene.config_map("b", json!({}))]}))
        .await;
    let name = |number: usize| format!("{}-{number}", "n".repeat(200));
    let all = |count: usize| {
        let objects: Vec<_> = (0..count).map(|number| scene.config_map(&name(number), json!({}))).collect();
        json!({"manifest": {"objects": objects}})
    };
    let shown = scene.driver.diff(&replica, &[Work::Operation(operation("o0", "apply", all(100)))]).await;
    for error in
        [scene.operate(&replica, "o1", "apply", all(100)).await.map(drop), shown.map(drop)].map(Result::unwrap_err)
    {
        assert!(error.is_permanent(), "{error}");
        assert!(error.to_string().contains("16 KiB") && error.to_string().contains("desired state"), "{error}");
    }
    assert_eq!((scene.get("configmap", &name(0)), scene.look(&replica).await.drift), (None, None));
    // Of fewer it is known which there are.
    scene.ran(&mut replica, "o2", "apply", all(10)).await;
    assert_eq!((scene.get("configmap", "a"), scene.look(&replica).await.drift), (None, None));
    assert!(scene.get("configmap", &name(9)).is_some());
}

#[tokio::test]
async fn an_operation_on_what_was_removed_by_hand_has_it_put_back_first_with_all_that_was_done() {
    let Some(scene) = Scene::new("lost").await else { return };
    let mut replica = scene.replica("lost");
    let both = json!({"objects": [deployment(&scene, "web"), scene.config_map("a", json!({}))]});
    scene.made(&mut replica, &both).await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let scale = json!({"target": target, "replicas": 5});
    scene.ran(&mut replica, "s1", "scale", scale.clone()).await;
    scene.kubectl(&["delete", "deployment", "web"]);
    // What the desired state says of it is not what it was.
    let restart = json!({ "target": target });
    let error = scene.operate(&replica, "r1", "restart", restart.clone()).await.unwrap_err();
    assert!(matches!(&error, DriverError::Lost { place } if place == "Deployment.apps/lost/web"), "{error}");
    assert!(!error.is_permanent() && scene.get("deployment", "web").is_none());
    // Another object is still what it was.
    let label = json!({"metadata": {"labels": {"tier": "back"}}});
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a"});
    scene.ran(&mut replica, "p1", "patch", json!({"target": target, "type": "merge", "patch": label})).await;
    // The engine does it all again.
    scene.made(&mut replica, &both).await;
    scene.ran(&mut replica, "s1", "scale", scale).await;
    scene.ran(&mut replica, "r1", "restart", restart).await;
    assert_eq!(scene.deployment("web")["spec"]["replicas"], 5);
    assert_eq!(scene.look(&replica).await.drift, None);
}

#[tokio::test]
async fn a_manifest_in_an_annotation_counts_only_for_the_object_that_carries_it() {
    let Some(scene) = Scene::new("carried").await else { return };
    scene.kubectl(&["create", "namespace", "carried-elsewhere"]);
    let mut replica = scene.replica("carried");
    scene.made(&mut replica, &deployment(&scene, "web")).await;
    scene.ran(&mut replica, "s1", "scale", json!({"replicas": 3})).await;
    let carry = |manifest: &Value| {
        let annotation = format!("khufu.dev/manifest={manifest}");
        scene.kubectl(&["annotate", "--overwrite", "deployment", "web", &annotation]);
    };
    let mut elsewhere = deployment(&scene, "web");
    elsewhere["metadata"]["namespace"] = json!("carried-elsewhere");
    let mut another = deployment(&scene, "another");
    another["metadata"]["namespace"] = json!("carried");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web", "namespace": "carried"}});
    for (number, manifest) in [elsewhere, another, secret, json!({"kind": 3})].iter().enumerate() {
        carry(manifest);
        let seen = scene.look(&replica).await;
        assert!(seen.exists && seen.drift.unwrap_or_default().contains("khufu.dev/manifest"), "{manifest}");
        // Whoever wrote the annotation has it, so that it is taken by force only.
        let forced = scene.told("carried", json!({"force": true}));
        let forced = Replica { options: forced.options, ..replica.clone() };
        scene.operate(&forced, &format!("r{number}"), "restart", json!(null)).await.unwrap();
        assert_eq!(scene.look(&replica).await.drift, None, "{manifest}");
    }
    assert_eq!((scene.get("deployment", "another"), scene.get("secret", "web")), (None, None));
    let others = scene.cluster.kubectl(&["get", "deployments", "--namespace", "carried-elsewhere", "--output=name"]);
    assert_eq!(String::from_utf8(others.stdout).unwrap(), "");
}

#[tokio::test]
async fn what_only_operations_have_made_is_missed_when_it_is_gone() {
    let Some(scene) = Scene::new("missed").await else { return };
    let mut replica = scene.replica("missed");
    scene.ran(&mut replica, "a1", "apply", json!({"manifest": scene.config_map("a", json!({}))})).await;
    scene.kubectl(&["delete", "configmap", "a"]);
    let seen = scene.look(&replica).await;
    assert_eq!(seen.health.map(|health| health.condition), Some(khufu_crdt::Condition::NotFound));
    assert!(!seen.exists && seen.drift.is_some());
    // Of what there never was, nothing is said.
    assert_eq!(scene.look(&scene.replica("never")).await.health, None);
}

#[tokio::test]
async fn no_operation_removes_a_secret() {
    let Some(scene) = Scene::new("op-secret").await else { return };
    let mut replica = scene.told("op-secret", json!({"secrets": "allow"}));
    let metadata = json!({"name": "s", "namespace": "op-secret"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
    scene.made(&mut replica, &secret).await;
    let delete = operation("d1", "delete", json!(null));
    let shown = scene.driver.diff(&replica, &[Work::Desired(secret), Work::Operation(delete)]).await.map(drop);
    for error in [scene.operate(&replica, "d1", "delete", json!(null)).await.map(drop), shown] {
        let error = error.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("by the desired state only"), "{error}");
    }
    assert!(scene.get("secret", "s").is_some());
}
