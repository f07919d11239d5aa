//! A small disk.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A file system in memory. Dropping it takes it away; make it before the site that uses it.
#[derive(Debug)]
pub(crate) struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// A disk of so many bytes at a directory, which is made. None, with the reason printed, where the test may not mount; a
    /// panic instead if `KHUFU_REQUIRE_SERVERS` demands it.
    pub(crate) fn new(path: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a directory");
        let options = std::ffi::CString::new(format!("size={bytes},mode=0700")).expect("text without zeros");
        match mount("khufu-test", path, "tmpfs", MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Self { path: path.to_owned() }),
            Err(error) => {
                super::missing(&format!("disk of a fixed size (mounting a tmpfs: {error}); root is needed"));
                None
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that are free.
    pub(crate) fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.path).expect("it is mounted");
        found.f_bavail * found.f_frsize
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // What still has it open goes on to use it until it ends.
        if let Err(error) = unmount(&self.path, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}
