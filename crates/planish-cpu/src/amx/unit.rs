//! The tile unit itself: the product of 32 rows of x with 32 rows of weights.
//!
//! Intel Software Developer's Manual, volume 1, chapter 18. Stable Rust has no intrinsics for it, hence the assembly.

use std::arch::asm;
use std::marker::PhantomData;

use crate::input::{BF16_COLS, BF16_ROWS};

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = BF16_ROWS;
/// bf16 values of a row of a tile.
pub(super) const TILE_COLS: usize = BF16_COLS;
/// Bytes of a row of a tile.
const LINE: usize = 64;
/// Rows of x, and rows of weights, of one product: 2 x 2 tiles of sums.
pub(super) const BLOCK: usize = 2 * TILE_ROWS;

/// The unit, set up for tiles of 16 rows of 64 bytes on this thread until dropped. Its first four tiles are sums: (32 rows of
/// weights, 32 rows of x).
pub(super) struct Unit {
    _tiles: Tiles,
}

/// Tiles of this thread, released when dropped.
struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// Rows, and bytes of a row, of each tile.
    ///
    /// # Safety
    /// The process must run [`planish_format::Isa::Amx`].
    unsafe fn new(shapes: [(usize, usize); 8]) -> Tiles {
        // Palette 1; bytes of a row from byte 16 on, 16 bits for each tile; rows from byte 48 on.
        let mut configuration = [0u8; 64];
        configuration[0] = 1;
        for (tile, (rows, bytes)) in shapes.into_iter().enumerate() {
            configuration[16 + 2 * tile] = bytes as u8;
            configuration[48 + tile] = rows as u8;
        }
        // SAFETY: reads the 64 bytes; the compiler does not use tiles.
        unsafe { asm!("ldtilecfg [{}]", in(reg) configuration.as_ptr(), options(nostack, preserves_flags)) };
        Tiles(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: they were set up on this thread: they are not `Send`, holding no `Sync` state across threads.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

impl Unit {
    /// # Safety
    /// The process must run [`planish_format::Isa::Amx`].
    pub unsafe fn new() -> Unit {
        // SAFETY: passed on from the caller.
        let _tiles = unsafe { Tiles::new([(TILE_ROWS, LINE); 8]) };
        Unit { _tiles }
    }

    /// Sets the sums to zero.
    pub fn zero(&self) {
        // SAFETY: changes tiles only.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nomem, nostack, preserves_flags),
            );
        }
    }

    /// Reads the sums, 32 x 32 floats whose rows begin `stride` floats apart.
    ///
    /// # Safety
    /// They must be there.
    pub unsafe fn load(&self, sums: *const f32, stride: usize) {
        // SAFETY: reads what the caller vouches for.
        unsafe {
            asm!(
                "tileloadd tmm0, [{upper} + {stride}]",
                "tileloadd tmm1, [{upper} + {stride} + 64]",
                "tileloadd tmm2, [{lower} + {stride}]",
                "tileloadd tmm3, [{lower} + {stride} + 64]",
                upper = in(reg) sums,
                lower = in(reg) sums.add(TILE_ROWS * stride),
                stride = in(reg) 4 * stride,
                options(nostack, preserves_flags, readonly),
            );
        }
    }

    /// Writes the sums, 32 x 32 floats whose rows begin `stride` floats apart.
    ///
    /// # Safety
    /// There must be room.
    pub unsafe fn store(&self, sums: *mut f32, stride: usize) {
        // SAFETY: writes where the caller vouches for.
        unsafe {
            asm!(
                "tilestored [{upper} + {stride}], tmm0",
                "tilestored [{upper} + {stride} + 64], tmm1",
                "tilestored [{lower} + {stride}], tmm2",
                "tilestored [{lower} + {stride} + 64], tmm3",
                upper = in(reg) sums,
                lower = in(reg) sums.add(TILE_ROWS * stride),
                stride = in(reg) 4 * stride,
                options(nostack, preserves_flags),
            );
        }
    }

    /// `sums += weights * x^T` for 32 rows of both.
    ///
    /// # Safety
    /// `block` must point to what its fields say.
    pub unsafe fn multiply(&self, block: &Block) {
        debug_assert!(block.steps > 0);
        // SAFETY: reads what the fields describe; tiles are nobody else's.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm6, [{x} + {stride}]",
                "tileloadd tmm4, [{weights} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right_x} + {stride}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{weights} + {stride} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {x}, 1024",
                "add {right_x}, 1024",
                "add {weights}, 2048",
                "dec {steps}",
                "jnz 2b",
                x = inout(reg) block.x[0] => _,
                right_x = inout(reg) block.x[1] => _,
                weights = inout(reg) block.weights => _,
                stride = in(reg) 2 * TILE_COLS,
                steps = inout(reg) block.steps => _,
                options(nostack, readonly),
            );
        }
    }
}

