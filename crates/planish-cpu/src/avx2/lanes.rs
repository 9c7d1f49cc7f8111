//! Packed weights times x with AVX2: each lane of an unpacked chunk belongs to one group, and is scaled as such.
//!
//! `y = sum over chunks of scale[lane] * (codes . x)[lane] + sum over groups of bias * sum_x`. Scales are read 8 groups at
//! a time and spread to the lanes by a permutation. One row of x meets four rows of weights at once, more rows of x share
//! one unpacking four at a time.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use planish_format::PackedMatrix;

use crate::input::Shape;
use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, Int8Product, Output};

use super::dot::Dot;
use super::float::{load_floats, sum_lanes};
use super::unpack::{chunk_bytes, chunk_codes, code_of, unpack, vectors};

/// Groups whose scales fill a register.
const BLOCK: usize = 8;
/// How far ahead of use codes are fetched, in bytes.
const AHEAD: usize = 1024;
/// Bytes that unpacking may read from the start of a chunk.
const READ: usize = 32;

/// What the rows of one product have in common.
struct Shared<'a, X> {
    matrix: &'a PackedMatrix,
    shape: Shape,
    /// Group (within a block) of each lane, for every chunk of a block. // (chunks of a block, 8)
    lanes: &'a [[u32; 8]],
    x: X,
    /// Sums of x. // (m, group_stride)
    x_sums: &'a [f32],
    output: Output,
}

/// All rows of x, in the type that the kernel multiplies.
trait Input: Copy {
    /// Whether 8-bit codes are multiplied as `code - 128`.
    const CENTRED: bool;

    /// Sums of products of 4 codes (times the vectors) with a chunk of a row of x, per lane.
    ///
    /// # Safety
    /// x must have the row and the whole chunk; the machine must have AVX2 and FMA.
    unsafe fn products<const BITS: u32>(self, codes: [__m256i; 4], row: usize, chunk: usize) -> __m256;
}

/// x as bytes.
#[derive(Clone, Copy)]
struct Bytes<D> {
    codes: *const i8,   // (m, stride)
    scales: *const f32, // (m, block_stride), a block for each lane
    stride: usize,
    block_stride: usize,
    dot: PhantomData<D>,
}

/// x as floats.
#[derive(Clone, Copy)]
struct Floats {
    values: *const f32, // (m, stride)
    stride: usize,
}

impl<D: Dot> Input for Bytes<D> {
    const CENTRED: bool = D::CENTRED;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn products<const BITS: u32>(self, codes: [__m256i; 4], row: usize, chunk: usize) -> __m256 {
        let at = row * self.stride + chunk * chunk_codes(BITS);
        // SAFETY: x has the chunk, by the contract; scales are padded like the codes.
        let (products, scales) = unsafe {
            let scales = self.scales.add(row * self.block_stride + chunk * 8);
            (
                D::sums::<BITS>(codes, self.codes.add(at)),
                _mm256_loadu_pd(scales.cast()),
            )
        };
        // The order of runs in registers of 3, 5 and 6 bits, see unpack.rs.
        let scales = match BITS {
            2 | 4 | 8 => scales,
            _ => _mm256_permute4x64_pd::<0b11_01_10_00>(scales),
        };
        _mm256_mul_ps(_mm256_cvtepi32_ps(products), _mm256_castpd_ps(scales))
    }
}

impl Input for Floats {
    const CENTRED: bool = false;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn products<const BITS: u32>(self, codes: [__m256i; 4], row: usize, chunk: usize) -> __m256 {
        let at = row * self.stride + chunk * chunk_codes(BITS);
        let mut sums = [_mm256_setzero_ps(); 2];
        let low = _mm256_set1_epi32(255);
        for (vector, codes) in codes.into_iter().enumerate().take(vectors(BITS)) {
            let parts = [
                _mm256_and_si256(codes, low),
                _mm256_and_si256(_mm256_srli_epi32::<8>(codes), low),
                _mm256_and_si256(_mm256_srli_epi32::<16>(codes), low),
                _mm256_srli_epi32::<24>(codes),
            ];
            for (part, codes) in parts.into_iter().enumerate() {
                // SAFETY: x has the chunk, by the contract.
                let x = unsafe { _mm256_loadu_ps(self.values.add(at + 32 * vector + 8 * part)) };
                sums[part % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(codes), x, sums[part % 2]);
            }
        }
        _mm256_add_ps(sums[0], sums[1])
    }
}

