//! Weights: how they lie, rows of a table, products.

use planish_format::FloatType;
use planish_gpu::{Dialect, Error, Queue};
use planish_ops::Matrix;

use super::tensor::{Layout, Stored, Tiles};
use super::{GpuOps, GpuTensor, GpuWeight, lock};
use crate::launch::{self, Arrange, TensorMatmul, TensorWeight, WarpgroupMatmul};
use planish_ops::{Embed, Linear, Tokens};

/// Up to so many rows a product reads the weight as [`launch::Matvec`] does, beyond as [`launch::Matmul`].
const MOST_MATVEC_ROWS: usize = 8;

/// One weight of a [`Linear`] with what it reads and writes.
struct Product<'a, Q: Queue> {
    rows: usize,
    input: &'a GpuTensor<Q>,
    weight: &'a GpuWeight<Q>,
    bias: Option<&'a GpuTensor<Q>>,
    output: &'a GpuTensor<Q>,
}

impl<Q: Queue> GpuOps<Q> {
    /// In the order of tensor cores where the device has some that take it.
    pub(super) fn place_weight(&self, matrix: &Matrix) -> Result<GpuWeight<Q>, Error> {
        self.reorder(GpuWeight::stored(&self.queue, matrix)?)
    }

    /// A weight as it is stored in the order of tensor cores, where the device has some that take it.
    pub(super) fn reorder(&self, stored: GpuWeight<Q>) -> Result<GpuWeight<Q>, Error> {
        let (Layout::Stored(parts), Some(weight)) = (&stored.layout, self.tensor_weight(&stored)) else {
            return Ok(stored);
        };
        let codes = self.queue.allocate(weight.tile_bytes())?;
        let scales = self.queue.allocate(weight.scale_bytes())?;
        let [from_codes, from_scales, from_biases] = parts.buffers();
        let buffers = [from_codes, from_scales, from_biases, (&codes, 0), (&scales, 0)];
        self.try_run(&weight.repack(), &buffers, false)?;
        Ok(GpuWeight {
            layout: Layout::Tiles(Tiles { weight, codes, scales }),
            ..stored
        })
    }

    fn tensor_weight(&self, stored: &GpuWeight<Q>) -> Option<TensorWeight> {
        let Layout::Stored(Stored { kind, .. }) = &stored.layout else {
            return None;
        };
        // Many 16-bit inputs of weights with longer scales are left to the other kernels.
        let is_mixed = kind.float_type == FloatType::F32 && self.value != FloatType::F32;
        if self.queue.dialect() == Dialect::Metal || is_mixed {
            return None;
        }
        TensorWeight::new(kind.packing?, kind.float_type, stored.rows as u32, stored.cols as u32)
            .map(|weight| weight.shared_by(self.queue.processors()))
    }

