//! One row of x: each register lane of an unpacked chunk belongs to one group, and is scaled as such.
//!
//! `y = sum over chunks of scale[lane] * x_scale[lane] * (codes . x)[lane] + sum over groups of bias * sum_x`. Scales are read
//! 16 groups at a time and spread to the lanes by a permutation; x has a scale for each lane (each two lanes at 3 bits). Four
//! sums keep the pipelines full: of four rows that share x, or of a long row.
//!
//! Reading is the limit, so weights are fetched ahead, also beyond the end of a row and of the rows of this call: what comes there
//! is read next, or by another thread. On a Xeon (November 2026) that is worth 1.3 times the rate of the processor's own fetching.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::{FloatType, PackedMatrix};

use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, Int8Product, Output};

use super::unpack::{byte_mask, chunk_bytes, chunk_codes, code_of, unpack, vectors};

/// Groups whose scales fill a register.
const BLOCK: usize = 16;
/// Bytes of a row from which on rows are read one by one: memory is fastest where addresses only grow.
const LONG_ROW: usize = 768;
/// How far ahead of use weights are fetched into the first-level cache, in bytes.
pub(super) const NEAR: usize = 2 * 1024;
/// The same for the second-level cache.
pub(super) const FAR: usize = 16 * 1024;
/// The same for scales and biases.
const SCALES_AHEAD: usize = 2 * 1024;

/// What the rows of one product have in common.
struct Shared<'a> {
    matrix: &'a PackedMatrix,
    /// Group (within a block) of each lane, for every chunk of a block. // (chunks of a block, 16)
    lanes: &'a [[u32; 16]],
    /// Sums of x. // (groups to a multiple of 16)
    x_sums: &'a [f32],
    output: Output,
}

/// The x of a chunk, in the type that the kernel multiplies.
trait Input: Copy {
    /// Sums of products of 4 codes (times the vectors) with x, per lane.
    ///
    /// # Safety
    /// x must have a whole chunk at `chunk`; the machine must have AVX-512 VNNI.
    unsafe fn products<const BITS: u32>(self, codes: [__m512i; 4], chunk: usize) -> __m512;
}

/// x as bytes.
#[derive(Clone, Copy)]
struct Bytes {
    codes: *const i8,   // (chunks, vectors, 64)
    scales: *const f32, // (chunks, 16), at 3 bits (chunks, 8)
}

/// x as floats. // (chunks, vectors, 4, 16)
#[derive(Clone, Copy)]
struct Floats(*const f32);

impl Input for Bytes {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn products<const BITS: u32>(self, codes: [__m512i; 4], chunk: usize) -> __m512 {
        let mut sum = _mm512_setzero_si512();
        for (vector, codes) in codes.into_iter().enumerate().take(vectors(BITS)) {
            // SAFETY: x has the chunk, by the contract.
            let x = unsafe { _mm512_loadu_si512(self.codes.add(chunk * chunk_codes(BITS) + 64 * vector).cast()) };
            sum = _mm512_dpbusd_epi32(sum, codes, x);
        }
        // SAFETY: as above, the scales are padded like the codes.
        let scales = unsafe {
            if BITS == 3 {
                let pairs = _mm512_castps256_ps512(_mm256_loadu_ps(self.scales.add(chunk * 8)));
                let twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
                _mm512_permutexvar_ps(twice, pairs)
            } else {
                _mm512_loadu_ps(self.scales.add(chunk * 16))
            }
        };
        _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scales)
    }
}

impl Input for Floats {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn products<const BITS: u32>(self, codes: [__m512i; 4], chunk: usize) -> __m512 {
        let mut sums = [_mm512_setzero_ps(); 2];
        let low = _mm512_set1_epi32(255);
        for (vector, codes) in codes.into_iter().enumerate().take(vectors(BITS)) {
            let parts = [
                _mm512_and_si512(codes, low),
                _mm512_and_si512(_mm512_srli_epi32::<8>(codes), low),
                _mm512_and_si512(_mm512_srli_epi32::<16>(codes), low),
                _mm512_srli_epi32::<24>(codes),
            ];
            for (part, codes) in parts.into_iter().enumerate() {
                let at = chunk * chunk_codes(BITS) + 64 * vector + 16 * part;
                // SAFETY: x has the chunk, by the contract.
                let x = unsafe { _mm512_loadu_ps(self.0.add(at)) };
                sums[part % 2] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), x, sums[part % 2]);
            }
        }
        _mm512_add_ps(sums[0], sums[1])
    }
}

