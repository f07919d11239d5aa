//! What a request is about, as its path says.

use hyper::http::Method;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::answer::Refusal;

/// Something that an API server keeps: an object, all objects of a kind, or a part of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    /// None of what is in no namespace, or in all.
    pub(super) namespace: Option<String>,
    /// The kind, as a path names it: `deployments`.
    pub(super) resource: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    /// The path of the object or of all objects, without what follows it.
    pub(super) path: String,
}

/// What a request wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// One object, or all.
    Read,
    Create,
    Update,
    Patch,
    Delete,
    DeleteAll,
    /// The number of replicas.
    Scale,
}

/// What belongs to one site, is nothing but an answer, or is made by controllers at each site: never a replicant by being
/// written here.
fn stays(group: &str, resource: &str) -> bool {
    resource.ends_with("reviews")
        || matches!(group, "authentication.k8s.io" | "authorization.k8s.io" | "metrics.k8s.io" | "events.k8s.io")
        || matches!(
            (group, resource),
            ("", "bindings" | "events" | "endpoints" | "componentstatuses" | "nodes")
                | ("coordination.k8s.io", "leases" | "leasecandidates")
                | ("discovery.k8s.io", "endpointslices")
                | ("certificates.k8s.io", "certificatesigningrequests")
                | ("storage.k8s.io", "csinodes" | "volumeattachments")
        )
}

/// Where in a path the subresource is that passes on what follows it.
fn proxied(segments: &[String]) -> Option<usize> {
    let is = |at: usize, name: &str| segments.get(at).is_some_and(|segment| segment == name);
    let of_namespace = is(2, "namespaces") && (is(4, "pods") || is(4, "services")) && is(6, "proxy");
    let of_node = is(2, "nodes") && is(4, "proxy");
    (is(0, "api") && (of_namespace || of_node)).then_some(if of_node { 4 } else { 6 })
}

impl Target {
    /// Reads a path; none of what is about no object.
    ///
    /// An API server decodes a path before it parts it: what would be another path then is refused, since it would be
    /// allowed as the one and be done as the other.
    pub(super) fn read(path: &str) -> Result<Option<Self>, Refusal> {
        let Some(path) = path.strip_prefix('/') else { return Ok(None) };
        let segments: Vec<String> = path
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8().map(String::from))
            .collect::<Result<_, _>>()
            .map_err(|_| Refusal::bad_request("a path is UTF-8"))?;
        // What a proxy is asked for is its own matter.
        let ours = segments.get(..proxied(&segments).unwrap_or(segments.len())).unwrap_or_default();
        if ours.iter().any(|segment| segment.contains('/') || segment == "." || segment == "..") {
            return Err(Refusal::bad_request("a segment of a path must not have a slash, and not be . or .."));
        }
        let is_object = matches!(segments.first().map(String::as_str), Some("api" | "apis"));
        let is_empty = |(at, segment): (usize, &String)| segment.is_empty() && (at < ours.len() - 1 || at > 2);
        if (is_object || segments.len() > 1 && segments.first().is_some_and(String::is_empty))
            && ours.iter().enumerate().any(is_empty)
        {
            return Err(Refusal::bad_request("a segment of a path must not be empty"));
        }
        Ok(Self::of(&format!("/{path}"), &segments.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    fn of(path: &str, segments: &[&str]) -> Option<Self> {
        let (group, version, rest) = match segments {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        if rest.iter().any(|segment| segment.is_empty()) || version.is_empty() {
            return None;
        }
        let of_namespace = |sub: &str| group.is_empty() && matches!(sub, "status" | "finalize");
        let (namespace, rest) = match rest {
            ["watch" | "proxy", ..] => return None,
            // A namespace, and a part of one.
            ["namespaces", _] => (None, rest),
            ["namespaces", _, sub] if of_namespace(sub) => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, None, None),
            [resource, name] => (*resource, Some(*name), None),
            [resource, name, sub @ ..] => (*resource, Some(*name), Some(sub.join("/"))),
            [] => return None,
        };
        let parts = subresource.as_ref().map_or(0, |sub| sub.split('/').count());
        let mut path = path;
        for _ in 0..parts {
            path = path.rsplit_once('/')?.0;
        }
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.map(str::to_owned),
            resource: resource.to_owned(),
            name: name.map(str::to_owned),
            subresource,
            path: path.to_owned(),
        })
    }

