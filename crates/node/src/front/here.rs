//! Whether an object is of a replicant that lives here. Its marks alone do not say so: whoever may write an object can write
//! them as well.

use std::sync::Arc;

use khufu_crdt::{ReplicantId, SiteName};
use khufu_drivers::kubernetes::owner;
use khufu_engine::ReplicantView;
use serde_json::Value;

use super::Front;
use super::answer::Refusal;
use super::place::{Named, Place, find};

/// Whose an object is.
#[derive(Debug)]
pub(super) enum Here {
    /// It has no marks.
    Nobodys,
    /// It has marks of this replicant, which does not live here, or does not ask for this object.
    Marked(String),
    /// It is of this replicant, which asks for it here.
    Of(Box<Own>),
}

/// An object of a replicant that lives here.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) view: Arc<ReplicantView>,
    pub(super) place: Place,
}

/// Whether a replicant has a replica at this site, or shall have one.
pub(super) fn lives(site: &SiteName, view: &ReplicantView) -> bool {
    view.deleted.is_none() && view.placement.as_ref().is_some_and(|placement| placement.has_replica(site))
}

/// Where a replicant asks for an object, if it does so at this site.
pub(super) fn place(site: &SiteName, view: &ReplicantView, object: &Value) -> Option<Place> {
    let owner = owner(object).filter(|owner| owner.site == site.as_str() && owner.replicant == view.id.as_str());
    if owner.is_none() || !lives(site, view) {
        return None;
    }
    find(&view.desired, &view.policy.options, Named::of(object)?)
}

/// The replicant that the marks of an object name, for this site.
pub(super) fn named(site: &SiteName, object: &Value) -> Option<ReplicantId> {
    let owner = owner(object).filter(|owner| owner.site == site.as_str())?;
    ReplicantId::new(owner.replicant).ok()
}

/// What a write to such an object is told.
pub(super) fn refused(id: &str) -> Refusal {
    Refusal::conflict(format!(
        "its marks are not those of a replicant here: {id:?} does not ask for this object at this site, or not any more. Try \
         again in a moment; if it has its marks from a copy, delete it and make it without them"
    ))
}

impl Front {
    /// Whose an object is.
    pub(super) async fn here(&self, object: &Value) -> Result<Here, Refusal> {
        let Some(marked) = owner(object) else { return Ok(Here::Nobodys) };
        let marked = || Here::Marked(marked.replicant.to_owned());
        let Some(id) = named(self.handle.site(), object) else { return Ok(marked()) };
        let Some(view) = self.view(&id).await? else { return Ok(marked()) };
        let view = Arc::from(view);
        match place(self.handle.site(), &view, object) {
            Some(place) => Ok(Here::Of(Box::new(Own { view, place }))),
            None => Ok(marked()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_that_somebody_has_copied_make_no_object_a_replicants() {
        let paris = SiteName::new("paris").unwrap();
        let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let live = |name: &str, site: &str| {
            let mut live = map(name);
            live["metadata"]["namespace"] = json!("default");
            live["metadata"]["annotations"] = json!({"khufu.dev/replicant": "web", "khufu.dev/site": site,
                "khufu.dev/object": format!("ConfigMap/default/{name}")});
            live
        };
        let view = |sites: Value| -> ReplicantView {
            let placement = json!({"sites": sites, "mode": "replicate", "expression": "paris", "decided_at": 1, "decided_by": "paris"});
            serde_json::from_value(json!({
                "id": "web", "epoch": 0, "kind": "kubernetes", "scope": "paris", "placement": placement, "policy": {},
                "desired": map("a"), "overrides": {}, "resolved": [], "operations": [], "deleted": null, "heads": [],
                "conflicts": 0, "status": "pending", "sites": {}, "bytes": 1, "warnings": [],
            }))
            .unwrap()
        };
        let here = view(json!(["paris"]));
        assert_eq!(place(&paris, &here, &live("a", "paris")), Some(Place::All));
        assert_eq!(place(&paris, &here, &live("b", "paris")), None, "it asks for another");
        assert_eq!(place(&paris, &here, &live("a", "rennes")), None, "another site has made it");
        assert_eq!(place(&paris, &view(json!(["rennes"])), &live("a", "paris")), None, "it lives elsewhere");
        let mut spans = view(json!(["nantes", "paris"]));
        spans.placement.as_mut().unwrap().mode = khufu_crdt::Mode::Cross;
        assert_eq!(place(&paris, &spans, &live("a", "paris")), None, "its one replica is at nantes");
        let other = ReplicantView { id: ReplicantId::new("other").unwrap(), ..here.clone() };
        assert_eq!(place(&paris, &other, &live("a", "paris")), None, "it is of another");
        let deleted = serde_json::from_value(json!({"at": 1, "by": "paris", "keep": false})).unwrap();
        assert_eq!(place(&paris, &ReplicantView { deleted: Some(deleted), ..here }, &live("a", "paris")), None);
    }
}
