//! Operations that are commands, at real sites.

use serde_json::{Value, json};

use crate::support::{Lab, Site, SiteBuilder, until};

/// A site whose driver `shell` keeps replicas as files, where those of the driver `files` are.
pub(super) fn builder(lab: &Lab, name: &str) -> SiteBuilder {
    let remove = "command = ['rm', '-f', './{id}']";
    configured(
        lab,
        name,
        "",
        &format!("[observe]\ncommand = ['cat', './{{id}}']\nabsent = [1]\n[reset]\n{remove}\n[delete]\n{remove}\n"),
    )
}

/// A site with a driver `shell` whose commands run where those of the driver `files` are; `keys` come before its tables.
pub(super) fn configured(lab: &Lab, name: &str, keys: &str, tables: &str) -> SiteBuilder {
    let builder = lab.site(name).arguments(&["--driver", "shell=shell.toml"]);
    let user = if rustix::process::geteuid().is_root() { "user = 'root'\n" } else { "" };
    let text = format!("state = 'shell'\ndirectory = 'replicas'\nshell = true\n{user}{keys}{tables}");
    std::fs::write(builder.dir().join("shell.toml"), text).expect("a file");
    builder
}

async fn three(lab: &Lab) -> [Site; 3] {
    let paris = builder(lab, "paris").start().await;
    let rennes = builder(lab, "rennes").bootstrap(&paris).start().await;
    let nantes = builder(lab, "nantes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes, &nantes]).await;
    [paris, rennes, nantes]
}

/// What replaces and what adds, as the file scenarios of an earlier system had it.
fn policy() -> Value {
    json!({
        "resolutions": [
            {"before": "set", "after": "set", "result": "take-one"},
            {"before": "set", "after": "add", "result": "take-both-keep-order"},
            {"before": "add", "after": "set", "result": "take-both-reverse-order"},
        ],
        "types": {"set": {"absolute": true}},
    })
}

async fn put(site: &Site, id: &str, scope: &str) {
    let body = json!({"kind": "shell", "scope": scope, "policy": policy()});
    site.put(&format!("/v1/replicants/{id}"), body).await.ok();
}

async fn run(site: &Site, id: &str, of: &str, command: &str) {
    site.operate(id, of, json!({ "command": command })).await;
}

/// Waits until all sites know of so many operations, and each has said its last word of all of them: a site where one has
/// failed says so while it still runs others.
pub(super) async fn finished(id: &str, operations: usize, sites: &[&Site]) {
    until("all sites know all and are done", || async {
        for site in sites {
            let view = site.try_get(&format!("/v1/replicants/{id}")).await?;
            let known = view["operations"].as_array().map_or(0, Vec::len);
            let done = |said: &Value| {
                let report = &said["report"];
                said["current"] == true
                    && matches!(report["status"].as_str(), Some("applied" | "failed"))
                    && report["operations"].as_object().into_iter().flatten().all(|(_, one)| one["status"] != "pending")
            };
            if known != operations || !view["sites"].as_object().into_iter().flatten().all(|(_, said)| done(said)) {
                return Err(format!("at {}: {known} operations, {}", site.name(), view["sites"]));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_command_that_a_kill_interrupted_has_its_effect_once() {
    let lab = Lab::new();
    let paris = builder(&lab, "paris").start().await;
    put(&paris, "log", "paris").await;
    run(&paris, "log", "set", "echo init > {id}").await;
    run(&paris, "log", "add", "echo one >> {id}; echo $$ >> ../begun; while [ -e ../hold ]; do sleep 0.05; done").await;
    lab.here_is("log", "init\none\n", &paris).await;
    let _ = lab.converged("log", &[&paris]).await;
    // Held in the middle, with its effect and without its end.
    let dir = paris.builder().dir().to_owned();
    std::fs::write(dir.join("hold"), "").expect("a file");
    run(&paris, "log", "add", "echo two >> {id}; while [ -e ../hold ]; do sleep 0.05; done; echo end >> {id}").await;
    lab.here_is("log", "init\none\ntwo\n", &paris).await;
    let again = paris.kill_9();
    let paris = again.start().await;
    std::fs::remove_file(dir.join("hold")).expect("it is there");
    assert_eq!(lab.converged("log", &[&paris]).await, "init\none\ntwo\nend\n");
    // The one before was run again on a replica made anew, since the one that was interrupted had to be.
    let begun = std::fs::read_to_string(dir.join("begun")).expect("it is there");
    assert_eq!(begun.lines().count(), 2, "{begun}");
}

#[tokio::test]
async fn commands_asked_for_at_sites_that_were_apart_end_in_the_same_contents() {
    let lab = Lab::new();
    let sites = three(&lab).await;
    let [paris, rennes, nantes] = &sites;
    let all = [paris, rennes, nantes];
    for (id, fails) in [("fine", false), ("failing", true)] {
        put(paris, id, "paris & rennes & nantes").await;
        run(paris, id, "set", "echo init > {id}").await;
        assert_eq!(lab.converged(id, &all).await, "init\n");
        lab.cut(&all, &[("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")]).await;
        run(paris, id, "add", "echo left >> {id}").await;
        lab.here_is(id, "init\nleft\n", paris).await;
        run(rennes, id, "set", "echo middle > {id}").await;
        lab.here_is(id, "middle\n", rennes).await;
        let last = if fails { "echo right >> {id}/below" } else { "echo right >> {id}" };
        run(nantes, id, "add", last).await;
        lab.cut(&all, &[]).await;
        finished(id, 4, &all).await;
        // The write is the latest that replaces, whatever was added is added to it.
        let expected = if fails { "middle\nleft\n" } else { "middle\nleft\nright\n" };
        assert_eq!(lab.same_file(id, &all).await, expected);
    }
}
