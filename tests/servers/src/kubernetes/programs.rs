//! Where the programs are.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// How to get what is missing.
const INSTALL: &str = "eval \"$(tests/servers/install-kubernetes)\" && export KUBEBUILDER_ASSETS";

/// The programs that clusters are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The store of an API server.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// What runs the controllers of Deployments, Jobs, garbage collection and so on. It is always the one beside the API
    /// server: it works only with the version it was made with.
    pub kube_controller_manager: Option<PathBuf>,
    /// The client.
    pub kubectl: PathBuf,
}

/// Programs that are nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub Vec<&'static str>);

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to start Kubernetes with. To get it: {INSTALL}", self.0.join(", "))
    }
}

impl std::error::Error for Missing {}

impl Missing {
    /// Says that a test is left out, or panics where `KHUFU_REQUIRE_SERVERS` is set.
    pub(super) fn tell(&self) {
        crate::leave_out(&self.to_string());
    }
}

impl Programs {
    /// Looks in the directory that `KUBEBUILDER_ASSETS` names, in those of `PATH`, and where `tests/servers/install-kubernetes`
    /// puts what it makes: `${KHUFU_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/khufu/servers}/kubernetes`.
    ///
    /// # Errors
    /// The names of what is in none of them.
    pub fn find() -> Result<Self, Missing> {
        Self::find_in(&directories(|name| std::env::var_os(name).filter(|value| !value.is_empty())))
    }

    /// [`Programs::find`] for a test: None, with the reason printed, where something is missing.
    ///
    /// # Panics
    /// Where something is missing and `KHUFU_REQUIRE_SERVERS` is set.
    pub fn required() -> Option<Self> {
        Self::find().map_err(|missing| missing.tell()).ok()
    }

    fn find_in(directories: &[PathBuf]) -> Result<Self, Missing> {
        let mut missing = Vec::new();
        let mut find = |name| {
            let found = directories.iter().map(|directory| directory.join(name)).find(|path| executable(path));
            found.unwrap_or_else(|| {
                missing.push(name);
                PathBuf::new()
            })
        };
        let (etcd, kube_apiserver, kubectl) = (find("etcd"), find("kube-apiserver"), find("kubectl"));
        if !missing.is_empty() {
            return Err(Missing(missing));
        }
        let manager = kube_apiserver.with_file_name("kube-controller-manager");
        let kube_controller_manager = Some(manager).filter(|path| executable(path));
        Ok(Self { etcd, kube_apiserver, kube_controller_manager, kubectl })
    }
}

/// Where to look, in this order.
fn directories<T: AsRef<OsStr>>(variable: impl Fn(&str) -> Option<T>) -> Vec<PathBuf> {
    let path = |name: &str| variable(name).map(|value| PathBuf::from(value.as_ref()));
    let mut all: Vec<PathBuf> = path("KUBEBUILDER_ASSETS").into_iter().collect();
    all.extend(variable("PATH").iter().flat_map(|path| std::env::split_paths(path.as_ref()).collect::<Vec<_>>()));
    let caches = || path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
    let servers = path("KHUFU_SERVERS").or_else(|| caches().map(|caches| caches.join("khufu/servers")));
    all.extend(servers.map(|servers| servers.join("kubernetes")));
    all
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn put(directory: &Path, names: &[&str], mode: u32) -> PathBuf {
        std::fs::create_dir_all(directory).unwrap();
        for name in names {
            std::fs::write(directory.join(name), "").unwrap();
            std::fs::set_permissions(directory.join(name), Permissions::from_mode(mode)).unwrap();
        }
        directory.to_owned()
    }

    #[test]
    fn the_first_directory_with_a_program_counts_and_the_manager_is_the_one_beside_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let tools = put(&at("tools"), &["kubectl", "kube-controller-manager"], 0o755);
        let broken = put(&at("broken"), &["etcd", "kube-apiserver"], 0o644);
        let whole = put(&at("whole"), &["etcd", "kube-apiserver", "kubectl"], 0o755);
        let found = Programs::find_in(&[tools.clone(), broken, whole.clone()]).unwrap();
        assert_eq!(found.kubectl, tools.join("kubectl"));
        assert_eq!(found.etcd, whole.join("etcd"));
        assert_eq!(found.kube_apiserver, whole.join("kube-apiserver"));
        assert_eq!(found.kube_controller_manager, None);
        put(&whole, &["kube-controller-manager"], 0o755);
        let found = Programs::find_in(&[tools, whole.clone()]).unwrap();
        assert_eq!(found.kube_controller_manager, Some(whole.join("kube-controller-manager")));
    }

    #[test]
    fn what_is_nowhere_is_named_with_the_way_to_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let tools = put(&dir.path().join("tools"), &["kubectl"], 0o755);
        let missing = Programs::find_in(&[tools]).unwrap_err();
        assert_eq!(missing, Missing(vec!["etcd", "kube-apiserver"]));
        assert!(missing.to_string().contains("tests/servers/install-kubernetes"), "{missing}");
    }

    #[test]
    fn the_variables_are_followed_in_their_order() {
        let with = |set: &'static [(&str, &str)]| {
            directories(move |name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| *value))
        };
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            with(&[("KUBEBUILDER_ASSETS", "/k"), ("PATH", "/a:/b"), ("HOME", "/h")]),
            paths(&["/k", "/a", "/b", "/h/.cache/khufu/servers/kubernetes"])
        );
        assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), paths(&["/x/khufu/servers/kubernetes"]));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x"), ("KHUFU_SERVERS", "/s")]), paths(&["/s/kubernetes"]));
        assert_eq!(with(&[]), paths(&[]));
    }
}
