//! Products of strips of rows for attention: 2 x 2 tiles of sums, or 2 x 1 at the end.

use std::arch::asm;

use crate::avx512::attention::{STRIP, StripProduct, StripUnit, TILE, TILE_COLS, TILE_DEPTH};

use super::unit::{TILE_ROWS, Unit};

const _: () = assert!(STRIP == 2 * TILE_ROWS);

impl StripUnit for Unit {
    unsafe fn start() -> Unit {
        // SAFETY: the caller's promise.
        unsafe { Unit::new() }
    }

    unsafe fn multiply(&self, product: &StripProduct) {
        let pairs = product.tiles / 2 * 2;
        // SAFETY: the caller's promise; the tiles are those of the product.
        unsafe {
            for tile in (0..pairs).step_by(2) {
                two(self, product, tile);
            }
            if pairs < product.tiles {
                one(product, pairs);
            }
        }
    }
}

/// Two tiles of columns.
///
/// # Safety
/// As [`StripUnit::multiply`], on a thread where the unit is set up; the tiles must be there.
unsafe fn two(unit: &Unit, product: &StripProduct, tile: usize) {
    let Addresses {
        upper,
        lower: _,
        stride,
        left,
        left_stride,
        right,
        step,
    } = Addresses::new(product, tile);
    // SAFETY: reads and writes what the product describes; tiles are nobody else's.
    unsafe {
        match product.accumulate {
            true => unit.load(upper.cast(), stride / 4),
            false => unit.zero(),
        }
        asm!(
            "2:",
            "tileloadd tmm6, [{right} + {right_stride}]",
            "tileloadd tmm4, [{left} + {left_stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right} + {right_stride} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{lower_left} + {left_stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 64",
            "add {lower_left}, 64",
            "add {right}, {step}",
            "dec {steps}",
            "jnz 2b",
            right = inout(reg) right => _,
            right_stride = in(reg) 2 * TILE_DEPTH,
            left = inout(reg) left => _,
            lower_left = inout(reg) left.wrapping_byte_add(TILE_ROWS * left_stride) => _,
            left_stride = in(reg) left_stride,
            step = in(reg) step,
            steps = inout(reg) product.steps => _,
            options(nostack, readonly),
        );
        unit.store(upper.cast(), stride / 4);
    }
}

/// One tile of columns.
///
/// # Safety
/// As [`two`].
unsafe fn one(product: &StripProduct, tile: usize) {
    let Addresses {
        upper,
        lower,
        stride,
        left,
        left_stride,
        right,
        step,
    } = Addresses::new(product, tile);
    // SAFETY: as in `two`.
    unsafe {
        if product.accumulate {
            asm!(
                "tileloadd tmm0, [{upper} + {stride}]",
                "tileloadd tmm2, [{lower} + {stride}]",
                upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
                options(nostack, preserves_flags, readonly),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm2",
                options(nostack, preserves_flags, nomem)
            );
        }
        asm!(
            "2:",
            "tileloadd tmm6, [{right} + {right_stride}]",
            "tileloadd tmm4, [{left} + {left_stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower_left} + {left_stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "add {left}, 64",
            "add {lower_left}, 64",
            "add {right}, {step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{upper} + {stride}], tmm0",
            "tilestored [{lower} + {stride}], tmm2",
            right = inout(reg) right => _,
            right_stride = in(reg) 2 * TILE_DEPTH,
            left = inout(reg) left => _,
            lower_left = inout(reg) left.wrapping_byte_add(TILE_ROWS * left_stride) => _,
            left_stride = in(reg) left_stride,
            step = in(reg) step,
            steps = inout(reg) product.steps => _,
            upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
            options(nostack),
        );
    }
}

/// Where the tiles lie; strides and steps in bytes.
struct Addresses {
    upper: *mut f32,
    lower: *mut f32,
    stride: usize,
    left: *const u16,
    left_stride: usize,
    right: *const u16,
    step: usize,
}

impl Addresses {
    fn new(product: &StripProduct, tile: usize) -> Addresses {
        let cols = product.tiles * TILE_COLS;
        let upper = product.output.wrapping_add(tile * TILE_COLS);
        Addresses {
            upper,
            lower: upper.wrapping_add(TILE_ROWS * cols),
            stride: 4 * cols,
            left: product.left,
            left_stride: 2 * product.left_stride,
            right: product.right.wrapping_add(tile * TILE),
            step: 2 * product.tiles * TILE,
        }
    }
}
