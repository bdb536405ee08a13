//! Where weight decay applies.

use std::ops::Range;

/// Elements of one parallel task; fixed, and small enough that the streams of a task share a cache.
pub(super) const CHUNK: usize = 1 << 14;

/// The parts of an arena that have weight decay: ascending, disjoint ranges.
#[derive(Debug, Clone)]
pub(super) struct Decayed(Vec<Range<usize>>);

impl Decayed {
    /// Ranges of an arena of `len` elements.
    pub(super) fn new(ranges: Vec<Range<usize>>, len: usize) -> Self {
        let ascending = ranges.windows(2).all(|w| w[0].end <= w[1].start);
        assert!(ascending && ranges.last().is_none_or(|r| r.end <= len), "ranges ascend within the arena");
        Self(ranges)
    }

    /// Cuts `chunk` where weight decay starts or ends; the parts are relative to the chunk.
    pub(super) fn split(&self, chunk: Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> + '_ {
        let mut at = chunk.start;
        let mut next = self.0.partition_point(|r| r.end <= chunk.start);
        std::iter::from_fn(move || {
            if at == chunk.end {
                return None;
            }
            let from = at;
            let range = self.0.get(next).filter(|r| r.start < chunk.end);
            let decays = range.is_some_and(|r| r.start <= from);
            at = range.map_or(chunk.end, |r| if decays { r.end.min(chunk.end) } else { r.start });
            next += usize::from(decays);
            Some((from - chunk.start..at - chunk.start, decays))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_chunk_cover_it_once() {
        let decayed = Decayed::new(vec![2..4, 4..6, 9..30], 40);
        let parts = |chunk: Range<usize>| decayed.split(chunk).collect::<Vec<_>>();
        assert_eq!(parts(0..8), [(0..2, false), (2..4, true), (4..6, true), (6..8, false)]);
        assert_eq!(parts(8..16), [(0..1, false), (1..8, true)]);
        assert_eq!(parts(16..24), [(0..8, true)]);
        assert_eq!(parts(24..32), [(0..6, true), (6..8, false)]);
        assert_eq!(parts(32..40), [(0..8, false)]);
    }
}
