//! The order in which people expect names: layer 2 before layer 10.

use std::cmp::Ordering;

/// Alphabetical, except that runs of digits compare as numbers.
pub(crate) fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left.as_bytes(), right.as_bytes());
    while let (Some(&a), Some(&b)) = (left_rest.first(), right_rest.first()) {
        let order = if a.is_ascii_digit() && b.is_ascii_digit() {
            let (a, b) = (take_number(&mut left_rest), take_number(&mut right_rest));
            a.len().cmp(&b.len()).then(a.cmp(b))
        } else {
            (left_rest, right_rest) = (&left_rest[1..], &right_rest[1..]);
            a.cmp(&b)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left_rest.len().cmp(&right_rest.len()).then(left.cmp(right))
}

/// The digits in front, without leading zeros.
fn take_number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    let zeros = digits.iter().position(|&digit| digit != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_sort_by_number() {
        let mut names = [
            "layers.10.b",
            "layers.2.b",
            "layers.2.a",
            "layers.1",
            "embed",
            "layers.02.a",
        ];
        names.sort_by(|left, right| natural_order(left, right));
        assert_eq!(
            names,
            [
                "embed",
                "layers.1",
                "layers.02.a",
                "layers.2.a",
                "layers.2.b",
                "layers.10.b"
            ]
        );
    }
}
