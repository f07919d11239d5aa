//! `khufu kubernetes kubeconfig`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::commands::Context;
use crate::exit::{Exit, Failure};
use crate::output::{self, remark};

/// Of which cluster, and for which front.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file printed has one context, with the user of the one given and the front as its server: kubectl, helm and others that
use it write through the front. A user must have a token, a command that gives one, or a password: client certificates
cannot be passed on.

Example:
  khufu kubernetes kubeconfig --kubeconfig ~/.kube/config --front https://127.0.0.1:7443 \\
    --ca khufu-data/kubernetes-front/ca.crt --scope 'paris & rennes' > khufu.kubeconfig"
)]
pub(crate) struct Args {
    /// The file with the user
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Which of its contexts [default: the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Where all that is written is to be, whether it says so or not
    #[arg(long, value_name = "EXPR")]
    scope: Option<String>,
    /// The front of a node
    #[arg(long, value_name = "URL")]
    front: String,
    /// The authority of its certificate
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
}

/// Prints the file.
pub(crate) fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let wrong = |path: &Path, reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(&args.kubeconfig).map_err(|error| wrong(&args.kubeconfig, error.to_string()))?;
    let file: Value = serde_saphyr::from_str(&text).map_err(|error| wrong(&args.kubeconfig, error.to_string()))?;
    let authority = std::fs::read(&args.ca).map_err(|error| wrong(&args.ca, error.to_string()))?;
    if let Some(scope) = &args.scope
        && let Err(errors) = khufu_scope::parse(scope)
    {
        return Err(Failure::Usage(format!("scope:\n{}", errors.render(scope, output::colour_on_stderr()).trim_end())));
    }
    let base = args.kubeconfig.parent().unwrap_or(Path::new("."));
    let user = user(&file, args.context.as_deref()).map_err(|reason| wrong(&args.kubeconfig, reason))?;
    let user = passable(user, base).map_err(|reason| wrong(&args.kubeconfig, reason))?;
    let made = made(&args.front, args.scope.as_deref(), &authority, user);
    if args.scope.is_none() {
        remark(
            "khufu: without --scope only what has the annotation khufu.dev/scope, or is of a replicant, is written to other sites",
        );
    }
    match context.out.for_programs() {
        true => context.out.print(&made, |_| String::new())?,
        false => context.out.text(&output::yaml(&made)?)?,
    }
    Ok(Exit::Ok)
}

/// The user of a context: its name, and what it is known by.
fn user(file: &Value, context: Option<&str>) -> Result<(String, Map<String, Value>), String> {
    let current = || file.get("current-context").and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = context.or_else(current).ok_or("there is no current context: name one with --context")?;
    let named = |list: &str, name: &str| {
        let mut entries = file.get(list).and_then(Value::as_array).into_iter().flatten();
        entries.find(|entry| entry.get("name").and_then(Value::as_str) == Some(name)).cloned()
    };
    let found = named("contexts", name).ok_or_else(|| format!("there is no context {name:?}"))?;
    let user = found
        .pointer("/context/user")
        .and_then(Value::as_str)
        .ok_or_else(|| format!("the context {name:?} names no user"))?;
    let entry = named("users", user).ok_or_else(|| format!("there is no user {user:?}"))?;
    let known = entry.get("user").and_then(Value::as_object).cloned().unwrap_or_default();
    Ok((user.to_owned(), known))
}

/// The same without what cannot be passed on, and with paths that are right elsewhere.
fn passable(
    (name, mut user): (String, Map<String, Value>),
    base: &Path,
) -> Result<(String, Map<String, Value>), String> {
    let certificate = ["client-certificate", "client-certificate-data", "client-key", "client-key-data"];
    let had = certificate.iter().filter(|field| user.remove(**field).is_some()).count() > 0;
    let other = ["token", "tokenFile", "exec", "auth-provider", "username"];
    if had && !other.iter().any(|field| user.contains_key(*field)) {
        return Err(format!(
            "the user {name:?} has a client certificate, which the front cannot pass on: take one with a token, such as that \
             of a service account"
        ));
    }
    if let Some(Value::String(path)) = user.get_mut("tokenFile") {
        let absolute = std::path::absolute(base.join(&*path)).map_err(|error| error.to_string())?;
        *path = absolute.display().to_string();
    }
    Ok((name, user))
}

fn made(front: &str, scope: Option<&str>, authority: &[u8], (name, user): (String, Map<String, Value>)) -> Value {
    let front = front.trim_end_matches('/');
    let scope =
        scope.map(|scope| format!("/scope/{}", utf8_percent_encode(scope, NON_ALPHANUMERIC))).unwrap_or_default();
    let cluster =
        json!({"server": format!("{front}{scope}"), "certificate-authority-data": BASE64_STANDARD.encode(authority)});
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "khufu", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "khufu", "context": {"cluster": "khufu", "user": name}}],
        "current-context": "khufu",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file() -> Value {
        json!({"current-context": "one",
            "contexts": [{"name": "one", "context": {"user": "ana", "cluster": "x"}}, {"name": "two", "context": {"user": "bob"}}],
            "users": [{"name": "ana", "user": {"token": "t"}}, {"name": "bob", "user": {"client-certificate": "c", "client-key": "k"}}]})
    }

    #[test]
    fn the_user_of_a_context_writes_through_the_front() {
        let user = passable(user(&file(), None).unwrap(), Path::new(".")).unwrap();
        let made = made("https://127.0.0.1:1/", Some("paris & rennes"), b"ca", user);
        assert_eq!(made["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1/scope/paris%20%26%20rennes");
        assert_eq!(made["clusters"][0]["cluster"]["certificate-authority-data"], "Y2E=");
        assert_eq!(made["users"][0], json!({"name": "ana", "user": {"token": "t"}}));
    }

    #[test]
    fn who_cannot_be_passed_on_is_told_so() {
        let refused = passable(user(&file(), Some("two")).unwrap(), Path::new(".")).unwrap_err();
        assert!(refused.contains("bob") && refused.contains("token"), "{refused}");
        assert!(user(&file(), Some("three")).unwrap_err().contains("three"));
        let both = Map::from_iter([("client-key".to_owned(), json!("k")), ("tokenFile".to_owned(), json!("t"))]);
        let (_, kept) = passable(("x".into(), both), Path::new("/etc")).unwrap();
        assert_eq!(kept, Map::from_iter([("tokenFile".to_owned(), json!("/etc/t"))]));
    }
}
