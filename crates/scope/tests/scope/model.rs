//! A second, naive implementation: expressions that print themselves in many ways and work out their own value.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use khufu_scope::{Anchor, Expr, Label, SiteView, State, View};
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Model {
    Site(String),
    Here,
    All,
    Labels(Vec<(String, bool, String)>),
    Around(Option<String>, u32),
    Some(u32, Box<Model>),
    Not(Box<Model>),
    Join(Operator, Vec<Model>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operator {
    Otherwise,
    Cross,
    Replicate,
}

/// Choices of spelling, used up one by one and then over again.
pub(crate) struct Style {
    choices: Vec<u8>,
    next: usize,
}

impl Style {
    pub(crate) fn new(choices: Vec<u8>) -> Self {
        Self { choices, next: 0 }
    }

    fn pick(&mut self, options: u8) -> u8 {
        let choice = self.choices.get(self.next % self.choices.len().max(1)).copied().unwrap_or_default();
        self.next += 1;
        choice % options
    }

    pub(crate) fn blank(&mut self) -> &'static str {
        ["", " ", "", "  ", "\n", "\t"][usize::from(self.pick(6))]
    }
}

impl Model {
    /// Writes the expression, with parentheses where the grammar needs them and sometimes where it does not.
    pub(crate) fn write(&self, style: &mut Style) -> String {
        let blank = style.blank();
        let text = match self {
            Self::Site(name) => name.clone(),
            Self::Here => "here".to_owned(),
            Self::All => "all".to_owned(),
            Self::Labels(labels) => {
                let labels = labels.iter().map(|(key, equal, value)| {
                    format!("{}{key}{}{}{value}", style.blank(), if *equal { "=" } else { "!=" }, style.blank())
                });
                let labels: Vec<String> = labels.collect();
                format!("[{}]", labels.join(","))
            }
            Self::Around(site, ms) => {
                let site = site.as_deref().unwrap_or("here");
                let time = match style.pick(3) {
                    0 => format!("{ms}ms"),
                    1 => format!("{ms}000us"),
                    _ => format!("{}.{:03}s", ms / 1000, ms % 1000),
                };
                format!("around{}({}{site},{}{time})", style.blank(), style.blank(), style.blank())
            }
            Self::Some(count, of) => format!("{count} of{}({})", style.blank(), of.write(style)),
            Self::Not(inner) => match **inner {
                Self::Not(_) | Self::Join(..) => format!("!{}({})", style.blank(), inner.write(style)),
                _ => format!("!{}{}", style.blank(), inner.write(style)),
            },
            Self::Join(operator, parts) => {
                let mut text = String::new();
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        text.push_str(match (operator, style.pick(3)) {
                            (Operator::Replicate, _) => "&",
                            (Operator::Cross, _) => "%",
                            (Operator::Otherwise, 0) => "|",
                            (Operator::Otherwise, 1) => "||",
                            (Operator::Otherwise, _) => ";",
                        });
                    }
                    match part {
                        Self::Join(inner, _) if inner <= operator => text.push_str(&format!("({})", part.write(style))),
                        _ => text.push_str(&part.write(style)),
                    }
                }
                text
            }
        };
        // Parentheses around a list would make another tree of it within a list of the same kind; elsewhere they are free.
        let free = !matches!(self, Self::Join(..)) && style.pick(8) == 0;
        let text = if free { format!("({text})") } else { text };
        format!("{blank}{text}{}", style.blank())
    }

    pub(crate) fn read(expr: &Expr) -> Self {
        let all = |parts: &[khufu_scope::Spanned<Expr>]| parts.iter().map(|part| Self::read(part.node())).collect();
        let anchor = |anchor: &Anchor| match anchor {
            Anchor::Site(name) => Some(name.as_str().to_owned()),
            Anchor::Here => None,
        };
        match expr {
            Expr::One(one) => anchor(one).map_or(Self::Here, Self::Site),
            Expr::All => Self::All,
            Expr::Labels(labels) => {
                let read = |Label { key, value, equal }: &Label| (key.clone(), *equal, value.clone());
                Self::Labels(labels.iter().map(read).collect())
            }
            Expr::Around { site, within } => {
                Self::Around(anchor(site.node()), u32::try_from(within.as_millis()).unwrap())
            }
            Expr::Some { count, of } => Self::Some(*count, Box::new(Self::read(of.node()))),
            Expr::Not(inner) => Self::Not(Box::new(Self::read(inner.node()))),
            Expr::Replicate(parts) => Self::Join(Operator::Replicate, all(parts)),
            Expr::Cross(parts) => Self::Join(Operator::Cross, all(parts)),
            Expr::Otherwise(parts) => Self::Join(Operator::Otherwise, all(parts)),
        }
    }

    /// The sites it stands for; `None` where it has no value.
    pub(crate) fn value(&self, view: &View) -> Option<BTreeSet<String>> {
        let all: BTreeSet<String> = view.sites.keys().cloned().collect();
        let filtered = |keep: &dyn Fn(&str, &SiteView) -> bool| -> BTreeSet<String> {
            view.sites.iter().filter(|(name, site)| keep(name, site)).map(|(name, _)| name.clone()).collect()
        };
        match self {
            Self::Site(name) => view.sites.contains_key(name).then(|| BTreeSet::from([name.clone()])),
            Self::Here => Some(BTreeSet::from([view.here.clone()])),
            Self::All => Some(all),
            Self::Labels(labels) => Some(filtered(&|_, site| {
                labels.iter().all(|(key, equal, value)| match site.labels.get(key) {
                    Some(found) => (found == value) == *equal,
                    None => !equal,
                })
            })),
            Self::Around(site, ms) => {
                let centre = site.as_deref().unwrap_or(&view.here);
                view.sites.get(centre)?;
                let limit = Duration::from_millis(u64::from(*ms));
                Some(filtered(&|name, _| name == centre || rtt(view, centre, name).is_some_and(|rtt| rtt <= limit)))
            }
            Self::Some(count, of) => {
                let mut left = of.value(view)?;
                let mut taken = BTreeSet::new();
                for _ in 0..*count {
                    let best = left.iter().min_by(|one, other| better(view, one, other))?.clone();
                    left.remove(&best);
                    taken.insert(best);
                }
                Some(taken)
            }
            Self::Not(inner) => Some(&all - &inner.value(view)?),
            Self::Join(Operator::Replicate, parts) => {
                let out = parts.iter().filter_map(|part| if let Self::Not(out) = part { Some(out) } else { None });
                let out: BTreeSet<String> = out.map(|out| out.value(view)).collect::<Option<Vec<_>>>()?.concat_sets();
                let joined = parts.iter().filter(|part| !matches!(part, Self::Not(_)));
                let joined: Vec<_> = joined.map(|part| part.value(view)).collect::<Option<_>>()?;
                Some(&(if joined.is_empty() { all } else { joined.concat_sets() }) - &out)
            }
            Self::Join(Operator::Cross, parts) => {
                Some(parts.iter().map(|part| part.value(view)).collect::<Option<Vec<_>>>()?.concat_sets())
            }
            Self::Join(Operator::Otherwise, parts) => {
                let values: Vec<_> =
                    parts.iter().filter_map(|part| part.value(view)).filter(|set| !set.is_empty()).collect();
                let up = |set: &&BTreeSet<String>| set.iter().all(|site| view.sites[site].state != State::Down);
                values.iter().find(up).or(values.first()).cloned()
            }
        }
    }

    /// Whether `%` stands where it has no meaning.
    pub(crate) fn misplaced(&self, within: bool) -> bool {
        match self {
            Self::Some(_, inner) | Self::Not(inner) => inner.misplaced(true),
            Self::Join(Operator::Replicate, parts) => parts.iter().any(|part| part.misplaced(true)),
            Self::Join(Operator::Cross, parts) => within || parts.iter().any(|part| part.misplaced(within)),
            Self::Join(Operator::Otherwise, parts) => parts.iter().any(|part| part.misplaced(within)),
            _ => false,
        }
    }

    pub(crate) fn names(&self, into: &mut BTreeSet<String>) {
        match self {
            Self::Site(name) | Self::Around(Some(name), _) => {
                into.insert(name.clone());
            }
            Self::Some(_, inner) | Self::Not(inner) => inner.names(into),
            Self::Join(_, parts) => parts.iter().for_each(|part| part.names(into)),
            Self::Here | Self::All | Self::Labels(_) | Self::Around(None, _) => {}
        }
    }
}

