//! Nothing runs but what the configuration names.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use khufu_drivers::{Driver as _, DriverError, ShellDriver};
use serde_json::json;

use super::{Place, asked, run, web};

#[tokio::test]
async fn only_what_is_named_runs() {
    let place = Place::new(&["echo", "/usr/bin/printf"]);
    let driver = place.driver().await;
    for fine in ["echo a", "/usr/bin/echo a", "printf a", "/usr/bin/printf a"] {
        assert_eq!(run(&driver, fine).await.unwrap().output.trim(), "a", "{fine}");
    }
    for other in ["cat /etc/passwd", "sh -c id", "/bin/../usr/bin/echo a", "./echo", "usr/bin/echo a", "{id} a", "ECHO"]
    {
        let error = run(&driver, other).await.unwrap_err();
        let DriverError::Invalid { field, reason } = &error else { panic!("{other}: {error:?}") };
        assert_eq!(field, "payload.command", "{other}");
        assert!(reason.contains("echo, printf"), "{reason}");
    }
}

#[tokio::test]
async fn a_name_means_the_file_that_it_meant_at_the_start() {
    let mut place = Place::new(&["tool"]);
    let bin = place.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/usr/bin/true", bin.join("tool")).unwrap();
    place.config.path.push(bin);
    // Neither what is where it works nor what it is told of a path decides.
    let fake = place.work().join("tool");
    fs::write(&fake, "#!/bin/sh\necho fake\n").unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    place.config.environment.insert("PATH".into(), place.work().display().to_string());
    let driver = place.driver().await;
    assert_eq!(run(&driver, "tool").await.unwrap().output, "");
    let file = json!({"command": "tool", "files": {"tool": "IyEvYmluL3NoCmVjaG8gZmFrZQo="}});
    assert_eq!(driver.apply(&web(), asked("op", file)).await.unwrap().output, "");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused_by_key() {
    let of = |change: fn(&mut Place)| async move {
        let mut place = Place::new(&["true"]);
        change(&mut place);
        ShellDriver::new(&place.config).await.unwrap_err().to_string()
    };
    assert!(of(|place| place.config.commands.clear()).await.starts_with("commands: "));
    assert!(of(|place| place.config.commands.push("no-such-program".into())).await.starts_with("commands[1]: "));
    assert!(of(|place| place.config.commands.push("bin/true".into())).await.starts_with("commands[1]: "));
    assert!(of(|place| place.config.commands.push("/etc/passwd".into())).await.contains("executed"));
    assert!(of(|place| place.config.time_limit_s = 31).await.starts_with("time_limit_s: "));
    assert!(of(|place| place.config.output_limit_bytes = 2 << 20).await.starts_with("output_limit_bytes: "));
    assert!(of(|place| place.config.retry.push(0)).await.starts_with("retry: "));
    assert!(of(|place| place.config.directory = Some("/no/such".into())).await.starts_with("directory: "));
    // What sets the limits has to be there.
    let without = |place: &mut Place| {
        place.config.commands = vec!["/usr/bin/true".into()];
        place.config.path.clear();
    };
    let error = of(without).await;
    assert!(error.starts_with("limits: ") && error.contains("prlimit"), "{error}");
    let raised = of(|place| place.config.limits.open_files = Some(u64::MAX >> 1)).await;
    assert!(raised.starts_with("limits: ") || raised.starts_with("user: "), "{raised}");
}

#[tokio::test]
async fn a_state_directory_has_one_driver() {
    let place = Place::new(&["true"]);
    let first = place.driver().await;
    let error = ShellDriver::new(&place.config).await.unwrap_err().to_string();
    assert!(error.contains("another driver"), "{error}");
    drop(first);
    place.driver().await;
}

#[tokio::test]
async fn a_file_of_configuration_is_read_with_its_mistakes_named() {
    let place = Place::new(&["true"]);
    let file = place.dir.path().join("shell.toml");
    let user = if rustix::process::geteuid().is_root() { "user = 'nobody'\n" } else { "" };
    let text = format!(
        "state = 'other'\ncommands = ['echo']\n{user}retry = [75]\n[environment]\nLANG = 'C'\n[limits]\ncpu_s = 5\n\
         [observe]\ncommand = 'echo {{id}}'\nabsent = [1]\n[reset]\ncommand = ['echo', 'reset']\n"
    );
    fs::write(&file, &text).unwrap();
    let driver = ShellDriver::from_file(&file).await.unwrap();
    assert!(driver.capabilities().observe && driver.capabilities().reset);
    assert_eq!(driver.observe(&web()).await.unwrap().contents, Some(json!("web\n")));
    assert!(place.dir.path().join("other/notes").is_dir());
    fs::write(&file, text.replace("retry", "retries")).unwrap();
    let error = ShellDriver::from_file(&file).await.unwrap_err().to_string();
    assert!(error.contains("shell.toml") && error.contains("retries"), "{error}");
    assert!(ShellDriver::from_file(&place.dir.path().join("none")).await.is_err());
}
