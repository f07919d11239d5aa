//! Whom commands run as.

use serde::Deserialize;

use super::config::ConfigError;

/// A user or group, by name or by number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a name or a number")]
pub enum Name {
    /// Its number.
    Number(u32),
    /// Its name in `/etc/passwd` or `/etc/group`.
    Text(String),
}

/// What a process is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Finds out whom to run as; none for whoever runs the node.
pub(super) fn find(user: Option<&Name>, group: Option<&Name>) -> Result<Option<Identity>, ConfigError> {
    let (own_user, own_group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let Some(user) = user else {
        if own_user == 0 {
            let reason = "the node runs as root: name the user that commands run as, also if that is to be root";
            return Err(ConfigError::value("user", reason));
        }
        if group.is_some() {
            return Err(ConfigError::value("group", "it is of no use without `user`"));
        }
        return Ok(None);
    };
    let found = entry("/etc/passwd", user, "user")?;
    let (uid, usual_group) = match (user, found) {
        (Name::Number(uid), found) => (*uid, found.and_then(|fields| fields.get(3)?.parse().ok())),
        (Name::Text(name), Some(fields)) => {
            let number = |nth: usize| fields.get(nth).and_then(|field| field.parse::<u32>().ok());
            let uid = number(2).ok_or_else(|| unreadable("user", name, "/etc/passwd"))?;
            (uid, number(3))
        }
        (Name::Text(name), None) => return Err(unreadable("user", name, "/etc/passwd")),
    };
    let gid = match group {
        Some(Name::Number(gid)) => *gid,
        Some(group @ Name::Text(name)) => entry("/etc/group", group, "group")?
            .and_then(|fields| fields.get(2)?.parse().ok())
            .ok_or_else(|| unreadable("group", name, "/etc/group"))?,
        None => usual_group
            .ok_or_else(|| ConfigError::value("group", format!("/etc/passwd has no user {uid}: name its group")))?,
    };
    if own_user == 0 {
        return Ok(Some(Identity { uid, gid }));
    }
    if (uid, gid) != (own_user, own_group) {
        let reason = format!(
            "only root can run commands as somebody else: start the node as root, or as that user (it runs as {own_user}, \
             in group {own_group}; wanted are {uid} and {gid})"
        );
        return Err(ConfigError::value("user", reason));
    }
    Ok(None)
}

fn unreadable(key: &str, name: &str, file: &str) -> ConfigError {
    ConfigError::value(key, format!("{file} has no {name:?} that could be read: give its number"))
}

/// The fields of the line of a user or group.
fn entry(file: &'static str, name: &Name, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError::value(key, format!("cannot read {file}: {error}")))?;
    let fields = text.lines().map(|line| line.split(':').map(ToOwned::to_owned).collect::<Vec<_>>());
    let is_it = |fields: &Vec<String>| match name {
        Name::Text(name) => fields.first() == Some(name),
        Name::Number(number) => fields.get(2).is_some_and(|field| *field == number.to_string()),
    };
    Ok(fields.into_iter().find(is_it))
}
