//! The syntax tree of a scope.

use std::{collections::BTreeSet, ops::Range, str::FromStr, time::Duration};

use crate::{Name, ParseErrors};

/// The most bytes that the text of a scope may have.
pub const MAX_BYTES: usize = 4096;

/// The most parentheses that may be open at once in a scope, those of `around(` and `of (` included.
pub const MAX_DEPTH: usize = 32;

/// A scope: an expression that says where a resource lives.
///
/// Only [`parse`](crate::parse) makes one, so it always keeps to the grammar and to the limits [`MAX_BYTES`] and
/// [`MAX_DEPTH`]. Two scopes are equal if their trees are; blanks, superfluous parentheses and the choice between
/// `|`, `||` and `;` do not count. Its `Display` is the canonical text: parsing it gives an equal scope.
#[derive(Debug, Clone)]
pub struct Scope {
    pub(crate) text: String,
    pub(crate) items: Vec<Item>,
}

impl Scope {
    /// The text that was parsed, as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parts between the commas, in the order written: at least one [`Item::Place`], at most one of them for
    /// each service and one without a service, and each [`Item::Prime`] once.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The names of the sites that are written, each once. Services are not among them.
    #[must_use]
    pub fn sites(&self) -> BTreeSet<&str> {
        self.mentions().into_iter().map(Name::as_str).collect()
    }

    /// Every place where a site is named, in the order written.
    #[must_use]
    pub fn mentions(&self) -> Vec<&Name> {
        let mut mentions = Vec::new();
        self.anchors(&mut |anchor, _| {
            if let Anchor::Site(name) = anchor {
                mentions.push(name);
            }
        });
        mentions
    }

    /// Whether the value depends on the site that evaluates it: `here` is written, or `n of` measures from there.
    #[must_use]
    pub fn depends_on_here(&self) -> bool {
        self.items.iter().any(|item| match item {
            Item::Place { expr, .. } => depends_on_here(expr),
            Item::Prime(anchor) => *anchor.node() == Anchor::Here,
        })
    }

    /// Calls for every place where one site is meant, in the order written.
    pub(crate) fn anchors<'s>(&'s self, call: &mut impl FnMut(&'s Anchor, Range<usize>)) {
        for item in &self.items {
            match item {
                Item::Place { expr, .. } => anchors(expr, call),
                Item::Prime(anchor) => call(anchor.node(), anchor.span()),
            }
        }
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

impl Eq for Scope {}

impl FromStr for Scope {
    type Err = ParseErrors;

    /// The same as [`parse`](crate::parse).
    fn from_str(text: &str) -> Result<Self, ParseErrors> {
        crate::parse(text)
    }
}

fn anchors<'s>(expr: &'s Spanned<Expr>, call: &mut impl FnMut(&'s Anchor, Range<usize>)) {
    match expr.node() {
        Expr::One(anchor) => call(anchor, expr.span()),
        Expr::Around { site, .. } => call(site.node(), site.span()),
        Expr::All | Expr::Labels(_) => {}
        Expr::Some { of: inner, .. } | Expr::Not(inner) => anchors(inner, call),
        Expr::Replicate(parts) | Expr::Cross(parts) | Expr::Otherwise(parts) => {
            parts.iter().for_each(|part| anchors(part, call));
        }
    }
}

fn depends_on_here(expr: &Spanned<Expr>) -> bool {
    match expr.node() {
        Expr::One(anchor) => *anchor == Anchor::Here,
        Expr::Around { site, .. } => *site.node() == Anchor::Here,
        Expr::Some { .. } => true,
        Expr::All | Expr::Labels(_) => false,
        Expr::Not(inner) => depends_on_here(inner),
        Expr::Replicate(parts) | Expr::Cross(parts) | Expr::Otherwise(parts) => parts.iter().any(depends_on_here),
    }
}

/// A part of the tree and where it stands in the text. Equality looks at the part only.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    node: T,
    span: Range<usize>,
}

impl<T> Spanned<T> {
    pub(crate) fn new(node: T, span: Range<usize>) -> Self {
        Self { node, span }
    }

    /// The part itself.
    #[must_use]
    pub fn node(&self) -> &T {
        &self.node
    }

    /// Where it stands in the text of the scope, in bytes.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl<T: Eq> Eq for Spanned<T> {}

/// What stands between two commas of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Where a service of the resource lives, or the resource as a whole where no service is named. The older form
    /// `around: paris, 50ms` is held as `around(paris, 50ms)`.
    Place {
        /// The service, if one is named.
        service: Option<Name>,
        /// Where it lives.
        expr: Spanned<Expr>,
    },
    /// `prime: paris`: the site that holds what spans several (`%`).
    Prime(Spanned<Anchor>),
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// The site where the scope is evaluated.
    Here,
    /// The site of this name.
    Site(Name),
}

/// An expression whose value is a set of sites. The lists of [`Replicate`](Expr::Replicate), [`Cross`](Expr::Cross)
/// and [`Otherwise`](Expr::Otherwise) hold at least two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A site by name, or `here`.
    One(Anchor),
    /// `all`: every known site, also those that are down.
    All,
    /// `[zone=west, gpu!=no]`: the sites for which all of these hold.
    Labels(Vec<Label>),
    /// `around(paris, 50ms)`: the site and those within that round-trip time of it.
    Around {
        /// The site in the middle.
        site: Spanned<Anchor>,
        /// The longest round-trip time.
        within: Duration,
    },
    /// `2 of (a & b & c)`: so many of them, chosen by placement.
    Some {
        /// How many; at least one.
        count: u32,
        /// Of which.
        of: Box<Spanned<Expr>>,
    },
    /// `!a`: beside other operands of `&`, takes sites out; alone, every site but these.
    Not(Box<Spanned<Expr>>),
    /// `a & b`: each has a replica.
    Replicate(Vec<Spanned<Expr>>),
    /// `a % b`: one resource spans them.
    Cross(Vec<Spanned<Expr>>),
    /// `a | b`: the first that works.
    Otherwise(Vec<Spanned<Expr>>),
}

/// A condition on one label of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The name of the label: letters, digits, `-`, `_`, `.` and `/`.
    pub key: String,
    /// The value compared with: the same characters.
    pub value: String,
    /// Whether the label must have the value (`=`), or must not (`!=`, which a site without the label meets).
    pub equal: bool,
}

impl Label {
    /// Whether a site with these labels meets the condition.
    #[must_use]
    pub fn matches(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        (labels.get(&self.key) == Some(&self.value)) == self.equal
    }
}
