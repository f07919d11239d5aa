//! The sets of sites that expressions stand for.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use crate::{Anchor, EvaluateErrorKind, Expr, Label, Spanned, View, clip, duration, fault::Fault, view::rounded};

/// So many names are listed in a sentence.
const MAX_LISTED: usize = 12;

/// A site, as its place in the order in which placement prefers them.
pub(crate) type Rank = usize;

/// The value of an expression.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chosen {
    pub(crate) sites: BTreeSet<Rank>,
    /// The site that comes first in the order written, or in the order of preference where none is written; one of
    /// `sites`, and `None` only if there are none.
    pub(crate) first: Option<Rank>,
}

/// The sites of a view, ranked once: so the best of a set is its first, and those that are down are its last.
pub(crate) struct Sets<'v> {
    view: &'v View,
    ranked: Vec<&'v str>,
    ranks: BTreeMap<&'v str, Rank>,
    first_down: Rank,
}

impl<'v> Sets<'v> {
    pub(crate) fn new(view: &'v View) -> Self {
        let mut ranked: Vec<&str> = view.sites.keys().map(String::as_str).collect();
        ranked.sort_by(|one, other| view.prefer(one, other));
        let ranks = ranked.iter().enumerate().map(|(rank, name)| (*name, rank)).collect();
        let first_down = ranked.partition_point(|name| !view.is_down(name));
        Self { view, ranked, ranks, first_down }
    }

