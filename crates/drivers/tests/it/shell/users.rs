//! Whom commands run as.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use khufu_drivers::shell::Name;
use khufu_drivers::{Driver as _, ShellDriver};
use serde_json::json;

use super::{Place, asked, run, web};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn commands_run_as_the_user_that_is_named_and_have_no_other_group() {
    let mut place = Place::with_shell();
    if !is_root() {
        place.config.user = Some(Name::Number(0));
        let error = ShellDriver::new(&place.config).await.unwrap_err().to_string();
        assert!(error.starts_with("user: only root"), "{error}");
        place.config.user = Some(Name::Number(rustix::process::geteuid().as_raw()));
        place.driver().await;
        return;
    }
    let driver = place.driver().await;
    assert_eq!(run(&driver, "id -un; id -G").await.unwrap().output, "nobody\n65534\n");
    // Its files are its own, and nothing of root is.
    let ask = json!({"command": "stat -c %U {f}; cat /etc/shadow", "files": {"f": ""}});
    let error = driver.apply(&web(), asked("op", ask)).await.unwrap_err().to_string();
    assert!(error.contains("nobody\n") && error.contains("Permission denied"), "{error}");
    assert_eq!(fs::metadata(place.dir.path().join("state/notes/web.json")).unwrap().uid(), 0);
    drop(driver);
    place.config.user = Some(Name::Number(64_201));
    let error = ShellDriver::new(&place.config).await.unwrap_err().to_string();
    assert!(error.starts_with("group: "), "{error}");
    place.config.group = Some(Name::Text("daemon".into()));
    assert_eq!(run(&place.driver().await, "id -u; id -G").await.unwrap().output, "64201\n1\n");
}

#[tokio::test]
async fn a_user_that_cannot_be_is_refused_at_the_start() {
    let mut place = Place::with_shell();
    place.config.user = Some(Name::Text("no-such-user".into()));
    let error = ShellDriver::new(&place.config).await.unwrap_err().to_string();
    assert!(error.contains("no-such-user"), "{error}");
    if !is_root() {
        return;
    }
    place.config.user = None;
    let error = ShellDriver::new(&place.config).await.unwrap_err().to_string();
    assert!(error.starts_with("user: ") && error.contains("root"), "{error}");
    // One who does not get to the directory.
    place.config.user = Some(Name::Text("nobody".into()));
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = ShellDriver::new(&place.config).await.unwrap_err().to_string();
    assert!(error.starts_with("user: ") && error.contains("get there"), "{error}");
}
