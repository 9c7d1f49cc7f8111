//! One vector register of f32 values, and the portable version of it.

use half::f16;

/// A vector register. Every method is inlined into a caller that has enabled the instruction set.
///
/// # Safety
/// All methods need the instruction set of the implementing type; pointers must be valid for `COUNT` values.
pub(crate) trait Lanes {
    /// The register.
    type Register: Copy;
    /// Values in a register.
    const COUNT: usize;
    /// Registers side by side in a tile: what fits beside six rows of sums.
    const TILE: usize;
    /// Whether [`Lanes::multiply_add`] is fused.
    const FUSED: bool;

    unsafe fn load(values: *const f32) -> Self::Register;
    unsafe fn load_half(values: *const f16) -> Self::Register;
    unsafe fn load_bytes(values: *const i8) -> Self::Register;
    unsafe fn store(values: *mut f32, register: Self::Register);
    /// Rounds to the nearest f16.
    unsafe fn store_half(values: *mut f16, register: Self::Register);
    unsafe fn splat(value: f32) -> Self::Register;
    /// Begins to load the cache line of an address, which need not be valid, into the second-level cache: the first-level
    /// one has too few lines under way at once.
    fn prefetch<T>(_address: *const T) {}
    /// `a * b + c`, fused where the machine can.
    unsafe fn multiply_add(a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;
}

/// A stored value of the key-value cache.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// # Safety
    /// As [`Lanes::load`].
    unsafe fn load<L: Lanes>(values: *const Self) -> L::Register;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(values: *const f32) -> L::Register {
        // SAFETY: the caller's promise.
        unsafe { L::load(values) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(values: *const f16) -> L::Register {
        // SAFETY: the caller's promise.
        unsafe { L::load_half(values) }
    }
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(values: *const i8) -> L::Register {
        // SAFETY: the caller's promise.
        unsafe { L::load_bytes(values) }
    }
}

/// Four values in an array: any machine. f16 is converted without the instructions that the `half` crate looks for.
pub(crate) struct Portable;

impl Lanes for Portable {
    type Register = [f32; 4];
    const COUNT: usize = 4;
    const TILE: usize = 2;
    const FUSED: bool = false;

    #[inline(always)]
    unsafe fn load(values: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise; arrays of f32 may be unaligned here.
        unsafe { values.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_half(values: *const f16) -> [f32; 4] {
        // SAFETY: the caller's promise.
        let halves = unsafe { values.cast::<[f16; 4]>().read_unaligned() };
        halves.map(f16::to_f32_const)
    }

    #[inline(always)]
    unsafe fn load_bytes(values: *const i8) -> [f32; 4] {
        // SAFETY: the caller's promise; bytes have no alignment.
        unsafe { *values.cast::<[i8; 4]>() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn store(values: *mut f32, register: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { values.cast::<[f32; 4]>().write_unaligned(register) }
    }

    #[inline(always)]
    unsafe fn store_half(values: *mut f16, register: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe {
            values
                .cast::<[f16; 4]>()
                .write_unaligned(register.map(f16::from_f32_const))
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn multiply_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
}
