//! Disks that are damaged or full.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Answer, Lab, Site, Tmpfs, until};

/// The largest file of a store: the log, in which all records are.
fn log_of(data: &Path) -> PathBuf {
    data.join("store/sled/db")
}

/// Overwrites some places in the second half of a file, where the newest records are.
fn scratch(path: &Path) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the log");
    let length = file.metadata().expect("a length").len();
    // A log is made longer than what was written to it.
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("it can be read");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("something was written") as u64;
    assert!(written <= length);
    for place in [4, 5, 6, 7] {
        file.seek(SeekFrom::Start(written * place / 8)).expect("a place");
        file.write_all(&[0xa5; 512]).expect("it can be written");
    }
}

fn cut_off(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the log");
    let bytes = std::fs::read(path).expect("it can be read");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("something was written") as u64;
    file.set_len(written / 2).expect("it can be cut");
}

fn take_away(path: &Path) {
    std::fs::remove_dir_all(path.parent().and_then(Path::parent).expect("the store")).expect("it can be removed");
}

#[tokio::test]
async fn a_damaged_store_is_named_and_filled_again_from_the_others() {
    let lab = Lab::new();
    let [paris, rennes, mut nantes] = lab.three().await;
    let policy = json!({"resolutions": [{"before": "add", "after": "add", "result": "take-both-keep-order"}]});
    const COUNT: usize = 20;
    for number in 0..COUNT {
        let id = format!("r{number}");
        // Some have nothing but operations, which must not run twice on what is there.
        let mut body = json!({"kind": "files", "scope": "all", "policy": policy});
        if number % 2 == 0 {
            body["desired"] = json!({"number": number, "text": "x".repeat(2000)});
        }
        paris.put(&format!("/v1/replicants/{id}"), body).await.ok();
        for word in ["one\n", "two\n"] {
            nantes.operate(&id, "add", json!({"append": word})).await;
        }
    }
    let mut contents = Vec::new();
    for number in 0..COUNT {
        contents.push(lab.converged(&format!("r{number}"), &[&paris, &rennes, &nantes]).await);
        assert!(contents[number].ends_with("one\ntwo\n"));
    }
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &[&str]); 3] =
        [("scratched", scratch, &["damaged"]), ("cut off", cut_off, &["damaged"]), ("taken away", take_away, &[])];
    for (what, damage, words) in damages {
        let logged = nantes.log().len();
        let node = nantes.node().to_owned();
        let stopped = nantes.kill_9();
        damage(&log_of(&stopped.dir().join("data")));
        // The others go on without it.
        rennes.put_files("meanwhile", "all", json!({"while": what})).await;
        lab.here_is("meanwhile", &format!("while: {what}\n"), &paris).await;
        nantes = stopped.start().await;
        assert_eq!(nantes.node(), node, "who it is does not depend on the store");
        let log = nantes.log()[logged..].to_owned();
        for word in words {
            assert!(log.contains(word), "{what}: {word} is not in:\n{log}");
        }
        let sites = [&paris, &rennes, &nantes];
        for (number, expected) in contents.iter().enumerate() {
            let found = lab.converged(&format!("r{number}"), &sites).await;
            assert_eq!(&found, expected, "r{number} after the store was {what}:\n{log}");
        }
        assert_eq!(lab.converged("meanwhile", &sites).await, format!("while: {what}\n"));
        // It takes part as before.
        let id = format!("r{COUNT}");
        nantes.put_files(&id, "all", json!({"after": what})).await;
        assert_eq!(lab.converged(&id, &sites).await, format!("after: {what}\n"));
        nantes.operate("r1", "add", json!({"append": "more\n"})).await;
        contents[1].push_str("more\n");
        assert_eq!(lab.converged("r1", &sites).await, contents[1]);
        lab.verified(&paris).await;
        nantes.khufu(&["verify"]).with_code(0);
    }
}

/// Takes all space of a disk; `spare` bytes stay.
fn fill(tmpfs: &Tmpfs, spare: u64) {
    let free = tmpfs.free();
    let mut file = std::fs::File::create(tmpfs.path().join("filler")).expect("a file");
    let block = vec![0_u8; 1 << 16];
    let mut left = free.saturating_sub(spare);
    while left > 0 {
        let length = left.min(block.len() as u64) as usize;
        if file.write_all(&block[..length]).is_err() {
            break;
        }
        left -= length as u64;
    }
}

fn make_room(tmpfs: &Tmpfs) {
    std::fs::remove_file(tmpfs.path().join("filler")).expect("the filler");
}

async fn put(site: &Site, id: &str, number: u64) -> Answer {
    let body = json!({"kind": "files", "scope": "here", "desired": {"number": number}});
    site.put(&format!("/v1/replicants/{id}"), body).await
}

