use std::path::Path;
use std::sync::Arc;

use khufu_crdt::{Payload, ReplicantId};
use khufu_drivers::{Driver, DriverError, FilesDriver, MAX_FILE_BYTES, MAX_OPERATION_BYTES, Registry, Work, digest};
use serde_json::{Value, json};

use crate::{append, operation, replica, wait, write};

struct Fixture {
    dir: tempfile::TempDir,
    driver: FilesDriver,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let driver = FilesDriver::new(dir.path().join("made/for/it")).unwrap();
        Self { dir, driver }
    }

    fn path(&self, id: &str) -> std::path::PathBuf {
        self.driver.dir().join(id)
    }

    fn text(&self, id: &str) -> String {
        std::fs::read_to_string(self.path(id)).unwrap()
    }

    fn apply(&self, id: &str, work: Work) -> khufu_drivers::Done {
        wait(self.driver.apply(&replica(id), work)).unwrap()
    }

    /// Ends the driver and starts it again, with something done between.
    fn again(self, between: impl FnOnce(&Path)) -> Self {
        let Self { dir, driver } = self;
        let path = driver.dir().to_owned();
        drop(driver);
        between(&path);
        Self { dir, driver: FilesDriver::new(path).unwrap() }
    }

    /// The driver's own files beside the journal.
    fn notes(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(".khufu")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.retain(|name| !name.starts_with("journal."));
        names
    }

    fn drift(&self, id: &str) -> Option<String> {
        wait(self.driver.observe(&replica(id))).unwrap().drift
    }
}

#[test]
fn desired_then_operations_then_reset_then_delete() {
    let f = Fixture::new();
    let before = wait(f.driver.observe(&replica("web"))).unwrap();
    assert_eq!(before, khufu_drivers::Observed::default());

    let done = f.apply("web", Work::Desired(json!({"replicas": 3, "image": "nginx"})));
    assert_eq!(f.text("web"), "image: nginx\nreplicas: 3\n");
    assert_eq!(done.digest, Some(digest(f.text("web").as_bytes())));
    assert_eq!(done.local_id.as_deref(), f.path("web").to_str());

    f.apply("web", append("a", "one\n"));
    f.apply("web", append("b", "two\n"));
    assert_eq!(f.text("web"), "image: nginx\nreplicas: 3\none\ntwo\n");
    let seen = wait(f.driver.observe(&replica("web"))).unwrap();
    assert_eq!((seen.exists, seen.drift, seen.marker), (true, None, Some("b".parse().unwrap())));
    assert_eq!(seen.contents, Some(Value::String(f.text("web"))));
    assert_eq!(seen.digest, Some(digest(f.text("web").as_bytes())));

    f.apply("web", write("c", "all new"));
    assert_eq!(f.text("web"), "all new");
    f.apply("web", Work::Desired(json!("x")));
    assert_eq!(f.text("web"), "x\n");
    assert_eq!(wait(f.driver.observe(&replica("web"))).unwrap().marker, None);

    let done = wait(f.driver.reset(&replica("web"))).unwrap();
    assert_eq!((done.digest, f.path("web").exists()), (None, false));
    assert_eq!(f.drift("web"), None);
    f.apply("web", append("b", "two again\n"));
    assert_eq!(f.text("web"), "two again\n", "after a reset an operation runs again");

    wait(f.driver.delete(&replica("web"))).unwrap();
    wait(f.driver.delete(&replica("web"))).unwrap();
    wait(f.driver.checkpoint()).unwrap();
    assert!(f.notes().is_empty() && !f.path("web").exists(), "{:?}", f.notes());
}

#[test]
fn an_append_that_ran_is_not_run_again() {
    let f = Fixture::new();
    f.apply("web", append("a", "one\n"));
    let again = f.apply("web", append("a", "one\n"));
    assert!(again.output.contains("had run already"), "{again:?}");
    assert_eq!(again.digest, Some(digest(b"one\n")));
    assert_eq!(f.text("web"), "one\n");
    // The next driver on the same directory knows it too: it is remembered on the disk.
    let f = f.again(|_| ());
    f.apply("web", append("a", "one\n"));
    assert_eq!(f.text("web"), "one\n");
}

