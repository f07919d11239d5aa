//! Preferences that contradict each other: taken one by one, the strongest first.

use std::collections::BTreeMap;

use super::graph::{add, at, count};
use super::order::Live;

/// What leads to what within one group of operations: at first causality, then also the preferences taken.
///
/// The members are split into the history's chains, so that all that a member leads to in one chain is told by the first
/// such place, and all that leads to it by the last.
struct Taken {
    chains: Vec<Vec<usize>>,
    places: Vec<(usize, usize)>,
    /// For member and chain, the first place in the chain that the member leads to.
    to: Vec<usize>,
    /// For member and chain, how many of the chain lead to the member.
    from: Vec<usize>,
}

impl Taken {
    fn new(live: &Live<'_>, members: &[usize]) -> Self {
        let history = live.history;
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        let mut chains: Vec<Vec<usize>> = Vec::new();
        let mut places = Vec::new();
        for (member, op) in members.iter().enumerate() {
            let chain = *numbers.entry(history.chain_of(*op)).or_insert(chains.len());
            if chain == chains.len() {
                chains.push(Vec::new());
            }
            places.push((chain, chains.get(chain).map_or(0, Vec::len)));
            add(&mut chains, chain, member);
        }
        let op = |member: usize| at(members, member);
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for a in members {
            for chain in &chains {
                from.push(chain.partition_point(|m| history.before(op(*m), *a)));
                to.push(chain.partition_point(|m| !history.before(*a, op(*m))));
            }
        }
        Self { chains, places, to, from }
    }

    fn index(&self, member: usize, chain: usize) -> usize {
        member * self.chains.len() + chain
    }

    fn leads(&self, a: usize, b: usize) -> bool {
        let (chain, place) = at(&self.places, b);
        at(&self.to, self.index(a, chain)) <= place
    }

    /// Takes "a first, then b", unless it contradicts what was taken before.
    fn take(&mut self, a: usize, b: usize) {
        if self.leads(b, a) || self.leads(a, b) {
            return;
        }
        let width = self.chains.len();
        let own = |member: usize| at(&self.places, member);
        // What `b` leads to, itself included, and what leads to `a`, itself included.
        let below: Vec<usize> =
            (0..width).map(|c| if own(b).0 == c { own(b).1 } else { at(&self.to, self.index(b, c)) }).collect();
        let above: Vec<usize> =
            (0..width).map(|c| if own(a).0 == c { own(a).1 + 1 } else { at(&self.from, self.index(a, c)) }).collect();
        // Only those change that did not lead to `b` yet, or to which `a` did not lead yet.
        let sources: Vec<usize> = self.between(|c| at(&self.from, self.index(b, c)), |c| at(&above, c));
        let targets: Vec<usize> = self.between(|c| at(&below, c), |c| at(&self.to, self.index(a, c)));
        count((sources.len() + targets.len()) * width);
        for source in sources {
            let row = self.to.get_mut(source * width..).unwrap_or_default();
            row.iter_mut().zip(&below).for_each(|(first, below)| *first = (*first).min(*below));
        }
        for target in targets {
            let row = self.from.get_mut(target * width..).unwrap_or_default();
            row.iter_mut().zip(&above).for_each(|(count, above)| *count = (*count).max(*above));
        }
    }

    /// The members from one place to another of each chain.
    fn between(&self, start: impl Fn(usize) -> usize, end: impl Fn(usize) -> usize) -> Vec<usize> {
        let part = |(c, chain): (usize, &Vec<usize>)| chain.get(start(c)..end(c)).unwrap_or_default().to_vec();
        self.chains.iter().enumerate().flat_map(part).collect()
    }
}

/// Adds the edges within one group: causality and the preferences that were taken, from the highest rank down, by the
/// higher of the two and then by the lower.
pub(super) fn add_taken(live: &Live<'_>, members: &[usize], edges: &mut [Vec<usize>]) {
    let mut taken = Taken::new(live, members);
    for (higher, x) in members.iter().enumerate().rev() {
        for (lower, y) in members.iter().enumerate().take(higher).rev() {
            if live.history.before(*y, *x) {
                continue;
            }
            match live.preference(*y, *x) {
                Some((first, _)) if first == *y => taken.take(lower, higher),
                Some(_) => taken.take(higher, lower),
                None => {}
            }
        }
    }
    for (member, op) in members.iter().enumerate() {
        for (c, chain) in taken.chains.iter().enumerate() {
            let next = chain.get(at(&taken.to, taken.index(member, c)));
            if let Some(next) = next.and_then(|next| members.get(*next)) {
                add(edges, *op, *next);
            }
        }
    }
}
