//! The kernels of every instruction set of [`Isa`], one row for each.

use planish_ops::PlainMatrix;
use std::ops::Range;

use planish_format::{Isa, PackedMatrix, Packing};

use crate::attention::RoundedTask;
use crate::input::{Bf16Input, ExactInput, ExactRow, Int8Input, Int8Row, Int16Input, Int16Tile, Shape};
use crate::interleaved::{DeinterleaveWords, InterleaveWords, Interleaved};
use crate::scalar;
use crate::scratch::WorkerScratch;
use crate::vector::VectorFunctions;

/// Where the products go. // (m, rows)
#[derive(Clone, Copy)]
pub(crate) struct Output {
    data: *mut f32,
    m: usize,
    rows: usize,
    stride: usize,
}

// SAFETY: threads write through it only the rows that they were given, and nobody reads until all are done.
unsafe impl Sync for Output {}
// SAFETY: as above.
unsafe impl Send for Output {}

impl Output {
    /// Panics unless `data` has m x rows values.
    pub fn new(data: &mut [f32], m: usize, rows: usize) -> Output {
        assert_eq!(data.len(), m * rows, "values of an output of {m} x {rows}");
        Output {
            data: data.as_mut_ptr(),
            m,
            rows,
            stride: rows,
        }
    }

    /// Only those of some rows. // data (m, rows)
    pub fn of_rows(data: &mut [f32], m: usize, rows: Range<usize>) -> Output {
        assert_eq!(
            data.len(),
            m * rows.len(),
            "values of an output of {m} x {}",
            rows.len()
        );
        Output {
            data: data.as_mut_ptr().wrapping_sub(rows.start),
            m,
            rows: rows.end,
            stride: rows.len(),
        }
    }

    /// Only the products of one row of x.
    pub fn of_row(&self, input_row: usize) -> Output {
        assert!(input_row < self.m);
        Output {
            data: self.data.wrapping_add(input_row * self.stride),
            m: 1,
            ..*self
        }
    }

    /// The same without the first rows of weights.
    pub fn after(&self, row: usize) -> Output {
        assert!(row <= self.rows);
        Output {
            data: self.data.wrapping_add(row),
            rows: self.rows - row,
            ..*self
        }
    }

    /// Values from the products of one row of x to those of the next.
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_os = "linux")),
        expect(dead_code, reason = "no other machine has a row with such kernels yet")
    )]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Address of the product of one row of x with `row` and those after it.
    ///
    /// # Safety
    /// Only the thread that was given the rows may write there.
    pub unsafe fn at(&self, input_row: usize, row: usize) -> *mut f32 {
        assert!(input_row < self.m && row < self.rows);
        self.data.wrapping_add(input_row * self.stride + row)
    }
}

/// A packed matrix times an input rounded to 8 bits.
pub(crate) struct Int8Product<'a> {
    pub matrix: &'a PackedMatrix,
    pub input: Int8Input<'a>,
    pub output: Output,
}

/// An interleaved matrix times an input rounded to 16 bits.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "no other machine has a row with such kernels yet")
)]
pub(crate) struct InterleavedProduct<'a> {
    pub matrix: &'a Interleaved,
    pub input: Int16Input<'a>,
    pub output: Output,
}

/// Kernels for weights whose rows are interleaved.
pub(crate) struct InterleavedKernels {
    /// Whether they take a matrix.
    pub fits: fn(&PackedMatrix) -> bool,
    /// Rows of x up to which it pays to multiply with weights as they are: for more, strips of them are put back in order.
    pub most_rows: usize,
    /// Rounds some groups of the rows of a tile of x (rows, cols) to 16 bits, in the order that `product` reads.
    pub round: fn(&[f32], &Shape, Range<usize>, Int16Tile<'_>),
    /// Writes the products of the given rows, whole blocks of them, with all rows of x.
    pub product: fn(&InterleavedProduct<'_>, Range<usize>, &mut WorkerScratch),
    pub interleave_words: InterleaveWords,
    pub deinterleave_words: DeinterleaveWords,
}

/// A packed matrix times an input of floats.
pub(crate) struct ExactProduct<'a> {
    pub matrix: &'a PackedMatrix,
    pub input: ExactInput<'a>,
    pub output: Output,
}

/// A plain matrix times an input of floats.
pub(crate) struct PlainProduct<'a> {
    pub matrix: &'a PlainMatrix,
    /// // (m, cols)
    pub input: &'a [f32],
    pub m: usize,
    pub output: Output,
}