/// Everybody is answered within this, full disk or not. Far below what a request is given, far above what it needs.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Waits until a site says whether its disk is full.
async fn knows(site: &Site, full: bool) {
    until(&format!("full is {full}"), || async {
        let ready = site.client().ask(reqwest::Method::GET, "/readyz", None).await?;
        let said = ready.status == 503 && ready.body["detail"].as_str().is_some_and(|text| text.contains("full"));
        if said == full && (full || ready.status == 200) { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
}

/// What a site without space does and does not do.
async fn refuses_and_reads(paris: &Site) {
    let began = Instant::now();
    put(paris, "refused", 3).await.problem(507, &["paris", "full", "make room"]);
    let refused = put(paris, "here", 3).await;
    refused.problem(507, &["full"]);
    assert_eq!(refused.body["type"], "urn:khufu:problem:disk-full");
    paris.delete("/v1/replicants/here").await.problem(507, &["full"]);
    let operation = json!({"type": "add", "payload": {"append": "x\n"}});
    paris.post("/v1/replicants/here/operations", operation).await.problem(507, &["full"]);
    for (id, number) in [("here", 1), ("both", 1)] {
        assert_eq!(paris.view(id).await["desired"]["number"], number, "{id}");
    }
    assert!(paris.lists("here").await.expect("a list") && !paris.lists("refused").await.expect("a list"));
    paris.get("/v1/replicants/here/plan").await.ok();
    paris.get("/v1/replicants/here/history").await.ok();
    assert!(paris.get("/metrics").await.body.as_str().is_some_and(|text| text.contains("khufu_engine_disk_full 1")));
    assert_eq!(paris.get("/healthz").await.status, 200);
    assert!(began.elapsed() < AT_ONCE, "{:?}; it logged:\n{}", began.elapsed(), paris.log());
}

#[tokio::test]
async fn a_full_disk_refuses_changes_at_once_goes_on_reading_and_recovers() {
    let lab = Lab::new();
    let builder = lab.site("paris");
    let Some(disk) = Tmpfs::new(&builder.dir().join("data"), 64 << 20) else { return };
    let paris = builder.start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes]).await;
    put(&paris, "here", 1).await.ok();
    rennes.put_files("both", "all", json!({"number": 1})).await;
    lab.converged("here", &[&paris]).await;
    lab.converged("both", &[&paris, &rennes]).await;

    // The first change finds it out.
    fill(&disk, 1 << 20);
    let began = Instant::now();
    put(&paris, "first", 2).await.problem(507, &["paris", "full", "make room"]);
    assert!(began.elapsed() < AT_ONCE, "{:?}; it logged:\n{}", began.elapsed(), paris.log());
    knows(&paris, true).await;
    refuses_and_reads(&paris).await;
    assert!(paris.log().contains("is full") && paris.log().contains("make space"), "{}", paris.log());

    // Others go on without it.
    rennes.patch("/v1/replicants/both/desired", json!({"number": 2})).await.ok();
    lab.here_is("both", "number: 2\n", &rennes).await;
    refuses_and_reads(&paris).await;

    make_room(&disk);
    knows(&paris, false).await;
    assert_eq!(lab.converged("both", &[&paris, &rennes]).await, "number: 2\n");
    assert!(!paris.lists("first").await.expect("a list"), "what was refused is not made later");
    put(&paris, "after", 4).await.ok();
    lab.converged("after", &[&paris]).await;
    lab.verified(&paris).await;

    // It starts on a full disk, too, and lost nothing.
    let stopped = paris.kill_9();
    fill(&disk, 1 << 20);
    let paris = stopped.start().await;
    knows(&paris, true).await;
    assert_eq!(paris.view("after").await["desired"]["number"], 4);
    assert_eq!(paris.view("both").await["desired"]["number"], 2);
    put(&paris, "refused", 5).await.problem(507, &["full"]);
    make_room(&disk);
    knows(&paris, false).await;
    put(&paris, "refused", 6).await.ok();
    lab.met(&[&paris, &rennes]).await;
    for id in ["here", "after", "refused"] {
        lab.converged(id, &[&paris]).await;
    }
    lab.verified(&paris).await;
    paris.stop().await;
}

#[tokio::test]
async fn a_platform_without_space_is_a_failure_there_and_nowhere_else() {
    let lab = Lab::new();
    let builder = lab.site("paris");
    let Some(disk) = Tmpfs::new(&builder.dir().join("replicas"), 1 << 20) else { return };
    let paris = builder.start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    let both = [&paris, &rennes];
    lab.met(&both).await;
    let body = json!({"kind": "files", "scope": "all", "policy": {"retry": {"attempts": 2, "backoff_ms": 50}}, "desired": {"a": 1}});
    rennes.put("/v1/replicants/web", body).await.ok();
    lab.converged("web", &both).await;
    fill(&disk, 0);
    let text = "x".repeat(100_000);
    rennes.patch("/v1/replicants/web/desired", json!({"text": text})).await.ok();
    for site in both {
        until("the failure is known", || async {
            let view = site.try_get("/v1/replicants/web").await?;
            let (here, there) = (&view["sites"]["paris"]["report"], &view["sites"]["rennes"]["report"]);
            if here["status"] == "failed" && there["status"] == "applied" {
                Ok(())
            } else {
                Err(view["sites"].to_string())
            }
        })
        .await;
    }
    let said = rennes.view("web").await["sites"]["paris"].to_string();
    assert!(said.contains("space"), "it says why: {said}");
    assert_eq!(paris.file("web").as_deref(), Some("a: 1\n"), "a failure leaves the contents as they were");
    assert!(rennes.file("web").is_some_and(|file| file.contains(&text)));
    // With space, the next edit brings all of it.
    make_room(&disk);
    rennes.patch("/v1/replicants/web/desired", json!({"a": 2})).await.ok();
    assert!(lab.converged("web", &both).await.contains(&text));
    lab.verified(&paris).await;
}
