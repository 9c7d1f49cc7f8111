//! Reads little-endian numbers, strings and runs of bytes from front to back. Every length is checked against what is left
//! before anything is taken, so a damaged length cannot cause a large allocation.

use bytes::Bytes;

use super::fault::Fault;

/// A position in the file. Runs of bytes are slices of the map, not copies.
pub(super) struct Cursor<'a> {
    bytes: &'a Bytes,
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a Bytes) -> Cursor<'a> {
        Cursor { bytes, position: 0 }
    }

    /// Bytes from the start of the file.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The bytes from an earlier position to this one.
    pub fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start..self.position)
    }

    /// The next `count` bytes; `what` names them in the error.
    pub fn take(&mut self, count: u64, what: &str) -> Result<Bytes, Fault> {
        let left = self.bytes.len() - self.position;
        match usize::try_from(count) {
            Ok(count) if count <= left => {
                let taken = self.bytes.slice(self.position..self.position + count);
                self.position += count;
                Ok(taken)
            }
            _ => Err(Fault::malformed(format!(
                "the file ends inside {what}: at byte {} expected {count} more, found {left}",
                self.position
            ))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let left = &self.bytes[self.position..];
        match left.first_chunk::<N>() {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None => self.take(N as u64, what).map(|_| [0; N]),
        }
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: its length in bytes (u64), then that many bytes.
    pub fn string(&mut self, what: &str) -> Result<Bytes, Fault> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    /// A string that must be UTF-8, as names are.
    pub fn name(&mut self, what: &str) -> Result<String, Fault> {
        let at = self.position;
        let bytes = self.string(what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Fault::malformed(format!("{what} at byte {at} is not UTF-8")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_end_is_an_error_and_not_an_allocation() {
        let bytes = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, b'a']);
        let fault = Cursor::new(&bytes).string("a key").unwrap_err();
        assert_eq!(
            fault,
            Fault::malformed("the file ends inside a key: at byte 8 expected 9223372036854775807 more, found 1")
        );
    }
}
