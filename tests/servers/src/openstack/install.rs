//! Where the servers are.

use std::path::PathBuf;

/// How to get them.
const INSTALL: &str = "eval \"$(tests/servers/install-openstack)\" && export KHUFU_OPENSTACK";

/// What `tests/servers/install-openstack` has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The interpreter whose environment has the servers.
    pub(super) python: PathBuf,
    /// The cloud that nobody has used.
    pub(super) cloud: PathBuf,
    /// The program that runs the services.
    pub(super) program: PathBuf,
}

impl Installed {
    /// Looks in the directory that `KHUFU_OPENSTACK` names, and where `tests/servers/install-openstack` puts what it makes.
    pub fn find() -> Option<Self> {
        Self::find_in(directories(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)))
    }

    /// [`Installed::find`] for a test: None, with the reason printed, where they are not.
    ///
    /// # Panics
    /// Where they are not and `KHUFU_REQUIRE_SERVERS` is set.
    pub fn required() -> Option<Self> {
        let found = Self::find();
        if found.is_none() {
            crate::leave_out(&format!("OpenStack. To get it: {INSTALL}"));
        }
        found
    }

    fn find_in(directories: Vec<PathBuf>) -> Option<Self> {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("openstack/cloud.py");
        let found = directories.into_iter().map(|directory| Self {
            python: directory.join("venv/bin/python"),
            cloud: directory.join("cloud"),
            program: program.clone(),
        });
        // Both are only whole with what is written last.
        found
            .into_iter()
            .find(|found| found.cloud.join("khufu").is_file() && found.python.with_file_name("../khufu").is_file())
    }

    /// A program of their environment, such as `openstack`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.python.with_file_name(name)
    }
}

/// Where to look, in this order.
fn directories(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let caches = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let servers = variable("KHUFU_SERVERS").or_else(|| caches().map(|caches| caches.join("khufu/servers")));
    let kept = servers.map(|servers| servers.join("openstack"));
    variable("KHUFU_OPENSTACK").into_iter().chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_what_is_whole_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let all = || Installed::find_in(vec![dir.path().to_owned()]);
        std::fs::create_dir_all(dir.path().join("venv/bin")).unwrap();
        std::fs::create_dir(dir.path().join("cloud")).unwrap();
        std::fs::write(dir.path().join("venv/khufu"), "").unwrap();
        assert_eq!(all(), None);
        std::fs::write(dir.path().join("cloud/khufu"), "").unwrap();
        let found = all().expect("both are whole");
        assert_eq!(found.program("openstack"), dir.path().join("venv/bin/openstack"));
        assert!(found.program.is_file());
    }

    #[test]
    fn the_variables_are_followed_in_their_order() {
        let with = |set: &'static [(&str, &str)]| {
            directories(move |name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(
            with(&[("KHUFU_OPENSTACK", "/k"), ("KHUFU_SERVERS", "/s")]),
            [Path::new("/k"), Path::new("/s/openstack")]
        );
        assert_eq!(with(&[("HOME", "/h")]), [Path::new("/h/.cache/khufu/servers/openstack")]);
    }
}
