//! The drivers of one node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use khufu_crdt::Capabilities;

use crate::Driver;

/// The drivers of one node, by their kind.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<String, Arc<dyn Driver>>);

impl Registry {
    /// No drivers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a driver; answers the one of the same kind that it replaces.
    pub fn insert(&mut self, driver: Arc<dyn Driver>) -> Option<Arc<dyn Driver>> {
        self.0.insert(driver.kind().to_owned(), driver)
    }

    /// The driver of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn Driver>> {
        self.0.get(kind)
    }

    /// All kinds, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All drivers by kind, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<dyn Driver>)> {
        self.0.iter().map(|(kind, driver)| (kind.as_str(), driver))
    }

    /// What each kind can do.
    #[must_use]
    pub fn capabilities(&self) -> BTreeMap<String, Capabilities> {
        self.0.iter().map(|(kind, driver)| (kind.clone(), driver.capabilities())).collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
