//! From tree to placement.

use std::{collections::BTreeSet, ops::Range};

use serde::Serialize;

use crate::{
    Anchor, EvaluateErrorKind, EvaluateErrors, Expr, Item, Name, Scope, Spanned, View,
    fault::{Fault, faults},
    sets::{Chosen, Rank, Sets, quote, taken_for},
};

/// What a scope means for the sites of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evaluation {
    /// One place for each that is written, in that order: at least one.
    pub places: Vec<Place>,
}

/// Where one service of a resource lives, or the resource as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The service; `None` for the resource as a whole.
    pub service: Option<String>,
    /// The sites: at least one, all of the view.
    pub sites: BTreeSet<String>,
    /// How they share.
    pub mode: Mode,
    /// The site that holds what spans them; set if and only if the mode is [`Mode::Cross`], and one of `sites`.
    pub prime: Option<String>,
    /// The sites of the alternatives (`|`) that are written after the one that was taken, in that order; those that
    /// have no site now are left out.
    pub fallbacks: Vec<BTreeSet<String>>,
    /// Why these sites: a sentence for each decision.
    pub reasons: Vec<String>,
}

/// How the sites of a place share a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each has a replica of its own (`&`).
    Replicate,
    /// One resource spans them (`%`), and the prime holds it.
    Cross,
}

impl Evaluation {
    /// Where a service lives: its own place, or else the one without a service.
    #[must_use]
    pub fn for_service(&self, service: &str) -> Option<&Place> {
        let place = |wanted| self.places.iter().find(|place| place.service.as_deref() == wanted);
        place(Some(service)).or_else(|| place(None))
    }

    /// The sites of all places.
    #[must_use]
    pub fn sites(&self) -> BTreeSet<&str> {
        self.places.iter().flat_map(|place| &place.sites).map(String::as_str).collect()
    }
}

/// Works out where a scope is, given what is known of the sites. The same scope and view always give the same value,
/// and it names no site that is not in the view.
///
/// # Errors
/// [`EvaluateErrors`] holds all sites that nobody knows, or, if all are known, whatever else keeps a place from having
/// a value: too few sites for `n of`, no site at all, a prime outside of its place, `%` where it has no meaning.
pub fn evaluate(scope: &Scope, view: &View) -> Result<Evaluation, EvaluateErrors> {
    let mut found = faults(scope, view);
    if found.is_empty() {
        match places(scope, view) {
            Ok(places) => return Ok(Evaluation { places }),
            Err(more) => found = more,
        }
    }
    Err(EvaluateErrors::new(scope.text(), found))
}

/// A site that an item makes the prime, where it says so, and how it is written.
struct Prime {
    site: Rank,
    span: Range<usize>,
    written: String,
    used: bool,
}

fn places(scope: &Scope, view: &View) -> Result<Vec<Place>, Vec<Fault>> {
    let sets = Sets::new(view);
    let (mut places, mut faults, mut primes) = (Vec::new(), Vec::new(), Vec::new());
    for item in scope.items() {
        let Item::Prime(anchor) = item else { continue };
        match sets.anchor(anchor.node(), anchor.span()) {
            Ok(site) => {
                primes.push(Prime { site, span: anchor.span(), written: anchor.node().to_string(), used: false });
            }
            Err(fault) => faults.push(fault),
        }
    }
    for item in scope.items() {
        let Item::Place { service, expr } = item else { continue };
        match place(&sets, service.as_ref(), expr, &mut primes) {
            Ok(place) => places.push(place),
            Err(fault) => faults.push(fault),
        }
    }
    // A place without a value may be the one that a prime was meant for.
    if faults.is_empty() {
        faults.extend(primes.into_iter().filter(|prime| !prime.used).map(|prime| Fault {
            span: prime.span,
            kind: EvaluateErrorKind::PrimeOutside { site: sets.name(prime.site).to_owned() },
            help: Some("the prime is one of the sites that `%` joins, as in `paris % rennes, prime: paris`".to_owned()),
        }));
    }
    if faults.is_empty() { Ok(places) } else { Err(faults) }
}

/// One alternative of a place, with what was decided on the way to its value.
struct Alternative<'s> {
    expr: &'s Spanned<Expr>,
    value: Result<Chosen, Fault>,
    reasons: Vec<String>,
}

impl Alternative<'_> {
    /// Its sites, if it has any.
    fn sites(&self) -> Option<&Chosen> {
        self.value.as_ref().ok().filter(|chosen| !chosen.sites.is_empty())
    }

    fn is_cross(&self) -> bool {
        matches!(self.expr.node(), Expr::Cross(_))
    }
}

