//! What a cluster shall be like, before it is started.

use std::thread;

use super::kubeconfig::User;
use super::{ADMIN, Cluster, Programs};

/// A cluster to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) name: String,
    pub(super) users: Vec<User>,
    pub(super) arguments: Vec<String>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), users: vec![User::new(ADMIN, &["system:masters"])], arguments: Vec::new() }
    }

    /// Adds a user in these groups, who may do nothing until a role is bound. [`Cluster::token`] tells the token.
    ///
    /// # Panics
    /// If the name is taken, or is not made of letters, digits, `-`, `_`, `.` and `:`.
    #[must_use]
    pub fn user(mut self, name: &str, groups: &[&str]) -> Self {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
        assert!(!name.is_empty() && name.chars().all(fits), "{name:?} cannot be the name of a user");
        assert!(self.users.iter().all(|user| user.name != name), "there is a user {name} already");
        self.users.push(User::new(name, groups));
        self
    }

    /// Adds arguments for kube-apiserver.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Starts it, and waits until it serves. None, with the reason printed, where the programs are not installed.
    ///
    /// # Panics
    /// If it does not start, with the end of what it said, or if `KHUFU_REQUIRE_SERVERS` is set and it is not installed.
    pub fn start(self) -> Option<Cluster> {
        Some(Cluster::new(self, Programs::required()?))
    }

    /// Starts several at once, which takes little longer than one. None, with the reason printed, where the programs are not
    /// installed.
    ///
    /// # Panics
    /// As [`Builder::start`] does.
    pub fn start_all<const N: usize>(builders: [Self; N]) -> Option<[Cluster; N]> {
        let programs = Programs::required()?;
        Some(thread::scope(|scope| {
            let start = |builder| {
                let programs = programs.clone();
                scope.spawn(move || Cluster::new(builder, programs))
            };
            let panics = |panic| std::panic::resume_unwind(panic);
            builders.map(start).map(|starting| starting.join().unwrap_or_else(panics))
        }))
    }
}
