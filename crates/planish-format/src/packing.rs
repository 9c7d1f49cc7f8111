//! Bits and group of a packed matrix, and the rules by which codes are chosen.

use crate::FormatError;

/// Bits per code and codes per scale. Constructed only for what the format allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    bits: u32,
    group: usize,
}

impl Packing {
    /// `bits` is 2, 3, 4, 5, 6 or 8; `group` is a positive multiple of 8. `None` otherwise.
    pub fn new(bits: u32, group: usize) -> Option<Packing> {
        let fits = matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) && group > 0 && group.is_multiple_of(8);
        fits.then_some(Packing { bits, group })
    }

    /// Bits per code.
    #[inline]
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Codes that share one scale and one bias.
    #[inline]
    pub fn group(self) -> usize {
        self.group
    }

    /// Whether rows of `cols` weights can be packed so: whole groups and whole 32-bit words.
    ///
    /// # Errors
    /// Says which of the two fails.
    pub fn check_cols(self, cols: usize) -> Result<(), FormatError> {
        let Packing { bits, group } = self;
        if !cols.is_multiple_of(group) {
            return Err(FormatError::GroupDoesNotDivide { cols, group });
        }
        // Whole groups are whole bytes, so only the bytes of a row have to be counted.
        if !(cols / 8 * bits as usize).is_multiple_of(4) {
            return Err(FormatError::PartialWord { cols, bits });
        }
        Ok(())
    }
}

/// How scale, bias and codes of a group are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoder {
    /// `_affine_quantize_tensor` of transformers 5.23, which has 2, 4 and 8 bits; the same rule for the other widths.
    Transformers,
    /// `mlx.core.quantize` on the CPU.
    MlxCpu,
    /// The kernels of MLX on Metal and CUDA, which made the published MLX checkpoints.
    MlxMetal,
}
