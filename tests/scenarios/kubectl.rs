//! An unmodified kubectl at each of three sites with a Kubernetes API server of its own: what it writes with a scope is at all.

mod apart;
mod asked;
mod between;
mod defaults;
mod drift;
mod guarded;
mod interrupted;
mod protobuf;
mod refused;
mod rough;
mod server_side;
mod turns;
mod upgraded;

use std::process::Output;

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use serde_json::{Value, json};

use super::kubernetes::{NAMES, nodes};
use crate::support::{Lab, Site, until};

const ALL: &str = "paris & rennes & nantes";
const FRONT: &[&str] = &["--kubernetes-front", "127.0.0.1:0"];

/// Runs kubectl as a user through the front of a site, whose path may begin with a scope.
fn through(
    cluster: &Cluster,
    site: &Site,
    user: &str,
    prefix: &str,
    arguments: &[&str],
    input: Option<&str>,
) -> Output {
    let (front, authority) = site.front();
    let server = format!("--server={front}{prefix}");
    let authority = format!("--certificate-authority={}", authority.display());
    cluster.kubectl_as(user, &[&[server.as_str(), authority.as_str()], arguments].concat(), input)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A site with its cluster, as somebody there sees it.
struct Desk<'a> {
    cluster: &'a Cluster,
    site: &'a Site,
}

impl Desk<'_> {
    /// Runs kubectl as the administrator, and panics unless it succeeds; what it said.
    #[track_caller]
    fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> String {
        self.scoped("", arguments, input)
    }

    /// The same, with a scope in the path.
    #[track_caller]
    fn scoped(&self, prefix: &str, arguments: &[&str], input: Option<&str>) -> String {
        let output = through(self.cluster, self.site, ADMIN, prefix, arguments, input);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\nthe site logged:\n{}", self.site.log());
        said
    }

    /// Runs kubectl past Khufu.
    #[track_caller]
    fn by_hand(&self, arguments: &[&str]) {
        let output = self.cluster.kubectl(arguments);
        assert!(output.status.success(), "{output:?}");
    }

    /// Edits an object in an editor that does this.
    #[track_caller]
    fn edit(&self, what: &[&str], script: &str) {
        let (front, authority) = self.site.front();
        let mut command = self.cluster.kubectl_command(ADMIN);
        command.args([format!("--server={front}"), format!("--certificate-authority={}", authority.display())]);
        let output = command.arg("edit").args(what).env("KUBE_EDITOR", format!("sed -i {script}")).output();
        let output = output.expect("kubectl runs");
        assert!(output.status.success() && text(&output.stdout).contains("edited"), "{output:?}");
    }

    /// Runs kubectl as somebody, and panics if it succeeds; what it said.
    #[track_caller]
    fn refused(&self, user: &str, prefix: &str, arguments: &[&str], input: Option<&str>) -> String {
        let output = through(self.cluster, self.site, user, prefix, arguments, input);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} was not refused: {said}");
        said
    }

    /// Something of an object as the API server itself has it; nothing if it has no such object or field.
    #[track_caller]
    fn has(&self, what: &[&str], path: &str) -> String {
        let path = format!("jsonpath={path}");
        let output = self.cluster.kubectl(&[&["get"], what, &["--ignore-not-found", "--output", &path]].concat());
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    }
}