/// Products of rows with x rounded to 8 bits. The machine must have the instructions of D.
pub(super) fn int8<D: Dot>(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let shared = Shared {
        matrix: product.matrix,
        shape: product.input.shape,
        lanes: lanes(product.matrix, scratch),
        x: Bytes::<D> {
            dot: PhantomData,
            codes: product.input.codes.as_ptr(),
            scales: product.input.scales.as_ptr(),
            stride: product.input.shape.stride(),
            block_stride: product.input.shape.block_stride(),
        },
        x_sums: product.input.sums,
        output: product.output,
    };
    by_bits(&shared, rows);
}

/// Products of rows with x in floats.
pub(super) fn exact(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let shared = Shared {
        matrix: product.matrix,
        shape: product.input.shape,
        lanes: lanes(product.matrix, scratch),
        x: Floats {
            values: product.input.values.as_ptr(),
            stride: product.input.shape.stride(),
        },
        x_sums: product.input.sums,
        output: product.output,
    };
    by_bits(&shared, rows);
}

fn by_bits(shared: &Shared<'_, impl Input>, rows: Range<usize>) {
    // SAFETY: the table of instruction sets offers these kernels only where the features are there, matrices are checked
    // before they are multiplied, and x is padded to whole chunks (see `Shape::stride`).
    unsafe {
        match shared.matrix.packing.bits() {
            2 => all_rows::<2>(shared, rows),
            3 => all_rows::<3>(shared, rows),
            4 => all_rows::<4>(shared, rows),
            5 => all_rows::<5>(shared, rows),
            6 => all_rows::<6>(shared, rows),
            _ => all_rows::<8>(shared, rows),
        }
    }
}

/// The lanes' groups, kept from call to call.
fn lanes<'a>(matrix: &PackedMatrix, scratch: &'a mut WorkerScratch) -> &'a [[u32; 8]] {
    let (bits, group) = (matrix.packing.bits(), matrix.packing.group());
    let chunks = BLOCK * group / chunk_codes(bits);
    let fresh = scratch.lanes_of != Some(matrix.packing);
    let lanes = scratch.lanes.take::<[u32; 8]>(chunks);
    if fresh {
        for (chunk, groups) in lanes.iter_mut().enumerate() {
            let first = |lane: usize| chunk * chunk_codes(bits) + code_of(bits, 0, 4 * lane);
            *groups = std::array::from_fn(|lane| (first(lane) / group) as u32);
        }
        scratch.lanes_of = Some(matrix.packing);
    }
    scratch.lanes.get(chunks)
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn all_rows<const BITS: u32>(shared: &Shared<'_, impl Input>, rows: Range<usize>) {
    let m = shared.shape.m;
    let mut row = rows.start;
    // SAFETY: passed on from the caller.
    unsafe {
        while m == 1 && row + 4 <= rows.end {
            tile::<BITS, 4, 1>(shared, row, 0);
            row += 4;
        }
        for row in row..rows.end {
            let mut x_row = 0;
            while x_row + 4 <= m {
                tile::<BITS, 1, 4>(shared, row, x_row);
                x_row += 4;
            }
            for x_row in x_row..m {
                tile::<BITS, 1, 1>(shared, row, x_row);
            }
        }
    }
}

/// Sums of a tile. // (ROWS, M, 8 lanes)
type Registers<const ROWS: usize, const M: usize> = [[__m256; M]; ROWS];

