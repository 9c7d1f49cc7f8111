//! Bits and group of a packed matrix, and the rules by which codes are chosen.

use crate::FormatError;

/// Bits per code and codes per scale. Constructed only for what the format allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    bits: u32,
    group: usize,
}

impl Packing {
    /// The bits that a code may have.
    pub const WIDTHS: [u32; 6] = [2, 3, 4, 5, 6, 8];
    /// The group where nobody asks for another, in transformers and MLX alike.
    pub const DEFAULT_GROUP: usize = 64;

    /// `bits` is one of [`Packing::WIDTHS`]; `group` is a positive multiple of 8. `None` otherwise.
    pub fn new(bits: u32, group: usize) -> Option<Packing> {
        Packing::checked(bits, group).ok()
    }

    /// As [`Packing::new`], for numbers that a user gave.
    ///
    /// # Errors
    /// [`FormatError::Width`] or [`FormatError::Group`] says what is allowed.
    pub fn checked(bits: u32, group: usize) -> Result<Packing, FormatError> {
        if !Packing::WIDTHS.contains(&bits) {
            return Err(FormatError::Width { bits });
        }
        if group == 0 || !group.is_multiple_of(8) {
            return Err(FormatError::Group { group });
        }
        Ok(Packing { bits, group })
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

/// How scale, bias and codes of a group are chosen: as a peer does, or better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule<'a> {
    /// As this peer does, bit for bit.
    Encoder(Encoder),
    /// By the search of search.rs, whose error is never above that of any [`Encoder`].
    Search {
        /// How much the error of each column counts: the mean square of the layer's inputs. `None` where they are not known. // (cols)
        importance: Option<&'a [f32]>,
    },
}

impl From<Encoder> for Rule<'_> {
    fn from(encoder: Encoder) -> Self {
        Rule::Encoder(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_groups_are_checked_apart() {
        for bits in 0..40 {
            let allowed = matches!(bits, 2 | 3 | 4 | 5 | 6 | 8);
            assert_eq!(Packing::new(bits, 64).is_some(), allowed, "{bits}");
        }
        let message = |bits, group| Packing::checked(bits, group).unwrap_err().to_string();
        assert_eq!(message(7, 64), "a code has 2, 3, 4, 5, 6 or 8 bits, not 7");
        assert_eq!(message(4, 12), "a group is a positive multiple of 8, not 12");
        assert_eq!(message(4, 0), "a group is a positive multiple of 8, not 0");
    }
}
