//! Roles: the rights that a driver needs for the kinds in use, and no others.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::KubernetesDriver;
use super::kinds::is_missing;
use super::manifest::{self, Key, Object};
use super::options::Options;
use super::replicas::Replicas;
use crate::DriverError;

const API: &str = "rbac.authorization.k8s.io";
/// What is done with single objects. An object that is not there yet is made by a patch, for which a server wants both.
const OBJECTS: [&str; 4] = ["get", "create", "patch", "delete"];
/// What is done with all objects of a kind: finding those of Khufu by their label, and hearing of changes.
const KINDS: [&str; 2] = ["list", "watch"];

/// Resources as roles speak of them, and in which namespaces objects of them are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    resources: BTreeMap<(String, String), Used>,
    make_namespaces: bool,
    definitions: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Used {
    namespaced: bool,
    namespaces: BTreeSet<String>,
}

impl Needs {
    /// Whether nothing is needed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The kinds whose objects give rights themselves: an API server lets nobody make them who has not got these rights.
    #[must_use]
    pub fn give_rights(&self) -> Vec<String> {
        self.resources.keys().filter(|(group, _)| group == API).map(|(_, plural)| plural.clone()).collect()
    }

    /// Adds what others need.
    pub fn extend(&mut self, other: Self) {
        self.make_namespaces |= other.make_namespaces;
        self.definitions |= other.definitions;
        for (name, used) in other.resources {
            let known = self.resources.entry(name).or_default();
            known.namespaced |= used.namespaced;
            known.namespaces.extend(used.namespaces);
        }
    }
}

/// Whom the roles are for, and how they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What the roles and their bindings are called.
    pub name: String,
    /// The namespace and the name of a service account that is made, and gets the roles; none for roles alone.
    pub service_account: Option<(String, String)>,
    /// Objects may be read, found and written only in the namespaces in which objects are wanted.
    pub namespaced: bool,
}

