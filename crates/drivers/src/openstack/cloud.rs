//! Where a cloud is and who asks it: an entry of `clouds.yaml`, or the variables `OS_*`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::DriverError;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Settings of an entry beside `auth` that mean something here.
const SETTINGS: &[&str] = &["auth_type", "region_name", "interface", "endpoint_type", "cacert", "verify"];

/// Where a cloud and credentials are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// An entry of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The name of the entry; the only one unless given.
        cloud: Option<String>,
    },
    /// The variables of this process.
    Environment,
}

/// How somebody proves who he is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// A name or an id of a user, with the user's domain, and a password: parts of a request as Keystone takes them.
    Password(Value),
    /// An application credential with its secret. It has its own scope.
    ApplicationCredential(Value),
    /// A token that somebody has got elsewhere. It cannot be renewed.
    Token(String),
}

/// A cloud, and who asks it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Cloud {
    /// Where Keystone is, with its version.
    pub(super) auth_url: String,
    pub(super) proof: Proof,
    /// What the token shall be good for; none with an application credential.
    pub(super) scope: Option<Value>,
    /// The region of the endpoints; any unless given.
    pub(super) region: Option<String>,
    /// `public`, `internal` or `admin`.
    pub(super) interface: String,
    /// A file with the authorities that are trusted instead of those of the system.
    pub(super) ca: Option<PathBuf>,
    /// Endpoints that are taken instead of those of the catalog, by the type of the service.
    pub(super) endpoints: BTreeMap<String, String>,
}

// Nobody's secret is part of a message.
impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").field("auth_url", &self.auth_url).finish_non_exhaustive()
    }
}

fn invalid(field: impl Into<String>, reason: impl Into<String>) -> DriverError {
    DriverError::invalid(field, reason)
}

/// Reads a file of limited size.
pub(super) async fn bytes(path: &Path) -> Result<Vec<u8>, DriverError> {
    let error = |source| DriverError::io("read", path, source);
    let length = tokio::fs::metadata(path).await.map_err(error)?.len();
    if length > MAX_FILE_BYTES {
        return Err(invalid(path.display().to_string(), format!("it has {length} bytes, more than {MAX_FILE_BYTES}")));
    }
    tokio::fs::read(path).await.map_err(error)
}

async fn yaml(path: &Path) -> Result<Value, DriverError> {
    let text = bytes(path).await?;
    serde_saphyr::from_slice(&text).map_err(|error| invalid(path.display().to_string(), error.to_string()))
}

/// Lays one map over another; what both have as maps is merged.
fn lay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

impl Source {
    /// What is written there now.
    ///
    /// # Errors
    /// [`DriverError`] that names the file and the field.
    pub(super) async fn read(&self) -> Result<Cloud, DriverError> {
        match self {
            Self::Environment => {
                let variables = std::env::vars().filter(|(name, _)| name.starts_with("OS_")).collect();
                match file_of(&variables)? {
                    Some((path, cloud)) => from_file(&path, Some(&cloud)).await,
                    None => from_variables(&variables),
                }
            }
            Self::File { path, cloud } => from_file(path, cloud.as_deref()).await,
        }
    }
}

