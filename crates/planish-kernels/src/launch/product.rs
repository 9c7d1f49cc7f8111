//! Every way to compute a product with a weight, as rows of one table: tests and measurements run each that fits.

use planish_format::FloatType;
use planish_gpu::Dialect;

use super::{Launch, Matmul, Matvec, TensorMatmul, TensorWeight, WarpgroupMatmul, WeightKind};

/// `output = input x weight^T + added`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// The weight.
    pub weight: WeightKind,
    /// Type of the input.
    pub value: FloatType,
    /// Type of the output.
    pub output: FloatType,
    /// Output features.
    pub rows: u32,
    /// Input features.
    pub cols: u32,
    /// Rows of input and output.
    pub inputs: u32,
    /// Whether the layer has a bias vector.
    pub added: bool,
}

/// One way to compute it.
#[derive(Clone, Copy)]
pub struct ProductVariant {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether there are the words that it uses, on a device with or without warpgroups that multiply.
    pub runs_on: fn(Dialect, bool) -> bool,
    /// `None` where it cannot compute the product.
    pub plan: fn(&Product) -> Option<ProductPlan>,
}

/// What to allocate and to launch.
#[derive(Clone, Debug)]
pub struct ProductPlan {
    /// Makes the weight's own order, where it has one. Buffers: codes, scales, biases, then those of `weight_bytes`.
    pub repack: Option<Launch>,
    /// Bytes of each buffer of the weight.
    pub weight_bytes: Vec<usize>,
    /// Bytes of buffers between the steps.
    pub scratch_bytes: Vec<usize>,
    /// Launches in order.
    pub steps: Vec<ProductStep>,
}

/// A launch and what is bound to it.
#[derive(Clone, Debug)]
pub struct ProductStep {
    /// The launch.
    pub launch: Launch,
    /// Its buffers in order.
    pub buffers: Vec<ProductBuffer>,
}

/// A buffer of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductBuffer {
    /// Number so and so of the weight.
    Weight(usize),
    /// Number so and so between the steps.
    Scratch(usize),
    /// (inputs, cols) of the input's type.
    Input,
    /// (rows) of f32.
    Added,
    /// Not read.
    Nothing,
    /// (inputs, rows) of the output's type.
    Output,
}

/// All of them.
pub const PRODUCT_VARIANTS: &[ProductVariant] = &[
    ProductVariant {
        name: "matvec",
        runs_on: anywhere,
        plan: plan_matvec,
    },
    ProductVariant {
        name: "matmul",
        runs_on: anywhere,
        plan: plan_matmul,
    },
    ProductVariant {
        name: "tensor_matmul",
        runs_on: beside_metal,
        plan: plan_tensor_matmul,
    },
    ProductVariant {
        name: "warpgroup_matmul",
        runs_on: with_warpgroups,
        plan: plan_warpgroup_matmul,
    },
];

fn anywhere(_dialect: Dialect, _has_warpgroups: bool) -> bool {
    true
}

fn beside_metal(dialect: Dialect, _has_warpgroups: bool) -> bool {
    dialect != Dialect::Metal
}

fn with_warpgroups(_dialect: Dialect, has_warpgroups: bool) -> bool {
    has_warpgroups
}

impl Product {
    /// Bytes of the weight as checkpoints hold it: codes, scales, biases; or plain values and two buffers that are not read.
    pub fn stored_bytes(&self) -> Vec<usize> {
        let weights = self.rows as usize * self.cols as usize;
        let float_bytes = self.weight.float_type.size_bytes();
        match self.weight.packing {
            Some(packing) => {
                let scales = weights / packing.group() * float_bytes;
                vec![weights / 8 * packing.bits() as usize, scales, scales]
            }
            None => vec![weights * float_bytes, 16, 16],
        }
    }
}

/// The weight as it is stored, one launch.
pub(super) fn one_step(launch: Launch, weight_bytes: Vec<usize>, others: &[ProductBuffer]) -> ProductPlan {
    let weight = (0..weight_bytes.len()).map(ProductBuffer::Weight);
    ProductPlan {
        repack: None,
        scratch_bytes: Vec::new(),
        steps: vec![ProductStep {
            launch,
            buffers: weight.chain(others.iter().copied()).collect(),
        }],
        weight_bytes,
    }
}

fn plan_matvec(product: &Product) -> Option<ProductPlan> {
    use ProductBuffer::{Added, Input, Nothing, Output};
    let launch = Matvec {
        weight: product.weight,
        value: product.value,
        output: product.output,
        rows: product.rows,
        cols: product.cols,
        inputs: product.inputs,
        added: product.added,
        experts: None,
    }
    .launch();
    Some(one_step(
        launch,
        product.stored_bytes(),
        &[Input, Added, Nothing, Output],
    ))
}

fn plan_matmul(product: &Product) -> Option<ProductPlan> {
    use ProductBuffer::{Added, Input, Output};
    let launch = Matmul {
        weight: product.weight,
        value: product.value,
        output: product.output,
        rows: product.rows,
        cols: product.cols,
        inputs: product.inputs,
        added: product.added,
    }
    .launch();
    Some(one_step(launch, product.stored_bytes(), &[Input, Added, Output]))
}

fn plan_tensor_matmul(product: &Product) -> Option<ProductPlan> {
    use ProductBuffer::{Added, Input, Output};
    let matmul = tensor_matmul(product)?;
    let weight = matmul.weight;
    let plan = one_step(
        matmul.launch(),
        vec![weight.tile_bytes(), weight.scale_bytes()],
        &[Input, Added, Output],
    );
    Some(ProductPlan {
        repack: Some(weight.repack()),
        ..plan
    })
}

fn plan_warpgroup_matmul(product: &Product) -> Option<ProductPlan> {
    use ProductBuffer::{Added, Input, Output, Scratch, Weight};
    let TensorMatmul { weight, .. } = tensor_matmul(product)?;
    let matmul = WarpgroupMatmul::new(tensor_matmul(product)?)?;
    let arrange = matmul.arrange();
    let steps = vec![
        ProductStep {
            launch: arrange.launch(),
            buffers: vec![Input, Scratch(0)],
        },
        ProductStep {
            launch: matmul.launch(),
            buffers: vec![Weight(0), Weight(1), Scratch(0), Added, Output],
        },
    ];
    Some(ProductPlan {
        repack: Some(weight.repack()),
        weight_bytes: vec![weight.tile_bytes(), weight.scale_bytes()],
        scratch_bytes: vec![arrange.bytes()],
        steps,
    })
}

fn tensor_matmul(product: &Product) -> Option<TensorMatmul> {
    if product.value != FloatType::F32 && product.weight.float_type == FloatType::F32 {
        return None;
    }
    let packing = product.weight.packing?;
    let weight = TensorWeight::new(packing, product.weight.float_type, product.rows, product.cols)?;
    Some(TensorMatmul {
        weight,
        value: product.value,
        output: product.output,
        inputs: product.inputs,
        added: product.added,
    })
}