    /// What a request wants of it; none if that is nothing to look into.
    pub(super) fn verb(&self, method: &Method) -> Option<Verb> {
        if stays(&self.group, &self.resource) {
            return None;
        }
        match (method.as_str(), &self.name, self.subresource.as_deref()) {
            ("GET", _, None) => Some(Verb::Read),
            ("POST", None, None) => Some(Verb::Create),
            ("PUT", Some(_), None) => Some(Verb::Update),
            ("PATCH", Some(_), None) => Some(Verb::Patch),
            ("DELETE", Some(_), None) => Some(Verb::Delete),
            ("DELETE", None, None) => Some(Verb::DeleteAll),
            ("PUT" | "PATCH", Some(_), Some("scale")) => Some(Verb::Scale),
            _ => None,
        }
    }

    /// Whether an object is what the path names.
    pub(super) fn is(&self, object: &Value) -> bool {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let version =
            if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) };
        let is_part = self.subresource.is_some();
        (is_part || text("/apiVersion") == version)
            && self.namespace.as_deref().unwrap_or_default() == text("/metadata/namespace")
            && self.name.as_ref().is_none_or(|name| name == text("/metadata/name"))
    }

    /// The object for which writes take turns; none if the path does not name one.
    pub(super) fn turn(&self) -> Option<String> {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        Some(format!("{namespace}/{}/{}", self.kind(), self.name.as_ref()?))
    }

    /// The kind, as people write it: `deployments.apps`.
    pub(super) fn kind(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }
}

/// The values of a parameter of a query, decoded.
pub(super) fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        (text(key) == name).then(|| text(value))
    })
}

/// Whether a parameter says yes, as API servers read it.
pub(super) fn is_set(query: &str, name: &str) -> bool {
    parameters(query, name).next().is_some_and(|value| is_true(&value))
}

