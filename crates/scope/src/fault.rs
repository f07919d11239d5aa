//! Why a scope has no value.

use std::{collections::BTreeSet, fmt, ops::Range};

use serde::Serialize;

use crate::{
    Anchor, Expr, Item, Scope, Spanned, View, clip,
    complaint::{Picture, plain, position, render},
    sets::list,
};

/// So many known sites are listed where a name is nobody's.
const MAX_KNOWN_LISTED: usize = 8;

/// What keeps a scope from having a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EvaluateErrorKind {
    /// A site is written that is not in the view.
    #[error("no site is called `{site}`")]
    UnknownSite {
        /// As it is written.
        site: String,
        /// The known name that is most like it; `None` if no site is known at all.
        nearest: Option<String>,
    },
    /// `here` is written, and the site that evaluates is not in the view.
    #[error("`here` is `{site}`, and no site of that name is known")]
    HereUnknown {
        /// The site that evaluates.
        site: String,
    },
    /// Fewer sites match than `n of` is to choose.
    #[error("{wanted} sites are to be chosen, and only {matching} match")]
    TooFew {
        /// How many are to be chosen.
        wanted: u32,
        /// How many there are.
        matching: usize,
    },
    /// No site is left.
    #[error("no site matches `{expression}`")]
    Nowhere {
        /// The expression, shortened if it is long.
        expression: String,
    },
    /// `%` stands within `&`, `!` or `n of`: a resource that spans sites is not replicated as a whole.
    #[error("`%` has no meaning within `{within}`")]
    CrossWithin {
        /// The operator around it.
        within: &'static str,
    },
    /// A prime is none of the sites that share with `%`.
    #[error("the prime `{site}` is none of the sites that a resource spans")]
    PrimeOutside {
        /// The site that is to be the prime.
        site: String,
    },
    /// One resource is given two primes.
    #[error("a resource has one prime: `{first}` is given already, so `{site}` cannot be")]
    SecondPrime {
        /// The second one.
        site: String,
        /// The first one.
        first: String,
    },
}

/// An error before its line and column are known.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) kind: EvaluateErrorKind,
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn nowhere(expr: &Spanned<Expr>) -> Self {
        Self {
            span: expr.span(),
            kind: EvaluateErrorKind::Nowhere { expression: clip(&expr.node().to_string()) },
            help: Some("name a site, or give another alternative after `|`".to_owned()),
        }
    }

    /// For a site that is not in the view.
    pub(crate) fn unknown(anchor: &Anchor, span: Range<usize>, view: &View) -> Self {
        let Anchor::Site(name) = anchor else {
            let help = "this site has not announced itself yet: name the sites instead of `here`";
            let kind = EvaluateErrorKind::HereUnknown { site: view.here.clone() };
            return Self { span, kind, help: Some(help.to_owned()) };
        };
        let site = name.as_str();
        let nearest = nearest(site, view);
        let help = match &nearest {
            _ if ["all", "here"].into_iter().any(|word| site.eq_ignore_ascii_case(word)) => {
                format!("the word is written in small letters: `{}`", site.to_ascii_lowercase())
            }
            None => "no site is known yet".to_owned(),
            Some((name, true)) => format!("did you mean `{name}`?"),
            Some((name, false)) => {
                let known: Vec<&str> = view.sites.keys().take(MAX_KNOWN_LISTED).map(String::as_str).collect();
                match view.sites.len().saturating_sub(known.len()) {
                    0 => format!("the nearest known name is `{name}`; known are {}", list(known)),
                    more => {
                        format!("the nearest known name is `{name}`; known are {} and {more} more", known.join(", "))
                    }
                }
            }
        };
        let nearest = nearest.map(|(name, _)| name.to_owned());
        Self { span, kind: EvaluateErrorKind::UnknownSite { site: site.to_owned(), nearest }, help: Some(help) }
    }
}