#[test]
fn ids_with_signs_and_of_full_length_work() {
    let f = Fixture::new();
    for id in ["ns:web@paris.yaml".to_owned(), "a".repeat(ReplicantId::MAX_BYTES), "x.1.next".to_owned()] {
        f.apply(&id, append("a", "one"));
        f.apply(&id, append("b", "two"));
        assert_eq!(f.text(&id), "onetwo");
    }
    let f = f.again(|_| ()).again(|_| ());
    assert_eq!((f.drift("x.1.next"), f.notes().len()), (None, 3));
}

#[test]
fn what_makes_no_sense_is_refused_by_the_name_of_the_field() {
    let f = Fixture::new();
    f.apply("web", write("a", "as it was"));
    let refused = |payload: Value, field: &str, word: &str| {
        let error = wait(f.driver.apply(&replica("web"), Work::Operation(operation("b", payload)))).unwrap_err();
        assert!(matches!(&error, DriverError::Invalid { field: named, .. } if named == field), "{error}");
        assert!(error.to_string().contains(word) && error.is_permanent(), "{error}");
    };
    refused(json!({"write": 1}), "payload.write", "a number");
    refused(json!({"append": null}), "payload.append", "null");
    refused(json!({"append": "x", "mode": "fast"}), "payload.mode", "not known");
    refused(json!({"append": "x", "write": "y"}), "payload", "not both");
    refused(json!({}), "payload", "empty");
    refused(json!(["write"]), "payload", "a list");
    refused(json!({"write": "x".repeat(MAX_OPERATION_BYTES + 1)}), "payload.write", "split");
    let mut blob = operation("b", Value::Null);
    blob.payload = Payload::Blob("sha256:00".to_owned());
    let error = wait(f.driver.apply(&replica("web"), Work::Operation(blob))).unwrap_err();
    assert!(matches!(error, DriverError::Invalid { .. }), "{error}");
    let error = wait(f.driver.undo(&replica("web"), &operation("a", Value::Null))).unwrap_err();
    assert!(matches!(error, DriverError::Unsupported { .. }) && error.is_permanent(), "{error}");
    assert_eq!(f.text("web"), "as it was");
    assert_eq!(wait(f.driver.observe(&replica("web"))).unwrap().marker, Some("a".parse().unwrap()));
}

#[test]
fn a_file_does_not_grow_without_end() {
    let f = Fixture::new();
    let large = "x".repeat(MAX_OPERATION_BYTES);
    for n in 0..MAX_FILE_BYTES / MAX_OPERATION_BYTES {
        f.apply("web", append(&n.to_string(), &large));
    }
    let error = wait(f.driver.apply(&replica("web"), append("last", "x"))).unwrap_err();
    assert!(matches!(&error, DriverError::Invalid { field, .. } if field == "contents"), "{error}");
    // What somebody else made larger is named, and can be replaced.
    std::fs::File::options().append(true).open(f.path("web")).unwrap().set_len(MAX_FILE_BYTES as u64 + 1).unwrap();
    assert!(f.drift("web").unwrap().contains("bytes large"));
    let error = wait(f.driver.apply(&replica("web"), append("last", "x"))).unwrap_err();
    assert!(matches!(&error, DriverError::Refused { .. }), "{error}");
    f.apply("web", write("new", "short"));
    assert_eq!((f.text("web").as_str(), f.drift("web")), ("short", None));
}

