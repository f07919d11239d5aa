//! A driver with the rights that the roles give, and with less.

use khufu_drivers::kubernetes::{Account, roles};

use super::*;

fn account_of(user: &str, namespaced: bool) -> Account {
    let name = user.rsplit(':').next().unwrap().to_owned();
    Account { name: name.clone(), service_account: Some(("accounts".into(), name)), namespaced }
}

/// The roles without a verb, where a rule is of this group and names this resource (any, if none is given).
fn without(verb: &str, group: &str, resource: Option<&str>, roles: &[Value]) -> Vec<Value> {
    let mut roles = roles.to_vec();
    for rule in roles.iter_mut().filter_map(|role| role.get_mut("rules")?.as_array_mut()).flatten() {
        if rule["apiGroups"] == json!([group]) && resource.is_none_or(|name| rule["resources"] == json!([name])) {
            rule["verbs"].as_array_mut().unwrap().retain(|has| has != verb);
        }
    }
    roles
}

impl Scene {
    /// Gives a user exactly these roles, and waits until the API server knows.
    async fn give(&self, user: &str, roles: &[Value]) {
        let mut given = roles.to_vec();
        for rules in given.iter_mut().filter_map(|role| role.get_mut("rules")?.as_array_mut()) {
            // A rule without verbs is refused.
            rules.retain(|rule| rule["verbs"] != json!([]));
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": given});
        let output = self.cluster.kubectl_as(ADMIN, &["apply", "-f", "-"], Some(&list.to_string()));
        assert!(output.status.success(), "{output:?}");
        let rules = |role: &Value| role["rules"].as_array().cloned().unwrap_or_default();
        let everywhere: Vec<_> = roles.iter().filter(|role| role["kind"] == "ClusterRole").flat_map(rules).collect();
        let (mut wanted, mut reviews) = (Vec::new(), Vec::new());
        for role in roles {
            for rule in rules(role) {
                for verb in ["get", "list", "watch", "create", "patch", "delete"] {
                    let says = |of: &Value| {
                        let same = of["apiGroups"] == rule["apiGroups"] && of["resources"] == rule["resources"];
                        same && of["verbs"].as_array().unwrap().contains(&json!(verb))
                    };
                    wanted.push(says(&rule) || everywhere.iter().any(says));
                    let attributes = json!({"group": rule["apiGroups"][0], "resource": rule["resources"][0],
                        "verb": verb, "namespace": role["metadata"]["namespace"]});
                    reviews.push(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                        "spec": {"user": user, "resourceAttributes": attributes}}));
                }
            }
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": reviews}).to_string();
        let wanted: Vec<_> = wanted.iter().map(bool::to_string).collect();
        until(&format!("{user} may do what the roles say"), async || {
            let arguments = ["create", "-f", "-", "-o", "jsonpath={.status.allowed} "];
            let output = self.cluster.kubectl_as(ADMIN, &arguments, Some(&list));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.split_whitespace().eq(wanted.iter().map(String::as_str))
        })
        .await;
    }

    async fn driver_of(&self, user: &str) -> KubernetesDriver {
        KubernetesDriver::from_kubeconfig(&self.cluster.kubeconfig(user), None).await.unwrap()
    }
}

/// Whether it is said that a right is missing.
fn names_right(text: &str, verb: &str) -> bool {
    text.contains(&format!("cannot {verb} resource")) || text.contains(&format!("the verb {verb} is missing"))
}

