//! Products as the kernels for stacks of matrices compute them, with a stack of one: rows of a table for tests. Models reach these
//! kernels through experts and heads.

use super::product::{Product, ProductBuffer, ProductPlan, ProductVariant, one_step};
use super::{Dialect, StackInputs, StackMatmul, StackTensor};
use planish_ops::HeadPart;

/// All of them.
pub const STACK_VARIANTS: &[ProductVariant] = &[
    ProductVariant {
        name: "stack_matmul",
        runs_on: |_, _| true,
        plan: plan_stack,
    },
    ProductVariant {
        name: "stack_tensor",
        runs_on: |dialect, _| dialect != Dialect::Metal,
        plan: plan_stack_tensor,
    },
];

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
        turned: false,
        added: product.added,
        meeting: StackInputs::Heads {
            heads: 1,
            from: part(product.cols),
            to: part(product.rows),
        },
    })
}

fn plan_stack(product: &Product) -> Option<ProductPlan> {
    use ProductBuffer::{Added, Input, Nothing, Output};
    let launch = stack_of_one(product)?.launch();
    Some(one_step(
        launch,
        product.stored_bytes(),
        &[Input, Added, Nothing, Nothing, Output],
    ))
}

fn plan_stack_tensor(product: &Product) -> Option<ProductPlan> {
    use ProductBuffer::{Added, Input, Nothing, Output, Weight};
    let launch = StackTensor {
        product: stack_of_one(product)?,
        paired: None,
    }
    .launch()?;
    // There is no second stack.
    let others = [
        Weight(0),
        Weight(1),
        Weight(2),
        Input,
        Added,
        Added,
        Nothing,
        Nothing,
        Output,
    ];
    Some(one_step(launch, product.stored_bytes(), &others))
}