#[test]
fn drift_is_seen_and_put_back() {
    let f = Fixture::new();
    f.apply("web", Work::Desired(json!({"a": 1})));
    std::fs::write(f.path("web"), "a: 2\n").unwrap();
    assert!(f.drift("web").unwrap().contains("edited"));
    f.apply("web", Work::Desired(json!({"a": 1})));
    assert_eq!((f.text("web").as_str(), f.drift("web")), ("a: 1\n", None));

    std::fs::remove_file(f.path("web")).unwrap();
    assert!(f.drift("web").unwrap().contains("removed"));
    f.apply("web", Work::Desired(json!({"a": 1})));
    assert_eq!(f.drift("web"), None);

    // Operations run on what is there; that it was edited is not forgotten before it is written anew.
    std::fs::write(f.path("web"), "edited\n").unwrap();
    f.apply("web", append("a", "one\n"));
    assert_eq!(f.text("web"), "edited\none\n");
    assert!(f.drift("web").unwrap().contains("operations ran on it"));
    f.apply("web", append("b", "two\n"));
    assert!(f.drift("web").is_some());
    wait(f.driver.reset(&replica("web"))).unwrap();
    assert_eq!(f.drift("web"), None);

    std::fs::write(f.path("web"), "by hand").unwrap();
    assert!(f.drift("web").unwrap().contains("not written from here"));
    std::fs::write(f.path("other"), "by hand").unwrap();
    assert!(f.drift("other").unwrap().contains("not written from here"));
}

#[test]
fn without_its_note_drift_is_measured_against_what_the_node_remembers() {
    let f = Fixture::new();
    f.apply("web", write("a", "text"));
    let f = f.again(|dir| std::fs::remove_file(dir.join(".khufu/web.json")).unwrap());
    let mut known = replica("web");
    known.expected = Some(digest(b"text"));
    assert_eq!(wait(f.driver.observe(&known)).unwrap().drift, None);
    known.expected = Some(digest(b"other"));
    assert!(wait(f.driver.observe(&known)).unwrap().drift.is_some());
}

#[test]
fn garbage_in_the_note_is_told_and_mended_by_the_next_change() {
    for garbage in [&b""[..], b"{", b"{\"version\":99,\"number\":1,\"before\":{},\"after\":{}}", &[0xff; 40_000]] {
        let f = Fixture::new();
        f.apply("web", append("a", "one\n"));
        let f = f.again(|dir| std::fs::write(dir.join(".khufu/web.json"), garbage).unwrap());
        let seen = wait(f.driver.observe(&replica("web"))).unwrap();
        assert!(seen.drift.unwrap().contains("cannot be read"));
        assert_eq!((seen.marker, seen.digest), (None, Some(digest(b"one\n"))));
        let f = f.again(|_| ());
        f.apply("web", write("b", "two\n"));
        assert_eq!((f.text("web").as_str(), f.drift("web")), ("two\n", None));
        wait(f.driver.delete(&replica("web"))).unwrap();
    }
}

#[test]
fn symbolic_links_are_not_followed() {
    let f = Fixture::new();
    let outside = f.dir.path().join("outside");
    std::fs::write(&outside, "secret").unwrap();
    std::os::unix::fs::symlink(&outside, f.path("web")).unwrap();
    let refused = |result: Result<(), DriverError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, DriverError::Refused { .. }) && error.is_permanent(), "{error}");
        let text = error.to_string();
        assert!(text.contains("symbolic link") && text.contains("/web"), "{text}");
    };
    refused(wait(f.driver.observe(&replica("web"))).map(drop));
    refused(wait(f.driver.apply(&replica("web"), write("a", "x"))).map(drop));
    refused(wait(f.driver.apply(&replica("web"), append("a", "x"))).map(drop));
    refused(wait(f.driver.reset(&replica("web"))).map(drop));
    refused(wait(f.driver.delete(&replica("web"))).map(drop));
    refused(wait(f.driver.diff(&replica("web"), &[write("a", "x")])).map(drop));
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "secret");
    std::fs::remove_file(f.path("web")).unwrap();

    // Nor in the driver's own notes.
    f.apply("web", write("a", "x"));
    let f = f.again(|_| ());
    std::fs::rename(f.path(".khufu/web.json"), f.dir.path().join("note")).unwrap();
    std::os::unix::fs::symlink(f.dir.path().join("note"), f.path(".khufu/web.json")).unwrap();
    assert!(wait(f.driver.observe(&replica("web"))).is_err());
    let elsewhere = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(".khufu")).unwrap();
    assert!(matches!(FilesDriver::new(dir.path()), Err(DriverError::Refused { .. })));
}