/// The known name that is most like a word, the first of several, and whether it may well be what was meant.
fn nearest<'v>(word: &str, view: &'v View) -> Option<(&'v str, bool)> {
    let word = word.to_ascii_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for name in view.sites.keys() {
        // Names cannot be nearer than their lengths are, and most are ruled out by that.
        if best.is_some_and(|(distance, _)| name.len().abs_diff(word.len()) >= distance) {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&word, &name.to_ascii_lowercase());
        if best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    let (distance, name) = best?;
    Some((name, distance <= (word.len() / 3).max(1)))
}

/// What is wrong with a scope before any set is worked out: sites that nobody knows, each once, and `%` where it has
/// no meaning.
pub(crate) fn faults(scope: &Scope, view: &View) -> Vec<Fault> {
    let (mut faults, mut seen) = (Vec::new(), BTreeSet::new());
    scope.anchors(&mut |anchor, span| {
        let name = match anchor {
            Anchor::Here => view.here.as_str(),
            Anchor::Site(name) => name.as_str(),
        };
        if !view.sites.contains_key(name) && seen.insert((name, *anchor == Anchor::Here)) {
            faults.push(Fault::unknown(anchor, span, view));
        }
    });
    for item in scope.items() {
        if let Item::Place { expr, .. } = item {
            misplaced(expr, None, &mut faults);
        }
    }
    faults
}

/// Finds `%` within operators that it has no meaning in.
fn misplaced(expr: &Spanned<Expr>, within: Option<&'static str>, faults: &mut Vec<Fault>) {
    match expr.node() {
        Expr::One(_) | Expr::All | Expr::Labels(_) | Expr::Around { .. } => {}
        Expr::Some { of, .. } => misplaced(of, Some("n of"), faults),
        Expr::Not(inner) => misplaced(inner, Some("!"), faults),
        Expr::Replicate(parts) => parts.iter().for_each(|part| misplaced(part, Some("&"), faults)),
        Expr::Otherwise(parts) => parts.iter().for_each(|part| misplaced(part, within, faults)),
        Expr::Cross(parts) => match within {
            None => parts.iter().for_each(|part| misplaced(part, None, faults)),
            Some(within) => faults.push(Fault {
                span: expr.span(),
                kind: EvaluateErrorKind::CrossWithin { within },
                help: Some(
                    "what spans sites is one resource: write `%` around the rest, or place its services apart"
                        .to_owned(),
                ),
            }),
        },
    }
}

/// One reason why a scope has no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EvaluateError {
    /// What is wrong. Its `Display` is a sentence without the place.
    pub kind: EvaluateErrorKind,
    /// Where in the text of the scope, in bytes.
    pub span: Range<usize>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The way out.
    pub help: Option<String>,
}

impl fmt::Display for EvaluateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.kind)?;
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

impl std::error::Error for EvaluateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.kind)
    }
}

/// Every reason why a scope has no value: at least one, in the order of the text.
///
/// Its `Display` is plain text, one line for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EvaluateErrors {
    errors: Vec<EvaluateError>,
}

impl EvaluateErrors {
    pub(crate) fn new(text: &str, faults: Vec<Fault>) -> Self {
        let located = faults.into_iter().map(|Fault { span, kind, help }| {
            let (line, column) = position(text, span.start);
            EvaluateError { kind, span, line, column, help }
        });
        let mut errors: Vec<EvaluateError> = located.collect();
        errors.sort_by_key(|error| (error.span.start, error.span.end));
        Self { errors }
    }

    /// The reasons, in the order of the text.
    #[must_use]
    pub fn errors(&self) -> &[EvaluateError] {
        &self.errors
    }

    /// Pictures of the reasons, with carets under the text of the scope ([`Scope::text`]), for a terminal.
    #[must_use]
    pub fn render(&self, text: &str, colour: bool) -> String {
        let messages: Vec<String> = self.errors.iter().map(|error| error.kind.to_string()).collect();
        let pictures = self.errors.iter().zip(&messages).map(|(error, message)| Picture {
            span: error.span.clone(),
            message,
            label: match &error.kind {
                EvaluateErrorKind::UnknownSite { .. } => "not known".to_owned(),
                EvaluateErrorKind::PrimeOutside { .. } | EvaluateErrorKind::SecondPrime { .. } => {
                    "this prime".to_owned()
                }
                _ => "this".to_owned(),
            },
            help: error.help.as_deref(),
        });
        render(text, colour, pictures)
    }
}

impl fmt::Display for EvaluateErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        plain(&self.errors, f)
    }
}

impl std::error::Error for EvaluateErrors {}