/// Waits until something is so at all these.
async fn all_have(desks: &[&Desk<'_>], what: &[&str], path: &str, wanted: &str) {
    until(&format!("{what:?} has {wanted:?} in {path}"), || async {
        let found: Vec<_> = desks.iter().map(|desk| desk.has(what, path)).collect();
        if found.iter().all(|found| found == wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// A node that is a way in for kubectl.
async fn one(lab: &Lab, cluster: &Cluster) -> Site {
    let [site] = nodes(lab, [cluster], FRONT).await;
    site
}

/// One site with its cluster, where one is enough.
struct Alone {
    // What is first ends first.
    site: Site,
    _lab: Lab,
    cluster: Cluster,
}

impl Alone {
    /// None where there is nothing to start a cluster with.
    async fn start(cluster: Builder) -> Option<Self> {
        let [cluster] = Builder::start_all([cluster])?;
        let lab = Lab::new();
        let site = one(&lab, &cluster).await;
        Some(Self { site, _lab: lab, cluster })
    }

    fn parts(&self) -> (&Cluster, &Site, Desk<'_>) {
        let Self { cluster, site, .. } = self;
        (cluster, site, Desk { cluster, site })
    }
}

/// Nodes that are.
async fn three(lab: &Lab, clusters: [&Cluster; 3]) -> [Site; 3] {
    nodes(lab, clusters, FRONT).await
}

fn deployment(name: &str, scope: Option<&str>) -> Value {
    let labels = json!({"app": name});
    let containers = json!([{"name": "web", "image": "nginx:1"}, {"name": "side", "image": "side:1"}]);
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "annotations": {}},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}});
    if let Some(scope) = scope {
        object["metadata"]["annotations"]["khufu.dev/scope"] = json!(scope);
    }
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kubectl_writes_at_one_site_is_at_all() {
    let Some([one, two, three_]) = Builder::start_all(NAMES.map(Cluster::builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes, nantes] = three(&lab, [&one, &two, &three_]).await;
    let sites = [&paris, &rennes, &nantes];
    let [a, b, c] =
        &[(&one, &paris), (&two, &rennes), (&three_, &nantes)].map(|(cluster, site)| Desk { cluster, site });
    let (all, web) = ([a, b, c], ["deployment", "web"]);

    // Applied with an annotation at one site.
    let mut manifest = deployment("web", Some(ALL));
    let apply = ["apply", "-f", "-"];
    assert!(a.kubectl(&apply, Some(&manifest.to_string())).contains("created"));
    assert_eq!(a.has(&web, "{.spec.replicas}"), "2", "it is there when kubectl says so");
    all_have(&all, &web, "{.spec.replicas}", "2").await;
    // Nothing has changed, so nothing is written.
    assert!(a.kubectl(&apply, Some(&manifest.to_string())).contains("unchanged"));

    // Each way to write, each at another site.
    b.kubectl(&["scale", "deployment", "web", "--replicas=3"], None);
    all_have(&all, &web, "{.spec.replicas}", "3").await;
    c.kubectl(&["label", "deployment", "web", "team=blue"], None);
    all_have(&all, &web, "{.metadata.labels.team}", "blue").await;
    a.kubectl(&["set", "image", "deployment/web", "side=side:2"], None);
    all_have(&all, &web, "{.spec.template.spec.containers[*].image}", "nginx:1 side:2").await;
    for (kind, patch, path, wanted) in [
        (
            "strategic",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"nginx:2"}]}}}}"#,
            "{.spec.template.spec.containers[0].image}",
            "nginx:2",
        ),
        (
            "merge",
            r#"{"metadata":{"labels":{"team":null,"color":"red"}}}"#,
            "{.metadata.labels.color}{.metadata.labels.team}",
            "red",
        ),
        ("json", r#"[{"op":"replace","path":"/spec/replicas","value":5}]"#, "{.spec.replicas}", "5"),
    ] {
        b.kubectl(&["patch", "deployment", "web", "--type", kind, "--patch", patch], None);
        all_have(&all, &web, path, wanted).await;
    }

    // What somebody has changed by hand is made as it is asked for by whoever writes that.
    let by_hand = three_.kubectl(&["scale", "deployment", "web", "--replicas=9"]);
    assert!(by_hand.status.success(), "{by_hand:?}");
    c.kubectl(&["scale", "deployment", "web", "--replicas=5"], None);
    assert_eq!(c.has(&web, "{.spec.replicas}"), "5");

    // Applied again at another site, from the same file: what was applied is known there, and what was changed otherwise stays.
    manifest["spec"]["template"]["spec"]["containers"].as_array_mut().expect("a list").remove(1);
    manifest["spec"]["replicas"] = json!(4);
    c.kubectl(&apply, Some(&manifest.to_string()));
    all_have(
        &all,
        &web,
        "{.spec.replicas} {.spec.template.spec.containers[*].name} {.metadata.labels.color}",
        "4 web red",
    )
    .await;

    // What is shown says how it is elsewhere; none of it is kept.
    let shown: Value = until("all sites are shown", || async {
        let text = b.kubectl(&["get", "deployment", "web", "--output=json"], None);
        let shown: Value = serde_json::from_str(&text).expect("JSON");
        let sites = shown["metadata"]["annotations"]["khufu.dev/sites"].as_str().unwrap_or_default();
        let sites: Value = serde_json::from_str(sites).unwrap_or_default();
        if NAMES.iter().all(|name| sites[*name]["status"] == "applied") { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(shown["metadata"]["annotations"]["khufu.dev/scope"], ALL);
    let replaced = shown.to_string().replace("nginx:1", "nginx:3");
    b.kubectl(&["replace", "-f", "-"], Some(&replaced));
    all_have(&all, &web, "{.spec.template.spec.containers[*].image}", "nginx:3").await;
    let view = paris.view("kubernetes:default:deployments.apps:web").await;
    for mark in ["khufu.dev/sites", "khufu.dev/replicant"] {
        assert!(!view["desired"].to_string().contains(mark), "{}", view["desired"]);
    }
    assert!(a.kubectl(&["get", "deployments", "--output=yaml"], None).contains("khufu.dev/sites"));
    assert!(a.kubectl(&["get", "deployments"], None).contains("web"));

    // Another scope, by its annotation.
    a.kubectl(&["annotate", "--overwrite", "deployment", "web", "khufu.dev/scope=paris & rennes"], None);
    all_have(&[c], &web, "{.metadata.name}", "").await;

    // Marks that somebody has copied to an object of his own are nobody's: nothing of the replicant is told or changed.
    let shown: Value =
        serde_json::from_str(&a.kubectl(&["get", "deployment", "web", "--output=json"], None)).expect("JSON");
    assert_eq!(shown["metadata"]["annotations"]["khufu.dev/lives-at"], "paris & rennes");
    let forged = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "forged", "annotations": {
        "khufu.dev/replicant": "kubernetes:default:deployments.apps:web", "khufu.dev/site": "paris",
        "khufu.dev/object": "ConfigMap/default/forged"}}});
    let path = lab.path().join("forged.json");
    std::fs::write(&path, forged.to_string()).expect("a file");
    let made = one.kubectl(&["create", "--filename", &path.display().to_string()]);
    assert!(made.status.success(), "{made:?}");
    let told = a.kubectl(&["get", "configmap", "forged", "--output=yaml"], None);
    assert!(!told.contains("khufu.dev/sites"), "{told}");
    let refused = a.refused(ADMIN, "", &["label", "configmap", "forged", "x=y"], None);
    assert!(refused.contains("not those of a replicant here"), "{refused}");
    a.kubectl(&["delete", "configmap", "forged"], None);
    assert_eq!(a.has(&["configmap", "forged"], "{.metadata.name}"), "");

    // What is only tried to be deleted stays.
    a.kubectl(&["delete", "deployment", "web", "--dry-run=server"], None);
    let view = paris.view("kubernetes:default:deployments.apps:web").await;
    assert!(view["deleted"].is_null() && a.has(&web, "{.metadata.name}") == "web", "{view}");

    // Deleted at one site, it goes at all.
    b.kubectl(&["delete", "deployment", "web"], None);
    assert_eq!(b.has(&web, "{.metadata.name}"), "");
    all_have(&all, &web, "{.metadata.name}", "").await;
    lab.met(&sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_in_the_path_is_enough_and_nobody_gets_more_rights_than_he_has() {
    let builder = |name| Cluster::builder(name).user("eve", &[]).user("carol", &[]);
    let Some([one, two, three_]) = Builder::start_all(NAMES.map(builder)) else { return };
    let lab = Lab::new();
    let [paris, rennes, nantes] = three(&lab, [&one, &two, &three_]).await;
    let [a, b, c] =
        &[(&one, &paris), (&two, &rennes), (&three_, &nantes)].map(|(cluster, site)| Desk { cluster, site });
    let prefix = "/scope/paris%20%26%20rennes";

    // Everything that kubectl needs is found under the path, also if somebody has encoded it twice.
    let map = ["configmap", "settings"];
    a.scoped(prefix, &["create", "configmap", "settings", "--from-literal=a=1"], None);
    all_have(&[a, b], &map, "{.data.a}", "1").await;
    assert_eq!(c.has(&map, "{.data.a}"), "");
    a.scoped("/scope/paris%2520%2526%2520rennes", &["create", "configmap", "twice", "--from-literal=a=1"], None);
    all_have(&[a, b], &["configmap", "twice"], "{.data.a}", "1").await;
    let again = a.refused(ADMIN, prefix, &["create", "configmap", "settings", "--from-literal=a=2"], None);
    assert!(again.contains("already exists"), "{again}");
    assert!(a.scoped(prefix, &["explain", "deployment.spec.replicas"], None).contains("replicas"));

    // Nor need anybody know the path: there is a file for it.
    let (front, authority) = paris.front();
    let (own, authority) = (one.kubeconfig(ADMIN).display().to_string(), authority.display().to_string());
    let made = ["kubernetes", "kubeconfig", "--kubeconfig", &own, "--front", front, "--ca", &authority];
    let made = paris.khufu(&[&made[..], &["--scope", "paris & rennes"]].concat()).with_code(0).out;
    let file = lab.path().join("khufu.kubeconfig");
    std::fs::write(&file, made).expect("a file");
    let mut command = one.kubectl_command(ADMIN);
    command.args(["create", "deployment", "typed", "--image=nginx:1"]).env("KUBECONFIG", &file);
    let output = command.output().expect("kubectl runs");
    assert!(output.status.success(), "{output:?}");
    all_have(&[a, b], &["deployment", "typed"], "{.spec.template.spec.containers[0].image}", "nginx:1").await;
    let expose = ["expose", "deployment", "typed", "--port=80"];
    a.scoped(prefix, &expose, None);
    all_have(&[a, b], &["service", "typed"], "{.spec.ports[0].port}", "80").await;
    let desired = paris.view("kubernetes:default:services:typed").await["desired"].clone();
    assert!(desired["spec"].get("clusterIP").is_none(), "each site has an address of its own: {desired}");

    // Under another name it is made anew at each site; without a scope it is of this site alone.
    a.kubectl(&["create", "configmap", "own", "--from-literal=a=1"], None);
    assert_eq!(a.has(&["configmap", "own"], "{.data.a}{.metadata.labels}"), "1");

    // What is not kept here is said.
    let elsewhere = a.scoped("/scope/rennes", &["create", "configmap", "away", "--from-literal=a=1"], None);
    assert!(elsewhere.contains("Warning") && elsewhere.contains("it lives at rennes"), "{elsewhere}");
    all_have(&[b], &["configmap", "away"], "{.data.a}", "1").await;
    assert_eq!(a.has(&["configmap", "away"], "{.data.a}"), "");
    // kubectl does not see it, so it makes it again to apply something else.
    let mut far =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "far"}, "data": {"a": "1", "b": "1"}});
    a.scoped("/scope/rennes", &["apply", "-f", "-"], Some(&far.to_string()));
    far["data"] = json!({"a": "2"});
    a.scoped("/scope/rennes", &["apply", "-f", "-"], Some(&far.to_string()));
    all_have(&[b], &["configmap", "far"], "{.data}", "{\"a\":\"2\"}").await;

    // From where it does not live it is not moved.
    far["metadata"]["annotations"] = json!({"khufu.dev/scope": "paris"});
    let moved = a.refused(ADMIN, "", &["apply", "-f", "-"], Some(&far.to_string()));
    assert!(moved.contains("write it where it lives"), "{moved}");
    far["metadata"]["annotations"] = json!({});
    far["data"] = json!({"a": "3"});
    let warned = a.scoped("/scope/paris", &["apply", "-f", "-"], Some(&far.to_string()));
    assert!(warned.contains("lives at rennes, and not at paris"), "{warned}");
    all_have(&[b], &["configmap", "far"], "{.data}", "{\"a\":\"3\"}").await;
    assert_eq!(paris.view("kubernetes:default:configmaps:far").await["scope"], "rennes");

    // A scope without a meaning is refused, in the path and as an annotation, with its place.
    let bad = a.refused(ADMIN, "/scope/paris%20%26%20renes", &["get", "pods"], None);
    assert!(bad.contains("renes") && bad.contains("rennes"), "{bad}");
    let annotated = deployment("bad", Some("paris &")).to_string();
    let bad = a.refused(ADMIN, "", &["create", "-f", "-"], Some(&annotated));
    assert!(bad.contains("╰─ found the end") && a.has(&["deployment", "bad"], "{.metadata.name}").is_empty(), "{bad}");

    // Somebody without rights makes nothing anywhere, and changes nothing.
    let refused = a.refused("eve", prefix, &["create", "configmap", "evil", "--from-literal=a=1"], None);
    assert!(refused.contains("forbidden"), "{refused}");
    for arguments in [
        &["create", "configmap", "evil", "--from-literal=a=1"][..],
        &["patch", "configmap", "settings", "--patch", "{\"data\":{\"a\":\"2\"}}"],
        &["delete", "configmap", "settings"],
        &["delete", "configmaps", "--all"],
        &["get", "configmap", "settings"],
    ] {
        let refused = a.refused("eve", prefix, arguments, None);
        assert!(refused.to_lowercase().contains("forbidden"), "{arguments:?}: {refused}");
    }
    // Rights in one namespace are none in another, and none to make namespaces.
    a.cluster.kubectl(&["create", "namespace", "shop"]);
    a.cluster.kubectl(&["create", "role", "all", "--namespace=shop", "--verb=*", "--resource=configmaps"]);
    a.cluster.kubectl(&["create", "rolebinding", "carol", "--namespace=shop", "--role=all", "--user=carol"]);
    a.refused("carol", prefix, &["create", "configmap", "evil", "--from-literal=a=1"], None);
    a.refused("carol", prefix, &["delete", "configmap", "settings"], None);
    let own = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}, "metadata": {"name": "hers",
        "namespace": "shop", "annotations": {"khufu.dev/options": "{\"create-namespaces\": true}"}}});
    let refused = a.refused("carol", prefix, &["create", "-f", "-"], Some(&own.to_string()));
    assert!(refused.contains("right to create namespaces"), "{refused}");
    a.scoped(prefix, &["create", "-f", "-"], Some(&own.to_string()));
    let hers = ["configmap", "hers", "--namespace=shop"];
    all_have(&[a, b], &hers, "{.data.a}", "1").await;
    // Whoever may not delete it may not have it go by way of its scope.
    a.cluster.kubectl(&["create", "role", "edit", "--verb=get,patch", "--resource=configmaps"]);
    a.cluster.kubectl(&["create", "rolebinding", "carol", "--role=edit", "--user=carol"]);
    through(a.cluster, a.site, "carol", "", &["label", "configmap", "settings", "by=carol"], None);
    all_have(&[a, b], &map, "{.metadata.labels.by}", "carol").await;
    let away =
        a.refused("carol", "", &["annotate", "--overwrite", "configmap", "settings", "khufu.dev/scope=rennes"], None);
    assert!(away.contains("cannot delete resource"), "{away}");
    let history = paris.get("/v1/replicants/kubernetes:shop:configmaps:hers/history").await.ok();
    assert!(history.to_string().contains("kubernetes-front"), "{history}");
    a.scoped(prefix, &["--as=carol", "--namespace=shop", "create", "configmap", "as", "--from-literal=a=1"], None);
    let history = paris.get("/v1/replicants/kubernetes:shop:configmaps:as/history").await.ok();
    assert!(history.to_string().contains("carol"), "{history}");
    let list = paris.get("/v1/replicants").await.ok();
    assert!(!list.to_string().contains("evil"), "{list}");
    for (desk, kept) in [(a, "1"), (b, "1"), (c, "")] {
        assert_eq!(desk.has(&map, "{.data.a}"), kept);
        assert_eq!(desk.has(&["configmap", "evil"], "{.metadata.name}"), "");
    }
}
