//! Products of packed weights: every variant that fits, on every shape, width and number of inputs.

use std::time::Duration;

use planish_format::FloatType;
use planish_gpu::Queue;
use planish_kernels::launch::{PRODUCT_VARIANTS, Product, ProductBuffer, ProductPlan, WeightKind};
use serde_json::{Value, json};

use super::Choice;
use super::measure::{Bench, Step, Work};

/// Some variants read the weight again for every few inputs: beyond these they would only take long.
const MOST_INPUTS: [(&str, u32); 2] = [("matvec", 64), ("matmul", 512)];

pub fn measure<Q: Queue>(bench: &Bench<Q>, choice: &Choice) -> anyhow::Result<Vec<Value>> {
    let (mut measured, features) = (Vec::new(), bench.queue.features());
    for product in products(choice) {
        for variant in PRODUCT_VARIANTS {
            let most = MOST_INPUTS.iter().find(|(name, _)| *name == variant.name);
            let left_out = most.is_some_and(|&(_, most)| product.inputs > most) || !choice.takes(variant.name);
            if left_out {
                continue;
            }
            let Some(plan) = (variant.plan)(&product, &features) else {
                continue;
            };
            if let Some(time) = bench.time(&work(&product, &plan))? {
                let (chosen, _) = product.choose(&features);
                let mut row = describe(variant.name, &product, &plan, time, bench.read_gb_per_s);
                row["chosen"] = json!(chosen.name == variant.name);
                measured.push(row);
            }
        }
    }
    Ok(measured)
}

fn products(choice: &Choice) -> Vec<Product> {
    let mut products = Vec::new();
    for &packing in &choice.packings {
        for &(rows, cols) in &choice.shapes {
            if !(cols as usize).is_multiple_of(packing.group()) {
                continue;
            }
            products.extend(choice.inputs.iter().map(|&inputs| Product {
                weight: WeightKind {
                    packing: Some(packing),
                    float_type: FloatType::BF16,
                },
                value: choice.value,
                output: choice.value,
                rows,
                cols,
                inputs,
                added: false,
                stored: false,
                overlaps: false,
            }));
        }
    }
    products
}

/// Buffers of the set: those between the steps, input, output, one that is not read, the weight's.
fn work(product: &Product, plan: &ProductPlan) -> Work {
    let bytes = |count: u32| product.inputs as usize * count as usize * product.value.size_bytes();
    let mut buffers = vec![
        plan.arranged_bytes,
        plan.partial_bytes,
        bytes(product.cols),
        bytes(product.rows),
        256,
    ];
    let weight = buffers.len();
    buffers.extend(&plan.weight_bytes);
    let place = |buffer: &ProductBuffer| match buffer {
        ProductBuffer::Arranged => 0,
        ProductBuffer::Partial => 1,
        ProductBuffer::Input => 2,
        ProductBuffer::Output => 3,
        ProductBuffer::Added | ProductBuffer::Nothing => 4,
        ProductBuffer::Codes => weight,
        ProductBuffer::Scales => weight + 1,
        ProductBuffer::Biases => weight + 2,
    };
    let steps = plan.steps.iter().map(|step| Step {
        launch: step.launch.clone(),
        buffers: step.buffers.iter().map(place).collect(),
    });
    Work {
        fixed: Vec::new(),
        steps: steps.collect(),
        buffers,
    }
}

fn describe(name: &str, product: &Product, plan: &ProductPlan, time: Duration, read_gb_per_s: f64) -> Value {
    let seconds = time.as_secs_f64();
    let weight_bytes: usize = plan.weight_bytes.iter().sum();
    let activations = product.inputs as usize * (product.rows + product.cols) as usize * product.value.size_bytes();
    let gb_per_s = (weight_bytes + activations) as f64 / seconds / 1e9;
    let operations = 2.0 * f64::from(product.rows) * f64::from(product.cols) * f64::from(product.inputs);
    let packing = product.weight.packing;
    json!({
        "kernel": name,
        "bits": packing.map(|packing| packing.bits()),
        "group": packing.map(|packing| packing.group()),
        "rows": product.rows,
        "cols": product.cols,
        "inputs": product.inputs,
        "us": seconds * 1e6,
        "gb_per_s": gb_per_s,
        "of_read_speed": gb_per_s / read_gb_per_s,
        "tflop_per_s": operations / seconds / 1e12,
    })
}
