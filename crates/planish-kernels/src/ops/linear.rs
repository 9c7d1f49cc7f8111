//! Weights: how they lie, rows of a table, products. How a product is computed is read from [`crate::launch::PRODUCT_VARIANTS`], once
//! for every kind, shape and number of rows.

use std::array;
use std::sync::{Arc, Mutex};

use planish_gpu::{Argument, Error, Queue};
use planish_ops::{Embed, Linear, Ops, Span, Tokens};
use rustc_hash::FxHashMap;

use super::tensor::Stored;
use super::{GpuOps, GpuTensor, GpuWeight, MOST_BUFFERS, Scratch, lock};
use crate::launch::{self, Launch, Product, ProductBuffer, ProductPlan};

/// Plans that are kept: more than a model needs whose prompts have many lengths.
const MOST_PLANS: usize = 4096;

/// What products need beside their operands.
pub(super) struct Products<Q: Queue> {
    plans: Mutex<FxHashMap<Product, Arc<Planned<Q>>>>,
    arranged: Mutex<Scratch<Q>>,
    partial: Mutex<Scratch<Q>>,
}

/// A plan with its compiled kernels.
struct Planned<Q: Queue> {
    plan: ProductPlan,
    kernels: Vec<Arc<Q::Kernel>>, // (steps)
}

/// A buffer and where to begin in it.
type Place<'a, Q> = (&'a <Q as Queue>::Buffer, usize);

/// One weight of a [`Linear`] with what it reads and writes.
struct Operands<'a, Q: Queue> {
    input: &'a GpuTensor<Q>,
    weight: &'a GpuWeight<Q>,
    bias: Option<&'a GpuTensor<Q>>,
    output: &'a GpuTensor<Q>,
}

impl<Q: Queue> Products<Q> {
    pub(super) fn new() -> Products<Q> {
        Products {
            plans: Mutex::default(),
            arranged: Mutex::new(Scratch::new()),
            partial: Mutex::new(Scratch::new()),
        }
    }
}

impl<Q: Queue> GpuOps<Q> {
    /// A weight as it is stored in the order that its products read, which is the same for all numbers of rows.
    pub(super) fn reorder(&self, weight: GpuWeight<Q>) -> Result<GpuWeight<Q>, Error> {
        let product = Product {
            weight: weight.stored.kind,
            value: self.value,
            output: self.value,
            rows: weight.rows as u32,
            cols: weight.cols as u32,
            inputs: 1,
            added: false,
            stored: false,
            overlaps: false,
        };
        let (_, plan) = product.choose(&self.queue.features());
        let Some(repack) = plan.repack else {
            return Ok(weight);
        };
        let made = plan
            .weight_bytes
            .iter()
            .map(|&bytes| Ok((self.queue.allocate(bytes)?, 0)));
        let made: Vec<(Q::Buffer, usize)> = made.collect::<Result<_, Error>>()?;
        let from = weight.stored.buffers().into_iter();
        let buffers: Vec<Place<'_, Q>> = from
            .chain(made.iter().map(|(buffer, start)| (buffer, *start)))
            .collect();
        self.try_run(&repack, &buffers, false)?;
        Ok(GpuWeight {
            stored: Stored::new(weight.stored.kind, made),
            is_tiled: true,
            ..weight
        })
    }

    pub(super) fn run_embed(&self, problem: &Embed<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Embed {
            table,
            tokens,
            scale,
            output,
        } = problem;
        assert!(!table.is_tiled, "rows are taken of tables only");
        let rows = launch::Rows {
            weight: table.stored.kind,
            value: output.float_type,
            rows: table.rows as u32,
            cols: table.cols as u32,
            factor: *scale,
        };
        let count = tokens.count() as u32;
        let [codes, scales, biases] = table.stored.buffers();
        match *tokens {
            Tokens::Known(tokens) => {
                let mut scratch = lock(&self.tokens);
                let buffer = scratch.at_least(&self.queue, 4 * tokens.len())?;
                self.queue.upload(bytemuck::cast_slice(tokens), buffer, 0)?;
                let bound = [codes, scales, biases, (buffer, 0), output.all()];
                self.run(&rows.embed(count), &bound);
            }
            Tokens::Chosen { places, known, chosen } => {
                let (of_slots, slots) = chosen.of_slots();
                let is_known = |span: &Span| known[span.first_row..span.end_row()].iter().all(Option::is_some);
                assert!(places.spans.iter().all(|span| span.slot < slots || is_known(span)));
                let mut tokens = lock(&self.known);
                let buffer = tokens.upload(&self.queue, known)?;
                let places = places.sequences.places();
                let bound = [codes, scales, biases, (buffer, 0), places, (of_slots, 0), output.all()];
                self.run(&rows.embed_chosen(count), &bound);
            }
            Tokens::Positions { places, offset } => {
                let bound = [codes, scales, biases, places.sequences.places(), output.all()];
                self.run(&rows.embed_positions(count, offset as u32), &bound);
            }
        }
        Ok(())
    }

