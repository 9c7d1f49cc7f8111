//! Every way to compute a product with a weight, as rows of one table, the best first: models take the first that wins, tests and
//! benchmarks run each that can.

use planish_format::FloatType;

use super::{
    Added, Features, Launch, Matmul, Matvec, Multiply, TensorMatmul, TensorWeight, WarpgroupMatmul, WeightKind,
};

/// `output = input x weight^T + added`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// The weight lies as it is stored, since its rows are taken too: ways with an order of their own cannot compute it.
    pub stored: bool,
    /// It follows a product of the same input, for which it need not wait.
    pub overlaps: bool,
}

/// One way to compute it.
#[derive(Clone, Copy)]
pub struct ProductVariant {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether it takes packed weights.
    pub packed: bool,
    /// `None` where it cannot compute the product, or the device lacks what it needs.
    pub plan: fn(&Product, &Features) -> Option<ProductPlan>,
    /// Whether it is the fastest of those that can, if no row before it is.
    pub wins: fn(&Product, &Features) -> bool,
}

/// What to allocate and to launch.
#[derive(Clone, Debug)]
pub struct ProductPlan {
    /// Makes the weight's own order, where it has one. Buffers: codes, scales, biases, then those of `weight_bytes`.
    pub repack: Option<Launch>,
    /// Bytes of [`ProductBuffer::Codes`], [`ProductBuffer::Scales`] and [`ProductBuffer::Biases`], as many as there are.
    pub weight_bytes: Vec<usize>,
    /// Bytes of [`ProductBuffer::Arranged`].
    pub arranged_bytes: usize,
    /// Bytes of [`ProductBuffer::Partial`].
    pub partial_bytes: usize,
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

/// A buffer of a product. Each kernel lists its own, in order, beside its launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProductBuffer {
    /// Of the weight, as stored or as tiles; plain values.
    Codes,
    /// Of the weight; in tiles with the biases.
    Scales,
    /// Of the weight.
    Biases,
    /// (inputs, cols) of the input's type.
    Input,
    /// The input as warpgroups read it. Products of one input share it.
    Arranged,
    /// Sums over parts of the columns, of f32.
    Partial,
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
        name: "warpgroup_matmul",
        packed: true,
        plan: plan_warpgroup_matmul,
        wins: |product, features| warpgroup_matmul(product, features).is_some_and(|warpgroup| warpgroup.is_faster()),
    },
    ProductVariant {
        name: "tensor_matmul",
        packed: true,
        plan: plan_tensor_matmul,
        wins: |_, _| true,
    },
    ProductVariant {
        name: "multiply",
        packed: false,
        plan: plan_multiply,
        wins: |product, _| product.inputs > Multiply::FEW_INPUTS,
    },
    ProductVariant {
        name: "matvec",
        packed: true,
        plan: plan_matvec,
        wins: |product, _| product.inputs <= Matvec::MOST_INPUTS,
    },
    ProductVariant {
        name: "matmul",
        packed: true,
        plan: plan_matmul,
        wins: |_, _| true,
    },
];

