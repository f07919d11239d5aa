//! What a report says beyond the one before it, for a node that has that one: of a thousand operations only those of which
//! there is something new.

use std::collections::BTreeMap;

use khufu_crdt::{
    ChangeHash, Epoch, Health, Hlc, Observation, OperationId, OperationReport, ReplicantId, Report, SiteName, Status,
};
use serde::{Deserialize, Deserializer, Serialize};

/// What is new in a report of the sender's own site. Whatever is not named is as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    /// The number of the report that it starts from.
    #[serde(rename = "b")]
    base: u64,
    /// By how much its own number is higher.
    #[serde(rename = "n")]
    higher: u64,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    heads: Option<Vec<ChangeHash>>,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    applied: Option<Tail>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    desired: Option<Option<Noted>>,
    #[serde(rename = "o", default, skip_serializing_if = "BTreeMap::is_empty")]
    operations: BTreeMap<OperationId, Noted>,
    /// Operations that are not spoken of any more.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    silent: Vec<OperationId>,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    local_id: Option<Option<String>>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    observed: Option<Option<Seen>>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    decided: Option<(Option<Hlc>, Option<SiteName>)>,
    /// Of the observation.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    health: Option<Option<Health>>,
}

/// A list as the end of another: so many are left out at the front, so many stay, and these follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tail(usize, usize, Vec<OperationId>);

/// An [`OperationReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Noted(Status, u32, u64, String);

/// An [`Observation`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen(u64, Option<ChangeHash>, Option<String>);

/// What is there, be it nothing, and not what is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// What comes out as it was: hashes can be written in more than one way.
fn hash(text: &String) -> Option<ChangeHash> {
    text.parse().ok().filter(|hash: &ChangeHash| hash.to_string() == *text)
}

/// All of an observation but the health, which is told by itself.
fn seen(seen: &Observation) -> (u64, Option<&str>, Option<&str>) {
    (seen.at, seen.digest.as_deref(), seen.drift.as_deref())
}

fn noted(report: &OperationReport) -> Noted {
    Noted(report.status, report.attempt, report.at, report.output.clone())
}

impl From<Noted> for OperationReport {
    fn from(Noted(status, attempt, at, output): Noted) -> Self {
        Self { status, output, attempt, at }
    }
}

impl Tail {
    fn between(old: &[OperationId], new: &[OperationId]) -> Self {
        let left_out = new.first().and_then(|first| old.iter().position(|id| id == first)).unwrap_or(old.len());
        let same = old.iter().skip(left_out).zip(new).take_while(|(old, new)| old == new).count();
        Self(left_out, same, new.iter().skip(same).cloned().collect())
    }

    /// None if there are not so many.
    fn of(self, old: &[OperationId]) -> Option<Vec<OperationId>> {
        let Self(left_out, same, mut rest) = self;
        let mut list = old.get(left_out..left_out.checked_add(same)?)?.to_vec();
        list.append(&mut rest);
        Some(list)
    }
}

impl News {
    /// What a node that has `old` must be told to have `new`, which its site said later. None where all of it must be said.
    pub(crate) fn between(old: &Report, new: &Report) -> Option<Self> {
        let higher = new.seq.checked_sub(old.seq).filter(|higher| *higher > 0)?;
        let heads: Option<Vec<ChangeHash>> = new.heads.iter().map(hash).collect();
        let observed = match &new.observed {
            Some(Observation { at, digest, drift, .. }) => {
                let digest = match digest {
                    Some(digest) => Some(hash(digest)?),
                    None => None,
                };
                Some(Seen(*at, digest, drift.clone()))
            }
            None => None,
        };
        let (was, is) = (old.observed.as_ref(), new.observed.as_ref());
        let (had, has) = (was.and_then(|was| was.health.as_ref()), is.and_then(|is| is.health.as_ref()));
        let is_new = |(id, said): &(&OperationId, &OperationReport)| old.operations.get(*id) != Some(*said);
        let operations = new.operations.iter().filter(is_new).map(|(id, said)| (id.clone(), noted(said))).collect();
        let silent = old.operations.keys().filter(|id| !new.operations.contains_key(*id)).cloned().collect();
        Some(Self {
            base: old.seq,
            higher,
            status: (new.status != old.status).then_some(new.status),
            heads: if new.heads == old.heads { None } else { Some(heads?) },
            applied: (new.applied != old.applied).then(|| Tail::between(&old.applied, &new.applied)),
            desired: (new.desired != old.desired).then(|| new.desired.as_ref().map(noted)),
            operations,
            silent,
            local_id: (new.local_id != old.local_id).then(|| new.local_id.clone()),
            observed: (was.map(seen) != is.map(seen)).then_some(observed),
            health: (had != has).then(|| has.cloned()),
            decided: ((new.decided_at, &new.decided_by) != (old.decided_at, &old.decided_by))
                .then(|| (new.decided_at, new.decided_by.clone())),
        })
    }