#[test]
fn what_is_no_file_is_refused() {
    let f = Fixture::new();
    std::fs::create_dir(f.path("web")).unwrap();
    for error in [
        wait(f.driver.apply(&replica("web"), write("a", "x"))).unwrap_err(),
        wait(f.driver.observe(&replica("web"))).unwrap_err(),
        wait(f.driver.delete(&replica("web"))).unwrap_err(),
    ] {
        assert!(error.to_string().contains("directory where the file belongs"), "{error}");
    }
    assert!(f.path("web").is_dir());
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for path in [dir.path().join("file"), dir.path().join("file/below"), "/proc/khufu".into()] {
        let error = FilesDriver::new(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(!error.is_permanent());
    }
}

#[test]
fn new_directories_and_files_have_the_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    // The process may have a stricter mask than usual.
    assert_eq!(mode(f.driver.dir()) | 0o055, 0o755);
    f.apply("web", write("a", "x"));
    std::fs::set_permissions(f.path("web"), std::fs::Permissions::from_mode(0o640)).unwrap();
    f.apply("web", append("b", "y"));
    assert_eq!((mode(&f.path("web")), f.text("web").as_str()), (0o640, "xy"));
}

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let f = Fixture::new();
    let diff = |work: &[Work]| wait(f.driver.diff(&replica("web"), work)).unwrap();
    let path = f.path("web").display().to_string();
    assert_eq!(
        diff(&[Work::Desired(json!({"a": 1})), append("a", "b: 2\n")]),
        format!("--- /dev/null\n+++ {path}\n@@ -0,0 +1,2 @@\n+a: 1\n+b: 2\n")
    );
    assert!(!f.path("web").exists() && f.notes().is_empty());
    f.apply("web", Work::Desired(json!({"a": 1, "b": 2})));
    let f = f.again(|_| ());
    let diff = |work: &[Work]| wait(f.driver.diff(&replica("web"), work)).unwrap();
    let before = std::fs::read(f.path(".khufu/web.json")).unwrap();
    assert_eq!(diff(&[Work::Desired(json!({"a": 1, "b": 2}))]), "");
    assert_eq!(
        diff(&[Work::Desired(json!({"a": 1, "b": 3}))]),
        format!("--- {path}\n+++ {path}\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n")
    );
    assert!(diff(&[Work::Reset]).contains("+++ /dev/null\n"));
    assert_eq!(diff(&[Work::Reset, Work::Desired(json!({"a": 1, "b": 2}))]), "");
    let large = diff(&[write("a", &"line\n".repeat(100_000))]);
    assert!(large.len() < 70_000 && large.contains("more bytes"), "{}", large.len());
    assert!(
        wait(f.driver.diff(&replica("web"), &[append("a", "x"), Work::Operation(operation("b", json!(1)))])).is_err()
    );
    assert_eq!((f.text("web").as_str(), std::fs::read(f.path(".khufu/web.json")).unwrap()), ("a: 1\nb: 2\n", before));
}

#[test]
fn drivers_are_found_by_their_kind() {
    let f = Fixture::new();
    let capabilities = f.driver.capabilities();
    let mut registry = Registry::new();
    assert!(registry.insert(Arc::new(f.driver)).is_none());
    assert_eq!(registry.kinds().collect::<Vec<_>>(), ["files"]);
    assert_eq!(registry.capabilities().get("files"), Some(&capabilities));
    assert!(registry.get("shell").is_none());
    let again = Arc::new(FilesDriver::new(f.dir.path()).unwrap());
    assert!(registry.insert(again).is_some());
}

#[test]
fn one_driver_works_in_a_directory_at_a_time() {
    let f = Fixture::new();
    f.apply("web", write("a", "first"));
    let second = FilesDriver::new(f.driver.dir()).unwrap();
    let error = wait(second.apply(&replica("web"), write("b", "second"))).unwrap_err();
    assert!(error.to_string().contains("another driver works in") && !error.is_permanent(), "{error}");
    assert!(error.retry_after().is_some() && wait(second.observe(&replica("web"))).is_err());
    assert_eq!(f.text("web"), "first");
    drop(f.driver);
    wait(second.apply(&replica("web"), append("b", ", second"))).unwrap();
    assert_eq!(std::fs::read_to_string(second.dir().join("web")).unwrap(), "first, second");
}
