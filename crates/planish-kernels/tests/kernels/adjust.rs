//! Penalties, biases and masks of logits.

use planish_format::FloatType;
use planish_kernels::launch::{Adjust, Launch};
use planish_ops::Adjustment;

use crate::data::{Random, from_bytes, to_bytes};
use crate::device::{Device, Watch};
use crate::places::bytes_of;

const ROWS: usize = 3;
const SIZES: [usize; 3] = [1, 64, 700];

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let adjust = Adjust { cols: 700 };
    vec![adjust.adjust(1), adjust.mask(1)]
}

/// Rows 0 and 2 have some, row 1 has none.
#[test]
fn adjusted_logits_equal_the_formula() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(41);
    for cols in SIZES {
        let mut expected = random.values(ROWS * cols, FloatType::F32);
        let mut buffers = [to_bytes(&expected, FloatType::F32), Vec::new()];
        let mut words = Vec::new();
        for (row, step) in [(0, 2), (2, 1)] {
            for token in (0..cols).step_by(step) {
                let adjustment = Adjustment {
                    token: token as u32,
                    penalty: 1.5 + random.value(),
                    bias: if token % 5 == 4 {
                        f32::NEG_INFINITY
                    } else {
                        random.value()
                    },
                };
                let [penalty, bias] = [adjustment.penalty, adjustment.bias].map(f32::to_bits);
                words.extend([row as u32, adjustment.token, penalty, bias]);
                let logit = &mut expected[row * cols + token];
                *logit = adjustment.of(*logit);
            }
        }
        buffers[1] = bytes_of(&words);
        let adjust = Adjust { cols: cols as u32 };
        device.run(&adjust.adjust(words.len() as u32 / 4), &mut buffers);
        assert_eq!(from_bytes(&buffers[0], FloatType::F32), expected, "{cols} logits");
    }
}

#[test]
fn masked_tokens_cannot_be_chosen() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(42);
    for cols in SIZES {
        let adjust = Adjust { cols: cols as u32 };
        let mut expected = random.values(ROWS * cols, FloatType::F32);
        let mut buffers = [to_bytes(&expected, FloatType::F32), Vec::new()];
        let mut words = Vec::new();
        for row in [2, 0] {
            let bits: Vec<u32> = (1..adjust.mask_words()).map(|_| random.next() as u32).collect();
            for token in (0..cols).filter(|token| bits[token / 32] >> (token % 32) & 1 == 0) {
                expected[row * cols + token] = f32::NEG_INFINITY;
            }
            words.push(row as u32);
            words.extend(bits);
        }
        buffers[1] = bytes_of(&words);
        device.run(&adjust.mask(2), &mut buffers);
        assert_eq!(from_bytes(&buffers[0], FloatType::F32), expected, "{cols} logits");
    }
}