    /// The number of the report that it starts from.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The number of the report; none if there is no such number.
    pub(crate) fn seq(&self) -> Option<u64> {
        self.base.checked_add(self.higher)
    }

    /// The whole report, of the document of an epoch. None if it does not fit the one before.
    pub(crate) fn after(self, old: &Report, epoch: Epoch) -> Option<Report> {
        if self.base != old.seq {
            return None;
        }
        let seq = self.seq()?;
        let mut report = old.clone();
        report.seq = seq;
        report.epoch = epoch;
        report.status = self.status.unwrap_or(report.status);
        if let Some(heads) = self.heads {
            report.heads = heads.iter().map(ToString::to_string).collect();
        }
        if let Some(applied) = self.applied {
            report.applied = applied.of(&old.applied)?;
        }
        if let Some(desired) = self.desired {
            report.desired = desired.map(Into::into);
        }
        self.silent.iter().for_each(|id| drop(report.operations.remove(id)));
        report.operations.extend(self.operations.into_iter().map(|(id, said)| (id, said.into())));
        if let Some(local_id) = self.local_id {
            report.local_id = local_id;
        }
        if let Some(observed) = self.observed {
            let health = report.observed.take().and_then(|seen| seen.health);
            report.observed = observed.map(|Seen(at, digest, drift)| Observation {
                at,
                digest: digest.map(|digest| digest.to_string()),
                drift,
                health,
            });
        }
        if let Some(health) = self.health
            && let Some(seen) = &mut report.observed
        {
            seen.health = health;
        }
        if let Some((at, by)) = self.decided {
            (report.decided_at, report.decided_by) = (at, by);
        }
        Some(report)
    }
}

/// A report on its way: all that it says, beginning with nothing, which takes a third of what its names do.
#[derive(Serialize, Deserialize)]
enum Said {
    #[serde(rename = "n")]
    Short(ReplicantId, SiteName, Epoch, Box<News>),
    /// What cannot be said so: a head that is no hash.
    #[serde(rename = "w")]
    Whole(Box<Report>),
}

fn nothing(replicant: ReplicantId, site: SiteName, epoch: Epoch) -> Report {
    Report {
        replicant,
        epoch,
        site,
        seq: 0,
        status: Status::Pending,
        heads: Vec::new(),
        applied: Vec::new(),
        desired: None,
        operations: BTreeMap::new(),
        local_id: None,
        observed: None,
        decided_at: None,
        decided_by: None,
    }
}

impl From<&Report> for Said {
    fn from(report: &Report) -> Self {
        let (replicant, site) = (report.replicant.clone(), report.site.clone());
        match News::between(&nothing(replicant.clone(), site.clone(), report.epoch), report) {
            Some(news) => Self::Short(replicant, site, report.epoch, Box::new(news)),
            None => Self::Whole(Box::new(report.clone())),
        }
    }
}

impl TryFrom<Said> for Report {
    type Error = &'static str;

    fn try_from(said: Said) -> Result<Self, Self::Error> {
        match said {
            Said::Short(replicant, site, epoch, news) => {
                news.after(&nothing(replicant, site, epoch), epoch).ok_or("a report that begins with what nobody said")
            }
            Said::Whole(report) => Ok(*report),
        }
    }
}

/// How reports are written into frames, to be named in `serde(with)`.
pub(crate) mod reports {
    use khufu_crdt::Report;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Said;

    pub(crate) fn serialize<S: Serializer>(reports: &[Report], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(reports.iter().map(Said::from))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Report>, D::Error> {
        let said = Vec::<Said>::deserialize(from)?;
        said.into_iter().map(|said| said.try_into().map_err(D::Error::custom)).collect()
    }
}

/// The same for one.
pub(crate) mod report {
    use khufu_crdt::Report;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Said;

