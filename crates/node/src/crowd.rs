//! How many come from each address: of so many at once, some are kept for others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Those who are there. Clones count the same.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    counts: Arc<Mutex<BTreeMap<Option<IpAddr>, usize>>>,
    /// The most from one address, and altogether.
    of_address: usize,
    all: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct One {
    crowd: Crowd,
    network: Option<IpAddr>,
}

/// The addresses of which one may have any: of the newer kind, everybody is given 2⁶⁴.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

impl Crowd {
    pub(crate) fn new(of_address: usize, all: usize) -> Self {
        Self { counts: Arc::default(), of_address, all }
    }

    /// One more, if there may be.
    pub(crate) fn enter(&self, address: Option<IpAddr>) -> Option<One> {
        let network = address.map(network);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = counts.get(&network).copied().unwrap_or_default();
        if here >= self.of_address || counts.values().sum::<usize>() >= self.all {
            return None;
        }
        counts.insert(network, here + 1);
        Some(One { crowd: self.clone(), network })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn there_are_so_many_altogether_and_fewer_from_one_address() {
        let crowd = Crowd::new(4, 32);
        let mut inside: Vec<_> = (0..4).map(|_| crowd.enter(address("192.0.2.1")).unwrap()).collect();
        assert!(crowd.enter(address("192.0.2.1")).is_none());
        assert!(crowd.enter(address("::ffff:192.0.2.1")).is_none(), "it is the same");
        for number in 0..28 {
            inside.push(crowd.enter(address(&format!("2001:db8:0:{:x}::{number}", number / 3))).unwrap());
        }
        assert!(crowd.enter(address("192.0.2.2")).is_none(), "there are as many as there may be");
        drop(inside);
        assert!(crowd.counts.lock().unwrap().is_empty());
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff:1".parse().unwrap()));
    }
}
