//! A disk that has no space.

#![allow(clippy::print_stderr)]

use std::ffi::CString;
use std::path::Path;

use khufu_drivers::{Driver, FilesDriver, Work, digest};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{append, replica, wait, write};

/// A file system in memory, of so many bytes.
struct Small(tempfile::TempDir);

impl Small {
    /// None where this may not be mounted, unless `KHUFU_REQUIRE_SERVERS` demands it.
    fn new(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = CString::new(format!("size={bytes},mode=0700")).unwrap();
        match mount("khufu-test", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                let required = std::env::var_os("KHUFU_REQUIRE_SERVERS").is_some();
                assert!(!required, "KHUFU_REQUIRE_SERVERS is set, and a tmpfs cannot be mounted: {error}");
                eprintln!("not tried here, a tmpfs cannot be mounted: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves so many bytes, or somewhat less.
    fn leave(&self, bytes: u64) {
        let ballast = self.path().join("ballast");
        let _ = std::fs::remove_file(&ballast);
        let found = rustix::fs::statvfs(self.path()).unwrap();
        let free = found.f_bavail * found.f_frsize;
        std::fs::write(ballast, vec![1; free.saturating_sub(bytes) as usize]).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn no_space<T: std::fmt::Debug>(result: Result<T, khufu_drivers::DriverError>, name: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains("No space left") && error.to_string().contains(name), "{error}");
    assert!(!error.is_permanent());
}

/// All that was written is kept, and what failed did not happen.
#[test]
fn nothing_is_lost_and_there_is_work_again_when_there_is_room() {
    let Some(small) = Small::new(8 << 20) else { return };
    let dir = small.path().join("files");
    let driver = FilesDriver::new(&dir).unwrap();
    let apply = |work: Work| wait(driver.apply(&replica("web"), work));
    let is = |text: &str, marker: &str| {
        assert_eq!(std::fs::read_to_string(dir.join("web")).unwrap(), text);
        let seen = wait(driver.observe(&replica("web"))).unwrap();
        assert_eq!((seen.digest, seen.drift), (Some(digest(text.as_bytes())), None));
        assert_eq!(seen.marker.unwrap().as_str(), marker);
    };
    apply(write("a", "first")).unwrap();
    // Room for the new contents, but not once more in the journal.
    let large = "x".repeat(600 << 10);
    for n in 0..5 {
        small.leave(900 << 10);
        no_space(apply(append("b", &large)), "journal.a");
        is("first", "a");
        // What is small still works, and follows upon what failed.
        apply(write("a", &format!("first{n}"))).unwrap();
        apply(write("a", "first")).unwrap();
        apply(append("a2", "")).unwrap();
        apply(write("a", "first")).unwrap();
    }
    // No room for the new contents.
    small.leave(100 << 10);
    no_space(apply(append("b", &large)), "web.new");
    // No room at all.
    small.leave(0);
    no_space(apply(append("b", "x")), ".khufu");
    no_space(wait(driver.checkpoint()), "web.json.tmp");
    is("first", "a");

    small.leave(2 << 20);
    apply(append("b", &large)).unwrap();
    is(&format!("first{large}"), "b");
    wait(driver.checkpoint()).unwrap();
    is(&format!("first{large}"), "b");
    drop(driver);
    let driver = FilesDriver::new(&dir).unwrap();
    assert_eq!(wait(driver.observe(&replica("web"))).unwrap().marker.unwrap().as_str(), "b");
}

#[test]
fn a_directory_that_cannot_be_brought_up_to_date_for_want_of_space_loses_nothing() {
    let Some(small) = Small::new(4 << 20) else { return };
    let dir = small.path().join("files");
    let ends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let killed = ends.clone();
    let driver = FilesDriver::crashing(&dir, move |_, _| killed.load(std::sync::atomic::Ordering::SeqCst)).unwrap();
    let large = "x".repeat(600 << 10);
    wait(driver.apply(&replica("web"), write("a", &large))).unwrap();
    ends.store(true, std::sync::atomic::Ordering::SeqCst);
    drop(driver);
    std::fs::write(dir.join("web"), "").unwrap();
    small.leave(100 << 10);
    for _ in 0..2 {
        no_space(FilesDriver::new(&dir), "web.new");
    }
    small.leave(1 << 20);
    let driver = FilesDriver::new(&dir).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("web")).unwrap(), large);
    assert_eq!(wait(driver.observe(&replica("web"))).unwrap().marker.unwrap().as_str(), "a");
}
