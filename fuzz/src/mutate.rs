//! Random changes of files: of the words and numbers of a text, and of bytes. Shared with the test that changes whole model folders.

/// A small generator; the same seed gives the same changes everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Marsaglia's xorshift, multiplied.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Numbers at which something changes.
const NUMBERS: [&str; 36] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "5",
    "7",
    "8",
    "16",
    "31",
    "32",
    "33",
    "64",
    "65",
    "100",
    "127",
    "128",
    "255",
    "256",
    "4095",
    "4097",
    "65535",
    "65536",
    "1000000",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "0.5",
    "-0.0",
    "1e-9",
    "1e39",
    "-1e308",
    "1e999",
];

/// Words of JSON and texts that are odd.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[[]]",
    "\"\"",
    "\"../x\"",
    "\"/\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"é\u{1f600}\"",
    "NaN",
    "-Infinity",
];

/// Changes a text or other bytes in one to four places.
pub fn change(data: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(8).saturating_sub(4) {
        match random.below(5) {
            0 => change_bytes(data, random),
            _ => change_words(data, random),
        }
    }
}

/// One change of numbers, words and quoted texts.
pub fn change_words(data: &mut Vec<u8>, random: &mut Random) {
    let spans = spans(data);
    if spans.is_empty() {
        return change_bytes(data, random);
    }
    let span = |random: &mut Random| spans[random.below(spans.len())].clone();
    let numbers = || spans.iter().filter(|span| data[span.start].is_ascii_digit());
    let target = span(random);
    let (range, new): (std::ops::Range<usize>, Vec<u8>) = match random.below(12) {
        // A number, by another or by one beside it.
        0..4 if numbers().next().is_some() => {
            let chosen = random.below(numbers().count());
            let target = numbers().nth(chosen).cloned().unwrap_or(target);
            let old = std::str::from_utf8(&data[target.clone()])
                .ok()
                .and_then(|text| text.parse::<u64>().ok());
            let new = match (random.below(4), old) {
                (0, Some(old)) => (old.wrapping_add(1)).to_string(),
                (1, Some(old)) => (old.wrapping_sub(1)).to_string(),
                (2, Some(old)) => match random.below(3) {
                    0 => (old / 2).to_string(),
                    1 => old.wrapping_mul(2).to_string(),
                    _ => format!("-{old}"),
                },
                _ => random.pick(&NUMBERS).to_owned(),
            };
            (target, new.into_bytes())
        }
        4 => (target, random.pick(&WORDS).as_bytes().to_vec()),
        5 => (target, random.pick(&NUMBERS).as_bytes().to_vec()),
        // One word in place of another.
        6 | 7 => (target, data[span(random)].to_vec()),
        8 => (target, Vec::new()),
        // Several, out of another place, or gone.
        9 => {
            let other = span(random);
            let end = data.len().min(other.start + 1 + random.below(64));
            (target.start..target.start, data[other.start..end].to_vec())
        }
        10 => (
            target.start..data.len().min(target.start + 1 + random.below(64)),
            Vec::new(),
        ),
        _ => {
            let depth = 1 + random.below(200);
            let opening = *random.pick(&[&b'[', &b'{', &b'(', &b'"']);
            (target.start..target.start, vec![opening; depth])
        }
    };
    data.splice(range, new);
}

/// One change of bytes.
pub fn change_bytes(data: &mut Vec<u8>, random: &mut Random) {
    if data.is_empty() {
        data.push(random.next() as u8);
        return;
    }
    let at = random.below(data.len());
    let end = data.len().min(at + 1 + random.below(16));
    match random.below(8) {
        0 | 1 => data[at] ^= 1 << random.below(8),
        2 => data[at] = random.next() as u8,
        // A number of 1, 2, 4 or 8 bytes.
        3 | 4 => {
            let value = match random.below(4) {
                0 => random.next(),
                1 => u64::MAX - random.below(3) as u64,
                2 => 1 << random.below(64),
                _ => random.below(256) as u64,
            };
            let bytes = value.to_le_bytes();
            let size = (1 << random.below(4)).min(data.len() - at);
            data[at..at + size].copy_from_slice(&bytes[..size]);
        }
        5 => drop(data.drain(at..end)),
        6 => {
            let copied = data[at..end].to_vec();
            let to = random.below(data.len());
            data.splice(to..to, copied);
        }
        _ => data.truncate(at),
    }
}

/// Numbers, words, and quoted texts with their quotes; other characters one by one.
fn spans(data: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let start = at;
        let run = |from: usize, belongs: &dyn Fn(u8) -> bool| {
            data[from..]
                .iter()
                .position(|&byte| !belongs(byte))
                .map_or(data.len(), |length| from + length)
        };
        at = match data[at] {
            b'"' => {
                let end = run(at + 1, &|byte| byte != b'"' && byte != b'\n');
                data.len().min(end + 1)
            }
            byte if byte.is_ascii_digit() => run(at, &|byte| byte.is_ascii_digit() || b".eE".contains(&byte)),
            byte if byte.is_ascii_alphabetic() => run(at, &|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
            _ => at + 1,
        };
        if !data[start].is_ascii_whitespace() {
            spans.push(start..at);
        }
    }
    spans
}
