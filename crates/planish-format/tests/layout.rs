//! The fast packing against the definition of the bit layout, for every width.

use planish_format::{code_at, pack_codes, unpack_codes};
use proptest::prelude::*;

fn rows_of_codes() -> impl Strategy<Value = (u32, Vec<u8>)> {
    (prop::sample::select(vec![2u32, 3, 4, 5, 6, 8]), 0usize..40).prop_flat_map(|(bits, eights)| {
        let largest = ((1u32 << bits) - 1) as u8;
        (Just(bits), prop::collection::vec(0..=largest, eights * 8))
    })
}

proptest! {
    #[test]
    fn packing_follows_the_definition((bits, codes) in rows_of_codes()) {
        let mut stream = vec![0xaa; codes.len() / 8 * bits as usize];
        pack_codes(&codes, bits, &mut stream);
        let defined: Vec<u8> = (0..codes.len()).map(|index| code_at(&stream, bits, index)).collect();
        prop_assert_eq!(&defined, &codes);

        let mut unpacked = vec![0xaa; codes.len()];
        unpack_codes(&stream, bits, &mut unpacked);
        prop_assert_eq!(&unpacked, &codes);
    }
}

#[test]
fn known_words() {
    let codes: Vec<u8> = (0..8).collect();
    let mut words = [0; 4];
    pack_codes(&codes, 4, &mut words);
    assert_eq!(u32::from_le_bytes(words), 0x7654_3210);

    // 3 bits: 0 1 2 3 4 5 6 7, the lowest code in the lowest bits.
    let mut stream = [0; 3];
    pack_codes(&codes, 3, &mut stream);
    let expected = (0..8u32).fold(0, |word, code| word | (code << (3 * code)));
    assert_eq!(stream, expected.to_le_bytes()[..3]);
}