/// Products of rows with x rounded to 8 bits.
pub(super) fn int8(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let shared = Shared {
        matrix: product.matrix,
        lanes: lanes(product.matrix, scratch),
        x_sums: product.input.sums,
        output: product.output,
    };
    let x = Bytes {
        codes: product.input.codes.as_ptr(),
        scales: product.input.scales.as_ptr(),
    };
    by_bits(&shared, x, rows);
}

/// Products of rows with x in floats.
pub(super) fn exact(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let shared = Shared {
        matrix: product.matrix,
        lanes: lanes(product.matrix, scratch),
        x_sums: product.input.sums,
        output: product.output,
    };
    by_bits(&shared, Floats(product.input.values.as_ptr()), rows);
}

fn by_bits(shared: &Shared<'_>, x: impl Input, rows: Range<usize>) {
    // SAFETY: the table of instruction sets offers these kernels only where the features are there, matrices are checked
    // before they are multiplied, and x is padded to whole chunks (see `Shape::stride`).
    unsafe {
        match shared.matrix.packing.bits() {
            2 => all_rows::<2>(shared, x, rows),
            3 => all_rows::<3>(shared, x, rows),
            4 => all_rows::<4>(shared, x, rows),
            5 => all_rows::<5>(shared, x, rows),
            6 => all_rows::<6>(shared, x, rows),
            _ => all_rows::<8>(shared, x, rows),
        }
    }
}

/// The lanes' groups, kept from call to call.
fn lanes<'a>(matrix: &PackedMatrix, scratch: &'a mut WorkerScratch) -> &'a [[u32; 16]] {
    let (bits, group) = (matrix.packing.bits(), matrix.packing.group());
    let chunks = BLOCK * group / chunk_codes(bits);
    let fresh = scratch.lanes_of != Some(matrix.packing);
    let lanes = scratch.lanes.take::<[u32; 16]>(chunks);
    if fresh {
        for (chunk, groups) in lanes.iter_mut().enumerate() {
            *groups =
                std::array::from_fn(|lane| ((chunk * chunk_codes(bits) + code_of(bits, 0, 4 * lane)) / group) as u32);
        }
        scratch.lanes_of = Some(matrix.packing);
    }
    scratch.lanes.get(chunks)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
unsafe fn all_rows<const BITS: u32>(shared: &Shared<'_>, x: impl Input, rows: Range<usize>) {
    let mut row = rows.start;
    let short = shared.matrix.cols / 8 * BITS as usize <= LONG_ROW;
    // SAFETY: passed on from the caller.
    unsafe {
        while short && row + 4 <= rows.end {
            some_rows::<BITS, 4, 1>(shared, x, row);
            row += 4;
        }
        while row < rows.end {
            some_rows::<BITS, 1, 4>(shared, x, row);
            row += 1;
        }
    }
}