/// Whether a text means yes to an API server: all do but these.
pub(super) fn is_true(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

/// A query with a parameter more, instead of those of that name.
pub(super) fn with_parameter(query: &str, name: &str, value: &str) -> String {
    let is = |pair: &str| parameters(pair, name).next().is_some();
    let others = query.split('&').filter(|pair| !pair.is_empty() && !is(pair));
    let encoded = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
    others.map(str::to_owned).chain([format!("{name}={encoded}")]).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(path: &str) -> (String, Option<String>, String, Option<String>, Option<String>) {
        let target = Target::read(path).unwrap().unwrap();
        (target.group, target.namespace, target.resource, target.name, target.subresource)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn paths_name_objects_kinds_and_parts() {
        let web = read("/apis/apps/v1/namespaces/shop/deployments/web");
        assert_eq!(web, ("apps".into(), some("shop"), "deployments".into(), some("web"), None));
        assert_eq!(read("/api/v1/namespaces/shop"), ("".into(), None, "namespaces".into(), some("shop"), None));
        assert_eq!(read("/api/v1/namespaces"), ("".into(), None, "namespaces".into(), None, None));
        assert_eq!(read("/api/v1/namespaces/a/finalize").4, some("finalize"));
        assert_eq!(read("/api/v1/namespaces/a/pods"), ("".into(), some("a"), "pods".into(), None, None));
        assert_eq!(read("/api/v1/configmaps"), ("".into(), None, "configmaps".into(), None, None));
        let role = read("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aviewer");
        assert_eq!(role.3, some("system:viewer"));
        let scale = Target::read("/apis/apps/v1/namespaces/shop/deployments/web/scale").unwrap().unwrap();
        assert_eq!(scale.path, "/apis/apps/v1/namespaces/shop/deployments/web");
        assert_eq!(scale.subresource.as_deref(), Some("scale"));
        let proxy = Target::read("/api/v1/namespaces/a/services/b/proxy/x/y").unwrap().unwrap();
        assert_eq!(
            (proxy.path.as_str(), proxy.subresource.as_deref()),
            ("/api/v1/namespaces/a/services/b", Some("proxy/x/y"))
        );
        for none in [
            "",
            "/",
            "/api",
            "/api/v1",
            "/apis/apps",
            "/apis/apps/v1",
            "/version",
            "/api/v1/watch/pods",
            "/api/v1/",
            "/openapi/v2",
        ] {
            assert_eq!(Target::read(none), Ok(None), "{none}");
        }
    }

    #[test]
    fn what_is_another_path_once_it_is_decoded_is_refused() {
        for path in [
            "/apis/apps/v1/namespaces/a/deployments/web%2Fstatus",
            "/apis/apps/v1/namespaces/a/deployments/web%2fscale",
            "/apis%2Fapps/v1/namespaces/a/deployments/web",
            "/apis/apps/v1/namespaces/%2e%2e/deployments/web",
            "/apis/apps/v1/namespaces/proxy/deployments/web%2Fstatus",
            "/apis/apps/v1/namespaces/a/deployments/.",
            "/apis/apps/v1/namespaces/a/deployments/",
            "/apis/apps/v1/namespaces//deployments/web",
            "/apis/apps/v1/namespaces/a/deployments/web/",
            "/apis/apps/v1/namespaces/a/deployments/web%FF",
            "//apis/apps/v1/namespaces/a/deployments/web",
            "/api/v1//pods",
        ] {
            assert_eq!(Target::read(path).unwrap_err().code.as_u16(), 400, "{path}");
        }
        // What a proxy leads to has paths of its own.
        assert_eq!(Target::read("/api/v1/namespaces/a/services/b/proxy/x%2Fy//../"), Ok(None));
    }

    #[test]
    fn an_object_is_known_by_the_path_that_names_it() {
        let target = |path: &str| Target::read(path).unwrap().unwrap();
        let web = serde_json::json!({"apiVersion": "apps/v1", "metadata": {"name": "web", "namespace": "a"}});
        assert!(target("/apis/apps/v1/namespaces/a/deployments/web").is(&web));
        assert!(target("/apis/apps/v1/namespaces/a/deployments").is(&web));
        for path in
            ["apps/v1/namespaces/a/deployments/x", "apps/v1/namespaces/b/deployments/web", "x/v1/namespaces/a/x/web"]
        {
            assert!(!target(&format!("/apis/{path}")).is(&web), "{path}");
        }
    }

    #[test]
    fn what_is_of_one_site_is_not_looked_into() {
        let verb = |method: Method, path: &str| Target::read(path).unwrap().and_then(|target| target.verb(&method));
        assert_eq!(verb(Method::POST, "/apis/apps/v1/namespaces/a/deployments"), Some(Verb::Create));
        assert_eq!(verb(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/w/scale"), Some(Verb::Scale));
        assert_eq!(verb(Method::GET, "/apis/apps/v1/namespaces/a/deployments/w/scale"), None);
        assert_eq!(verb(Method::DELETE, "/api/v1/namespaces/a/pods"), Some(Verb::DeleteAll));
        for (method, path) in [
            (Method::POST, "/api/v1/namespaces/a/events"),
            (Method::PUT, "/api/v1/nodes/n"),
            (Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
            (Method::POST, "/apis/example.org/v1/reviews"),
            (Method::POST, "/api/v1/namespaces/a/pods/p/eviction"),
            (Method::PUT, "/apis/apps/v1/namespaces/a/deployments/w/status"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/a/leases/l"),
            (Method::PUT, "/apis/apps/v1/namespaces/a/deployments"),
        ] {
            assert_eq!(verb(method, path), None, "{path}");
        }
    }

    #[test]
    fn parameters_are_read_and_replaced() {
        let query = "fieldManager=a%20b&dryRun=&force=false&x";
        assert_eq!(parameters(query, "fieldManager").collect::<Vec<_>>(), ["a b"]);
        assert_eq!(parameters(query, "dryRun").collect::<Vec<_>>(), [""]);
        assert_eq!(parameters(query, "none").count(), 0);
        for (query, set) in [
            ("w=1", true),
            ("w", true),
            ("w=True", true),
            ("w=0", false),
            ("w=False", false),
            ("w=0&w=1", false),
            ("", false),
        ] {
            assert_eq!(is_set(query, "w"), set, "{query}");
        }
        assert_eq!(with_parameter(query, "force", "true"), "fieldManager=a%20b&dryRun=&x&force=true");
        assert_eq!(with_parameter("label%53elector=x", "labelSelector", "y"), "labelSelector=y");
        assert_eq!(with_parameter("", "labelSelector", "!a/b"), "labelSelector=%21a%2Fb");
    }
}
