//! A checksum that costs little beside reading the data: it tells lost and half-written data from whole, and defends against nobody.

/// Of bytes that come in pieces; how they are cut does not matter.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    state: u64,
    length: u64,
    /// Bytes that do not make a word yet: the low ones, `length % 8` of them.
    rest: u64,
}

/// Odd, with bits all over.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Checksum {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let missing = (8 - self.length % 8) % 8;
        let (head, bytes_left) = bytes.split_at(bytes.len().min(missing as usize));
        head.iter().for_each(|&byte| self.byte(byte));
        let (words, tail) = bytes_left.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        self.length += 8 * words.len() as u64;
        tail.iter().for_each(|&byte| self.byte(byte));
    }

    /// The checksum of all that came.
    pub fn value(&self) -> u64 {
        let mut whole = self.clone();
        whole.word(whole.rest);
        whole.word(whole.length);
        whole.state ^ whole.state >> 32
    }

    fn byte(&mut self, byte: u8) {
        self.rest |= u64::from(byte) << (8 * (self.length % 8));
        self.length += 1;
        if self.length.is_multiple_of(8) {
            self.word(self.rest);
            self.rest = 0;
        }
    }

    /// Every step can be undone, so that two states never become one.
    fn word(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(FACTOR).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&[u8]]) -> u64 {
        let mut sum = Checksum::default();
        pieces.iter().for_each(|piece| sum.update(piece));
        sum.value()
    }

    #[test]
    fn pieces_do_not_matter_and_every_byte_does() {
        let data: Vec<u8> = (0..61).map(|index| (index * 37) as u8).collect();
        let whole = of(&[&data]);
        for first in 0..data.len() {
            for second in first..data.len() {
                assert_eq!(of(&[&data[..first], &data[first..second], &data[second..]]), whole);
            }
            assert_ne!(of(&[&data[..first]]), whole);
            let mut other = data.clone();
            other[first] ^= 1;
            assert_ne!(of(&[&other]), whole, "byte {first}");
        }
        let zeros = [0; 24];
        assert_ne!(of(&[&zeros[..8]]), of(&[&zeros[..16]]));
        assert_ne!(of(&[&zeros[..3]]), of(&[&zeros[..4]]));
    }
}
