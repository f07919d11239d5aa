//! The programs that operations may run. Found once, so that nothing that happens later decides which file a name means.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::config::ConfigError;

/// Programs by the words that name them.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed(BTreeMap<String, PathBuf>);

impl Allowed {
    pub(super) fn find(commands: &[String], path: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut allowed = BTreeMap::new();
        for (nth, word) in commands.iter().enumerate() {
            let key = format!("commands[{nth}]");
            let file = find(&key, word, path)?;
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            for word in [name, file.to_string_lossy().into_owned()] {
                if let Some(other) = allowed.insert(word.clone(), file.clone())
                    && other != file
                {
                    let (other, file) = (other.display(), file.display());
                    let reason = format!("{word:?} could be {other} and {file}: give one of them another name");
                    return Err(ConfigError::value(key, reason));
                }
            }
        }
        Ok(Self(allowed))
    }

    /// The program that a word names.
    pub(super) fn get(&self, word: &str) -> Option<&Path> {
        self.0.get(word).map(PathBuf::as_path)
    }

    /// All that can be named, for people.
    pub(super) fn names(&self) -> String {
        self.0.keys().filter(|word| !word.contains('/')).cloned().collect::<Vec<_>>().join(", ")
    }
}

/// The file of a program: an absolute path, or a name that is in one of the directories.
pub(super) fn find(key: &str, word: &str, path: &[PathBuf]) -> Result<PathBuf, ConfigError> {
    if word.starts_with('/') {
        let file = PathBuf::from(word);
        return usable(&file).map(|()| file).map_err(|reason| ConfigError::value(key, format!("{word}: {reason}")));
    }
    if word.is_empty() || word.contains('/') {
        return Err(ConfigError::value(key, format!("{word:?} is neither a name nor an absolute path")));
    }
    let directories = path.iter().filter(|directory| directory.is_absolute());
    let found = directories.map(|directory| directory.join(word)).find(|file| usable(file).is_ok());
    found.ok_or_else(|| {
        let places = path.iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(":");
        ConfigError::value(key, format!("there is no program {word:?} in {places}: install it, or give its path"))
    })
}

fn usable(file: &Path) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let mode = metadata.permissions().mode();
    match () {
        () if !metadata.is_file() => Err("it is no file".into()),
        () if mode & 0o111 == 0 => Err("it cannot be executed: give it the permission".into()),
        () if mode & 0o002 != 0 => Err("everybody can write to it: take that permission away".into()),
        () => Ok(()),
    }
}
