//! The sets of sites that expressions stand for.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use crate::{Anchor, EvaluateErrorKind, Expr, Label, Spanned, View, clip, duration, fault::Fault, view::rounded};

/// So many names are listed in a sentence.
const MAX_LISTED: usize = 12;

/// The value of an expression.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chosen<'v> {
    pub(crate) sites: BTreeSet<&'v str>,
    /// The site that comes first in the order written, or in the order of preference where none is written; one of
    /// `sites`, and `None` only if there are none.
    pub(crate) first: Option<&'v str>,
}

impl Chosen<'_> {
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.sites.iter().map(|site| (*site).to_owned()).collect()
    }
}

pub(crate) struct Sets<'v> {
    pub(crate) view: &'v View,
}

impl<'v> Sets<'v> {
    /// The site that is meant, by its name in the view.
    pub(crate) fn anchor(&self, anchor: &Anchor, span: Range<usize>) -> Result<&'v str, Fault> {
        let name = match anchor {
            Anchor::Here => self.view.here.as_str(),
            Anchor::Site(name) => name.as_str(),
        };
        let known = self.view.sites.get_key_value(name).map(|(name, _)| name.as_str());
        known.ok_or_else(|| Fault::unknown(anchor, span, self.view))
    }

    /// The value of an expression; what was decided on the way is added to the reasons.
    pub(crate) fn value(&self, expr: &Spanned<Expr>, reasons: &mut Vec<String>) -> Result<Chosen<'v>, Fault> {
        match expr.node() {
            Expr::One(anchor) => {
                let site = self.anchor(anchor, expr.span())?;
                if *anchor == Anchor::Here {
                    reasons.push(format!("`here` is {site}"));
                }
                Ok(Chosen { sites: BTreeSet::from([site]), first: Some(site) })
            }
            Expr::All => {
                let sites = self.all();
                reasons.push(format!("`all` is {}", listed(&sites)));
                Ok(self.chosen(sites, None))
            }
            Expr::Labels(labels) => Ok(self.labelled(labels, expr, reasons)),
            Expr::Around { site, within } => {
                let centre = self.anchor(site.node(), site.span())?;
                Ok(self.around(centre, *within, expr, reasons))
            }
            Expr::Some { count, of } => self.some(*count, of, expr, reasons),
            Expr::Not(inner) => {
                let out = self.value(inner, reasons)?.sites;
                reasons.push(format!("every site but {}", listed(&out)));
                Ok(self.chosen(&self.all() - &out, None))
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

    fn all(&self) -> BTreeSet<&'v str> {
        self.view.sites.keys().map(String::as_str).collect()
    }

    fn chosen(&self, sites: BTreeSet<&'v str>, first: Option<&'v str>) -> Chosen<'v> {
        let first = first.filter(|site| sites.contains(site));
        let first = first.or_else(|| sites.iter().copied().min_by(|one, other| self.view.prefer(one, other)));
        Chosen { sites, first }
    }

    fn labelled(&self, labels: &[Label], expr: &Spanned<Expr>, reasons: &mut Vec<String>) -> Chosen<'v> {
        let fits = self.view.sites.iter().filter(|(_, site)| labels.iter().all(|label| label.matches(&site.labels)));
        let sites: BTreeSet<&str> = fits.map(|(name, _)| name.as_str()).collect();
        reasons.push(format!("{} matches {}", quote(expr), listed(&sites)));
        self.chosen(sites, None)
    }

    fn around(&self, centre: &'v str, within: Duration, expr: &Spanned<Expr>, reasons: &mut Vec<String>) -> Chosen<'v> {
        let (mut near, mut far, mut unmeasured) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut shown = Vec::new();
        for name in self.view.sites.keys().map(String::as_str) {
            match self.view.rtt(centre, name) {
                Some(rtt) if rtt <= within => {
                    near.insert(name);
                    if name != centre {
                        shown.push(format!("{name} ({})", duration::write(rounded(rtt))));
                    }
                }
                Some(rtt) => far.push(format!("{name} ({})", duration::write(rounded(rtt)))),
                None => unmeasured.push(name),
            }
        }
        let part = |names: &[String]| list(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut sentence = format!("{} is {centre} itself", quote(expr));
        if !shown.is_empty() {
            sentence.push_str(&format!(", and {}", part(&shown)));
        }
        if !far.is_empty() {
            sentence.push_str(&format!("; too far: {}", part(&far)));
        }
        if !unmeasured.is_empty() {
            sentence.push_str(&format!("; never measured: {}", list(&unmeasured)));
        }
        reasons.push(sentence);
        self.chosen(near, Some(centre))
    }

    fn some(
        &self,
        count: u32,
        of: &Spanned<Expr>,
        expr: &Spanned<Expr>,
        reasons: &mut Vec<String>,
    ) -> Result<Chosen<'v>, Fault> {
        let mut ranked: Vec<&'v str> = self.value(of, reasons)?.sites.into_iter().collect();
        ranked.sort_by(|one, other| self.view.prefer(one, other));
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let Some((taken, left)) = ranked.split_at_checked(wanted) else {
            return Err(Fault {
                span: expr.span(),
                kind: EvaluateErrorKind::TooFew { wanted: count, matching: ranked.len() },
                help: Some(format!("what matches is {}; ask for fewer, or widen the choice", list(&ranked))),
            });
        };
        let describe = |sites: &[&str]| {
            let described: Vec<String> =
                sites.iter().take(MAX_LISTED + 1).map(|site| self.view.describe(site)).collect();
            let mut described: Vec<&str> = described.iter().map(String::as_str).collect();
            described.extend(sites.iter().skip(described.len()));
            list(&described)
        };
        let mut sentence = format!("{} takes {}", quote(expr), describe(taken));
        if !left.is_empty() {
            sentence.push_str(&format!(", before {}", describe(left)));
        }
        reasons.push(sentence);
        Ok(Chosen { sites: taken.iter().copied().collect(), first: taken.first().copied() })
    }

    /// What is joined, without what is excepted; everything without it if nothing is joined.
    fn replicate(&self, parts: &[Spanned<Expr>], reasons: &mut Vec<String>) -> Result<Chosen<'v>, Fault> {
        let (mut joined, mut out, mut any) = (Chosen::default(), BTreeSet::new(), false);
        for part in parts {
            if let Expr::Not(inner) = part.node() {
                let except = self.value(inner, reasons)?.sites;
                reasons.push(format!("{} takes out {}", quote(part), listed(&except)));
                out.extend(except);
            } else {
                joined = join(joined, self.value(part, reasons)?);
                any = true;
            }
        }
        let sites = if any { joined.sites } else { self.all() };
        Ok(self.chosen(&sites - &out, joined.first))
    }

    /// The first that works, as at the top of a place, but within a larger expression.
    fn otherwise(
        &self,
        parts: &[Spanned<Expr>],
        expr: &Spanned<Expr>,
        reasons: &mut Vec<String>,
    ) -> Result<Chosen<'v>, Fault> {
        let (mut second_best, mut fault) = (None, None);
        for part in parts {
            let mut why = Vec::new();
            match self.value(part, &mut why) {
                Ok(chosen) if chosen.sites.is_empty() => {
                    reasons.push(format!("{} is passed over: no site matches", quote(part)));
                }
                Ok(chosen) if chosen.sites.iter().any(|site| self.view.is_down(site)) => {
                    reasons.push(format!("{} is passed over: it has a site that is down", quote(part)));
                    second_best.get_or_insert((part, chosen, why));
                }
                Ok(chosen) => {
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
                reasons.push(format!("{} is taken all the same: no alternative is better off", quote(part)));
                reasons.append(&mut why);
                Ok(chosen)
            }
            (None, Some(fault)) => Err(fault),
            (None, None) => Err(Fault::nowhere(expr)),
        }
    }
}

fn join<'v>(mut left: Chosen<'v>, right: Chosen<'v>) -> Chosen<'v> {
    left.first = left.first.or(right.first);
    left.sites.extend(right.sites);
    left
}

fn quote(expr: &Spanned<Expr>) -> String {
    format!("`{}`", clip(&expr.node().to_string()))
}

fn listed(sites: &BTreeSet<&str>) -> String {
    list(&sites.iter().copied().collect::<Vec<_>>())
}

/// Names as a sentence lists them.
pub(crate) fn list(names: &[&str]) -> String {
    match names {
        [] => "no site".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] if names.len() <= MAX_LISTED => format!("{} and {last}", first.join(", ")),
        _ => {
            let first: Vec<&str> = names.iter().copied().take(MAX_LISTED).collect();
            format!("{} and {} more", first.join(", "), names.len() - MAX_LISTED)
        }
    }
}
