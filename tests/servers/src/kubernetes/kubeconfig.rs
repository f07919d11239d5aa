//! Who may use a cluster, and the files that say so.

use std::path::Path;

use serde_json::json;

/// Somebody whom the API server knows by a token.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    pub(super) token: String,
}

impl User {
    /// With a token that nobody can guess: others on this machine reach loopback as well.
    pub(super) fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Self { name: name.to_owned(), groups, token: format!("{:032x}", rand::random::<u128>()) }
    }
}

/// The file of tokens that the API server reads when it starts.
pub(super) fn tokens(users: &[User]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let line = |(id, user): (usize, &User)| {
        format!("{},{},{id},{}\n", user.token, quoted(&user.name), quoted(&user.groups.join(",")))
    };
    users.iter().enumerate().map(line).collect()
}

/// The configuration with which a user reaches an API server, in JSON, which is YAML.
pub(super) fn kubeconfig(cluster: &str, url: &str, authority: &Path, user: &User) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": url, "certificate-authority": authority}}],
        "users": [{"name": user.name, "user": {"token": user.token}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user.name}}],
        "current-context": cluster,
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_lines_of_values_in_quotes() {
        let mut eve = User::new("eve \"e\"", &["a", "b"]);
        assert_eq!(eve.token.len(), 32);
        assert_ne!(eve.token, User::new("eve", &[]).token);
        eve.token = "t".to_owned();
        assert_eq!(tokens(&[eve.clone(), eve]), "t,\"eve \"\"e\"\"\",0,\"a,b\"\nt,\"eve \"\"e\"\"\",1,\"a,b\"\n");
    }
}
