//! The files of an operation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use khufu_drivers::{Driver as _, DriverError};
use serde_json::{Map, Value, json};

use super::{Place, asked, entries, until, web};

#[tokio::test]
async fn a_command_is_given_the_paths_of_its_files_and_they_go_afterwards() {
    let mut place = Place::new(&["cat", "stat"]);
    place.config.directory = None;
    let driver = place.driver().await;
    // "hello\n", and bytes that are no text.
    let files = json!({"a.yml": "aGVsbG8K", "b": "AP8="});
    let done =
        driver.apply(&web(), asked("op", json!({"command": "cat {a.yml} {b} a.yml", "files": files}))).await.unwrap();
    assert_eq!(done.output, "hello\n\0\u{fffd}hello\n");
    let ask = json!({"command": ["stat", "-c", "%a %n", ".", "{a.yml}"], "files": files});
    let output = driver.apply(&web(), asked("op", ask)).await.unwrap().output;
    let (first, second) = output.trim().split_once('\n').unwrap();
    assert_eq!(first, "700 .");
    let path = second.strip_prefix("600 ").unwrap();
    assert!(path.starts_with(place.dir.path().join("state/run").to_str().unwrap()), "{path}");
    until("the files are gone", || !std::path::Path::new(path).exists() && place.private().is_empty()).await;
}

#[tokio::test]
async fn files_go_also_when_a_command_fails_or_fills_its_directory() {
    let mut place = Place::with_shell();
    place.config.directory = None;
    let driver = place.driver().await;
    let text = "mkdir -p a/b; touch a/b/c; chmod 0 a/b; ln -s /etc/passwd link; exit 1";
    driver.apply(&web(), asked("op", json!({"command": text, "files": {"f": ""}}))).await.unwrap_err();
    until("the files are gone", || place.private().is_empty() || !rustix::process::geteuid().is_root()).await;
    assert!(fs::metadata("/etc/passwd").is_ok());
}

#[tokio::test]
async fn what_a_crash_left_is_swept_at_the_start_and_what_runs_is_ended() {
    let place = Place::with_shell();
    let driver = place.driver().await;
    drop(driver);
    let left = place.dir.path().join("state/run/1-2-3");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("secret"), "x").unwrap();
    let mut by_name = std::process::Command::new("sleep").arg("300").env("KHUFU_RUN", "1-2-3").spawn().unwrap();
    let mut by_place = std::process::Command::new("sleep").arg("300").current_dir(&left).spawn().unwrap();
    let mut other = std::process::Command::new("sleep").arg("300").env("KHUFU_RUN", "1-2-4").spawn().unwrap();
    // Nobody waits for them but this test, so they are zombies once they are ended.
    place.driver().await;
    for process in [&mut by_name, &mut by_place] {
        assert!(process.try_wait().unwrap().is_some());
    }
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(place.private(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn nobody_else_sees_the_files() {
    let place = Place::of_files();
    let driver = place.driver().await;
    let ask = json!({"command": "stat -c %a {f} $(dirname {f}) > modes; cat {f} > web", "files": {"f": "eA=="}});
    driver.apply(&web(), asked("op", ask)).await.unwrap();
    assert_eq!(place.read("modes").unwrap(), "600\n700\n");
    // Nor what is noted of it.
    for (name, mode) in [("", 0o711), ("notes", 0o700), ("run", 0o711)] {
        let found = fs::metadata(place.dir.path().join("state").join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    assert_eq!(entries(&place.dir.path().join("state/notes")).len(), 1);
}

#[tokio::test]
async fn too_many_or_too_large_files_are_refused() {
    let driver = Place::new(&["true"]).driver().await;
    let files: Map<String, Value> = (0..65).map(|number| (format!("f{number}"), json!(""))).collect();
    let error = driver.apply(&web(), asked("op", json!({"command": "true", "files": files}))).await.unwrap_err();
    assert!(matches!(&error, DriverError::Invalid { field, .. } if field == "payload.files"), "{error:?}");
    let half = "AAAA".repeat((2 << 20) / 3 + 1);
    let files = json!({"a": half, "b": half});
    let error = driver.apply(&web(), asked("op", json!({"command": "true", "files": files}))).await.unwrap_err();
    assert!(matches!(&error, DriverError::Invalid { field, .. } if field == "payload.files.b"), "{error:?}");
}
