//! The checksum of ZFS streams, fletcher-4: four running sums over 32-bit words, modulo 2^64. Pure.
//!
//! OpenZFS module/zcommon/zfs_fletcher.c. For each word w: a += w, b += a, c += b, d += c. The sums over a
//! span, starting at zero, can be appended to any earlier sums (see [`Sums::then`]), so one pass over a
//! payload serves two streams.

use serde::{Deserialize, Serialize};

pub const SUMS: usize = 32;

/// The sums at some point of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums([u64; 4]);

/// The sums over some bytes that arrive in slices, starting at zero.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    sums: [u64; 4],
    words: u64,
    /// The words are of a big-endian host.
    swapped: bool,
    /// The beginning of a word that the next slice completes.
    begun: Vec<u8>,
}

impl Span {
    /// The total must be a multiple of 4 bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.begun.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(4 - self.begun.len()));
            self.begun.extend_from_slice(head);
            bytes = rest;
            if let Some(word) = self.begun.first_chunk().copied() {
                self.begun.clear();
                self.add(&[word]);
            }
        }
        let (words, rest) = bytes.as_chunks::<4>();
        self.add(words);
        self.begun.extend_from_slice(rest);
    }
    pub fn of_host(swapped: bool) -> Self {
        Span { swapped, ..Span::default() }
    }
    pub fn of(bytes: &[u8]) -> Self {
        let mut span = Span::default();
        span.push(bytes);
        span
    }
    fn add(&mut self, words: &[[u8; 4]]) {
        if self.swapped {
            self.add_by(words, u32::from_be_bytes);
        } else {
            self.add_by(words, u32::from_le_bytes);
        }
    }
    #[inline]
    fn add_by(&mut self, words: &[[u8; 4]], number: impl Fn([u8; 4]) -> u32) {
        let [mut a, mut b, mut c, mut d] = self.sums;
        for word in words {
            a = a.wrapping_add(u64::from(number(*word)));
            b = b.wrapping_add(a);
            c = c.wrapping_add(b);
            d = d.wrapping_add(c);
        }
        self.sums = [a, b, c, d];
        self.words += words.len() as u64;
    }
}

impl Sums {
    /// The sums after `span` is appended.
    pub fn then(self, span: &Span) -> Self {
        let [a, b, c, d] = self.0;
        let [sa, sb, sc, sd] = span.sums;
        // each sum also grows by the earlier values of those before it: n, n(n+1)/2, n(n+1)(n+2)/6 times
        let n = u128::from(span.words);
        let [once, twice, thrice] =
            [n, n * (n + 1) / 2, n * (n + 1) / 2 * (n + 2) / 3].map(|times| times as u64);
        let times = u64::wrapping_mul;
        let sum = |parts: &[u64]| parts.iter().fold(0u64, |sum, part| sum.wrapping_add(*part));
        Sums([
            sum(&[a, sa]),
            sum(&[b, times(once, a), sb]),
            sum(&[c, times(once, b), times(twice, a), sc]),
            sum(&[d, times(once, c), times(twice, b), times(thrice, a), sd]),
        ])
    }
    /// As in a record of a little-endian host.
    pub fn bytes(self) -> [u8; SUMS] {
        let mut bytes = [0; SUMS];
        bytes.chunks_exact_mut(8).zip(self.0).for_each(|(to, sum)| to.copy_from_slice(&sum.to_le_bytes()));
        bytes
    }
}

impl From<[u8; SUMS]> for Sums {
    fn from(bytes: [u8; SUMS]) -> Self {
        let mut sums = [0; 4];
        let (words, _) = bytes.as_chunks::<8>();
        sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = u64::from_le_bytes(*word));
        Sums(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Word by word, as it is defined.
    fn plain(bytes: &[u8]) -> [u64; 4] {
        bytes.chunks(4).fold([0; 4], |[a, b, c, d]: [u64; 4], word| {
            let a = a.wrapping_add(u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            let b = b.wrapping_add(a);
            let c = c.wrapping_add(b);
            [a, b, c, d.wrapping_add(c)]
        })
    }

    #[test]
    fn the_sums_of_appended_spans_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..40_000u32).flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_be_bytes()).collect();
        for cut in [0, 4, 280, 312, 100_000, bytes.len() - 4, bytes.len()] {
            let (head, tail) = bytes.split_at(cut);
            let sums = Sums::default().then(&Span::of(head)).then(&Span::of(tail));
            assert_eq!(sums.0, plain(&bytes), "{cut}");
        }
        for pieces in [1, 3, 5, 4096, 100_001] {
            let mut span = Span::default();
            bytes.chunks(pieces).for_each(|piece| span.push(piece));
            assert_eq!(span.sums, plain(&bytes), "{pieces}");
        }
        let sums = Sums(plain(&bytes));
        assert_eq!(Sums::from(sums.bytes()), sums);
    }
}
