//! Three sites, each with a Kubernetes API server of its own.

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use serde_json::{Value, json};

use crate::support::{Lab, Site, until};

pub(super) const NAMES: [&str; 3] = ["paris", "rennes", "nantes"];

/// Something of an object as the API server of a site has it; nothing if it has no such object or field.
pub(super) fn kubectl(cluster: &Cluster, what: &[&str], path: &str) -> String {
    let path = format!("jsonpath={path}");
    let output = cluster.kubectl(&[&["get"], what, &["--ignore-not-found", "--output", &path]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until something is so at all these clusters.
pub(super) async fn all_have(clusters: &[&Cluster], what: &[&str], path: &str, wanted: &str) {
    until(&format!("{what:?} has {wanted:?} in {path}"), || async {
        let found: Vec<_> = clusters.iter().map(|cluster| kubectl(cluster, what, path)).collect();
        if found.iter().all(|found| found == wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// A node at each of these clusters, with the administrator's rights there, and all told the same besides. They have met.
pub(super) async fn nodes<const N: usize>(lab: &Lab, clusters: [&Cluster; N], more: &[&str]) -> [Site; N] {
    nodes_of(lab, clusters.map(|cluster| (cluster, ADMIN)), more).await
}

/// The same, with the rights of these users.
async fn nodes_of<const N: usize>(lab: &Lab, clusters: [(&Cluster, &str); N], more: &[&str]) -> [Site; N] {
    let mut sites = Vec::new();
    for (cluster, user) in clusters {
        let driver = format!("kubernetes={}", cluster.kubeconfig(user).display());
        let site = lab.site(cluster.name()).arguments(&[&["--driver", &driver], more].concat());
        let site = match sites.first() {
            Some(first) => site.bootstrap(first),
            None => site,
        };
        sites.push(site.start().await);
    }
    lab.met(&sites.iter().collect::<Vec<_>>()).await;
    let Ok(sites) = sites.try_into() else { panic!("a site for each cluster") };
    sites
}

async fn status(site: &Site, id: &str, of: &str) -> Value {
    site.view(id).await["sites"][of]["report"].clone()
}

pub(super) fn deployment() -> Value {
    let labels = json!({"app": "web"});
    let containers = json!([{"name": "web", "image": "nginx:1"}, {"name": "side", "image": "side:1"}]);
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"color": "red"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_at_one_site_is_at_all_api_servers_and_sites_that_were_apart_agree() {
    let Some([one, mut two, three]) = Builder::start_all(NAMES.map(Cluster::builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes, nantes] = nodes(&lab, [&one, &two, &three], &[]).await;
    let sites = [&paris, &rennes, &nantes];
    let web = ["deployment", "web"];

    // Put at one, it is at all.
    let body = json!({"kind": "kubernetes", "scope": "paris & rennes & nantes", "desired": deployment()});
    paris.put("/v1/replicants/web", body).await.ok();
    all_have(&[&one, &two, &three], &web, "{.spec.replicas}", "2").await;
    until("all sites say so", || async {
        let view = rennes.try_get("/v1/replicants/web").await?;
        let healths: Vec<_> = NAMES.iter().map(|name| &view["sites"][*name]["report"]["observed"]["health"]).collect();
        // Nobody makes pods here.
        let said = view["status"] == "applied" && healths.iter().all(|health| health["condition"] == "in-progress");
        if said { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
    lab.verified(&nantes).await;

    // Apart, they edit different fields, and one that both edit.
    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    paris.patch("/v1/replicants/web/desired", json!({"spec": {"replicas": 3}})).await.ok();
    paris.patch("/v1/replicants/web/desired", json!({"metadata": {"labels": {"color": "green"}}})).await.ok();
    let mut other = deployment();
    other["spec"]["template"]["spec"]["containers"][1]["image"] = json!("side:2");
    other["metadata"]["labels"]["color"] = json!("blue");
    nantes.patch("/v1/replicants/web/desired", other).await.ok();
    all_have(&[&one, &two], &web, "{.spec.replicas}", "3").await;
    all_have(&[&three], &web, "{.spec.template.spec.containers[1].image}", "side:2").await;
    lab.cut(&sites, &[]).await;
    let all = [&one, &two, &three];
    all_have(&all, &web, "{.spec.replicas} {.spec.template.spec.containers[*].image}", "3 nginx:1 side:2").await;
    until("one color is everywhere", || async {
        let found: Vec<_> = all.iter().map(|cluster| kubectl(cluster, &web, "{.metadata.labels.color}")).collect();
        let same = found.iter().all(|color| *color == found[0] && ["green", "blue"].contains(&color.as_str()));
        if same { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let conflicts = rennes.get("/v1/replicants/web/conflicts").await.ok();
    assert_eq!(conflicts[0]["path"], "/desired/metadata/labels/color", "{conflicts}");

    // An API server is away: the others go on, its site says why it does not, and catches up.
    two.kill();
    nantes.patch("/v1/replicants/web/desired", json!({"spec": {"replicas": 4}})).await.ok();
    all_have(&[&one, &three], &web, "{.spec.replicas}", "4").await;
    until("rennes says why it does not", || async {
        let report = status(&paris, "web", "rennes").await;
        let output = report["desired"]["output"].as_str().unwrap_or_default();
        if output.contains("not available") { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    two.start_again();
    all_have(&[&two], &web, "{.spec.replicas}", "4").await;

    let all = [&one, &two, &three];

    // A site that cannot be reached is never called well.
    let rennes = rennes.kill_9();
    until("nobody knows how rennes is doing", || async {
        let view = paris.try_get("/v1/replicants/web").await?;
        let unknown = view["health"]["condition"] == "unknown" && view["sites"]["rennes"]["health"]["at"].is_u64();
        if unknown { Ok(()) } else { Err(view["sites"].to_string()) }
    })
    .await;
    let described = paris.khufu(&["describe", "web"]);
    assert!(described.out.contains("rennes: the site cannot be reached"), "{described:?}");
    let rennes = rennes.start().await;

    // One site has it otherwise.
    let overrides = json!({"overrides": {"rennes": {"spec": {"replicas": 1}}}});
    paris.put("/v1/replicants/web", overrides).await.ok();
    all_have(&[&two], &web, "{.spec.replicas}", "1").await;
    all_have(&[&one, &three], &web, "{.spec.replicas}", "4").await;
    // As a JSON patch, which reaches a container by its name; at another site it fits nothing, which keeps nobody else.
    let image = "/spec/template/spec/containers/[name=side]/image";
    let overrides = json!({"overrides": {
        "rennes": [{"op": "replace", "path": "/spec/replicas", "value": 2}, {"op": "replace", "path": image, "value": "side:3"}],
        "nantes": [{"op": "remove", "path": "/spec/nothing"}]}});
    paris.put("/v1/replicants/web", overrides).await.ok();
    all_have(&[&two], &web, "{.spec.replicas} {.spec.template.spec.containers[*].image}", "2 nginx:1 side:3").await;
    until("nantes says why it does not", || async {
        let report = status(&paris, "web", "nantes").await;
        let output = report["desired"]["output"].as_str().unwrap_or_default();
        if output.contains("/spec/nothing") { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    paris.patch("/v1/replicants/web/desired", json!({"metadata": {"labels": {"color": "red"}}})).await.ok();
    all_have(&[&one, &two], &web, "{.metadata.labels.color}", "red").await;
    let manifest = lab.path().join("web.json");
    let mut other = deployment();
    other["spec"]["replicas"] = json!(6);
    other["metadata"]["labels"]["color"] = json!("violet");
    std::fs::write(&manifest, other.to_string()).expect("a file");
    let diff = paris.khufu(&["diff", "-f", &manifest.display().to_string()]).with_code(1);
    for word in
        ["+  replicas: 6", "With the override of rennes", "+    color: violet", "It would fail there", "does not fit"]
    {
        assert!(diff.out.contains(word), "{word} is not in:\n{}", diff.out);
    }
    let overrides = json!({"overrides": {"rennes": {"spec": {"replicas": 1}}}});
    paris.put("/v1/replicants/web", overrides).await.ok();
    all_have(&[&one, &three], &web, "{.spec.replicas} {.metadata.labels.color}", "4 red").await;

    // Somebody changes it by hand: it is said who, and put back where the policy says so.
    assert!(three.kubectl(&["scale", "deployment", "web", "--replicas=9"]).status.success());
    until("the change by hand is seen", || async {
        let report = status(&paris, "web", "nantes").await;
        let drift = report["observed"]["drift"].as_str().unwrap_or_default();
        if drift.contains("spec.replicas is 9") { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    assert_eq!(kubectl(&three, &web, "{.spec.replicas}"), "9");
    paris.put("/v1/replicants/web", json!({"policy": {"drift": "correct", "options": {"force": true}}})).await.ok();
    assert!(one.kubectl(&["scale", "deployment", "web", "--replicas=8"]).status.success());
    all_have(&[&one], &web, "{.spec.replicas}", "4").await;

    // It leaves a site, and then all.
    paris.put("/v1/replicants/web", json!({"scope": "paris & rennes"})).await.ok();
    all_have(&[&three], &web, "{.metadata.name}", "").await;
    assert_eq!(kubectl(&one, &web, "{.metadata.name}"), "web");
    rennes.delete("/v1/replicants/web").await.ok();
    all_have(&all, &web, "{.metadata.name}", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_works_with_the_roles_that_are_printed_for_it() {
    let user = "system:serviceaccount:ops:khufu";
    let Some(cluster) = Cluster::builder("paris").user(user, &[]).start() else { return };
    let lab = Lab::new();
    let driver = format!("kubernetes={}", cluster.kubeconfig(user).display());
    let paris = lab.site("paris").arguments(&["--driver", &driver]).start().await;
    let admin = cluster.kubeconfig(ADMIN).display().to_string();
    let give = |arguments: &[&str], site: &Site| {
        let command = ["kubernetes", "rbac", "--kubeconfig", &admin, "--service-account", "ops/khufu"];
        let printed = site.khufu(&[&command[..], arguments].concat()).with_code(0);
        let applied = cluster.kubectl_as(ADMIN, &["apply", "-f", "-"], Some(&printed.out));
        assert!(applied.status.success(), "{applied:?}\n{printed:?}");
        printed
    };
    assert!(cluster.kubectl(&["create", "namespace", "ops"]).status.success());
    // Nothing is in use yet.
    paris.khufu(&["kubernetes", "rbac", "--kubeconfig", &admin]).with_code(3);
    let body = json!({"kind": "kubernetes", "scope": "paris", "desired": deployment()});
    paris.put("/v1/replicants/web", body).await.ok();
    until("the right that is missing is named", || async {
        let report = status(&paris, "web", "paris").await;
        let output = report["desired"]["output"].as_str().unwrap_or_default();
        if output.contains("cannot get resource \"deployments\"") { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    give(&[], &paris);
    all_have(&[&cluster], &["deployment", "web"], "{.spec.replicas}", "2").await;

    // Of a file, and without a node.
    let file = lab.path().join("more.yaml");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web, namespace: ops}\n";
    std::fs::write(&file, format!("{service}---\n{map}")).expect("a file");
    let file = file.display().to_string();
    let offline = ["kubernetes", "rbac", "-f", &file, "--kubeconfig", &admin, "--namespaced", "-o", "json"];
    let list = crate::support::khufu(lab.path(), &[&offline[..], &["--api", "http://127.9.9.9:1"]].concat());
    let list = list.with_code(0).json();
    let kinds: Vec<_> = list["items"].as_array().expect("items").iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["Role", "Role"], "{list}");
    let printed = give(&["-f", &file], &paris).out;
    for word in ["deployments", "services", "configmaps"] {
        assert!(printed.contains(word), "{word} is not in:\n{printed}");
    }
    let more = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "ops"}});
    paris.put("/v1/replicants/more", json!({"kind": "kubernetes", "scope": "paris", "desired": more})).await.ok();
    all_have(&[&cluster], &["configmap", "web", "--namespace", "ops"], "{.metadata.name}", "web").await;
    paris.delete("/v1/replicants/web").await.ok();
    all_have(&[&cluster], &["deployment", "web"], "{.metadata.name}", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_api_server_does_not_take_or_does_not_answer_keeps_no_other_from_going_on() {
    const LIMITED: &str = "limited";
    let builders = NAMES.map(|name| Cluster::builder(name).user(LIMITED, &[]));
    let Some([one, two, mut three]) = Builder::start_all(builders) else { return };
    let lab = Lab::new();
    let [paris, rennes, nantes] = nodes_of(&lab, [(&one, ADMIN), (&two, LIMITED), (&three, ADMIN)], &[]).await;
    let everywhere = "paris & rennes & nantes";
    let quick = json!({"retry": {"backoff_max_ms": 1000}});
    let make = |cluster: &Cluster, object: &Value| {
        let made = cluster.kubectl_as(ADMIN, &["create", "-f", "-"], Some(&object.to_string()));
        assert!(made.status.success(), "{made:?}");
    };
    let says = async |id: &str, of: &str, status: &str, word: &str| {
        until(&format!("{of} says {status} of {id}: {word}"), || async {
            let report = paris.try_get(&format!("/v1/replicants/{id}")).await?["sites"][of]["report"].clone();
            let output = report["desired"]["output"].as_str().unwrap_or_default();
            if report["status"] == status && output.contains(word) { Ok(()) } else { Err(report.to_string()) }
        })
        .await;
    };

    // One has no definition of the kind, and one forbids it.
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "wells.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": {"plural": "wells", "kind": "Well"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let well = json!({"apiVersion": "example.org/v1", "kind": "Well", "metadata": {"name": "w"}, "spec": {"depth": 3}});
    make(&one, &definition);
    make(&two, &definition);
    let body = json!({"kind": "kubernetes", "scope": everywhere, "desired": well, "policy": quick});
    paris.put("/v1/replicants/well", body).await.ok();
    says("well", "paris", "applied", "1 created").await;
    says("well", "rennes", "failed", "forbid").await;
    says("well", "nantes", "failed", "does not serve the kind").await;
    make(&three, &definition);
    says("well", "nantes", "applied", "1 created").await;
    let rule = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let api = "rbac.authorization.k8s.io";
    make(
        &two,
        &json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": "khufu"}, "rules": [rule]}),
    );
    make(
        &two,
        &json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "khufu"},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "khufu"},
        "subjects": [{"apiGroup": api, "kind": "User", "name": LIMITED}]}),
    );
    says("well", "rennes", "applied", "1 created").await;

    // A definition and its objects in one, and a manifest of many objects.
    let mut other = definition.clone();
    other["metadata"]["name"] = json!("pumps.example.org");
    other["spec"]["names"] = json!({"plural": "pumps", "kind": "Pump"});
    let pump = json!({"apiVersion": "example.org/v1", "kind": "Pump", "metadata": {"name": "p"}});
    let body = json!({"kind": "kubernetes", "scope": everywhere, "desired": {"objects": {"b": pump, "a": other}}});
    rennes.put("/v1/replicants/pump", body).await.ok();
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "many"}}, "data": {"x": "1"}});
    let objects: Vec<_> = (0..200).map(|number| map(&format!("m{number:03}"))).collect();
    let body = json!({"kind": "kubernetes", "scope": everywhere, "desired": {"apiVersion": "v1", "kind": "List", "items": objects}});
    nantes.put("/v1/replicants/many", body).await.ok();
    let all = [&one, &two, &three];
    all_have(&all, &["pumps.example.org", "p"], "{.metadata.name}", "p").await;
    let names = |count: usize| (0..count).map(|number| format!("m{number:03}")).collect::<Vec<_>>().join(" ");
    let many = ["configmap", "--selector=of=many"];
    all_have(&all, &many, "{.items[*].metadata.name}", &names(200)).await;
    for name in NAMES {
        says("many", name, "applied", "200 objects").await;
    }

    // What is secret stays where it is, unless the policy says otherwise.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "x"}});
    let body = json!({"kind": "kubernetes", "scope": everywhere, "desired": secret, "policy": quick});
    paris.put("/v1/replicants/secret", body).await.ok();
    for name in NAMES {
        says("secret", name, "failed", "secrets").await;
    }
    paris.put("/v1/replicants/secret", json!({"policy": {"options": {"secrets": "allow"}}})).await.ok();
    all_have(&all, &["secret", "s"], "{.data.p}", "eA==").await;

    // An API server that is away is nowhere called well, and is found where it is then.
    three.kill();
    until("all sites say that nobody knows", || async {
        for site in [&paris, &nantes] {
            let view = site.try_get("/v1/replicants/many").await?;
            let health = &view["sites"]["nantes"]["health"];
            let unknown = health["condition"] == "unknown"
                && health["message"].as_str().is_some_and(|why| why.contains("platform"));
            if !unknown || view["health"]["condition"] != "unknown" {
                return Err(health.to_string());
            }
        }
        Ok(())
    })
    .await;
    let sites = rennes.khufu(&["sites"]);
    assert!(sites.out.contains("kubernetes (away"), "{sites:?}");
    three.move_to_another_port();
    paris.patch("/v1/replicants/well/desired", json!({"spec": {"depth": 4}})).await.ok();
    all_have(&[&three], &["wells.example.org", "w"], "{.spec.depth}", "4").await;
    until("it is known again", || async {
        let view = paris.try_get("/v1/replicants/many").await?;
        if view["health"]["condition"] == "current" { Ok(()) } else { Err(view["sites"].to_string()) }
    })
    .await;

    // What is retained stays, and where nothing is wanted nothing is.
    let all = [&one, &two, &three];
    paris.put("/v1/replicants/well", json!({"policy": {"options": {"retain": true}}})).await.ok();
    paris.delete("/v1/replicants/well").await.ok();
    all_have(&all, &["wells.example.org", "w"], "{.spec.depth} {.metadata.labels}", "4 ").await;
    rennes.put("/v1/replicants/many", json!({"desired": {}})).await.ok();
    all_have(&all, &many, "{.items[*].metadata.name}", "").await;
    lab.verified(&paris).await;
}

/// The manifests of applications that many run, given to the command as they are, and taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_applications_are_at_all_sites_and_go_from_all() {
    let Some([mut one, two, three]) = Builder::start_all(NAMES.map(Cluster::builder)) else { return };
    // One has controllers, which write in what is there.
    one.start_controller_manager();
    let lab = Lab::new();
    let [paris, rennes, nantes] = nodes(&lab, [&one, &two, &three], &[]).await;
    let sites = [&paris, &rennes, &nantes];
    let example = |name: &str| format!("{}/../../examples/kubernetes/{name}", env!("CARGO_MANIFEST_DIR"));
    for (site, name, policy) in [
        (&paris, "guestbook", None),
        (&rennes, "wordpress", Some("wordpress-policy.yaml")),
        (&nantes, "prometheus", None),
    ] {
        let file = example(&format!("{name}.yaml"));
        let mut command =
            vec!["apply", "-f", &file, "--id", name, "--kind", "kubernetes", "--scope", "all", "--wait", "60s"];
        let policy = policy.map(example);
        command.extend(policy.iter().flat_map(|policy| ["--policy", policy.as_str()]));
        site.khufu(&command).with_code(0);
    }
    let all = [&one, &two, &three];
    let blog = ["deployment,statefulset,service,ingress,secret", "--namespace=blog", "--selector=khufu.dev/replicant"];
    all_have(&all, &blog, "{.items[*].metadata.name}", "wordpress mysql mysql wordpress wordpress mysql").await;
    all_have(&all, &["deployment", "frontend"], "{.spec.replicas}", "3").await;
    all_have(&all, &["clusterrolebinding", "prometheus"], "{.subjects[0].namespace}", "monitoring").await;
    // Where nobody makes pods nothing is ready, and where controllers are at work they are not disturbed.
    all_have(&[&one], &["deployment", "frontend"], "{.status.unavailableReplicas}", "3").await;
    lab.verified(&paris).await;
    let generation = |cluster: &Cluster| kubectl(cluster, &["deployment", "frontend"], "{.metadata.generation}");
    assert_eq!(all.map(generation), ["1"; 3]);

    // Two change one application apart, by the file and by a patch.
    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    let text = std::fs::read_to_string(example("guestbook.yaml")).expect("an example");
    let file = lab.path().join("guestbook.yaml");
    std::fs::write(&file, text.replace("replicas: 3", "replicas: 5")).expect("a file");
    paris.khufu(&["apply", "-f", &file.display().to_string(), "--id", "guestbook"]).with_code(0);
    let leader = json!({"spec": {"template": {"metadata": {"annotations": {"note": "careful"}}}}});
    let patch = json!({"objects": {"Deployment/apps/redis-leader": leader}});
    nantes.patch("/v1/replicants/guestbook/desired", patch).await.ok();
    lab.cut(&sites, &[]).await;
    all_have(&all, &["deployment", "frontend"], "{.spec.replicas}", "5").await;
    all_have(&all, &["deployment", "redis-leader"], "{.spec.template.metadata.annotations.note}", "careful").await;

    for (site, name) in [(&nantes, "guestbook"), (&paris, "prometheus")] {
        site.khufu(&["delete", name, "--yes"]).with_code(0);
    }
    all_have(&all, &["deployment", "--selector=app.kubernetes.io/part-of=guestbook"], "{.items[*].metadata.name}", "")
        .await;
    all_have(&all, &["clusterrole", "prometheus"], "{.metadata.name}", "").await;
    // A namespace goes where somebody empties it.
    all_have(&[&one], &["namespace", "monitoring"], "{.metadata.name}", "").await;
    assert_eq!(
        all.map(|cluster| kubectl(cluster, &["deployment", "wordpress", "--namespace=blog"], "{.metadata.name}")),
        ["wordpress"; 3]
    );
}
