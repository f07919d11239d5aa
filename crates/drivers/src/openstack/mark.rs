//! What tells whose a resource is: a text that follows from the replicant, the site and the name of the resource, so that it
//! can be told before the resource is made.

use khufu_crdt::{ReplicantId, SiteName};

use super::kinds::{Kind, Mark};
use crate::digest;
use serde_json::{Map, Value, json};

/// Letters of each half of a mark. Both together have to fit in a tag of Nova (60), and in the id of a flavor.
const HALF: usize = 20;

/// Whose resources are meant: those of one replicant at one site. Two sites may have one cloud, and must not take or remove
/// each other's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) id: &'a ReplicantId,
    pub(super) site: &'a SiteName,
}

fn half(text: &str) -> String {
    digest(text.as_bytes()).chars().take(HALF).collect()
}

impl Whose<'_> {
    /// What the marks of all resources of the replicant begin with.
    pub(super) fn prefix(self) -> String {
        format!("khufu-{}-", half(&format!("{}/{}", self.site, self.id)))
    }

    /// The mark of a resource.
    pub(super) fn mark(self, name: &str) -> String {
        format!("{}{}", self.prefix(), half(name))
    }
}

/// Puts a mark into the request that makes a resource.
pub(super) fn put(kind: &Kind, fields: &mut Map<String, Value>, mark: &str) {
    match kind.mark {
        Mark::Field(field, _) | Mark::Beside(field) => _ = fields.insert(field.into(), json!(mark)),
        Mark::Tags => {
            let tags = fields.entry("tags").or_insert_with(|| json!([]));
            if let Some(tags) = tags.as_array_mut() {
                tags.push(json!(mark));
            }
        }
        Mark::Metadata => {
            let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("khufu".into(), json!(mark));
            }
        }
        Mark::Id => _ = fields.insert(kind.id.into(), json!(mark)),
        Mark::Name => {}
    }
}

/// Whether a resource carries a mark that begins so. Of one that can carry none, nobody can say.
pub(super) fn begins(kind: &Kind, live: &Value, prefix: &str) -> Option<bool> {
    if kind.copies.iter().any(|field| live.get(*field).is_some_and(|value| !value.is_null())) {
        return Some(false);
    }
    let is = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|text| text.starts_with(prefix));
    match kind.mark {
        Mark::Field(field, _) | Mark::Beside(field) => Some(is(live.get(field))),
        Mark::Tags => {
            Some(live.get("tags").and_then(Value::as_array).is_some_and(|tags| tags.iter().any(|tag| is(Some(tag)))))
        }
        Mark::Metadata => Some(is(live.pointer("/metadata/khufu"))),
        Mark::Id => Some(is(live.get(kind.id))),
        Mark::Name => None,
    }
}

/// The field in which the mark of a kind is, which nobody else can write.
pub(super) fn field(kind: &Kind) -> Option<&'static str> {
    match kind.mark {
        Mark::Field(field, _) | Mark::Beside(field) => Some(field),
        Mark::Id => Some(kind.id),
        Mark::Tags | Mark::Metadata | Mark::Name => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_put_where_it_is_found_and_tells_replicants_sites_and_resources_apart() {
        let names = ["web", "db"].map(|id| id.parse::<ReplicantId>().unwrap());
        let sites = ["paris", "rennes"].map(|site| site.parse::<SiteName>().unwrap());
        let whose = Whose { id: &names[0], site: &sites[0] };
        for name in ["network", "image", "server", "volume", "flavor", "user"] {
            let kind = Kind::named(name).unwrap();
            let mut fields = Map::from_iter([("tags".to_owned(), json!(["own"]))]);
            put(kind, &mut fields, &whose.mark("a"));
            let live = Value::Object(fields);
            assert_eq!(begins(kind, &live, &whose.mark("a")), Some(true), "{name}");
            assert_eq!(begins(kind, &live, &whose.prefix()), Some(true), "{name}");
            assert_eq!(begins(kind, &live, &whose.mark("b")), Some(false), "{name}");
            for other in [Whose { id: &names[1], ..whose }, Whose { site: &sites[1], ..whose }] {
                assert_eq!(begins(kind, &live, &other.prefix()), Some(false), "{name}");
            }
            assert_eq!(begins(kind, &json!({}), "khufu-"), Some(false), "{name}");
        }
        assert!(whose.mark("a").len() <= 60);
        let image = Kind::named("image").unwrap();
        for field in ["image_type", "base_image_ref", "instance_uuid"] {
            let mut copy = Map::from_iter([(field.to_owned(), json!("snapshot"))]);
            put(image, &mut copy, &whose.mark("a"));
            assert_eq!(begins(image, &Value::Object(copy), &whose.prefix()), Some(false), "{field}");
        }
        let keypair = Kind::named("keypair").unwrap();
        assert_eq!(begins(keypair, &json!({"name": "khufu-"}), "khufu-"), None);
    }
}