/// A group that custom resources are not in.
pub(super) fn is_built_in(group: &str) -> bool {
    const GROUPS: [&str; 23] = [
        "",
        "apps",
        "autoscaling",
        "batch",
        "extensions",
        "policy",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "internal.apiserver.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    ];
    GROUPS.contains(&group)
}

/// What the definition of a custom resource says of its kind: group, kind, plural, and whether it has namespaces.
fn defined(object: &Object) -> Option<(String, String, String, bool)> {
    if object.kind != "CustomResourceDefinition" {
        return None;
    }
    let text = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let namespaced = text("/spec/scope")? == "Namespaced";
    Some((text("/spec/group")?, text("/spec/names/kind")?, text("/spec/names/plural")?, namespaced))
}

impl Replicas {
    async fn needs(&self, manifests: &[(Value, Map<String, Value>)]) -> Result<Needs, DriverError> {
        let mut needs = Needs::default();
        let mut all = Vec::new();
        for (desired, options) in manifests {
            let mut options = options.clone();
            // The rights to a kind do not say whether its values may be in a document.
            options.insert("secrets".into(), json!("allow"));
            let options = Options::read(&options)?;
            let objects = manifest::objects(desired, &options)?;
            needs.make_namespaces |= options.create_namespaces && !objects.is_empty();
            all.push((objects, options));
        }
        let objects = || all.iter().flat_map(|(objects, options)| objects.iter().map(move |object| (object, options)));
        let definitions: Vec<_> = objects().filter_map(|(object, _)| defined(object)).collect();
        for (object, options) in objects() {
            let [group, kind, name] = [&object.group, &object.kind, &object.name].map(String::clone);
            let key = Key { group, kind, namespace: String::new(), name };
            let (plural, namespaced) = match self.server.kind(&key, Some(&object.version)).await {
                Ok(kind) => (kind.resource.plural, kind.namespaced),
                Err(error) if is_missing(&error) => {
                    let mut of =
                        definitions.iter().filter(|(group, kind, ..)| *group == key.group && *kind == key.kind);
                    let Some((_, _, plural, namespaced)) = of.next() else { return Err(error) };
                    (plural.clone(), *namespaced)
                }
                Err(error) => return Err(error),
            };
            needs.definitions |= !is_built_in(&key.group);
            let used = needs.resources.entry((key.group, plural)).or_default();
            used.namespaced |= namespaced;
            if namespaced {
                used.namespaces.insert(object.namespace.clone().unwrap_or_else(|| options.namespace().to_owned()));
            }
        }
        Ok(needs)
    }
}

impl KubernetesDriver {
    /// What a driver needs that is to bring about these desired states, each with the `options` of its policy. What kinds are
    /// called in roles, and whether they have namespaces, is asked of the API server, or read in a definition that is
    /// among the objects.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] names what is no manifest, or an option that is not known; [`DriverError::Unavailable`] if the
    /// API server cannot be asked or serves no such kind.
    pub async fn needs(&self, manifests: &[(Value, Map<String, Value>)]) -> Result<Needs, DriverError> {
        self.replicas.needs(manifests).await
    }
}

/// Rules by group: what the resources of one group allow together.
#[derive(Default)]
struct Rules(BTreeMap<(String, Vec<&'static str>), BTreeSet<String>>);

impl Rules {
    fn add(&mut self, group: &str, plural: &str, verbs: &[&'static str]) {
        self.0.entry((group.to_owned(), verbs.to_vec())).or_default().insert(plural.to_owned());
    }

    fn value(&self) -> Value {
        let rule = |((group, verbs), plurals): (&(String, Vec<&str>), &BTreeSet<String>)| json!({"apiGroups": [group], "resources": plurals, "verbs": verbs});
        self.0.iter().map(rule).collect()
    }
}

/// The objects that give a driver what it needs, and nothing more: a `ClusterRole`, a `Role` in each namespace if these are
/// wanted, and with a service account that one, and the bindings.
#[must_use]
pub fn roles(needs: &Needs, account: &Account) -> Vec<Value> {
    let mut everywhere = Rules::default();
    let mut inside: BTreeMap<&str, Rules> = BTreeMap::new();
    let all: Vec<_> = OBJECTS.into_iter().chain(KINDS).collect();
    for ((group, plural), used) in &needs.resources {
        if !(account.namespaced && used.namespaced) {
            everywhere.add(group, plural, &all);
            continue;
        }
        for namespace in &used.namespaces {
            inside.entry(namespace).or_default().add(group, plural, &all);
        }
    }
    let uses = |group: &str, plural: &str| needs.resources.contains_key(&(group.to_owned(), plural.to_owned()));
    if needs.make_namespaces && !uses("", "namespaces") {
        everywhere.add("", "namespaces", &["get", "create", "patch"]);
    }
    // A kind that is not served any more has no objects only if it has no definition either.
    let definitions = ("apiextensions.k8s.io", "customresourcedefinitions");
    if needs.definitions && !uses(definitions.0, definitions.1) {
        everywhere.add(definitions.0, definitions.1, &["list"]);
    }
    let name = &account.name;
    let role = |kind: &str, namespace: Option<&str>, rules: &Rules| {
        let mut role = json!({"apiVersion": format!("{API}/v1"), "kind": kind, "metadata": {"name": name}});
        role["metadata"].as_object_mut().into_iter().for_each(|metadata| {
            metadata.extend(namespace.map(|namespace| ("namespace".to_owned(), json!(namespace))));
        });
        role["rules"] = rules.value();
        role
    };
    let mut made = Vec::new();
    if let Some((namespace, account)) = &account.service_account {
        let metadata = json!({"name": account, "namespace": namespace});
        made.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    }
    if !everywhere.0.is_empty() {
        made.push(role("ClusterRole", None, &everywhere));
    }
    made.extend(inside.iter().map(|(namespace, rules)| role("Role", Some(namespace), rules)));
    if let Some((namespace, account)) = &account.service_account {
        let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
        let binding = |kind: &str, of: &str, metadata: Value| {
            let role = json!({"apiGroup": API, "kind": of, "name": name});
            json!({"apiVersion": format!("{API}/v1"), "kind": kind, "metadata": metadata, "roleRef": role,
                "subjects": subjects})
        };
        if !everywhere.0.is_empty() {
            made.push(binding("ClusterRoleBinding", "ClusterRole", json!({"name": name})));
        }
        for namespace in inside.keys() {
            made.push(binding("RoleBinding", "Role", json!({"name": name, "namespace": namespace})));
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(resources: &[(&str, &str, &[&str])]) -> Needs {
        let used = |namespaces: &[&str]| Used {
            namespaced: !namespaces.is_empty(),
            namespaces: namespaces.iter().map(|&namespace| namespace.to_owned()).collect(),
        };
        let resources = resources
            .iter()
            .map(|(group, plural, namespaces)| (((*group).to_owned(), (*plural).to_owned()), used(namespaces)));
        Needs { resources: resources.collect(), ..Needs::default() }
    }

    fn account(namespaced: bool, service_account: Option<(&str, &str)>) -> Account {
        let service_account = service_account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        Account { name: "khufu".into(), service_account, namespaced }
    }

    #[test]
    fn one_rule_for_each_group_names_what_is_in_use() {
        let mut needs =
            needs(&[("", "configmaps", &["shop"]), ("", "services", &["shop"]), ("apps", "deployments", &["shop"])]);
        let all = json!(["get", "create", "patch", "delete", "list", "watch"]);
        let made = roles(&needs, &account(false, None));
        assert_eq!(made.len(), 1);
        assert_eq!(
            made[0]["rules"],
            json!([
                {"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": all},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": all},
            ])
        );
        needs.make_namespaces = true;
        needs.definitions = true;
        let rules = &roles(&needs, &account(false, None))[0]["rules"];
        let has = |rule: Value| rules.as_array().unwrap().contains(&rule);
        assert!(has(json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "create", "patch"]})));
        let definitions = json!(["customresourcedefinitions"]);
        assert!(has(json!({"apiGroups": ["apiextensions.k8s.io"], "resources": definitions, "verbs": ["list"]})));
    }

    #[test]
    fn single_objects_may_be_touched_in_their_namespaces_only() {
        let needs = needs(&[("", "configmaps", &["a", "b"]), ("rbac.authorization.k8s.io", "clusterroles", &[])]);
        let made = roles(&needs, &account(true, Some(("ops", "khufu"))));
        let kinds: Vec<_> = made.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        let roles = ["ServiceAccount", "ClusterRole", "Role", "Role"];
        assert_eq!(kinds, [&roles[..], &["ClusterRoleBinding", "RoleBinding", "RoleBinding"]].concat());
        let everywhere = &made[1]["rules"];
        assert_eq!(everywhere.as_array().unwrap().len(), 1);
        assert_eq!(everywhere[0]["resources"], json!(["clusterroles"]));
        assert_eq!(made[2]["metadata"], json!({"name": "khufu", "namespace": "a"}));
        assert_eq!(made[3]["rules"][0]["verbs"], json!(["get", "create", "patch", "delete", "list", "watch"]));
        assert_eq!(made[5]["subjects"], json!([{"kind": "ServiceAccount", "name": "khufu", "namespace": "ops"}]));
        assert_eq!(needs.give_rights(), ["clusterroles"]);
    }
}
