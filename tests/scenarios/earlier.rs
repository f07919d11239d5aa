//! Data directories that earlier versions wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Lab, Site, until};

/// Two sites, paris and rennes, with their data, replicas and logs, as a version with this format left them.
fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/fixtures/sites-{format}.tar.gz"))
}

fn tar(arguments: &[&str], archive: &Path, dir: &Path, what: &[&str]) {
    let mut tar = Command::new("tar");
    tar.args(arguments).arg("-f").arg(archive).arg("-C").arg(dir).args(what);
    assert!(tar.status().expect("tar runs").success());
}

async fn both(lab: &Lab) -> [Site; 2] {
    let paris = lab.site("paris").start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes]).await;
    [paris, rennes]
}

const DIARY: &str = "one\ntwo\nthree\n";

/// What the fixtures hold. Never to be changed: later versions must find just this.
async fn check(lab: &Lab, paris: &Site, rennes: &Site) {
    let sites = [paris, rennes];
    assert_eq!(lab.converged("web", &sites).await, "list:\n- 1\n- two\nreplicas: 3\n");
    assert_eq!(lab.converged("diary", &sites).await, DIARY);
    assert_eq!(lab.converged("here", &[paris]).await, "only: paris\n");
    lab.gone("gone", &sites).await;
    for site in sites {
        let view = site.view("web").await;
        assert_eq!(view["overrides"]["rennes"], json!({}), "{view}");
        let view = site.view("diary").await;
        assert_eq!(view["operations"].as_array().map(Vec::len), Some(3), "{view}");
        assert_eq!(view["policy"]["resolutions"][0]["result"], "take-both-keep-order", "{view}");
    }
    lab.verified(paris).await;
}

#[tokio::test]
async fn sites_that_earlier_versions_left_go_on() {
    let formats = [1];
    for format in formats {
        let lab = Lab::new();
        tar(&["-x", "-z"], &fixture(format), lab.path(), &[]);
        let [paris, rennes] = both(&lab).await;
        check(&lab, &paris, &rennes).await;
        // Nothing was run a second time, and it goes on from there.
        rennes.operate("diary", "add", json!({"append": "four\n"})).await;
        assert_eq!(lab.converged("diary", &[&paris, &rennes]).await, format!("{DIARY}four\n"));
        paris.patch("/v1/replicants/web/desired", json!({"replicas": 4})).await.ok();
        let paris = paris.kill_9().start().await;
        lab.met(&[&paris, &rennes]).await;
        assert!(lab.converged("web", &[&paris, &rennes]).await.contains("replicas: 4"));
        lab.verified(&rennes).await;
    }
}

/// Run by hand, once for each format, before the first version that has it is released.
#[tokio::test]
#[ignore = "writes the fixture of the present format"]
async fn write_fixture() {
    let archive = fixture(1);
    assert!(!archive.exists(), "{} is there: a fixture is never replaced", archive.display());
    let lab = Lab::new();
    let [paris, rennes] = both(&lab).await;
    let policy = json!({"resolutions": [{"before": "add", "after": "add", "result": "take-both-keep-order"}]});
    paris.put_files("web", "paris & rennes", json!({"replicas": 1, "list": [1, "two"]})).await;
    paris.put("/v1/replicants/web", json!({"overrides": {"rennes": {}}})).await.ok();
    let body = json!({"kind": "files", "scope": "all", "policy": policy});
    rennes.put("/v1/replicants/diary", body).await.ok();
    paris.put_files("here", "here", json!({"only": "paris"})).await;
    paris.put_files("gone", "all", json!({"a": 1})).await;
    lab.converged("gone", &[&paris, &rennes]).await;
    for (site, word) in [(&paris, "one\n"), (&rennes, "two\n"), (&paris, "three\n")] {
        site.operate("diary", "add", json!({"append": word})).await;
        until("it has come", || async {
            let done = |site: &Site| site.file("diary").is_some_and(|file| file.ends_with(word));
            if done(&paris) && done(&rennes) { Ok(()) } else { Err(format!("{:?}", rennes.file("diary"))) }
        })
        .await;
    }
    rennes.delete("/v1/replicants/gone").await.ok();
    for replicas in [2, 3] {
        rennes.patch("/v1/replicants/web/desired", json!({"replicas": replicas})).await.ok();
    }
    check(&lab, &paris, &rennes).await;
    paris.stop().await;
    rennes.stop().await;
    std::fs::create_dir_all(archive.parent().expect("a directory")).expect("it can be made");
    let without = ["--exclude=LOCK", "--exclude=paris/log", "--exclude=rennes/log", "--owner=0", "--group=0"];
    tar(&[&["-c", "-z"][..], &without].concat(), &archive, lab.path(), &["paris", "rennes"]);
}
