//! Disks that are damaged or full.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Lab, Site, Tmpfs, until};

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
        // It takes part as before.
        let id = format!("r{COUNT}");
        nantes.put_files(&id, "all", json!({"after": what})).await;
        assert_eq!(lab.converged(&id, &sites).await, format!("after: {what}\n"));
        nantes.operate("r1", "add", json!({"append": "more\n"})).await;
        contents[1].push_str("more\n");
        assert_eq!(lab.converged("r1", &sites).await, contents[1]);
        lab.verified(&paris).await;
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

async fn put(site: &Site, id: &str, number: u64) -> Result<u16, String> {
    let body = json!({"kind": "files", "scope": "here", "desired": {"number": number}});
    let answer = site.client().ask(reqwest::Method::PUT, &format!("/v1/replicants/{id}"), Some(body)).await?;
    Ok(answer.status)
}

#[tokio::test]
async fn a_full_disk_is_waited_for_then_said_and_nothing_acknowledged_is_lost() {
    let lab = Lab::new();
    let builder = lab.site("paris");
    let Some(disk) = Tmpfs::new(&builder.dir().join("data"), 64 << 20) else { return };
    let paris = builder.start().await;
    assert_eq!(put(&paris, "before", 1).await, Ok(201));

    // It waits for space, and goes on when there is some.
    fill(&disk, 1 << 20);
    let (answer, ()) = tokio::join!(put(&paris, "waiting", 2), async {
        until("it says that the disk is full", || async {
            let log = paris.log();
            if log.contains("disk is full") { Ok(()) } else { Err(log) }
        })
        .await;
        make_room(&disk);
    });
    assert_eq!(answer, Ok(201), "{}", paris.log());
    until("it is applied", || async { paris.file("waiting").ok_or_else(|| "no file".to_owned()) }).await;

    // Nobody makes room: whoever asked is told, and the node ends with words instead of going on without a disk.
    fill(&disk, 1 << 20);
    let refused = put(&paris, "refused", 3).await;
    assert!(matches!(refused, Ok(500 | 503) | Err(_)), "{refused:?}");
    let ended = paris.ended().await.with_code(1);
    assert!(ended.err.contains("full"), "it says why it ended: {}", ended.err);
    assert!(ended.err.contains("make space"), "and what to do: {}", ended.err);

    make_room(&disk);
    let paris = lab.site("paris").start().await;
    for (id, number) in [("before", 1), ("waiting", 2)] {
        assert_eq!(paris.view(id).await["desired"]["number"], number);
    }
    assert_eq!(put(&paris, "after", 4).await, Ok(201));
    until("it is applied", || async { paris.file("after").ok_or_else(|| "no file".to_owned()) }).await;
    assert_eq!(paris.file("refused").is_some(), paris.lists("refused").await.expect("a list"));
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
