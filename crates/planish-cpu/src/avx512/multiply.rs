//! Tiles of 32 weight rows times a few rows of x: their sums in registers, x broadcast, one load of weights for all.
//!
//! Sums over columns are kept as (rows of x, 32) floats between the tiles of one row of weights.

use std::arch::x86_64::*;

use super::tile::ROWS;

/// Rows of x that one call takes at most.
pub(super) const MAX_M: usize = 12;
/// The same for 8-bit products, which need registers for two kinds of sums.
pub(super) const INT8_M: usize = 6;

/// A tile of codes and the x that belongs to it.
pub(super) struct Int8Tile<'a> {
    /// // (quads, 2, 16, 4)
    pub codes: &'a [u8],
    /// // (groups, 2, 16)
    pub scales: &'a [f32],
    /// // (groups, 2, 16)
    pub biases: &'a [f32],
    /// Codes of a group.
    pub group: usize,
    /// Groups of the tile.
    pub groups: usize,
    /// Values of x that share a scale; divides the group.
    pub block: usize,
    /// First x of the tile. // (m, stride)
    pub x: &'a [i8],
    /// Values from one row of x to the next.
    pub stride: usize,
    /// // (m, block_stride)
    pub x_scales: &'a [f32],
    /// // (m, group_stride)
    pub x_sums: &'a [f32],
    /// Scales from one row of x to the next.
    pub block_stride: usize,
    /// Sums from one row of x to the next.
    pub group_stride: usize,
}

/// A tile of floats and the x that belongs to it.
pub(super) struct FloatTile<'a> {
    /// // (columns, 2, 16)
    pub weights: &'a [f32],
    /// Columns of the tile.
    pub columns: usize,
    /// First x of the tile. // (m, stride)
    pub x: &'a [f32],
    /// Values from one row of x to the next.
    pub stride: usize,
}

/// Adds the products of the tile with `m` rows of x to `sums`. // (m, 32)
///
/// # Safety
/// The tile's slices must have what their shapes say for `m` rows of x (the last one only as far as it is read).
pub(super) unsafe fn int8(tile: &Int8Tile<'_>, m: usize, sums: &mut [f32]) {
    assert!(sums.len() >= m * ROWS);
    // SAFETY: passed on from the caller.
    unsafe {
        match m {
            1 => int8_rows::<1>(tile, sums.as_mut_ptr()),
            2 => int8_rows::<2>(tile, sums.as_mut_ptr()),
            3 => int8_rows::<3>(tile, sums.as_mut_ptr()),
            4 => int8_rows::<4>(tile, sums.as_mut_ptr()),
            5 => int8_rows::<5>(tile, sums.as_mut_ptr()),
            6 => int8_rows::<6>(tile, sums.as_mut_ptr()),
            _ => unreachable!("callers cut x into pieces of at most {INT8_M} rows"),
        }
    }
}

/// Products of a block, the scaled ones of a group: both in registers, the sums in memory.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn int8_rows<const M: usize>(tile: &Int8Tile<'_>, sums: *mut f32) {
    let blocks = tile.group / tile.block;
    for group in 0..tile.groups {
        let mut scaled = [[_mm512_setzero_ps(); 2]; M];
        for block in group * blocks..(group + 1) * blocks {
            // SAFETY: the tile holds the block for M rows of x, by the contract.
            unsafe {
                let codes = tile.codes.as_ptr().add(block * tile.block * ROWS);
                let x = tile.x.as_ptr().add(block * tile.block);
                let mut products = [[_mm512_setzero_si512(); 2]; M];
                for quad in 0..tile.block / 4 {
                    let upper = _mm512_loadu_si512(codes.add(quad * 128).cast());
                    let lower = _mm512_loadu_si512(codes.add(quad * 128 + 64).cast());
                    for (row, products) in products.iter_mut().enumerate() {
                        let x = _mm512_set1_epi32(x.add(row * tile.stride + 4 * quad).cast::<i32>().read_unaligned());
                        products[0] = _mm512_dpbusd_epi32(products[0], upper, x);
                        products[1] = _mm512_dpbusd_epi32(products[1], lower, x);
                    }
                }
                for (row, (scaled, products)) in scaled.iter_mut().zip(products).enumerate() {
                    let x_scale = _mm512_set1_ps(*tile.x_scales.as_ptr().add(row * tile.block_stride + block));
                    scaled[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[0]), x_scale, scaled[0]);
                    scaled[1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[1]), x_scale, scaled[1]);
                }
            }
        }
        for half in 0..2 {
            let at = group * ROWS + half * 16;
            // SAFETY: as above.
            unsafe {
                let scales = _mm512_loadu_ps(tile.scales.as_ptr().add(at));
                let biases = _mm512_loadu_ps(tile.biases.as_ptr().add(at));
                for (row, scaled) in scaled.iter().enumerate() {
                    let x_sum = _mm512_set1_ps(*tile.x_sums.as_ptr().add(row * tile.group_stride + group));
                    let sum_at = sums.add(row * ROWS + half * 16);
                    let sum = _mm512_fmadd_ps(biases, x_sum, _mm512_loadu_ps(sum_at));
                    _mm512_storeu_ps(sum_at, _mm512_fmadd_ps(scaled[half], scales, sum));
                }
            }
        }
    }
}

/// Adds the products of the tile with `m` rows of x to `sums`. // (m, 32)
///
/// # Safety
/// The tile's slices must have what their shapes say for `m` rows of x (the last one only as far as it is read).
pub(super) unsafe fn floats(tile: &FloatTile<'_>, m: usize, sums: &mut [f32]) {
    assert!(sums.len() >= m * ROWS);
    // SAFETY: passed on from the caller.
    unsafe {
        match m {
            1 => float_rows::<1>(tile, sums),
            2 => float_rows::<2>(tile, sums),
            3 => float_rows::<3>(tile, sums),
            4 => float_rows::<4>(tile, sums),
            5 => float_rows::<5>(tile, sums),
            6 => float_rows::<6>(tile, sums),
            7 => float_rows::<7>(tile, sums),
            8 => float_rows::<8>(tile, sums),
            9 => float_rows::<9>(tile, sums),
            10 => float_rows::<10>(tile, sums),
            11 => float_rows::<11>(tile, sums),
            12 => float_rows::<12>(tile, sums),
            _ => unreachable!("callers cut x into pieces of at most {MAX_M} rows"),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn float_rows<const M: usize>(tile: &FloatTile<'_>, sums: &mut [f32]) {
    let mut products = [[_mm512_setzero_ps(); 2]; M];
    for column in 0..tile.columns {
        // SAFETY: the tile holds the column for M rows of x, by the contract.
        unsafe {
            let weights = tile.weights.as_ptr().add(column * ROWS);
            let (upper, lower) = (_mm512_loadu_ps(weights), _mm512_loadu_ps(weights.add(16)));
            for (row, products) in products.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*tile.x.as_ptr().add(row * tile.stride + column));
                products[0] = _mm512_fmadd_ps(upper, x, products[0]);
                products[1] = _mm512_fmadd_ps(lower, x, products[1]);
            }
        }
    }
    for (products, sums) in products.iter().zip(sums.chunks_exact_mut(ROWS)) {
        for (half, products) in products.iter().enumerate() {
            // SAFETY: the halves of 16 are inside the 32 sums of a row.
            unsafe {
                let at = sums.as_mut_ptr().add(16 * half);
                _mm512_storeu_ps(at, _mm512_add_ps(*products, _mm512_loadu_ps(at)));
            }
        }
    }
}