trait ConcatSets {
    fn concat_sets(self) -> BTreeSet<String>;
}

impl ConcatSets for Vec<BTreeSet<String>> {
    fn concat_sets(self) -> BTreeSet<String> {
        self.into_iter().flatten().collect()
    }
}

fn rtt(view: &View, from: &str, to: &str) -> Option<Duration> {
    let measured = view.sites.get(from)?.rtt.get(to);
    measured.or_else(|| view.sites.get(to)?.rtt.get(from)).copied()
}

fn better(view: &View, one: &str, other: &str) -> Ordering {
    let distance = |name: &str| {
        if name == view.here { Duration::ZERO } else { rtt(view, &view.here, name).unwrap_or(Duration::MAX) }
    };
    let (left, right) = (&view.sites[one], &view.sites[other]);
    (left.state as u8)
        .cmp(&(right.state as u8))
        .then(distance(one).cmp(&distance(other)))
        .then(left.load.partial_cmp(&right.load).unwrap())
        .then(one.cmp(other))
}

/// Words that are special elsewhere are names like any other.
const NAMES: [&str; 10] = ["a", "b", "c", "paris-2", "9", "of", "prime", "around", "eu.west_1", "50ms"];

pub(crate) fn site_name() -> impl Strategy<Value = String> {
    prop::sample::select(NAMES.as_slice()).prop_map(str::to_owned)
}