    /// The name of a site, borrowed from the view.
    pub(crate) fn name(&self, rank: Rank) -> &'v str {
        self.ranked.get(rank).copied().unwrap_or_default()
    }

    pub(crate) fn names(&self, chosen: &Chosen) -> BTreeSet<String> {
        chosen.sites.iter().map(|rank| self.name(*rank).to_owned()).collect()
    }

    /// Those of a set that are down.
    pub(crate) fn down(&self, chosen: &Chosen) -> Vec<Rank> {
        chosen.sites.range(self.first_down..).copied().collect()
    }

    /// The site that is meant.
    pub(crate) fn anchor(&self, anchor: &Anchor, span: Range<usize>) -> Result<Rank, Fault> {
        let name = match anchor {
            Anchor::Here => self.view.here.as_str(),
            Anchor::Site(name) => name.as_str(),
        };
        self.ranks.get(name).copied().ok_or_else(|| Fault::unknown(anchor, span, self.view))
    }

    /// Sites as a sentence lists them, the preferred ones first.
    pub(crate) fn list<'r>(&self, sites: impl IntoIterator<Item = &'r Rank>) -> String {
        list(sites.into_iter().map(|rank| self.name(*rank)))
    }

    /// The value of an expression; what was decided on the way is added to the reasons.
    pub(crate) fn value(&self, expr: &Spanned<Expr>, reasons: &mut Vec<String>) -> Result<Chosen, Fault> {
        match expr.node() {
            Expr::One(anchor) => {
                let site = self.anchor(anchor, expr.span())?;
                if *anchor == Anchor::Here {
                    reasons.push(format!("`here` is {}", self.name(site)));
                }
                Ok(Chosen { sites: BTreeSet::from([site]), first: Some(site) })
            }
            Expr::All => {
                let sites = self.all();
                reasons.push(format!("`all` is {}", self.list(&sites)));
                Ok(chosen(sites, None))
            }
            Expr::Labels(labels) => Ok(self.labelled(labels, expr, reasons)),
            Expr::Around { site, within } => {
                let centre = self.anchor(site.node(), site.span())?;
                Ok(self.around(centre, *within, expr, reasons))
            }
            Expr::Some { count, of } => self.some(*count, of, expr, reasons),
            Expr::Not(inner) => {
                let out = self.value(inner, reasons)?.sites;
                reasons.push(format!("every site but {}", self.list(&out)));
                Ok(chosen(&self.all() - &out, None))
            }
            Expr::Replicate(parts) => self.replicate(parts, reasons),
            Expr::Cross(parts) => {
                let mut joined = Chosen::default();
                for part in parts {
                    joined = join(joined, self.value(part, reasons)?);
                }
                Ok(joined)
            }
            Expr::Otherwise(parts) => self.otherwise(parts, expr, reasons),
        }
    }

    fn all(&self) -> BTreeSet<Rank> {
        (0..self.ranked.len()).collect()
    }

    fn labelled(&self, labels: &[Label], expr: &Spanned<Expr>, reasons: &mut Vec<String>) -> Chosen {
        let fits = |name: &str| {
            self.view.sites.get(name).is_some_and(|site| labels.iter().all(|label| label.matches(&site.labels)))
        };
        let sites: BTreeSet<Rank> = (0..self.ranked.len()).filter(|rank| fits(self.name(*rank))).collect();
        reasons.push(format!("{} matches {}", quote(expr), self.list(&sites)));
        chosen(sites, None)
    }

    fn around(&self, centre: Rank, within: Duration, expr: &Spanned<Expr>, reasons: &mut Vec<String>) -> Chosen {
        let (mut near, mut far, mut unmeasured) = (Vec::new(), Vec::new(), Vec::new());
        for rank in 0..self.ranked.len() {
            match self.view.rtt(self.name(centre), self.name(rank)) {
                Some(rtt) if rtt <= within || rank == centre => near.push((rank, rtt)),
                Some(rtt) => far.push((rank, rtt)),
                None => unmeasured.push(rank),
            }
        }
        let timed = |sites: &[(Rank, Duration)]| {
            let shown =
                |(rank, rtt): &(Rank, Duration)| format!("{} ({})", self.name(*rank), duration::write(rounded(*rtt)));
            list(sites.iter().filter(|(rank, _)| *rank != centre).map(shown))
        };
        let mut sentence = format!("{} is {} itself", quote(expr), self.name(centre));
        if near.len() > 1 {
            sentence.push_str(&format!(", and {}", timed(&near)));
        }
        if !far.is_empty() {
            sentence.push_str(&format!("; too far: {}", timed(&far)));
        }
        if !unmeasured.is_empty() {
            sentence.push_str(&format!("; never measured: {}", self.list(&unmeasured)));
        }
        reasons.push(sentence);
        chosen(near.into_iter().map(|(rank, _)| rank).collect(), Some(centre))
    }

    fn some(
        &self,
        count: u32,
        of: &Spanned<Expr>,
        expr: &Spanned<Expr>,
        reasons: &mut Vec<String>,
    ) -> Result<Chosen, Fault> {
        let ranked: Vec<Rank> = self.value(of, reasons)?.sites.into_iter().collect();
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let Some((taken, left)) = ranked.split_at_checked(wanted) else {
            return Err(Fault {
                span: expr.span(),
                kind: EvaluateErrorKind::TooFew { wanted: count, matching: ranked.len() },
                help: Some(format!("what matches is {}; ask for fewer, or widen the choice", self.list(&ranked))),
            });
        };
        let describe = |sites: &[Rank]| list(sites.iter().map(|rank| self.view.describe(self.name(*rank))));
        let mut sentence = format!("{} takes {}", quote(expr), describe(taken));
        if !left.is_empty() {
            sentence.push_str(&format!(", before {}", describe(left)));
        }
        reasons.push(sentence);
        Ok(Chosen { sites: taken.iter().copied().collect(), first: taken.first().copied() })
    }

    /// What is joined, without what is excepted; everything without it if nothing is joined.
    fn replicate(&self, parts: &[Spanned<Expr>], reasons: &mut Vec<String>) -> Result<Chosen, Fault> {
        let (mut joined, mut out, mut any) = (Chosen::default(), BTreeSet::new(), false);
        for part in parts {
            if let Expr::Not(inner) = part.node() {
                let except = self.value(inner, reasons)?.sites;
                reasons.push(format!("{} takes out {}", quote(part), self.list(&except)));
                out.extend(except);
            } else {
                joined = join(joined, self.value(part, reasons)?);
                any = true;
            }
        }
        let sites = if any { joined.sites } else { self.all() };
        Ok(chosen(&sites - &out, joined.first))
    }

    /// The first that works, as at the top of a place, but within a larger expression.
    fn otherwise(
        &self,
        parts: &[Spanned<Expr>],
        expr: &Spanned<Expr>,
        reasons: &mut Vec<String>,
    ) -> Result<Chosen, Fault> {
        let (mut second_best, mut fault) = (None, None);
        for part in parts {
            let mut why = Vec::new();
            match self.value(part, &mut why) {
                Ok(chosen) if chosen.sites.is_empty() => {
                    reasons.push(format!("{} is passed over: no site matches", quote(part)));
                }
                Ok(chosen) if !self.down(&chosen).is_empty() => {
                    reasons.push(format!("{} is passed over: {}", quote(part), self.why_down(&chosen)));
                    second_best.get_or_insert((part, chosen, why));
                }
                Ok(chosen) => {
                    reasons.push(taken_for(part, true));
                    reasons.append(&mut why);
                    return Ok(chosen);
                }
                Err(failed) => {
                    reasons.push(format!("{} is passed over: {}", quote(part), failed.kind));
                    fault.get_or_insert(failed);
                }
            }
        }
        match (second_best, fault) {
            (Some((part, chosen, mut why)), _) => {
                reasons.push(taken_for(part, false));
                reasons.append(&mut why);
                Ok(chosen)
            }
            (None, Some(fault)) => Err(fault),
            (None, None) => Err(Fault::nowhere(expr)),
        }
    }

    /// Says which sites of a set are down;
    pub(crate) fn why_down(&self, chosen: &Chosen) -> String {
        let down = self.down(chosen);
        format!("{} {} down", self.list(&down), if down.len() == 1 { "is" } else { "are" })
    }
}

fn chosen(sites: BTreeSet<Rank>, first: Option<Rank>) -> Chosen {
    let first = first.filter(|site| sites.contains(site)).or_else(|| sites.first().copied());
    Chosen { sites, first }
}

fn join(mut left: Chosen, mut right: Chosen) -> Chosen {
    left.first = left.first.or(right.first);
    left.sites.append(&mut right.sites);
    left
}

pub(crate) fn quote(expr: &Spanned<Expr>) -> String {
    format!("`{}`", clip(&expr.node().to_string()))
}

/// Says why an alternative is taken.
pub(crate) fn taken_for(expr: &Spanned<Expr>, works: bool) -> String {
    let why = if works { "is taken: none of its sites is down" } else { "is taken all the same: none works better" };
    format!("{} {why}", quote(expr))
}

/// Names as a sentence lists them. Those that are not shown are only counted, and never worked out.
pub(crate) fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut names = names.into_iter();
    let shown: Vec<T> = names.by_ref().take(MAX_LISTED).collect();
    let join = |names: &[T]| names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    match (shown.as_slice(), names.count()) {
        ([], _) => "no site".to_owned(),
        ([one], 0) => one.as_ref().to_owned(),
        ([first @ .., last], 0) => format!("{} and {}", join(first), last.as_ref()),
        (shown, more) => format!("{} and {more} more", join(shown)),
    }
}