fn place(sets: &Sets<'_>, service: Option<&Name>, expr: &Spanned<Expr>, primes: &mut [Prime]) -> Result<Place, Fault> {
    let mut written = Vec::new();
    flatten(expr, &mut written);
    let evaluated = written.into_iter().map(|expr| {
        let mut reasons = Vec::new();
        let value = sets.value(expr, &mut reasons);
        Alternative { expr, value, reasons }
    });
    let alternatives: Vec<Alternative<'_>> = evaluated.collect();
    for alternative in alternatives.iter().filter(|alternative| alternative.is_cross()) {
        let Some(chosen) = alternative.sites() else { continue };
        primes.iter_mut().filter(|prime| chosen.sites.contains(&prime.site)).for_each(|prime| prime.used = true);
    }

    let works = |alternative: &Alternative<'_>| alternative.sites().is_some_and(|chosen| sets.down(chosen).is_empty());
    let first_works = alternatives.iter().position(works);
    let taken = first_works.or_else(|| alternatives.iter().position(|alternative| alternative.sites().is_some()));
    let found = taken.and_then(|index| {
        let alternative = alternatives.get(index)?;
        Some((index, alternative, alternative.sites()?))
    });
    let Some((index, alternative, chosen)) = found else {
        let nowhere = Fault::nowhere(expr);
        return Err(alternatives.into_iter().find_map(|alternative| alternative.value.err()).unwrap_or(nowhere));
    };

    let mut reasons = Vec::new();
    if alternatives.len() > 1 {
        let before = if first_works.is_some() { index } else { alternatives.len() };
        reasons.extend(alternatives.iter().take(before).filter_map(|passed| passed_over(sets, passed)));
        reasons.push(taken_for(alternative.expr, first_works.is_some()));
    }
    reasons.extend(alternative.reasons.iter().cloned());
    reasons.extend(presence(sets, alternative.expr, chosen));
    let prime = if alternative.is_cross() { Some(prime(sets, chosen, primes, &mut reasons)?) } else { None };
    let later = alternatives.iter().skip(index + 1).filter_map(Alternative::sites);
    Ok(Place {
        service: service.map(|name| name.as_str().to_owned()),
        sites: sets.names(chosen),
        mode: if prime.is_some() { Mode::Cross } else { Mode::Replicate },
        prime,
        fallbacks: later.map(|chosen| sets.names(chosen)).collect(),
        reasons,
    })
}

/// Lists alternatives in the order written; those within those are no different.
fn flatten<'s>(expr: &'s Spanned<Expr>, into: &mut Vec<&'s Spanned<Expr>>) {
    match expr.node() {
        Expr::Otherwise(parts) => parts.iter().for_each(|part| flatten(part, into)),
        _ => into.push(expr),
    }
}

/// Says why an alternative was not taken.
fn passed_over(sets: &Sets<'_>, alternative: &Alternative<'_>) -> Option<String> {
    let why = match (&alternative.value, alternative.sites()) {
        (Err(fault), _) => fault.kind.to_string(),
        (Ok(_), None) => "no site matches".to_owned(),
        (Ok(_), Some(chosen)) if sets.down(chosen).is_empty() => return None,
        (Ok(_), Some(chosen)) => sets.why_down(chosen),
    };
    Some(format!("{} is passed over: {why}", quote(alternative.expr)))
}

/// Says which sites are there because they are written, and that silence takes none out.
fn presence(sets: &Sets<'_>, expr: &Spanned<Expr>, chosen: &Chosen) -> Vec<String> {
    let mut names = BTreeSet::new();
    written(expr, &mut names);
    let there: Vec<Rank> = chosen.sites.iter().copied().filter(|site| names.contains(sets.name(*site))).collect();
    let silent = sets.down(chosen);
    let mut reasons = Vec::new();
    if !there.is_empty() {
        let verb = if there.len() == 1 { "is" } else { "are" };
        reasons.push(format!("{} {verb} written in the scope", sets.list(&there)));
    }
    if !silent.is_empty() {
        let stay = if silent.len() == 1 { "stays" } else { "stay" };
        reasons.push(format!("{}, and {stay} in: silence takes no site out", sets.why_down(chosen)));
    }
    reasons
}

/// The sites that are written where being written is what counts.
fn written<'s>(expr: &'s Spanned<Expr>, into: &mut BTreeSet<&'s str>) {
    match expr.node() {
        Expr::One(Anchor::Site(name)) => {
            into.insert(name.as_str());
        }
        Expr::Replicate(parts) | Expr::Cross(parts) => parts.iter().for_each(|part| written(part, into)),
        _ => {}
    }
}

/// The site that holds a resource that spans several.
fn prime(sets: &Sets<'_>, chosen: &Chosen, primes: &[Prime], reasons: &mut Vec<String>) -> Result<String, Fault> {
    let mut fitting = primes.iter().filter(|prime| chosen.sites.contains(&prime.site));
    let Some(prime) = fitting.next() else {
        // A value that has sites has a first one.
        let first = chosen.first.map(|rank| sets.name(rank)).unwrap_or_default();
        reasons.push(format!("{first} is the prime, which holds the resource: it comes first"));
        return Ok(first.to_owned());
    };
    let name = sets.name(prime.site).to_owned();
    if let Some(second) = fitting.find(|other| other.site != prime.site) {
        return Err(Fault {
            span: second.span.clone(),
            kind: EvaluateErrorKind::SecondPrime { site: sets.name(second.site).to_owned(), first: name },
            help: Some("leave one of the two out".to_owned()),
        });
    }
    reasons.push(format!("{name} is the prime, which holds the resource: `prime: {}`", prime.written));
    Ok(name)
}
