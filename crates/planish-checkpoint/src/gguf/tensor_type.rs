//! The tensor types of GGUF: blocks of a fixed number of weights in a fixed number of bytes, and what each means as our
//! packed format. Every one of them is affine in its codes, `weight = scale * code + bias` per group, so a block becomes
//! packed codes, scales and biases with nothing lost.
//!
//! Source: block structures in <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h>.

use planish_format::{FloatType, Packing};

use super::{coded_blocks, k_blocks, simple_blocks};

/// A row of the table.
#[derive(Debug)]
pub(super) struct TensorType {
    id: u32,
    pub name: &'static str,
    /// Weights of a block, all in one row.
    pub block: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    pub storage: Encoding,
}

/// What the bytes of a block are.
#[derive(Debug)]
pub(super) enum Encoding {
    Floats(FloatType),
    Codes(BlockCodes),
}

/// How a block unpacks.
#[derive(Debug)]
pub(super) struct BlockCodes {
    pub bits: u32,
    pub group: usize,
    /// The narrowest type that holds every scale and bias exactly.
    pub scale_type: FloatType,
    /// Reads one block of `block_bytes`.
    pub unpack: fn(&[u8], &mut Unpacked),
}

/// A block taken apart.
pub(super) struct Unpacked<'a> {
    /// Codes, one a byte, in the order of the weights. // (block)
    pub codes: &'a mut [u8],
    /// Scales. // (block / group)
    pub scales: &'a mut [f32],
    /// Biases. // (block / group)
    pub biases: &'a mut [f32],
}

impl BlockCodes {
    pub fn packing(&self) -> Packing {
        Packing::new(self.bits, self.group).expect("the table holds only bits and groups of the format")
    }
}

const fn floats(id: u32, name: &'static str, float_type: FloatType) -> TensorType {
    let block_bytes = match float_type {
        FloatType::F32 => 4,
        FloatType::F16 | FloatType::BF16 => 2,
    };
    TensorType {
        id,
        name,
        block: 1,
        block_bytes,
        storage: Encoding::Floats(float_type),
    }
}

/// Blocks of one group of 32.
const fn simple(
    id: u32,
    name: &'static str,
    block_bytes: usize,
    bits: u32,
    unpack: fn(&[u8], &mut Unpacked),
) -> TensorType {
    let codes = BlockCodes {
        bits,
        group: 32,
        scale_type: FloatType::F16,
        unpack,
    };
    TensorType {
        id,
        name,
        block: 32,
        block_bytes,
        storage: Encoding::Codes(codes),
    }
}

/// Blocks of 256 whose scales are products of two numbers, hence wider than half precision.
const fn k(
    id: u32,
    name: &'static str,
    block_bytes: usize,
    codes: (u32, usize),
    unpack: fn(&[u8], &mut Unpacked),
) -> TensorType {
    let codes = BlockCodes {
        bits: codes.0,
        group: codes.1,
        scale_type: FloatType::F32,
        unpack,
    };
    TensorType {
        id,
        name,
        block: 256,
        block_bytes,
        storage: Encoding::Codes(codes),
    }
}

/// Blocks of any kind.
const fn coded(
    id: u32,
    name: &'static str,
    (block, block_bytes): (usize, usize),
    (bits, group): (u32, usize),
    scale_type: FloatType,
    unpack: fn(&[u8], &mut Unpacked),
) -> TensorType {
    let codes = BlockCodes {
        bits,
        group,
        scale_type,
        unpack,
    };
    TensorType {
        id,
        name,
        block,
        block_bytes,
        storage: Encoding::Codes(codes),
    }
}

static TYPES: [TensorType; 19] = [
    floats(0, "F32", FloatType::F32),
    floats(1, "F16", FloatType::F16),
    floats(30, "BF16", FloatType::BF16),
    simple(2, "Q4_0", 18, 4, simple_blocks::q4_0),
    simple(3, "Q4_1", 20, 4, simple_blocks::q4_1),
    simple(6, "Q5_0", 22, 5, simple_blocks::q5_0),
    simple(7, "Q5_1", 24, 5, simple_blocks::q5_1),
    simple(8, "Q8_0", 34, 8, simple_blocks::q8_0),
    k(10, "Q2_K", 84, (2, 16), k_blocks::q2_k),
    k(11, "Q3_K", 110, (3, 16), k_blocks::q3_k),
    k(12, "Q4_K", 144, (4, 32), k_blocks::q4_k),
    k(13, "Q5_K", 176, (5, 32), k_blocks::q5_k),
    k(14, "Q6_K", 210, (6, 16), k_blocks::q6_k),
    simple(20, "IQ4_NL", 18, 8, coded_blocks::iq4_nl),
    k(23, "IQ4_XS", 136, (8, 32), coded_blocks::iq4_xs),
    coded(34, "TQ1_0", (256, 54), (2, 128), FloatType::F16, coded_blocks::tq1_0),
    coded(35, "TQ2_0", (256, 66), (2, 128), FloatType::F16, coded_blocks::tq2_0),
    coded(39, "MXFP4", (32, 17), (5, 32), FloatType::BF16, coded_blocks::mxfp4),
    coded(40, "NVFP4", (64, 36), (5, 16), FloatType::BF16, coded_blocks::nvfp4),
];

/// Names of types that files may hold and planish does not read, for the message.
const OTHERS: [(u32, &str); 15] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (4, "Q4_2"),
];

/// The type of this number, or what is wrong with it.
pub(super) fn by_id(id: u32) -> Result<&'static TensorType, String> {
    if let Some(found) = TYPES.iter().find(|tensor_type| tensor_type.id == id) {
        return Ok(found);
    }
    let name = OTHERS
        .iter()
        .find(|(other, _)| *other == id)
        .map_or("unknown", |(_, name)| name);
    let known: Vec<&str> = TYPES.iter().map(|tensor_type| tensor_type.name).collect();
    Err(format!(
        "tensor type {id} ({name}) is not read; those that are: {}",
        known.join(", ")
    ))
}

impl TensorType {
    /// Bytes of a tensor of this shape (outermost first), or what is wrong with the shape.
    pub fn size_bytes(&self, shape: &[usize]) -> Result<usize, String> {
        let cols = shape.last().copied().unwrap_or(1);
        if !cols.is_multiple_of(self.block) {
            return Err(format!(
                "{}: expected columns that are a multiple of {}, found {cols}",
                self.name, self.block
            ));
        }
        let weights = shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        let size = weights.and_then(|weights| (weights / self.block).checked_mul(self.block_bytes));
        size.ok_or_else(|| format!("sizes {shape:?} are too large"))
    }

    /// Bytes of one row of `cols` weights.
    pub fn row_bytes(&self, cols: usize) -> usize {
        cols / self.block * self.block_bytes
    }
}
