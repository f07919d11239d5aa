//! How replicas are doing, as users see it.

use khufu_crdt::{Condition, Report, SiteName, Status};
use serde::{Deserialize, Serialize};

use crate::Liveness;

/// How a replica is doing, as far as is known here now: nothing is called current that nobody has seen, and nothing of a site
/// that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthView {
    /// How.
    pub condition: Condition,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was seen; of what is unknown, since when it is. In milliseconds since 1970.
    pub at: u64,
}

impl HealthView {
    /// What is known of the replica of a site.
    ///
    /// `away` says since when the site cannot reach its platform.
    pub(crate) fn of(report: &Report, state: Liveness, heard_at: Option<u64>, away: Option<u64>) -> Option<Self> {
        let seen = report.observed.as_ref().filter(|_| report.status != Status::Removed)?;
        let health = seen.health.as_ref()?;
        let before = health.condition.as_str();
        let unknown =
            |message: String, at: u64| Some(Self { condition: Condition::Unknown, message, at: at.max(seen.at) });
        if state != Liveness::Alive {
            let message = format!("the site cannot be reached, and was {before} when it was last heard of");
            return unknown(message, heard_at.unwrap_or(seen.at));
        }
        if let Some(away) = away {
            return unknown(format!("its platform cannot be reached, and it was {before} when it was last seen"), away);
        }
        // The replica may be well as it is, and not what is wanted.
        let wanted = match report.status {
            Status::Failed | Status::NeedsAttention => Condition::Failed,
            Status::Pending => Condition::InProgress,
            Status::Applied | Status::Skipped | Status::Removed => Condition::Current,
        };
        let desired = report.desired.as_ref().filter(|desired| desired.status != Status::Applied);
        let why = || desired.map(|desired| desired.output.clone()).unwrap_or_default();
        let (condition, message) =
            if wanted > health.condition { (wanted, why()) } else { (health.condition, health.message.clone()) };
        Some(Self { condition, message, at: seen.at })
    }

    /// What is known of a replica of which nobody has seen how it is doing, where that can be seen.
    pub(crate) fn unseen(report: Option<&Report>, state: Liveness, at: u64) -> Option<Self> {
        let (condition, message) = match report {
            _ if state != Liveness::Alive => (Condition::Unknown, "the site cannot be reached".to_owned()),
            None => (Condition::Unknown, "the site has said nothing of it yet".to_owned()),
            Some(report) => {
                let why = report.desired.as_ref().map(|desired| desired.output.clone()).unwrap_or_default();
                match report.status {
                    Status::Failed | Status::NeedsAttention => (Condition::Failed, why),
                    Status::Pending => (Condition::InProgress, why),
                    // There is nothing to see.
                    Status::Applied | Status::Skipped | Status::Removed => return None,
                }
            }
        };
        Some(Self { condition, message, at })
    }

    /// The worst of several sites, with the name of the first that is so.
    pub(crate) fn worst<'a>(sites: impl Iterator<Item = (&'a SiteName, &'a Self)>) -> Option<Self> {
        let worse = |worst: Option<(&'a SiteName, &'a Self)>, next: (&'a SiteName, &'a Self)| match worst {
            Some(worst) if worst.1.condition >= next.1.condition => Some(worst),
            _ => Some(next),
        };
        let (site, worst) = sites.fold(None, worse)?;
        let message = match worst.condition {
            Condition::Current => String::new(),
            _ if worst.message.is_empty() => site.to_string(),
            _ => format!("{site}: {}", worst.message),
        };
        Some(Self { message, ..worst.clone() })
    }
}

#[cfg(test)]
mod tests {
    use khufu_crdt::{Health, Observation, ReplicantId};
    use serde_json::json;

    use super::*;

    fn report(status: &str, condition: Condition) -> Report {
        let mut report: Report = serde_json::from_value(json!({
            "replicant": "web", "epoch": 0, "site": "paris", "seq": 1, "status": status,
            "desired": {"status": status, "output": "because"},
        }))
        .unwrap();
        assert_eq!(report.replicant, ReplicantId::new("web").unwrap());
        let health = Some(Health { condition, message: "two of three".into() });
        report.observed = Some(Observation { at: 5, digest: None, drift: None, health });
        report
    }

    fn of(status: &str, condition: Condition, state: Liveness) -> Option<(Condition, String, u64)> {
        HealthView::of(&report(status, condition), state, Some(9), None)
            .map(|view| (view.condition, view.message, view.at))
    }

    #[test]
    fn a_site_that_cannot_be_reached_is_never_called_current() {
        for state in [Liveness::Suspect, Liveness::Down] {
            let (condition, message, at) = of("applied", Condition::Current, state).unwrap();
            assert_eq!((condition, at), (Condition::Unknown, 9));
            assert!(message.contains("was current"), "{message}");
        }
    }

    #[test]
    fn what_is_on_a_platform_that_cannot_be_reached_is_never_called_current() {
        let of = |away| HealthView::of(&report("applied", Condition::Current), Liveness::Alive, Some(9), Some(away));
        let view = of(7).unwrap();
        assert_eq!((view.condition, view.at), (Condition::Unknown, 7));
        assert!(view.message.contains("platform") && view.message.contains("was current"), "{}", view.message);
        assert_eq!(of(3).unwrap().at, 5);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_called_current() {
        let alive = |status, condition| of(status, condition, Liveness::Alive).unwrap();
        assert_eq!(alive("applied", Condition::Current), (Condition::Current, "two of three".into(), 5));
        assert_eq!(alive("pending", Condition::Current), (Condition::InProgress, "because".into(), 5));
        assert_eq!(alive("failed", Condition::InProgress), (Condition::Failed, "because".into(), 5));
        assert_eq!(alive("pending", Condition::Failed), (Condition::Failed, "two of three".into(), 5));
        assert_eq!(of("removed", Condition::Current, Liveness::Alive), None);
    }

    #[test]
    fn a_replica_that_nobody_has_seen_is_as_it_is_reported() {
        let of = |report: Option<&Report>, state| {
            HealthView::unseen(report, state, 3).map(|view| (view.condition, view.message, view.at))
        };
        let alive = |status| of(Some(&report(status, Condition::Current)), Liveness::Alive);
        assert_eq!(alive("failed"), Some((Condition::Failed, "because".into(), 3)));
        assert_eq!(alive("needs-attention"), Some((Condition::Failed, "because".into(), 3)));
        assert_eq!(alive("pending"), Some((Condition::InProgress, "because".into(), 3)));
        assert_eq!(alive("applied"), None);
        assert_eq!(alive("removed"), None);
        assert_eq!(of(None, Liveness::Alive).unwrap().0, Condition::Unknown);
        assert_eq!(of(Some(&report("failed", Condition::Current)), Liveness::Down).unwrap().0, Condition::Unknown);
    }

    #[test]
    fn the_worst_site_is_named() {
        let site = |name: &str| SiteName::new(name).unwrap();
        let view = |condition| HealthView { condition, message: "so".into(), at: 1 };
        let sites = [
            (site("lyon"), view(Condition::Current)),
            (site("paris"), view(Condition::Failed)),
            (site("rennes"), view(Condition::Failed)),
        ];
        let worst = HealthView::worst(sites.iter().map(|(site, view)| (site, view))).unwrap();
        assert_eq!((worst.condition, worst.message.as_str()), (Condition::Failed, "paris: so"));
        let worst = HealthView::worst(sites[..1].iter().map(|(site, view)| (site, view))).unwrap();
        assert_eq!((worst.condition, worst.message.as_str()), (Condition::Current, ""));
        assert_eq!(HealthView::worst(std::iter::empty()), None);
    }
}
