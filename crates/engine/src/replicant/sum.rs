//! Sums of what is shared, which follow it without a list.

use sha2::{Digest, Sha256};

use super::index::ItemId;

/// A set of items in forty bytes: how many there are, and the sum of their digests. The order in which they came does not
/// matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    count: u64,
    total: [u128; 2],
}

/// The digest of an item as two numbers.
fn parts(item: &ItemId) -> [u128; 2] {
    let digest = Sha256::digest(item);
    let part = |of: &[u8]| of.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes));
    let (first, second) = digest.split_at(16);
    [part(first), part(second)]
}

impl Sum {
    pub(crate) fn add(&mut self, item: &ItemId) {
        self.count = self.count.wrapping_add(1);
        for (total, part) in self.total.iter_mut().zip(parts(item)) {
            *total = total.wrapping_add(part);
        }
    }

    pub(crate) fn remove(&mut self, item: &ItemId) {
        self.count = self.count.wrapping_sub(1);
        for (total, part) in self.total.iter_mut().zip(parts(item)) {
            *total = total.wrapping_sub(part);
        }
    }

    /// Short, to be told to others.
    pub(crate) fn digest(&self) -> [u8; 16] {
        let mut digest = Sha256::new();
        digest.update(self.count.to_be_bytes());
        self.total.iter().for_each(|total| digest.update(total.to_be_bytes()));
        let mut short = [0; 16];
        short.copy_from_slice(digest.finalize().split_at(16).0);
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_matter_and_each_item_does() {
        let items = [[1; 32], [2; 32], [3; 32]];
        let of = |items: &[ItemId]| {
            let mut sum = Sum::default();
            items.iter().for_each(|item| sum.add(item));
            sum
        };
        let all = of(&items);
        assert_eq!(all, of(&[items[2], items[0], items[1]]));
        assert_ne!(all.digest(), of(&items[..2]).digest());
        assert_ne!(of(&[items[0], items[0]]).digest(), Sum::default().digest());
        let mut less = all;
        less.remove(&items[1]);
        assert_eq!(less.digest(), of(&[items[0], items[2]]).digest());
        less.remove(&items[0]);
        less.remove(&items[2]);
        assert_eq!(less, Sum::default());
    }
}
