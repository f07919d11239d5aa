//! A member of the network that breaks the rules. It has the network's key and a site record of its own, and none of what
//! the others hold is meant for it.
//!
//! What a member may do is not tried here: whoever has the network's key may write to all replicants that it can name, and
//! what holders of a replicant say of it is not signed (see `SECURITY.md`).

mod bytes;
mod claims;
mod documents;
mod frames;
mod mutated;
mod questions;
mod stage;
mod waiting;

use khufu_crdt::{Actor, Author, DocumentId, Hlc, Mode, Placement, Replicant, SiteName, Spec};
use serde_json::json;

use self::stage::{WOLF, id};

/// A document as somebody makes it who knows its name.
fn forged(name: &str, epoch: u64) -> Replicant {
    Replicant::genesis(DocumentId { replicant: id(name), epoch }, &Actor::new([0xff; 16])).unwrap()
}

fn author(ms: u64) -> Author {
    Author { site: SiteName::new(WOLF).unwrap(), at: Hlc::from_ms(ms), who: WOLF.into(), why: String::new() }
}

fn spec(sites: &[&str]) -> Spec {
    let sites: std::collections::BTreeSet<_> = sites.iter().map(|site| SiteName::new(*site).unwrap()).collect();
    let placement = Placement {
        expression: sites.iter().map(SiteName::as_str).collect::<Vec<_>>().join(" & "),
        sites,
        leaving: [].into(),
        mode: Mode::Replicate,
        prime: None,
        decided_at: Hlc::from_ms(1),
        decided_by: SiteName::new(WOLF).unwrap(),
    };
    let scope = placement.expression.clone();
    Spec { kind: "text".into(), scope, placement, policy: Default::default(), desired: json!({}), overrides: [].into() }
}