    pub(super) fn run_embed(&self, problem: &Embed<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Embed {
            table,
            tokens,
            scale,
            output,
        } = problem;
        let Layout::Stored(stored) = &table.layout else {
            unreachable!("rows are taken of tables only")
        };
        let rows = launch::Rows {
            weight: stored.kind,
            value: output.float_type,
            rows: table.rows as u32,
            cols: table.cols as u32,
            factor: *scale,
        };
        let count = tokens.count() as u32;
        let [codes, scales, biases] = stored.buffers();
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
                assert!(places.spans.iter().all(|span| span.slot < slots) || known.iter().all(Option::is_some));
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

    pub(super) fn run_linear(&self, problem: &Linear<'_, GpuOps<Q>>) {
        let weights = problem.weights.iter().zip(problem.biases).zip(problem.outputs.iter());
        let mut arranged = None;
        for (index, ((weight, bias), output)) in weights.enumerate() {
            let product = Product {
                rows: problem.rows,
                input: problem.input,
                weight,
                bias: *bias,
                output,
            };
            // They share an input and write outputs of their own. One in the order of tensor cores may start before the one before it
            // ends, which that one must be made for.
            let before = index.checked_sub(1).map(|before| &problem.weights[before].layout);
            let beside = match (&weight.layout, before) {
                (Layout::Tiles(_), before) => matches!(before, Some(Layout::Tiles(_))),
                (Layout::Stored(_), before) => before.is_some(),
            };
            match (&weight.layout, self.warpgroup_matmul(&product)) {
                (Layout::Tiles(tiles), Some(matmul)) => {
                    self.run_warpgroups(&product, tiles, &matmul, &mut arranged, beside);
                }
                _ => self.run_product(&product, beside),
            }
        }
    }

    /// Where warpgroups are there, take the product and are faster.
    fn warpgroup_matmul(&self, product: &Product<'_, Q>) -> Option<WarpgroupMatmul> {
        let Layout::Tiles(tiles) = &product.weight.layout else {
            return None;
        };
        let has_warpgroups = self.queue.has_warpgroups();
        let matmul = has_warpgroups.then(|| WarpgroupMatmul::new(tensor_matmul(product, tiles)))?;
        matmul.filter(WarpgroupMatmul::is_faster)
    }

    /// `arranged`: how the inputs in the scratch memory lie, for the products of one problem.
    fn run_warpgroups(
        &self,
        product: &Product<'_, Q>,
        tiles: &Tiles<Q>,
        matmul: &WarpgroupMatmul,
        arranged: &mut Option<Arrange>,
        beside: bool,
    ) {
        let arrange = matmul.arrange();
        let mut scratch = lock(&self.arranged);
        let memory = match scratch.at_least(&self.queue, arrange.bytes()) {
            Ok(memory) => memory,
            Err(error) => return self.fail(error),
        };
        let is_new = arranged.replace(arrange) != Some(arrange);
        if is_new {
            self.run(&arrange.launch(), &[product.input.all(), (memory, 0)]);
        }
        let (codes, scales) = ((&tiles.codes, 0), (&tiles.scales, 0));
        let bias = self.optional(product.bias);
        let buffers = [codes, scales, (memory, 0), bias, product.output.all()];
        self.run_beside(&matmul.launch(), &buffers, beside && !is_new);
    }

    fn run_product(&self, product: &Product<'_, Q>, beside: bool) {
        match &product.weight.layout {
            Layout::Tiles(tiles) => self.run_tiles(product, tiles, beside),
            Layout::Stored(stored) if product.rows <= MOST_MATVEC_ROWS => self.run_matvec(product, stored, beside),
            Layout::Stored(stored) => self.run_matmul(product, stored, beside),
        }
    }

    fn run_tiles(&self, product: &Product<'_, Q>, tiles: &Tiles<Q>, beside: bool) {
        let matmul = tensor_matmul(product, tiles);
        let launch = if beside {
            matmul.launch_beside()
        } else {
            matmul.launch()
        };
        let (codes, scales) = ((&tiles.codes, 0), (&tiles.scales, 0));
        let bias = self.optional(product.bias);
        self.run_beside(
            &launch,
            &[codes, scales, product.input.all(), bias, product.output.all()],
            beside,
        );
    }

    fn run_matvec(&self, product: &Product<'_, Q>, stored: &Stored<Q>, beside: bool) {
        let launch = launch::Matvec {
            weight: stored.kind,
            value: product.input.float_type,
            output: product.output.float_type,
            rows: product.weight.rows as u32,
            cols: product.weight.cols as u32,
            inputs: product.rows as u32,
            added: product.bias.is_some(),
            experts: None,
        }
        .launch();
        let [codes, scales, biases] = stored.buffers();
        let (bias, no_experts) = (self.optional(product.bias), self.optional(None));
        let (input, output) = (product.input.all(), product.output.all());
        self.run_beside(
            &launch,
            &[codes, scales, biases, input, bias, no_experts, output],
            beside,
        );
    }

    fn run_matmul(&self, product: &Product<'_, Q>, stored: &Stored<Q>, beside: bool) {
        let launch = launch::Matmul {
            weight: stored.kind,
            value: product.input.float_type,
            output: product.output.float_type,
            rows: product.weight.rows as u32,
            cols: product.weight.cols as u32,
            inputs: product.rows as u32,
            added: product.bias.is_some(),
        }
        .launch();
        let [codes, scales, biases] = stored.buffers();
        let bias = self.optional(product.bias);
        let (input, output) = (product.input.all(), product.output.all());
        self.run_beside(&launch, &[codes, scales, biases, input, bias, output], beside);
    }
}

fn tensor_matmul<Q: Queue>(product: &Product<'_, Q>, tiles: &Tiles<Q>) -> TensorMatmul {
    TensorMatmul {
        weight: tiles.weight,
        value: product.input.float_type,
        output: product.output.float_type,
        inputs: product.rows as u32,
        added: product.bias.is_some(),
    }
}