    pub(super) fn run_linear(&self, problem: &Linear<'_, '_, GpuOps<Q>>) {
        if problem.rows == 0 {
            return;
        }
        if let Err(error) = self.tell_inputs(problem) {
            return self.fail(error);
        }
        lock(&self.rotated).take();
        // What arranged the input that they share.
        let mut arranged = None;
        let mut before: Option<&GpuWeight<Q>> = None;
        let weights = problem.weights.iter().zip(problem.biases).zip(problem.outputs.iter());
        for ((weight, bias), output) in weights {
            let product = Product {
                weight: weight.stored.kind,
                value: problem.input.float_type,
                output: output.float_type,
                rows: weight.rows as u32,
                cols: weight.cols as u32,
                inputs: problem.rows as u32,
                added: bias.is_some(),
                // They write outputs of their own. A tiled product may start before its predecessor ends only if that is tiled too:
                // those kernels signal early.
                stored: !weight.is_tiled,
                overlaps: before.is_some_and(|before| before.is_tiled || !weight.is_tiled),
            };
            let operands = Operands {
                input: problem.input,
                weight,
                bias: *bias,
                output,
            };
            let planned = self.planned(&product);
            let done = planned.and_then(|planned| self.run_planned(&product, planned, &operands, &mut arranged));
            if let Err(error) = done {
                return self.fail(error);
            }
            before = Some(weight);
        }
    }

    /// Tells who listens of the input, if it is asked for.
    fn tell_inputs(&self, problem: &Linear<'_, '_, GpuOps<Q>>) -> Result<(), Error> {
        let Some(tap) = &self.tap else { return Ok(()) };
        let asked: Vec<usize> = problem
            .weights
            .iter()
            .map(|weight| weight.id)
            .filter(|&weight| tap.wants(weight))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let mut staging = Vec::new();
        let values = self.read(problem.input, 0..problem.rows, &mut staging)?;
        asked
            .iter()
            .for_each(|&weight| tap.inputs(weight, values, problem.input.cols));
        Ok(())
    }

    /// The plan of a product, made when it is first asked for.
    fn planned(&self, product: &Product) -> Result<Arc<Planned<Q>>, Error> {
        if let Some(planned) = lock(&self.products.plans).get(product) {
            return Ok(Arc::clone(planned));
        }
        let (_, plan) = product.choose(&self.queue.features());
        let kernels = plan.steps.iter().map(|step| self.kernel(&step.launch));
        let planned = Arc::new(Planned {
            kernels: kernels.collect::<Result<_, Error>>()?,
            plan,
        });
        let mut plans = lock(&self.products.plans);
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(*product, Arc::clone(&planned));
        Ok(planned)
    }

    /// `arranged`: the plan whose step arranged the input, if one did.
    fn run_planned(
        &self,
        product: &Product,
        planned: Arc<Planned<Q>>,
        operands: &Operands<'_, Q>,
        arranged: &mut Option<Arc<Planned<Q>>>,
    ) -> Result<(), Error> {
        let plan = &planned.plan;
        assert_eq!(operands.weight.is_tiled, plan.repack.is_some(), "the weight's order");
        let mut scratch = [lock(&self.products.arranged), lock(&self.products.partial)];
        let [arranged_scratch, partial_scratch] = &mut scratch;
        let arranged_input = (arranged_scratch.at_least(&self.queue, plan.arranged_bytes)?, 0);
        let partial = (partial_scratch.at_least(&self.queue, plan.partial_bytes)?, 0);
        let [codes, scales, biases] = operands.weight.stored.buffers();
        let place = |buffer: ProductBuffer| match buffer {
            ProductBuffer::Codes => codes,
            ProductBuffer::Scales => scales,
            ProductBuffer::Biases => biases,
            ProductBuffer::Input => operands.input.all(),
            ProductBuffer::Arranged => arranged_input,
            ProductBuffer::Partial => partial,
            ProductBuffer::Added => self.optional(operands.bias),
            ProductBuffer::Nothing => self.optional(None),
            ProductBuffer::Output => operands.output.all(),
        };
        // Partial sums are where those of the product before were.
        let mut overlaps = product.overlaps && plan.partial_bytes == 0;
        for (index, (step, kernel)) in plan.steps.iter().zip(&planned.kernels).enumerate() {
            if step.buffers.last() == Some(&ProductBuffer::Arranged) {
                let same = |other: &Arc<Planned<Q>>| other.plan.steps[index].launch == step.launch;
                if arranged.as_ref().is_some_and(same) {
                    continue;
                }
                *arranged = Some(Arc::clone(&planned));
                overlaps = false;
            }
            let buffers = step.buffers.iter().map(|&buffer| place(buffer));
            self.run_step(&step.launch, kernel, buffers, overlaps)?;
            overlaps = false;
        }
        Ok(())
    }

    /// Launches a compiled kernel, unless something failed before.
    pub(super) fn run_step<'a>(
        &self,
        launch: &'a Launch,
        kernel: &Q::Kernel,
        mut buffers: impl ExactSizeIterator<Item = Place<'a, Q>>,
        overlaps: bool,
    ) -> Result<(), Error> {
        let count = buffers.len();
        assert!(
            count == launch.buffers as usize && count <= MOST_BUFFERS,
            "buffers of {}",
            launch.kernel
        );
        if lock(&self.failure).is_some() {
            return Ok(());
        }
        // The constants follow the last buffer.
        let arguments: [Argument<'a, Q>; MOST_BUFFERS + 1] = array::from_fn(|_| match buffers.next() {
            Some((buffer, offset)) => Argument::Buffer(buffer, offset),
            None => Argument::Value(&launch.constants),
        });
        self.queue.launch(&planish_gpu::Launch {
            kernel,
            grid: launch.threadgroups,
            threads: [launch.threads, 1, 1],
            threadgroup_bytes: launch.shared_bytes,
            arguments: &arguments[..=count],
            overlaps,
        })
    }
}