/// Products of ROWS rows from `row` on with M rows of x from `x_row` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const BITS: u32, const ROWS: usize, const M: usize>(
    shared: &Shared<'_, impl Input>,
    row: usize,
    x_row: usize,
) {
    let matrix = shared.matrix;
    let group = matrix.packing.group();
    let (groups, row_bytes) = (matrix.cols / group, matrix.cols / 8 * BITS as usize);
    let mut sums: Registers<ROWS, M> = [[_mm256_setzero_ps(); M]; ROWS];
    for block in 0..groups.div_ceil(BLOCK) {
        let here = BLOCK.min(groups - block * BLOCK);
        let bytes = here * group / 8 * BITS as usize;
        let start = block * BLOCK * group / 8 * BITS as usize;
        // SAFETY: rows and groups are in the matrix, whose lengths were checked; x is padded to whole blocks and chunks.
        unsafe {
            let scales = block_scales::<BITS, ROWS, M, _>(shared, (row, x_row), block, &mut sums);
            for chunk in 0..bytes.div_ceil(chunk_bytes(BITS)) {
                let lanes = _mm256_loadu_si256(shared.lanes.as_ptr().add(chunk).cast());
                let x_chunk = block * shared.lanes.len() + chunk;
                for part in 0..ROWS {
                    let at = (row + part) * row_bytes + start + chunk * chunk_bytes(BITS);
                    let codes = load::<BITS>(matrix, at, bytes - chunk * chunk_bytes(BITS));
                    let scale = _mm256_permutevar8x32_ps(scales[part], lanes);
                    for (x, sum) in sums[part].iter_mut().enumerate() {
                        let products = shared.x.products::<BITS>(codes, x_row + x, x_chunk);
                        *sum = _mm256_fmadd_ps(products, scale, *sum);
                    }
                }
            }
        }
    }
    for (part, sums) in sums.into_iter().enumerate() {
        for (x, sum) in sums.into_iter().enumerate() {
            // SAFETY: the rows are those given to this call.
            unsafe { *shared.output.at(x_row + x, row + part) = sum_lanes(sum) };
        }
    }
}

/// Scales of a block of groups; adds the biases' share to the sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block_scales<const BITS: u32, const ROWS: usize, const M: usize, X: Input>(
    shared: &Shared<'_, X>,
    (row, x_row): (usize, usize),
    block: usize,
    sums: &mut Registers<ROWS, M>,
) -> [__m256; ROWS] {
    let matrix = shared.matrix;
    let groups = matrix.cols / matrix.packing.group();
    let here = BLOCK.min(groups - block * BLOCK);
    let mut scales = [_mm256_setzero_ps(); ROWS];
    for part in 0..ROWS {
        let at = (row + part) * groups + block * BLOCK;
        let weight_scales = load_floats(&matrix.scales, matrix.scale_type, at, here);
        let mut biases = load_floats(&matrix.biases, matrix.scale_type, at, here);
        if BITS == 8 && X::CENTRED {
            // scale * code + bias = scale * (code - 128) + (bias + 128 * scale)
            biases = _mm256_fmadd_ps(weight_scales, _mm256_set1_ps(128.0), biases);
        }
        for (x, sum) in sums[part].iter_mut().enumerate() {
            let x_at = (x_row + x) * shared.shape.group_stride() + block * BLOCK;
            // SAFETY: x's sums are padded to whole blocks of groups.
            let x_sums = unsafe { _mm256_loadu_ps(shared.x_sums.as_ptr().add(x_at)) };
            *sum = _mm256_fmadd_ps(biases, x_sums, *sum);
        }
        scales[part] = weight_scales;
    }
    scales
}

/// The chunk at byte `at`, of which `left` bytes belong to the row; those beyond a last partial chunk do not matter, as x
/// is zero there, but must not be read outside of the matrix.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load<const BITS: u32>(matrix: &PackedMatrix, at: usize, left: usize) -> [__m256i; 4] {
    if at + READ <= matrix.codes.len() {
        // SAFETY: 32 bytes are there.
        unsafe {
            let codes = matrix.codes.as_ptr().add(at);
            _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(AHEAD).cast());
            return unpack::<BITS>(codes);
        }
    }
    let mut codes = [0; READ];
    let count = left.min(READ).min(matrix.codes.len() - at);
    codes[..count].copy_from_slice(&matrix.codes[at..at + count]);
    // SAFETY: 32 bytes are there.
    unsafe { unpack::<BITS>(codes.as_ptr()) }
}