/// The unit, set up for bytes on this thread until dropped: rows of x times 16 rows of weights, with sums of 32 bits.
pub(super) struct Bytes {
    _tiles: Tiles,
}

impl Bytes {
    /// For so many rows of x, up to 16, and so many quads of columns, up to 16.
    ///
    /// # Safety
    /// The process must run [`planish_format::Isa::Amx`].
    pub unsafe fn new(rows: usize, quads: usize) -> Bytes {
        assert!((1..=TILE_ROWS).contains(&rows) && (1..=TILE_ROWS).contains(&quads));
        let (sums, x, weights) = ((rows, LINE), (rows, 4 * quads), (quads, LINE));
        // SAFETY: passed on from the caller.
        let _tiles = unsafe { Tiles::new([sums, sums, sums, sums, x, x, weights, weights]) };
        Bytes { _tiles }
    }

    /// Multiplies both planes of x, `plane` bytes apart, with rows `stride` bytes apart, by N tiles of weights.
    /// // (N, planes, rows of x, 16 rows of weights)
    ///
    /// # Safety
    /// All must be there, and room for the products.
    pub unsafe fn multiply<const N: usize>(
        &self,
        x: *const i8,
        plane: usize,
        stride: usize,
        weights: *const u8, // (N, quads, 16 rows, 4)
        products: *mut i32,
    ) {
        // SAFETY: reads and writes what the caller vouches for.
        unsafe {
            asm!(
                "tileloadd tmm6, [{weights} + {line}]",
                "tileloadd tmm4, [{high} + {stride}]",
                "tilezero tmm0",
                "tileloadd tmm5, [{low} + {stride}]",
                "tilezero tmm1",
                "tdpbsud tmm0, tmm4, tmm6",
                "tdpbsud tmm1, tmm5, tmm6",
                "tilestored [{products} + {line}], tmm0",
                "tilestored [{products} + {line} + 1024], tmm1",
                weights = in(reg) weights,
                high = in(reg) x,
                low = in(reg) x.add(plane),
                stride = in(reg) stride,
                products = in(reg) products,
                line = in(reg) LINE,
                options(nostack, preserves_flags),
            );
            if N == 2 {
                asm!(
                    "tileloadd tmm7, [{weights} + {line} + 1024]",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tdpbsud tmm2, tmm4, tmm7",
                    "tdpbsud tmm3, tmm5, tmm7",
                    "tilestored [{products} + {line} + 2048], tmm2",
                    "tilestored [{products} + {line} + 3072], tmm3",
                    weights = in(reg) weights,
                    products = in(reg) products,
                    line = in(reg) LINE,
                    options(nostack, preserves_flags),
                );
            }
        }
    }
}

/// As `dot_limit` of the table: bf16 tiles times themselves. The process must run [`planish_format::Isa::Amx`].
pub(super) fn dot_limit(rounds: usize) -> u64 {
    const PRODUCTS: usize = 4;
    // SAFETY: the table offers this function only where the unit is there.
    let unit = unsafe { Unit::new() };
    let rounds = rounds.div_ceil(8);
    // SAFETY: tiles are nobody else's while the unit is set up, and no memory is touched.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) rounds.max(1) => _,
            options(nomem, nostack),
        );
    }
    drop(unit);
    (rounds.max(1) * PRODUCTS * TILE_ROWS * TILE_ROWS * TILE_COLS * 2) as u64
}

/// What one product reads and writes.
pub(super) struct Block {
    /// Two blocks of rows. // (steps, 16 pairs of columns, 16 rows, 2) each
    pub x: [*const u16; 2],
    /// // (steps, 2, 16 rows, 32)
    pub weights: *const u16,
    /// Columns / 32.
    pub steps: usize,
}
