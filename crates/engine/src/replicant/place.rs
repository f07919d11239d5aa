//! What very many replicants have in common: kept once, however many there are.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use khufu_crdt::{Hlc, Mode, Placement, SiteName};
use serde::{Deserialize, Serialize};

/// The least number of values from which on it is looked for those that nobody has any more.
const FEW: usize = 64;

/// A placement as an index entry keeps it: all but the moment of the decision is shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Placement", into = "Placement")]
pub(crate) struct Placed {
    at: Hlc,
    place: Arc<Place>,
}

/// A placement without its moment, which is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place(Placement);

impl From<Placement> for Placed {
    fn from(mut placement: Placement) -> Self {
        let at = std::mem::take(&mut placement.decided_at);
        Self { at, place: Arc::new(Place(placement)) }
    }
}

impl From<Placed> for Placement {
    fn from(placed: Placed) -> Self {
        placed.whole()
    }
}

impl Placed {
    /// The placement.
    pub(crate) fn whole(&self) -> Placement {
        Placement { decided_at: self.at, ..self.place.0.clone() }
    }

    pub(crate) fn sites(&self) -> &BTreeSet<SiteName> {
        &self.place.0.sites
    }

    pub(crate) fn leaving(&self) -> &BTreeSet<SiteName> {
        &self.place.0.leaving
    }

    pub(crate) fn mode(&self) -> Mode {
        self.place.0.mode
    }

    pub(crate) fn prime(&self) -> Option<&SiteName> {
        self.place.0.prime.as_ref()
    }

    pub(crate) fn expression(&self) -> &str {
        &self.place.0.expression
    }

    pub(crate) fn decided_by(&self) -> &SiteName {
        &self.place.0.decided_by
    }

    /// See [`Placement::holds`].
    pub(crate) fn holds(&self, site: &SiteName) -> bool {
        self.place.0.holds(site)
    }

    /// See [`Placement::has_replica`].
    pub(crate) fn has_replica(&self, site: &SiteName) -> bool {
        self.place.0.has_replica(site)
    }

    /// See [`Placement::holders`].
    pub(crate) fn holders(&self) -> impl Iterator<Item = &SiteName> {
        self.place.0.holders()
    }

    /// A name as it stands here, if it does.
    pub(crate) fn name(&self, site: &SiteName) -> Option<&SiteName> {
        self.sites().get(site).or_else(|| self.leaving().get(site))
    }
}

impl Place {
    fn key(&self) -> (&str, &BTreeSet<SiteName>, &BTreeSet<SiteName>, Option<&SiteName>, bool, &SiteName) {
        let Placement { sites, leaving, mode, prime, expression, decided_at: _, decided_by } = &self.0;
        (expression, sites, leaving, prime.as_ref(), *mode == Mode::Cross, decided_by)
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Values, each once.
#[derive(Debug)]
struct Pool<T: ?Sized> {
    values: BTreeSet<Arc<T>>,
    /// With so many it is time to see which of them nobody has any more.
    many: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), many: FEW }
    }
}

impl<T: Ord + ?Sized> Pool<T> {
    fn take(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return known.clone();
        }
        if self.values.len() >= self.many {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.many = self.values.len().saturating_mul(2).max(FEW);
        }
        self.values.insert(value.clone());
        value
    }
}

/// What entries share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    texts: Pool<str>,
    places: Pool<Place>,
}

impl Shared {
    /// A text, the same for all who have it.
    pub(crate) fn text(&mut self, text: &str) -> Arc<str> {
        match self.texts.values.get(text) {
            Some(known) => known.clone(),
            None => self.texts.take(text.into()),
        }
    }

    /// A placement that shares what it says.
    pub(crate) fn placed(&mut self, placed: Placed) -> Placed {
        Placed { at: placed.at, place: self.places.take(placed.place) }
    }
}

/// How a shared text is stored, to be named in `serde(with)`.
pub(crate) mod text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn placement(expression: &str, at: u64) -> Placement {
        let site = |name: &str| SiteName::new(name).unwrap();
        Placement {
            sites: [site("paris"), site("rennes")].into(),
            leaving: [site("lyon")].into(),
            mode: Mode::Cross,
            prime: Some(site("rennes")),
            expression: expression.into(),
            decided_at: Hlc(at),
            decided_by: site("paris"),
        }
    }

    #[test]
    fn a_placement_is_kept_once_and_read_and_written_as_it_is() {
        let mut shared = Shared::default();
        let [one, two, other] = [("a", 1), ("a", 2), ("b", 1)].map(|(text, at)| placement(text, at));
        let [first, second, third] = [&one, &two, &other].map(|placement| shared.placed(placement.clone().into()));
        assert!(Arc::ptr_eq(&first.place, &second.place) && !Arc::ptr_eq(&first.place, &third.place));
        assert!(first != second && first != third && first == Placed::from(one.clone()));
        assert_eq!((first.whole(), second.whole(), third.whole()), (one.clone(), two, other));
        assert_eq!(wire::encode(&first), wire::encode(&one));
        assert_eq!(wire::decode::<Placed>(&wire::encode(&one)).unwrap(), first);
    }

    #[test]
    fn what_nobody_has_any_more_is_not_kept() {
        let mut shared = Shared::default();
        let kept = shared.text("kept");
        for number in 0..10_000 {
            shared.text(&number.to_string());
            assert!(shared.texts.values.len() <= FEW + 1, "{number}");
        }
        assert!(Arc::ptr_eq(&kept, &shared.text("kept")));
    }
}