impl Product {
    /// The way that models take, and its plan.
    ///
    /// # Panics
    /// Never: the last row takes every product.
    pub fn choose(&self, features: &Features) -> (&'static ProductVariant, ProductPlan) {
        let winners = PRODUCT_VARIANTS.iter().filter(|variant| (variant.wins)(self, features));
        let mut plans = winners.filter_map(|variant| Some((variant, (variant.plan)(self, features)?)));
        plans.next().expect("a way for every product")
    }

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

impl ProductPlan {
    /// One launch on the weight as it is stored.
    pub(super) fn of_stored(product: &Product, launch: Launch, buffers: Vec<ProductBuffer>) -> ProductPlan {
        ProductPlan {
            repack: None,
            weight_bytes: product.stored_bytes(),
            arranged_bytes: 0,
            partial_bytes: 0,
            steps: vec![ProductStep { launch, buffers }],
        }
    }
}

fn plan_matvec(product: &Product, _features: &Features) -> Option<ProductPlan> {
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
    Some(ProductPlan::of_stored(product, launch, Matvec::BUFFERS.to_vec()))
}

fn plan_matmul(product: &Product, _features: &Features) -> Option<ProductPlan> {
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
    Some(ProductPlan::of_stored(product, launch, Matmul::BUFFERS.to_vec()))
}

/// Plain weights in f32, where tensor cores are of no use.
fn plan_multiply(product: &Product, features: &Features) -> Option<ProductPlan> {
    let exact = product.value == FloatType::F32 && product.output == FloatType::F32;
    let plain = product.weight.packing.is_none() && product.cols.is_multiple_of(8);
    if !(features.tensor_cores && exact && plain) {
        return None;
    }
    let multiply = Multiply {
        right_stride: product.cols,
        right_transposed: true,
        right: product.weight.float_type,
        added: if product.added { Added::Vector } else { Added::Nothing },
        ..Multiply::new(product.inputs, product.rows, product.cols)
    };
    let buffers = Multiply::BUFFERS.to_vec();
    Some(ProductPlan::of_stored(product, multiply.launch(), buffers))
}

fn plan_tensor_matmul(product: &Product, features: &Features) -> Option<ProductPlan> {
    let matmul = tensor_matmul(product, features)?;
    let launch = if product.overlaps {
        matmul.launch_beside()
    } else {
        matmul.launch()
    };
    Some(ProductPlan {
        repack: Some(matmul.weight.repack()),
        weight_bytes: vec![matmul.weight.tile_bytes(), matmul.weight.scale_bytes()],
        arranged_bytes: 0,
        partial_bytes: 0,
        steps: vec![ProductStep {
            launch,
            buffers: TensorMatmul::BUFFERS.to_vec(),
        }],
    })
}

fn plan_warpgroup_matmul(product: &Product, features: &Features) -> Option<ProductPlan> {
    Some(warpgroup_matmul(product, features)?.plan())
}

fn tensor_matmul(product: &Product, features: &Features) -> Option<TensorMatmul> {
    // Many 16-bit inputs of weights with longer scales are left to the other kernels.
    let is_mixed = product.value != FloatType::F32 && product.weight.float_type == FloatType::F32;
    if !features.tensor_cores || is_mixed || product.stored {
        return None;
    }
    let packing = product.weight.packing?;
    let weight = TensorWeight::new(packing, product.weight.float_type, product.rows, product.cols)?;
    Some(TensorMatmul {
        weight: weight.shared_by(features.multiprocessors),
        value: product.value,
        output: product.output,
        inputs: product.inputs,
        added: product.added,
    })
}

fn warpgroup_matmul(product: &Product, features: &Features) -> Option<WarpgroupMatmul> {
    let matmul = tensor_matmul(product, features).filter(|_| features.warpgroups)?;
    WarpgroupMatmul::new(matmul)
}

#[cfg(test)]
mod tests {
    use planish_format::Packing;

    use super::*;

    /// A tied head is a table too, which lies as it is stored.
    #[test]
    fn a_weight_whose_rows_are_taken_is_multiplied_as_it_is_stored() {
        let features = Features {
            simdgroup_matrices: false,
            tensor_cores: true,
            warpgroups: true,
            multiprocessors: 132,
        };
        for inputs in [1, 2, 8, 16, 64, 128, 2048] {
            let product = |stored| Product {
                weight: WeightKind {
                    packing: Packing::new(4, 64),
                    float_type: FloatType::BF16,
                },
                value: FloatType::BF16,
                output: FloatType::F32,
                rows: 128_256,
                cols: 2048,
                inputs,
                added: false,
                stored,
                overlaps: false,
            };
            assert!(product(false).choose(&features).1.repack.is_some(), "{inputs} inputs");
            assert!(product(true).choose(&features).1.repack.is_none(), "{inputs} inputs");
        }
    }

    #[test]
    fn plain_weights_in_f32_have_a_kernel_for_many_inputs() {
        let features = Features {
            simdgroup_matrices: false,
            tensor_cores: true,
            warpgroups: true,
            multiprocessors: 132,
        };
        let name = |inputs, tensor_cores| {
            let product = Product {
                weight: WeightKind {
                    packing: None,
                    float_type: FloatType::BF16,
                },
                value: FloatType::F32,
                output: FloatType::F32,
                rows: 1000,
                cols: 2048,
                inputs,
                added: true,
                stored: true,
                overlaps: false,
            };
            let features = Features {
                tensor_cores,
                ..features
            };
            product.choose(&features).0.name
        };
        assert_eq!(
            [name(1, true), name(512, true), name(512, false)],
            ["matvec", "multiply", "matmul"]
        );
    }
}