/// Where `OS_CLOUD` is described, if that is given.
fn file_of(variables: &BTreeMap<String, String>) -> Result<Option<(PathBuf, String)>, DriverError> {
    let Some(cloud) = variables.get("OS_CLOUD").filter(|cloud| !cloud.is_empty()) else { return Ok(None) };
    if let Some(path) = variables.get("OS_CLIENT_CONFIG_FILE") {
        return Ok(Some((path.into(), cloud.clone())));
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/openstack/clouds.yaml"));
    let places = [Some("clouds.yaml".into()), home, Some("/etc/openstack/clouds.yaml".into())];
    let found = places.into_iter().flatten().find(|path| path.is_file());
    let none = "there is no clouds.yaml here, in ~/.config/openstack or in /etc/openstack";
    found.map(|path| Some((path, cloud.clone()))).ok_or_else(|| invalid("OS_CLOUD", none))
}

async fn from_file(path: &Path, cloud: Option<&str>) -> Result<Cloud, DriverError> {
    let mut whole = yaml(path).await?;
    // What is nobody else's business may stand in a file of its own.
    let secrets = path.with_file_name("secure.yaml");
    if tokio::fs::try_exists(&secrets).await.unwrap_or(false) {
        lay(&mut whole, yaml(&secrets).await?);
    }
    let place = path.display().to_string();
    let clouds = whole.get("clouds").and_then(Value::as_object);
    let clouds = clouds.ok_or_else(|| invalid(&*place, "it has no map `clouds`"))?;
    let names = || clouds.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (name, entry) = match cloud {
        Some(name) => clouds.get_key_value(name),
        None => clouds.iter().next().filter(|_| clouds.len() == 1),
    }
    .ok_or_else(|| invalid(&*place, format!("name one of its clouds behind a `#`: {}", names())))?;
    let mut cloud = from_entry(entry).map_err(|(field, reason)| invalid(format!("{place}: {name}.{field}"), reason))?;
    // Paths in the file begin where it is.
    cloud.ca = cloud.ca.map(|ca| path.parent().map_or_else(|| ca.clone(), |parent| parent.join(&ca)));
    Ok(cloud)
}

/// The entry that the variables amount to.
fn from_variables(variables: &BTreeMap<String, String>) -> Result<Cloud, DriverError> {
    let (mut entry, mut auth) = (Map::new(), Map::new());
    for (name, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
        let name = name.trim_start_matches("OS_").to_ascii_lowercase();
        let name = name.replace("tenant_", "project_");
        if name == "insecure" {
            entry.insert("verify".into(), json!(["0", "false", "False"].contains(&value.as_str())));
        } else if SETTINGS.contains(&name.as_str()) || name.ends_with("_endpoint_override") {
            entry.insert(name, json!(value));
        } else {
            auth.insert(name, json!(value));
        }
    }
    if !auth.contains_key("auth_url") {
        return Err(invalid(
            "OS_AUTH_URL",
            "is missing: say where Keystone is, or name an entry of clouds.yaml in OS_CLOUD",
        ));
    }
    entry.insert("auth".into(), Value::Object(auth));
    let name = |field: String| format!("OS_{}", field.trim_start_matches("auth.").to_ascii_uppercase());
    from_entry(&Value::Object(entry)).map_err(|(field, reason)| invalid(name(field), reason))
}

/// What an entry says, or the field that is wrong, and why.
fn from_entry(entry: &Value) -> Result<Cloud, (String, String)> {
    let wrong = |field: &str, reason: &str| (field.to_owned(), reason.to_owned());
    let auth = entry.get("auth").and_then(Value::as_object).ok_or_else(|| wrong("auth", "is missing"))?;
    let text = |name: &str| {
        // A file may have numbers where names are meant.
        auth.get(name)
            .and_then(|value| value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|n| n.to_string())))
    };
    let setting = |name: &str| entry.get(name).and_then(Value::as_str);
    if entry.get("verify") == Some(&json!(false)) {
        let reason = "certificates are always checked: name the authority in `cacert` instead";
        return Err(wrong("verify", reason));
    }
    let auth_url = text("auth_url").ok_or_else(|| wrong("auth.auth_url", "is missing"))?;
    let auth_url = versioned(&auth_url, "v3").ok_or_else(|| wrong("auth.auth_url", "is no http or https address"))?;
    let domain = |of: &str| {
        let id = text(&format!("{of}_domain_id")).map(|id| json!({"id": id}));
        let name = || text(&format!("{of}_domain_name")).map(|name| json!({"name": name}));
        id.or_else(name).unwrap_or_else(|| json!({"id": "default"}))
    };
    let user = || match (text("user_id"), text("username")) {
        (Some(id), _) => Ok(json!({"id": id})),
        (None, Some(name)) => Ok(json!({"name": name, "domain": domain("user")})),
        (None, None) => Err(wrong("auth.username", "is missing")),
    };
    let with = |mut map: Value, name: &str, value: String| {
        map[name] = json!(value);
        map
    };
    let scope = match (text("project_id"), text("project_name"), text("domain_id"), text("domain_name")) {
        (Some(id), ..) => Some(json!({"project": {"id": id}})),
        (None, Some(name), ..) => Some(json!({"project": {"name": name, "domain": domain("project")}})),
        (None, None, Some(id), _) => Some(json!({"domain": {"id": id}})),
        (None, None, None, Some(name)) => Some(json!({"domain": {"name": name}})),
        (None, None, None, None) => text("system_scope").map(|_| json!({"system": {"all": true}})),
    };
    let usual = if text("application_credential_secret").is_some() {
        "v3applicationcredential"
    } else if text("password").is_none() && text("token").is_some() {
        "token"
    } else {
        "password"
    };
    let how = setting("auth_type").unwrap_or(usual);
    let missing = |name: &str| wrong(&format!("auth.{name}"), "is missing");
    let proof = match how {
        "password" | "v3password" => {
            let password = text("password").ok_or_else(|| missing("password"))?;
            Proof::Password(with(user()?, "password", password))
        }
        "v3applicationcredential" => {
            let secret =
                text("application_credential_secret").ok_or_else(|| missing("application_credential_secret"))?;
            let named = match (text("application_credential_id"), text("application_credential_name")) {
                (Some(id), _) => json!({"id": id}),
                (None, Some(name)) => json!({"name": name, "user": user()?}),
                (None, None) => return Err(missing("application_credential_id")),
            };
            Proof::ApplicationCredential(with(named, "secret", secret))
        }
        "token" | "v3token" => Proof::Token(text("token").ok_or_else(|| missing("token"))?),
        other => {
            let reason = format!("{other:?}: there are password, v3applicationcredential and token");
            return Err(wrong("auth_type", &reason));
        }
    };
    let scope = scope.filter(|_| !matches!(proof, Proof::ApplicationCredential(_)));
    if scope.is_none() && !matches!(proof, Proof::ApplicationCredential(_)) {
        return Err(wrong("auth.project_name", "is missing: say for which project (or domain_id, or system_scope)"));
    }
    let interface = setting("interface").or_else(|| setting("endpoint_type")).unwrap_or("public");
    let interface = interface.trim_end_matches("URL").to_owned();
    if !["public", "internal", "admin"].contains(&interface.as_str()) {
        return Err(wrong("interface", "is public, internal or admin"));
    }
    let mut endpoints = BTreeMap::new();
    for (name, value) in entry.as_object().into_iter().flatten() {
        if let (Some(service), Some(url)) = (name.strip_suffix("_endpoint_override"), value.as_str()) {
            endpoints.insert(service.replace('_', "-"), url.to_owned());
        }
    }
    let region = setting("region_name").map(str::to_owned);
    Ok(Cloud { auth_url, proof, scope, region, interface, ca: setting("cacert").map(PathBuf::from), endpoints })
}

