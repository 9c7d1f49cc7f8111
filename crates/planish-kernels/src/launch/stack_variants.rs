//! Every way to compute products with a stack of matrices, as rows of one table, the best first: models take the first that fits all
//! products of a layer. Tests run each on stacks of one matrix.

use planish_ops::{Activation, HeadPart};

use super::product::{Product, ProductBuffer, ProductPlan};
use super::{Features, Launch, StackMatmul, StackRouting, StackTensor};

/// The products of one stack; or those of two, of gate and up, at once.
#[derive(Clone, Copy, Debug)]
pub struct StackProduct {
    /// The product of the first stack.
    pub first: StackMatmul,
    /// The non-linearity of the first stack's results, which multiplies those of the second; `None` without a second one.
    pub paired: Option<Activation>,
}

/// One way to compute them.
#[derive(Clone, Copy)]
pub struct StackVariant {
    /// Its name in tables.
    pub name: &'static str,
    /// Entries of a tile.
    pub tile: u32,
    /// Whether it can.
    pub fits: fn(&StackProduct, &Features) -> bool,
    /// The launch of a product that fits.
    pub launch: fn(&StackProduct) -> Launch,
    /// Its buffers in order.
    pub buffers: &'static [StackBuffer],
}

/// A buffer of a product with stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackBuffer {
    /// Of the stack; plain values.
    Codes,
    /// Of the stack.
    Scales,
    /// Of the stack.
    Biases,
    /// Of the second stack.
    PairedCodes,
    /// Of the second stack.
    PairedScales,
    /// Of the second stack.
    PairedBiases,
    /// Of the activations' type.
    Input,
    /// Bias vectors of the stack (count, rows) of f32.
    Added,
    /// Those of the second stack.
    PairedAdded,
    /// The order (entries) of u32.
    Order,
    /// The tiles (tiles, 3) of u32.
    Tiles,
    /// Of the activations' type.
    Output,
}

/// All of them.
pub const STACK_VARIANTS: &[StackVariant] = &[
    StackVariant {
        name: "stack_tensor",
        tile: StackTensor::TILE,
        fits: |product, features| features.tensor_cores && tensor(product).fits_all(),
        launch: |product| tensor(product).launch(),
        buffers: &StackTensor::BUFFERS,
    },
    StackVariant {
        name: "stack_matmul",
        tile: StackMatmul::TILE,
        fits: |product, _| product.paired.is_none(),
        launch: |product| product.first.launch(),
        buffers: &StackMatmul::BUFFERS,
    },
];

fn tensor(product: &StackProduct) -> StackTensor {
    StackTensor {
        product: product.first,
        paired: product.paired,
    }
}

impl StackVariant {
    /// The best way for all of some products, with its place in the table. The last row takes every product that is not paired.
    pub fn best<'a>(
        products: impl Iterator<Item = &'a StackProduct> + Clone,
        features: &Features,
    ) -> Option<(usize, &'static StackVariant)> {
        let mut rows = STACK_VARIANTS.iter().enumerate();
        rows.find(|(_, variant)| products.clone().all(|product| (variant.fits)(product, features)))
    }

    /// The plan of a product with a stack of one matrix. `None` where it does not fit.
    pub fn plan(&self, product: &Product, features: &Features) -> Option<ProductPlan> {
        let stack = StackProduct {
            first: stack_of_one(product)?,
            paired: None,
        };
        if !(self.fits)(&stack, features) {
            return None;
        }
        let buffers = self.buffers.iter().map(|buffer| match buffer {
            StackBuffer::Codes => ProductBuffer::Codes,
            StackBuffer::Scales => ProductBuffer::Scales,
            StackBuffer::Biases => ProductBuffer::Biases,
            StackBuffer::Input => ProductBuffer::Input,
            StackBuffer::Added => ProductBuffer::Added,
            StackBuffer::Output => ProductBuffer::Output,
            StackBuffer::PairedCodes
            | StackBuffer::PairedScales
            | StackBuffer::PairedBiases
            | StackBuffer::PairedAdded
            | StackBuffer::Order
            | StackBuffer::Tiles => ProductBuffer::Nothing,
        });
        Some(ProductPlan::of_stored(
            product,
            (self.launch)(&stack),
            buffers.collect(),
        ))
    }
}

/// All inputs through the matrix of the only head.
fn stack_of_one(product: &Product) -> Option<StackMatmul> {
    let part = |stride: u32| HeadPart {
        stride: stride as usize,
        start: 0,
    };
    (product.value == product.output).then(|| StackMatmul {
        weight: product.weight,
        value: product.value,
        rows: product.rows,
        cols: product.cols,
        inputs: product.inputs,
        transposed: false,
        added: product.added,
        routing: StackRouting::Heads {
            heads: 1,
            from: part(product.cols),
            to: part(product.rows),
        },
    })
}
