//! Where a request with a scope goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hyper::http::Method;
use khufu_crdt::SiteName;
use khufu_engine::{ExplainedPlace, Request, RequestError, Response};
use khufu_scope::{Expr, Item, Scope, Spanned};

use super::is_read;
use super::refusal::Refusal;
use crate::handle::Handle;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// To one of these: the first that answers.
    To(Vec<SiteName>),
    /// To all of these.
    Replicate(BTreeSet<String>),
}

/// Decides by what this node knows of the sites now. A scope that does not speak of the service means the one here.
pub(super) async fn decide(handle: &Handle, service: &str, text: &str, method: &Method) -> Result<Way, Refusal> {
    let unreadable = |errors: khufu_scope::ParseErrors| {
        Refusal::scope(format!("the scope cannot be read:\n{}", errors.render(text, false).trim_end()))
    };
    let scope = khufu_scope::parse(text).map_err(unreadable)?;
    let Some((named, expr)) = item(&scope, service) else { return Ok(Way::To(vec![handle.site().clone()])) };
    // The whole scope, so that a site that nobody knows is said wherever it stands.
    let place = explained(handle, text, named).await?;
    let alternatives = match expr.node() {
        Expr::Otherwise(parts) => parts.iter().collect(),
        _ => vec![expr],
    };
    let mut sites = Vec::new();
    for alternative in &alternatives {
        let place = match alternatives.as_slice() {
            [_] => Ok(place.clone()),
            _ => explained(handle, &scope.text()[alternative.span()], None).await,
        };
        // An alternative that has no sites now is passed over; the whole has some.
        let Ok(place) = place else { continue };
        let chosen = match (&place.prime, alternative.node()) {
            (Some(prime), _) => vec![prime.clone()],
            (None, Expr::Around { .. }) => nearest(handle, place.sites).await?,
            _ if is_read(method) => nearest(handle, place.sites).await?,
            _ if place.sites.len() > 1 => return Ok(Way::Replicate(place.sites)),
            _ => place.sites.into_iter().collect(),
        };
        sites.extend(chosen);
    }
    let mut seen = BTreeSet::new();
    sites.retain(|site| seen.insert(site.clone()));
    let sites: Result<Vec<_>, _> = sites.into_iter().map(SiteName::new).collect();
    sites.map(Way::To).map_err(|error| Refusal::scope(error.to_string()))
}

/// What a scope says of a service: by name, or else of all that it does not name.
fn item<'a>(scope: &'a Scope, service: &str) -> Option<(Option<&'a str>, &'a Spanned<Expr>)> {
    let of = |wanted: Option<&str>| {
        scope.items().iter().find_map(|item| match item {
            Item::Place { service, expr } if service.as_ref().map(khufu_scope::Name::as_str) == wanted => {
                Some((service.as_ref().map(khufu_scope::Name::as_str), expr))
            }
            _ => None,
        })
    };
    of(Some(service)).or_else(|| of(None))
}

/// The sites of a scope, for a service or for all that it does not name.
async fn explained(handle: &Handle, scope: &str, service: Option<&str>) -> Result<ExplainedPlace, Refusal> {
    let request = Request::Explain { scope: scope.to_owned() };
    let Response::Explain(explanation) = handle.request_as_is("http-front".to_owned(), request).await? else {
        return Err(unanswered().into());
    };
    let found = explanation.places.into_iter().find(|place| place.service.as_deref() == service);
    found.ok_or_else(|| unanswered().into())
}

fn unanswered() -> RequestError {
    RequestError::Busy { message: "the engine has answered something else than what it was asked".to_owned() }
}

/// The sites, the nearest first by measured round-trip time: this one before all, those never measured last.
async fn nearest(handle: &Handle, sites: BTreeSet<String>) -> Result<Vec<String>, Refusal> {
    if sites.len() < 2 {
        return Ok(sites.into_iter().collect());
    }
    let Response::Sites(views) = handle.request_as_is("http-front".to_owned(), Request::Sites).await? else {
        return Err(unanswered().into());
    };
    let away: BTreeMap<String, Duration> = views
        .into_iter()
        .filter_map(|view| {
            let ms = if view.here { Some(0.0) } else { view.rtt_ms };
            Some((view.site.to_string(), Duration::try_from_secs_f64(ms? / 1e3).ok()?))
        })
        .collect();
    let mut sites: Vec<String> = sites.into_iter().collect();
    sites.sort_by_key(|site| away.get(site).copied().unwrap_or(Duration::MAX));
    Ok(sites)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_item_of_the_service_counts_and_else_the_one_for_all() {
        let of = |text: &str| {
            let scope = khufu_scope::parse(text).unwrap();
            item(&scope, "image").map(|(named, expr)| (named.map(str::to_owned), expr.node().to_string()))
        };
        assert_eq!(of("image: rennes, compute: here"), Some((Some("image".into()), "rennes".into())));
        assert_eq!(of("compute: here, paris | rennes"), Some((None, "paris | rennes".into())));
        assert_eq!(of("compute: rennes"), None);
    }
}