/// An address with the version of an API at its end, unless it names one. None if it is no address.
pub(super) fn versioned(url: &str, version: &str) -> Option<String> {
    let url = url.trim().trim_end_matches('/');
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', '@', ' ']) {
        return None;
    }
    let is_version = |segment: &str| {
        segment.strip_prefix('v').is_some_and(|number| number.starts_with(|digit: char| digit.is_ascii_digit()))
    };
    match rest.split('/').skip(1).any(is_version) {
        true => Some(url.to_owned()),
        false => Some(format!("{url}/{version}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(entry: Value) -> Result<Cloud, (String, String)> {
        from_entry(&entry)
    }

    #[test]
    fn each_way_to_prove_who_one_is_is_told_by_what_is_given() {
        let auth = json!({"auth_url": "https://keystone.paris:5000/", "username": "eve", "password": "p",
            "project_name": "shop", "user_domain_name": "Default", "project_domain_id": "d"});
        let cloud = entry(json!({"auth": auth, "region_name": "one", "interface": "internalURL"})).unwrap();
        assert_eq!(cloud.auth_url, "https://keystone.paris:5000/v3");
        let user = json!({"name": "eve", "domain": {"name": "Default"}, "password": "p"});
        assert!(cloud.proof == Proof::Password(user));
        assert_eq!(cloud.scope, Some(json!({"project": {"name": "shop", "domain": {"id": "d"}}})));
        assert_eq!((cloud.region.as_deref(), &*cloud.interface), (Some("one"), "internal"));
        let auth = json!({"auth_url": "http://k/v3", "application_credential_id": "i", "project_name": "ignored",
            "application_credential_secret": "s"});
        let cloud = entry(json!({"auth": auth})).unwrap();
        assert!(cloud.proof == Proof::ApplicationCredential(json!({"id": "i", "secret": "s"})));
        assert_eq!(cloud.scope, None);
        let auth = json!({"auth_url": "http://k", "token": "t", "project_id": 7});
        let cloud = entry(json!({"auth": auth, "compute_endpoint_override": "http://c"})).unwrap();
        assert!(cloud.proof == Proof::Token("t".to_owned()));
        assert_eq!(cloud.scope, Some(json!({"project": {"id": "7"}})));
        assert_eq!(cloud.endpoints["compute"], "http://c");
        assert!(!format!("{cloud:?}").contains('t') || !format!("{cloud:?}").contains("\"t\""));
    }

    #[test]
    fn what_is_missing_or_unsafe_is_named() {
        let auth = json!({"auth_url": "http://k", "username": "eve", "password": "p", "project_name": "shop"});
        let without = |name: &str| {
            let mut auth = auth.clone();
            auth.as_object_mut().unwrap().remove(name);
            entry(json!({"auth": auth})).unwrap_err().0
        };
        for name in ["auth_url", "username", "password", "project_name"] {
            assert_eq!(without(name), format!("auth.{name}"));
        }
        assert_eq!(entry(json!({"auth": auth, "verify": false})).unwrap_err().0, "verify");
        assert_eq!(entry(json!({"auth": auth, "auth_type": "v3kerberos"})).unwrap_err().0, "auth_type");
        assert_eq!(entry(json!({"auth": auth, "interface": "secret"})).unwrap_err().0, "interface");
    }

    #[test]
    fn variables_are_an_entry_too() {
        let set = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let all = [
            ("OS_AUTH_URL", "http://k/identity/v3"),
            ("OS_USERNAME", "eve"),
            ("OS_PASSWORD", "p"),
            ("OS_TENANT_NAME", "shop"),
            ("OS_REGION_NAME", "one"),
            ("OS_CACERT", "/ca"),
        ];
        let cloud = from_variables(&set(&all)).unwrap();
        assert_eq!((&*cloud.auth_url, cloud.ca), ("http://k/identity/v3", Some("/ca".into())));
        assert_eq!(cloud.scope, Some(json!({"project": {"name": "shop", "domain": {"id": "default"}}})));
        let error = from_variables(&set(&all[..2])).unwrap_err().to_string();
        assert!(error.contains("OS_PASSWORD"), "{error}");
        assert!(from_variables(&set(&[])).unwrap_err().to_string().contains("OS_AUTH_URL"));
        let insecure = [&all[..], &[("OS_INSECURE", "true")]].concat();
        assert!(from_variables(&set(&insecure)).unwrap_err().to_string().contains("cacert"));
    }

    #[test]
    fn a_version_is_added_once() {
        for (url, wanted) in [
            ("http://h:9292", Some("http://h:9292/v2")),
            ("http://h/image/", Some("http://h/image/v2")),
            ("http://h/volume/v3/project", Some("http://h/volume/v3/project")),
            ("http://h/vault", Some("http://h/vault/v2")),
            ("ftp://h", None),
            ("http://", None),
            ("http://user@h", None),
        ] {
            assert_eq!(versioned(url, "v2").as_deref(), wanted, "{url}");
        }
    }

    #[tokio::test]
    async fn secrets_may_stand_in_a_file_of_their_own_and_paths_begin_at_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clouds.yaml");
        let text = "clouds:\n  paris:\n    cacert: ca.pem\n    auth: {auth_url: 'http://k', username: eve, project_name: shop}\n";
        std::fs::write(&path, text).unwrap();
        let source = |cloud: Option<&str>| Source::File { path: path.clone(), cloud: cloud.map(str::to_owned) };
        let error = source(None).read().await.unwrap_err().to_string();
        assert!(error.contains("paris.auth.password"), "{error}");
        std::fs::write(dir.path().join("secure.yaml"), "clouds:\n  paris:\n    auth: {password: p}\n").unwrap();
        let cloud = source(Some("paris")).read().await.unwrap();
        assert_eq!(cloud.ca, Some(dir.path().join("ca.pem")));
        let error = source(Some("rennes")).read().await.unwrap_err().to_string();
        assert!(error.contains("paris"), "{error}");
    }
}