/// All that is done with a replica from its beginning to its end: what of it failed, and how.
async fn life(scene: &Scene, driver: &KubernetesDriver, id: &str, more: Option<Value>) -> Vec<String> {
    let mut failed = Vec::new();
    let replica = scene.replica(id);
    let of = |x: &str| {
        let mut objects = vec![scene.config_map(id, json!({"x": x}))];
        objects.extend(more.clone());
        Work::Desired(json!({ "objects": objects }))
    };
    let mut note = |what: &str, error: Option<String>| failed.extend(error.map(|error| format!("{what}: {error}")));
    note("make", driver.apply(&replica, of("1")).await.err().map(|error| error.to_string()));
    note("change", driver.apply(&replica, of("2")).await.err().map(|error| error.to_string()));
    note("show", driver.diff(&replica, &[of("3")]).await.err().map(|error| error.to_string()));
    let found = match driver.observe(&replica).await {
        Ok(seen) => (!seen.exists).then(|| "nothing".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    note("find", found);
    let removed = match driver.delete(&replica).await {
        Ok(_) => scene.get("configmap", id).map(|_| "it is still there".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    note("remove", removed);
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_roles_a_driver_can_do_all_it_is_there_for_and_with_less_it_cannot() {
    let Some(scene) = Scene::new("least").await else { return };
    let user = ACCOUNTS[0];
    scene.kubectl(&["create", "namespace", "accounts"]);
    let wanted = scene.config_map("x", json!({}));
    let needs = scene.driver.needs(&[(wanted, serde_json::Map::new())]).await.unwrap();
    let all = roles(&needs, &account_of(user, false));
    scene.give(user, &all).await;
    let driver = scene.driver_of(user).await;
    assert_eq!(life(&scene, &driver, "whole", None).await, Vec::<String>::new());

    // It hears of changes.
    let mut changes = driver.watch().unwrap();
    let mut replica = scene.replica("heard");
    driver.apply(&replica, Work::Desired(scene.config_map("heard", json!({})))).await.unwrap();
    until("a change is told", async || {
        let at = format!("at={:?}", Instant::now());
        scene.kubectl(&["annotate", "configmap", "heard", "--overwrite", &at]);
        tokio::time::timeout(Duration::from_secs(1), changes.recv()).await.is_ok()
    })
    .await;

    // A kind that is not among them is named, with the right that is missing.
    let error = driver.apply(&scene.replica("more"), Work::Desired(deployment(&scene, "web"))).await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
    for word in ["deployments", "apps", "cannot get", user] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    replica.local_id = Some("ConfigMap/least/heard".into());
    driver.delete(&replica).await.unwrap();

    for (verb, failing) in
        [("get", "make"), ("create", "make"), ("patch", "make"), ("list", "find"), ("delete", "remove")]
    {
        scene.give(user, &without(verb, "", None, &all)).await;
        let failed = life(&scene, &scene.driver_of(user).await, verb, None).await;
        assert!(failed.iter().any(|what| what.starts_with(failing)), "without {verb}: {failed:?}");
        // Who may not list finds nothing; why is in the log.
        let told = failed.iter().any(|what| names_right(what, verb));
        assert!(told || verb == "list", "without {verb}: {failed:?}");
    }

    // Nobody else watches this kind.
    let metadata = json!({"name": "p", "namespace": "least"});
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": metadata,
        "template": {"spec": {"containers": [{"name": "a", "image": "a:1"}]}}});
    let needs = scene.driver.needs(&[(template.clone(), serde_json::Map::new())]).await.unwrap();
    let all = roles(&needs, &account_of(user, false));
    let of = |name: &str, labels: &[(&str, &str)]| scene.cluster.metric(name, labels);
    let watchers = || of("apiserver_registered_watchers", &[("kind", "PodTemplate")]);
    let lists = || of("apiserver_request_total", &[("verb", "LIST"), ("resource", "podtemplates")]);
    for (may, roles) in [(true, all.clone()), (false, without("watch", "", None, &all))] {
        scene.give(user, &roles).await;
        let (before, driver) = (lists(), scene.driver_of(user).await);
        driver.apply(&scene.replica("template"), Work::Desired(template.clone())).await.unwrap();
        if may {
            until("it is watched", async || watchers() == 1.0).await;
        } else {
            // One that is refused begins anew with a list.
            until("it is tried", async || lists() > before + 2.0).await;
            assert_eq!(watchers(), 0.0);
        }
        drop(driver);
        until("nobody watches", async || watchers() == 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_to_single_namespaces_custom_kinds_and_new_namespaces_are_as_narrow() {
    let Some(scene) = Scene::new("narrow").await else { return };
    let user = ACCOUNTS[1];
    let group = "narrow.example.org";
    let (definition, well) = (kinds::definition(group), kinds::well(&scene, group, json!(3)));
    let options = |options: Value| options.as_object().unwrap().clone();
    let none = options(json!({}));
    // What a kind is called is known from its definition before it is served.
    let both = json!({"objects": [definition, well]});
    let needs = scene.driver.needs(&[(both, none.clone())]).await.unwrap();
    let text = json!(roles(&needs, &account_of(user, true))).to_string();
    assert!(text.contains("wells") && text.contains("customresourcedefinitions"), "{text}");
    let error = scene.driver.needs(&[(well.clone(), none.clone())]).await.unwrap_err();
    assert!(error.to_string().contains("Well.narrow.example.org"), "{error}");

    scene.apply_by_hand(&definition);
    let wanted =
        [(well.clone(), options(json!({"create-namespaces": true}))), (scene.config_map("x", json!({})), none)];
    until("the kind is served", async || scene.driver.needs(&wanted).await.is_ok()).await;
    let needs = scene.driver.needs(&wanted).await.unwrap();
    let mut account = account_of(user, true);
    account.service_account = Some(("narrow".into(), "parts".into()));
    let made = roles(&needs, &account);
    scene.give(user, &made).await;
    let driver = scene.driver_of(user).await;
    assert_eq!(life(&scene, &driver, "inside", Some(well.clone())).await, Vec::<String>::new());
    let mut outside = scene.config_map("outside", json!({}));
    outside["metadata"]["namespace"] = json!("default");
    let error = driver.apply(&scene.replica("outside"), Work::Desired(outside)).await.unwrap_err();
    assert!(error.to_string().contains("in the namespace \"default\""), "{error}");

    // Namespaces are made; nothing may be put into one that the roles do not know.
    let told = |name: &str| scene.told("new", json!({"create-namespaces": true, "namespace": name}));
    let mut object = scene.config_map("x", json!({}));
    object["metadata"].as_object_mut().unwrap().remove("namespace");
    let error = driver.apply(&told("narrow-new"), Work::Desired(object.clone())).await.unwrap_err();
    assert!(error.to_string().contains("in the namespace \"narrow-new\""), "{error}");
    assert!(!scene.kubectl(&["get", "namespace", "narrow-new"]).is_empty());
    for verb in ["get", "create", "patch"] {
        scene.give(user, &without(verb, "", Some("namespaces"), &made)).await;
        let driver = scene.driver_of(user).await;
        let error = driver.apply(&told(&format!("narrow-{verb}")), Work::Desired(object.clone())).await.unwrap_err();
        assert!(names_right(&error.to_string(), verb), "{verb}: {error}");
    }
    scene.give(user, &made).await;

    // A kind that is gone with its definition has no objects; who may not list definitions cannot know.
    let mut replica = scene.replica("gone");
    replica.local_id = scene.driver_of(user).await.apply(&replica, Work::Desired(well)).await.unwrap().local_id;
    scene.kubectl(&["delete", "crd", &format!("wells.{group}")]);
    scene.give(user, &without("list", "apiextensions.k8s.io", None, &made)).await;
    let mut refused = String::new();
    until("the kind is not served any more", async || {
        match scene.driver_of(user).await.delete(&replica).await {
            Err(error) if error.is_permanent() => refused = error.to_string(),
            _ => {}
        }
        !refused.is_empty()
    })
    .await;
    assert!(refused.contains("cannot list resource \"customresourcedefinitions\""), "{refused}");
    scene.give(user, &made).await;
    scene.driver_of(user).await.delete(&replica).await.unwrap();
}