    #[allow(clippy::borrowed_box, reason = "it is what the field is")]
    pub(crate) fn serialize<S: Serializer>(report: &Box<Report>, to: S) -> Result<S::Ok, S::Error> {
        Said::from(&**report).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<Report>, D::Error> {
        Said::deserialize(from)?.try_into().map(Box::new).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use khufu_crdt::Condition;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, What};

    fn said() -> impl Strategy<Value = OperationReport> {
        let status = prop_oneof![Just(Status::Pending), Just(Status::Applied), Just(Status::Failed)];
        (status, "[a-z]{0,4}", 0..3_u32, 0..3_u64).prop_map(|(status, output, attempt, at)| OperationReport {
            status,
            output,
            attempt,
            at,
        })
    }

    fn health() -> impl Strategy<Value = Option<Health>> {
        let condition = prop_oneof![Just(Condition::Current), Just(Condition::Failed)];
        proptest::option::of((condition, "[a-z]{0,2}").prop_map(|(condition, message)| Health { condition, message }))
    }

    fn written() -> impl Strategy<Value = String> {
        prop_oneof![
            20 => (0..3_u8).prop_map(|byte| format!("{byte:02x}").repeat(32)),
            1 => Just("AB".repeat(32)),
            1 => Just("no hash".to_owned()),
        ]
    }

    fn operation() -> impl Strategy<Value = OperationId> {
        (0..8).prop_map(|number| OperationId::new(format!("op-{number}")).unwrap())
    }

    prop_compose! {
        fn report()(
            (seq, epoch) in (1..1_000_u64, 0..3_u64),
            heads in proptest::collection::vec(written(), 0..3),
            applied in proptest::collection::vec(operation(), 0..8),
            desired in proptest::option::of(said()),
            operations in proptest::collection::btree_map(operation(), said(), 0..6),
            local_id in proptest::option::of("[a-z]{1,3}"),
            observed in proptest::option::of((0..3_u64, proptest::option::of(written()), proptest::option::of("[a-z]{0,3}"), health())),
            decided in proptest::option::of(0..3_u64),
            status in prop_oneof![Just(Status::Pending), Just(Status::Applied), Just(Status::Removed)],
        ) -> Report {
            Report {
                replicant: ReplicantId::new("web").unwrap(),
                epoch,
                site: SiteName::new("paris").unwrap(),
                seq,
                status,
                heads,
                applied,
                desired,
                operations,
                local_id,
                observed: observed.map(|(at, digest, drift, health)| Observation { at, digest, drift, health }),
                decided_at: decided.map(Hlc),
                decided_by: decided.map(|_| SiteName::new("rennes").unwrap()),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_new_together_with_what_was_known_is_the_report(old in report(), new in report()) {
            let Some(news) = News::between(&old, &new) else {
                let digest = new.observed.as_ref().and_then(|seen| seen.digest.as_ref());
                prop_assert!(new.seq <= old.seq || !new.heads.iter().chain(digest).all(|text| hash(text).is_some()));
                return Ok(());
            };
            let news: News = wire::decode(&wire::encode(&news)).unwrap();
            prop_assert_eq!((news.base(), news.seq()), (old.seq, Some(new.seq)));
            prop_assert_eq!(news.after(&old, new.epoch), Some(new));
        }

        #[test]
        fn a_report_in_a_frame_is_the_report(report in report()) {
            let told = What::Whole(Box::new(report.clone()));
            let What::Whole(read) = wire::decode(&wire::encode(&told)).unwrap() else { panic!("another") };
            prop_assert_eq!(*read, report);
        }

        #[test]
        fn what_others_make_up_is_refused_without_a_panic(
            old in report(),
            base in prop_oneof![0..1_000_u64, Just(u64::MAX)],
            higher in any::<u64>(),
            (left_out, same) in (prop_oneof![0..9_usize, Just(usize::MAX)], prop_oneof![0..9_usize, Just(usize::MAX)]),
        ) {
            let mut news = News::between(&old, &Report { seq: old.seq + 1, ..old.clone() });
            if let Some(news) = &mut news {
                (news.base, news.higher) = (base, higher);
                news.applied = Some(Tail(left_out, same, Vec::new()));
                let fits = left_out.checked_add(same).is_some_and(|end| end <= old.applied.len());
                let report = news.clone().after(&old, 0);
                prop_assert_eq!(report.is_some(), base == old.seq && news.seq().is_some() && fits);
            }
        }
    }

    #[test]
    fn one_operation_more_costs_no_more_after_a_thousand() {
        let id = |number: u64| OperationId::new(format!("operation-{number}")).unwrap();
        let said = OperationReport { status: Status::Applied, output: "done".into(), attempt: 1, at: 1 };
        let after = |count: u64| Report {
            replicant: ReplicantId::new("log").unwrap(),
            epoch: 0,
            site: SiteName::new("paris").unwrap(),
            seq: 1_800_000_000_000_000 + count,
            status: Status::Applied,
            heads: vec!["ab".repeat(32)],
            // As where there are very many, only the newest are named.
            applied: (count.saturating_sub(500)..count).map(id).collect(),
            desired: None,
            operations: (count.saturating_sub(500)..count).map(|number| (id(number), said.clone())).collect(),
            local_id: None,
            observed: None,
            decided_at: None,
            decided_by: None,
        };
        let size = |count| wire::encode(&News::between(&after(count), &after(count + 1)).unwrap()).len();
        assert!(size(1000) < size(3) + 40, "{} and {}", size(3), size(1000));
    }
}
