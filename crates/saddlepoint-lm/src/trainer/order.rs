//! Which records make which optimizer step: a function of seed and step alone, so that a resumed run needs no more.

use rand_chacha::rand_core::Rng;
use saddlepoint_core::seed::Seed;

/// Every epoch goes through all records in an order of its own.
#[derive(Debug)]
pub(super) struct Order {
    seed: Seed,
    records: usize,
    step_size: usize,
    /// The order of one epoch, kept while its steps are asked for.
    shuffled: Option<(u64, Vec<usize>)>,
}

impl Order {
    pub(super) fn new(seed: Seed, records: usize, step_size: usize) -> Self {
        Self { seed, records, step_size, shuffled: None }
    }

    /// The records of optimizer step `step`, counted from 0. The last step of an epoch may have fewer.
    pub(super) fn step(&mut self, step: u64) -> Vec<usize> {
        let steps = self.records.div_ceil(self.step_size) as u64;
        let (epoch, within) = (step / steps, (step % steps) as usize * self.step_size);
        let last = (within + self.step_size).min(self.records);
        self.epoch(epoch)[within..last].to_vec()
    }

    /// `count` records from place `first` of the epochs one after the other.
    pub(super) fn stream(&mut self, first: u64, count: usize) -> Vec<usize> {
        let records = self.records as u64;
        let mut picked = Vec::with_capacity(count);
        for place in first..first + count as u64 {
            let (epoch, within) = (place / records, (place % records) as usize);
            picked.push(self.epoch(epoch)[within]);
        }
        picked
    }

    fn epoch(&mut self, epoch: u64) -> &[usize] {
        if self.shuffled.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.shuffled = Some((epoch, permutation(self.seed, "data/order", &[epoch], self.records)));
        }
        let (_, order) = self.shuffled.as_ref().expect("just made");
        order
    }
}

/// A random order of `0..len`. Fisher-Yates on whole 64-bit draws, so it does not change with a library.
pub(super) fn permutation(seed: Seed, name: &str, index: &[u64], len: usize) -> Vec<usize> {
    let mut rng = seed.stream(name, index);
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        let j = (u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_permutation_and_any_step_can_be_asked_first() {
        let steps = |order: &mut Order, range: std::ops::Range<u64>| -> Vec<Vec<usize>> {
            range.map(|step| order.step(step)).collect()
        };
        let mut order = Order::new(Seed::new(5), 10, 4);
        let all = steps(&mut order, 0..6);
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
        for epoch in all.chunks(3) {
            let mut seen = epoch.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(all[..3], all[3..]);
        let mut later = Order::new(Seed::new(5), 10, 4);
        assert_eq!(steps(&mut later, 4..6), all[4..]);
    }

    #[test]
    fn a_stream_goes_through_one_epoch_after_the_other_wherever_it_is_entered() {
        let mut order = Order::new(Seed::new(5), 7, 3);
        let all = order.stream(0, 21);
        for epoch in all.chunks(7) {
            let mut seen = epoch.to_vec();
            seen.sort_unstable();
            assert_eq!(seen, (0..7).collect::<Vec<_>>());
        }
        assert_eq!(Order::new(Seed::new(5), 7, 1).stream(5, 12), all[5..17]);
        assert_eq!(order.step(0), all[..3]);
    }

    #[test]
    fn every_place_is_equally_likely() {
        let mut counts = [[0_u32; 4]; 4];
        for draw in 0..8_000 {
            for (place, item) in permutation(Seed::new(1), "test", &[draw], 4).into_iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        // Standard deviation of a count: sqrt(8000 * 3/16) = 39.
        assert!(counts.iter().flatten().all(|&n| n.abs_diff(2_000) < 160), "{counts:?}");
    }
}
