//! What is known of each kind of resource, as data: all that the driver does follows from it.

mod table;

use serde_json::Value;

pub(super) use table::KINDS;

/// A service of a cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    /// Keystone.
    Identity,
    /// Glance.
    Image,
    /// Neutron.
    Network,
    /// Nova.
    Compute,
    /// Cinder.
    Volume,
}

impl Service {
    pub(super) const ALL: [Self; 5] = [Self::Identity, Self::Image, Self::Network, Self::Compute, Self::Volume];

    pub(super) fn name(self) -> &'static str {
        self.types().first().copied().unwrap_or_default()
    }

    /// What the catalog calls it: first as it does today, then as it did.
    pub(super) fn types(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["identity"],
            Self::Image => &["image"],
            Self::Network => &["network"],
            Self::Compute => &["compute"],
            Self::Volume => &["block-storage", "volumev3", "volume"],
        }
    }

    /// What its address ends with, where the catalog does not say.
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Identity | Self::Volume => "v3",
            Self::Image => "v2",
            Self::Network => "v2.0",
            Self::Compute => "v2.1",
        }
    }

    /// The version within a version that is spoken. Nova has tags of new servers since 2.52, and extra specs of flavors
    /// since 2.61: every release since Rocky.
    pub(super) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Compute => &[("OpenStack-API-Version", "compute 2.61")],
            _ => &[],
        }
    }
}

/// How a resource carries whose it is, from the request on that makes it, so that it is found again also if the answer to
/// that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// In a text field by which lists can be filtered; with these words before the filter.
    Field(&'static str, &'static str),
    /// In a field of our own, by which lists cannot be filtered; the name is unique.
    Beside(&'static str),
    /// In the list `tags`, by which lists can be filtered.
    Tags,
    /// In a map `metadata`, by which lists can be filtered.
    Metadata,
    /// The id itself is chosen so.
    Id,
    /// Not at all: the name is unique, and all that there is.
    Name,
}

/// How fields of a resource are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    /// Not at all.
    Never,
    /// `PUT` of the fields.
    Put,
    /// `PATCH` of the fields.
    Patch,
    /// `PATCH` with a JSON patch.
    Json,
}

/// Which fields can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    /// These.
    Only(&'static [&'static str]),
    /// All but these.
    AllBut(&'static [&'static str]),
}

impl Fields {
    fn has(self, field: &str) -> bool {
        match self {
            Self::Only(these) => these.contains(&field),
            Self::AllBut(these) => !these.contains(&field),
        }
    }
}

/// A field that has a path of its own below the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) field: &'static str,
    /// Where it is written, and how: the field as the only one of a map.
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    /// Whether it can be given when the resource is made.
    pub(super) at_creation: bool,
}

/// What the field `status` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    /// It is made, and can be used.
    pub(super) ready: &'static [&'static str],
    /// It has failed, and stays so.
    pub(super) failed: &'static [&'static str],
    /// Where it says why, as a JSON pointer.
    pub(super) fault: &'static str,
}

/// A kind of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// What it is called in desired states, and in requests.
    pub(super) name: &'static str,
    pub(super) service: Service,
    /// Where they are.
    pub(super) collection: &'static str,
    /// Where they are listed with all their fields.
    pub(super) listing: &'static str,
    /// Whether requests and answers have the resource below its name.
    pub(super) wrapped: bool,
    /// The field by which it is addressed.
    pub(super) id: &'static str,
    pub(super) mark: Mark,
    /// Fields that only copies have which a service makes itself, mark and all: those are somebody else's.
    pub(super) copies: &'static [&'static str],
    /// The fields with the project or the user that it is of, if it says: of others', none is taken for ours.
    pub(super) owner: &'static [&'static str],
    pub(super) update: Update,
    pub(super) changes: Fields,
    pub(super) parts: &'static [Part],
    /// Fields that can be seen, and stay what they were when it was made.
    pub(super) fixed: &'static [&'static str],
    /// Fields that are shown elsewhere than where they are asked for, as JSON pointers.
    pub(super) shown: &'static [(&'static str, &'static str)],
    /// Fields that refer to other resources, on any level, with their kinds.
    pub(super) references: &'static [(&'static str, &'static str)],
    /// Fields that nobody else is to know.
    pub(super) secret: &'static [&'static str],
    pub(super) status: Option<Status>,
}