/// Products of ROWS rows from `row` on, with WAYS sums for each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
unsafe fn some_rows<const BITS: u32, const ROWS: usize, const WAYS: usize>(
    shared: &Shared<'_>,
    x: impl Input,
    row: usize,
) {
    let matrix = shared.matrix;
    let (group, cols) = (matrix.packing.group(), matrix.cols);
    let (groups, row_bytes) = (cols / group, cols / 8 * BITS as usize);
    let block_bytes = BLOCK * group / 8 * BITS as usize;
    let [near, far] = [NEAR, FAR].map(|distance| ahead(distance, ROWS, row_bytes));
    let mut sums = [[_mm512_setzero_ps(); WAYS]; ROWS];
    for block in 0..groups.div_ceil(BLOCK) {
        let here = BLOCK.min(groups - block * BLOCK);
        let bytes = here * group / 8 * BITS as usize;
        // SAFETY: scales, biases and codes of the rows are inside the matrix, whose lengths were checked; masks hide what
        // is beyond the last group and the last byte. x is padded to whole blocks of groups and whole chunks.
        unsafe {
            let x_sums = _mm512_loadu_ps(shared.x_sums.as_ptr().add(block * BLOCK));
            let at = row * groups + block * BLOCK;
            let scales = load_rows::<ROWS>(&matrix.scales, matrix.scale_type, (at, groups), here);
            let biases = load_rows::<ROWS>(&matrix.biases, matrix.scale_type, (at, groups), here);
            for (sums, biases) in sums.iter_mut().zip(biases) {
                sums[0] = _mm512_fmadd_ps(biases, x_sums, sums[0]);
            }
            let codes = matrix.codes.as_ptr().add(row * row_bytes + block * block_bytes);
            let first = block * shared.lanes.len();
            let whole = bytes / chunk_bytes(BITS);
            for chunks in (0..whole).step_by(WAYS) {
                for chunk in chunks..whole.min(chunks + WAYS) {
                    let way = chunk - chunks;
                    let lanes = _mm512_loadu_si512(shared.lanes.as_ptr().add(chunk).cast());
                    for part in 0..ROWS {
                        let codes = codes.add(part * row_bytes + chunk * chunk_bytes(BITS));
                        _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(near).cast());
                        _mm_prefetch::<_MM_HINT_T1>(codes.wrapping_add(far).cast());
                        let packed = load_chunk::<BITS>(codes);
                        let products = x.products::<BITS>(unpack::<BITS>(packed), first + chunk);
                        let scales = _mm512_permutexvar_ps(lanes, scales[part]);
                        sums[part][way] = _mm512_fmadd_ps(products, scales, sums[part][way]);
                    }
                }
            }
            let rest = bytes - whole * chunk_bytes(BITS);
            if rest > 0 {
                let lanes = _mm512_loadu_si512(shared.lanes.as_ptr().add(whole).cast());
                for part in 0..ROWS {
                    let codes = codes.add(part * row_bytes + whole * chunk_bytes(BITS));
                    let packed = _mm512_maskz_loadu_epi8(byte_mask(rest), codes.cast());
                    let products = x.products::<BITS>(unpack::<BITS>(packed), first + whole);
                    let scales = _mm512_permutexvar_ps(lanes, scales[part]);
                    sums[part][0] = _mm512_fmadd_ps(products, scales, sums[part][0]);
                }
            }
        }
    }
    for (part, sums) in sums.into_iter().enumerate() {
        let sum = sums.into_iter().reduce(|sum, way| _mm512_add_ps(sum, way));
        // SAFETY: the rows are those given to this call.
        unsafe { *shared.output.at(0, row + part) = sum.map_or(0.0, |sum| _mm512_reduce_add_ps(sum)) };
    }
}

/// Bytes from a place in one of `rows` rows to what is fetched with it: in the same row of later ones, so that no line is left out
/// where rows are read side by side.
pub(super) fn ahead(distance: usize, rows: usize, row_bytes: usize) -> usize {
    match rows {
        1 => distance,
        _ => distance.next_multiple_of(rows * row_bytes),
    }
}

/// A whole chunk of codes.
///
/// # Safety
/// `codes` must have the bytes of a chunk.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load_chunk<const BITS: u32>(codes: *const u8) -> __m512i {
    // SAFETY: only the bytes of the chunk are read.
    unsafe {
        if chunk_bytes(BITS) == 64 {
            _mm512_loadu_si512(codes.cast())
        } else {
            _mm512_maskz_loadu_epi8(byte_mask(chunk_bytes(BITS)), codes.cast())
        }
    }
}

/// `count` (at most 16) floats of each of ROWS rows, `stride` values apart, from value `index` on, then zeros. Fetches ahead.
///
/// # Safety
/// `data` must have them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_rows<const ROWS: usize>(
    data: &[u8],
    float_type: FloatType,
    (index, stride): (usize, usize),
    count: usize,
) -> [__m512; ROWS] {
    let size = float_type.size_bytes();
    let first = data.as_ptr().wrapping_add(index * size);
    _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(SCALES_AHEAD).cast());
    _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(SCALES_AHEAD + (ROWS - 1) * stride * size).cast());
    let mut rows = [_mm512_setzero_ps(); ROWS];
    for (part, row) in rows.iter_mut().enumerate() {
        // SAFETY: passed on from the caller.
        *row = unsafe { load_floats(data, float_type, index + part * stride, count) };
    }
    rows
}

/// `count` (at most 16) floats from value `index` on, then zeros.
///
/// # Safety
/// `data` must have them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn load_floats(data: &[u8], float_type: FloatType, index: usize, count: usize) -> __m512 {
    let mask = if count >= 16 { u16::MAX } else { (1 << count) - 1 };
    // SAFETY: inside `data` by the contract, and the mask hides the rest.
    unsafe {
        let at = data.as_ptr().add(index * float_type.size_bytes());
        match float_type {
            FloatType::F32 => _mm512_maskz_loadu_ps(mask, at.cast()),
            FloatType::F16 => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at.cast())),
            FloatType::BF16 => {
                let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
            }
        }
    }
}