/// A packed matrix times an input rounded to bf16.
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    expect(dead_code, reason = "no other machine has a row with such kernels yet")
)]
pub(crate) struct Bf16Product<'a> {
    pub matrix: &'a PackedMatrix,
    pub input: Bf16Input<'a>,
    pub output: Output,
}

/// Kernels that multiply many rows of x at once, rounded to bf16.
pub(crate) struct Bf16Kernels {
    /// Whether they take a packing, and are faster than `int8` for so many rows of x.
    pub fits: fn(Packing, usize) -> bool,
    /// Rounds up to 16 rows of x (rows, cols) to their tiles. // (steps, 16, 32)
    pub arrange: fn(&[f32], usize, &mut [u16]),
    /// Writes the products of the given rows of the matrix with all rows of x.
    pub product: fn(&Bf16Product<'_>, Range<usize>, &mut WorkerScratch),
}

/// The kernels of one instruction set. They may only be called where the machine has it.
pub(crate) struct InstructionSet {
    pub isa: Isa,
    /// Whether products give a row of x the same bits alone and among others.
    pub rows_alike: bool,
    /// Values of x that share a scale for `int8`, for a packing and a number of rows of x.
    pub block: fn(Packing, usize) -> usize,
    /// Rounds one row of x into the order that `int8` reads.
    pub arrange_int8: fn(&[f32], &Shape, Int8Row<'_>),
    /// Writes the products of the given rows of the matrix with all rows of x.
    pub int8: fn(&Int8Product<'_>, Range<usize>, &mut WorkerScratch),
    /// Copies one row of x into the order that `exact` reads.
    pub arrange_exact: fn(&[f32], &Shape, ExactRow<'_>),
    /// Writes the products of the given rows of the matrix with all rows of x.
    pub exact: fn(&ExactProduct<'_>, Range<usize>, &mut WorkerScratch),
    /// Writes the products of the given rows of the matrix with all rows of x.
    pub plain: fn(&PlainProduct<'_>, Range<usize>, &mut WorkerScratch),
    /// Repeats the fastest dot-product instruction on registers for so many rounds and returns the operations done, two for
    /// each product: the limit of this core.
    pub dot_limit: fn(usize) -> u64,
    /// What takes the place of `int8` where weights may be arranged for it.
    pub interleaved: Option<InterleavedKernels>,
    /// What takes the place of `int8` for many rows of x.
    pub bf16: Option<Bf16Kernels>,
    /// What runs the tasks of attention with many rows, if this machine multiplies bf16.
    pub attention: fn() -> Option<RoundedTask>,
    /// What is no product of weights: norms, rotation, activations, attention in f32, states.
    pub vector: &'static VectorFunctions,
}

/// The row of an instruction set.
///
/// The rows for AArch64 have been run under emulation only (qemu 7.2: Cortex-A72 without and Neoverse N1 with the dot-product
/// instructions, and its `max`, which has those for matrices): their products are tested, their speed was never measured.
pub(crate) fn row(isa: Isa) -> &'static InstructionSet {
    match isa {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Isa::Amx => &crate::amx::AMX,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => &crate::avx512::AVX512_VNNI,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &crate::avx512::AVX512,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => &crate::avx2::AVX_VNNI,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &crate::avx2::AVX2,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => &crate::neon::NEON_I8MM,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod => &crate::neon::NEON_DOTPROD,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &crate::neon::NEON,
        Isa::Scalar => &scalar::SCALAR,
    }
}