impl Kind {
    /// The kind of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Its place among the kinds: what others need comes first.
    pub(super) fn rank(&self) -> usize {
        KINDS.iter().position(|kind| kind.name == self.name).unwrap_or_default()
    }

    /// The field that is written when it is made or changed, as it is shown.
    pub(super) fn seen<'a>(&self, live: &'a Value, field: &str) -> Option<&'a Value> {
        match self.shown.iter().find(|(name, _)| *name == field) {
            Some((_, pointer)) => live.pointer(pointer),
            None => live.get(field),
        }
    }

    fn part(&self, field: &str) -> Option<&'static Part> {
        self.parts.iter().find(|part| part.field == field)
    }

    /// Whether a field can be changed by writing the resource.
    pub(super) fn is_changed(&self, field: &str) -> bool {
        self.update != Update::Never && self.part(field).is_none() && self.changes.has(field)
    }

    /// Whether a field is compared with what there is.
    pub(super) fn is_compared(&self, field: &str) -> bool {
        let plain = !self.secret.contains(&field);
        plain && (self.is_changed(field) || self.part(field).is_some() || self.fixed.contains(&field))
    }

    /// Whether a field is given when the resource is made.
    pub(super) fn is_at_creation(&self, field: &str) -> bool {
        self.part(field).is_none_or(|part| part.at_creation)
    }

    /// The kind that a field refers to.
    pub(super) fn referred(&self, field: &str) -> Option<&'static Self> {
        let (_, kind) = self.references.iter().find(|(name, _)| *name == field)?;
        Self::named(kind)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_holds_together() {
        let names: BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            for (field, to) in kind.references {
                assert!(names.contains(to), "{}.{field} refers to {to}", kind.name);
            }
            for field in kind.fixed {
                assert!(!kind.is_changed(field), "{}.{field} is fixed and changed", kind.name);
            }
            for part in kind.parts {
                assert!(part.method.parse::<reqwest::Method>().is_ok());
                assert!(!kind.fixed.contains(&part.field), "{}.{}", kind.name, part.field);
            }
            if let Mark::Field(field, _) | Mark::Beside(field) = kind.mark {
                assert!(kind.wrapped || kind.name == "image");
                assert!(!kind.fixed.contains(&field), "the mark of {} is nobody's field", kind.name);
            }
            // What is referred to comes before, or there is a way around the order.
            assert!(kind.collection.len() <= kind.listing.len(), "{}", kind.name);
        }
    }

    #[test]
    fn what_others_need_is_made_before() {
        let rank = |name| Kind::named(name).unwrap().rank();
        for order in
            [["network", "subnet"], ["subnet", "router"], ["subnet", "port"], ["port", "server"], ["image", "server"]]
        {
            assert!(rank(order[0]) < rank(order[1]), "{order:?}");
        }
        assert!(Kind::named("cat").is_none());
    }

    #[test]
    fn fields_are_told_apart_by_what_can_be_done_with_them() {
        let server = Kind::named("server").unwrap();
        assert!(server.is_changed("name") && !server.is_changed("imageRef") && !server.is_changed("metadata"));
        assert!(server.is_compared("metadata") && !server.is_compared("user_data"));
        assert!(server.is_at_creation("metadata"));
        assert!(!Kind::named("flavor").unwrap().is_at_creation("extra_specs"));
        let image = Kind::named("image").unwrap();
        assert!(image.is_changed("os_distro") && !image.is_changed("disk_format"));
        let live = serde_json::json!({"image": {"id": "i"}});
        assert_eq!(server.seen(&live, "imageRef"), Some(&serde_json::json!("i")));
        assert!(!Kind::named("user").unwrap().is_compared("password"));
    }
}