fn label() -> impl Strategy<Value = (String, bool, String)> {
    let word = prop::sample::select(vec!["zone", "x/y", "all", "1.5", "west"]).prop_map(str::to_owned);
    (word.clone(), any::<bool>(), word)
}

pub(crate) fn model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        6 => site_name().prop_map(Model::Site),
        1 => Just(Model::Here),
        1 => Just(Model::All),
        1 => prop::collection::vec(label(), 1..4).prop_map(Model::Labels),
        1 => (prop::option::of(site_name()), 0u32..3000).prop_map(|(site, ms)| Model::Around(site, ms)),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        let operator =
            prop::sample::select(vec![Operator::Otherwise, Operator::Cross, Operator::Replicate, Operator::Replicate]);
        prop_oneof![
            1 => (1u32..4, inner.clone()).prop_map(|(count, of)| Model::Some(count, Box::new(of))),
            1 => inner.clone().prop_map(|inner| Model::Not(Box::new(inner))),
            4 => (operator, prop::collection::vec(inner, 2..5)).prop_map(|(op, parts)| Model::Join(op, parts)),
        ]
    })
}

pub(crate) fn view() -> impl Strategy<Value = View> {
    let state = prop::sample::select(vec![State::Alive, State::Alive, State::Suspect, State::Down]);
    let rtt = prop::collection::btree_map(site_name(), (0u64..2000).prop_map(Duration::from_millis), 0..6);
    let labels = prop::collection::btree_map(label().prop_map(|l| l.0), label().prop_map(|l| l.2), 0..3);
    let site = (state, 0u8..3, rtt, labels).prop_map(|(state, load, rtt, labels)| SiteView {
        labels,
        state,
        load: f64::from(load) / 2.0,
        rtt,
        held: false,
    });
    // Mostly every site is known: one that is not hides everything else that a test might find.
    let sites = (prop::collection::vec(site, NAMES.len()), prop::option::weighted(0.2, 1..NAMES.len())).prop_map(
        |(sites, unknown)| -> BTreeMap<String, SiteView> {
            let named = NAMES.iter().map(|name| (*name).to_owned()).zip(sites).enumerate();
            named.filter(|(index, _)| Some(*index) != unknown).map(|(_, site)| site).collect()
        },
    );
    (sites, any::<prop::sample::Index>())
        .prop_map(|(sites, here)| View { here: here.get(&sites.keys().cloned().collect::<Vec<_>>()).clone(), sites })
}
