//! Routed experts: few rows read the weights of their experts each; many are sorted by expert, so that rows of an expert share
//! them. Who computes what is decided on the device, and never comes back.

use planish_gpu::{Error, Queue};

use smallvec::SmallVec;

use super::stack::GpuStack;
use super::{GpuOps, GpuTensor, Scratch, lock};
use crate::launch::{
    self, ExpertsInner, ExpertsOuter, StackBuffer, StackMatmul, StackProduct, StackRouting, StackVariant, SumBase,
};
use planish_ops::{Base, ExpertLayer, Experts, Shape, StackShape};

/// Up to so many rows each reads the weights of its experts.
const MOST_GATHERED_ROWS: usize = 8;

/// What lies between the kernels of experts.
pub(super) struct RoutedScratch<Q: Queue> {
    experts: Scratch<Q>,  // (rows, chosen)
    weights: Scratch<Q>,  // (rows, chosen)
    order: Scratch<Q>,    // (entries)
    tiles: Scratch<Q>,    // (tiles, 3)
    inner: Scratch<Q>,    // (entries, inner)
    up: Scratch<Q>,       // (entries, inner)
    products: Scratch<Q>, // (entries, hidden)
}

impl<Q: Queue> RoutedScratch<Q> {
    pub(super) fn new() -> RoutedScratch<Q> {
        RoutedScratch {
            experts: Scratch::new(),
            weights: Scratch::new(),
            order: Scratch::new(),
            tiles: Scratch::new(),
            inner: Scratch::new(),
            up: Scratch::new(),
            products: Scratch::new(),
        }
    }
}

/// A buffer and where to begin in it.
type Place<'a, Q> = (&'a <Q as Queue>::Buffer, usize);

/// What the router decided.
struct Choices<'a, Q: Queue> {
    route: launch::Route,
    experts: Place<'a, Q>, // (rows, chosen)
    weights: Place<'a, Q>, // (rows, chosen)
}

/// Entries by expert.
struct Sorted<'a, Q: Queue> {
    /// What multiplies them.
    variant: &'static StackVariant,
    tiles_count: u32,
    chosen: u32,
    order: Place<'a, Q>, // (entries)
    tiles: Place<'a, Q>, // (tiles, 3)
}

impl<Q: Queue> Sorted<'_, Q> {
    /// Rows meet the experts that they chose.
    fn routing_of_rows(&self) -> StackRouting {
        StackRouting::Rows {
            chosen: self.chosen,
            tiles: self.tiles_count,
        }
    }
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_experts(&self, problem: &Experts<'_, GpuOps<Q>>) -> Result<(), Error> {
        if problem.rows == 0 {
            return Ok(());
        }
        let variant = self.best_for_experts(problem);
        let route = launch::Route {
            rule: problem.route.rule,
            value: problem.route.logits.float_type,
            rows: problem.rows as u32,
            experts: problem.up.weights.count() as u32,
            corrected: problem.route.score_correction.is_some(),
            factors: problem.route.factors.is_some(),
            tile: variant.tile,
        };
        let entries = route.entries() as usize;
        let mut scratch = lock(&self.routed);
        let RoutedScratch {
            experts,
            weights,
            order,
            tiles,
            inner,
            up,
            products,
        } = &mut *scratch;
        let (queue, size) = (&self.queue, problem.input.float_type.size_bytes());
        let choices = Choices {
            route,
            experts: (experts.at_least(queue, 4 * entries)?, 0),
            weights: (weights.at_least(queue, 4 * entries)?, 0),
        };
        let score_correction = self.optional(problem.route.score_correction);
        let (logits, factors) = (problem.route.logits.all(), self.optional(problem.route.factors));
        self.run(
            &route.launch(),
            &[logits, score_correction, choices.experts, choices.weights, factors],
        );
        let inner_bytes = entries * problem.up.weights.rows() * size;
        let inner = (inner.at_least(queue, inner_bytes)?, 0);
        if problem.rows <= MOST_GATHERED_ROWS && alike(problem) {
            self.run_gathered(problem, &choices, inner);
            return Ok(());
        }
        let sorted = Sorted {
            variant,
            tiles_count: route.tiles(),
            chosen: route.rule.chosen as u32,
            order: (order.at_least(queue, 4 * entries)?, 0),
            tiles: (tiles.at_least(queue, 12 * route.tiles() as usize)?, 0),
        };
        self.run(&route.sort(), &[choices.experts, sorted.order, sorted.tiles]);
        let product_bytes = entries * problem.output.cols * size;
        let products = (products.at_least(queue, product_bytes)?, 0);
        match &problem.gate {
            Some(gate)
                if !problem.route.weighs_inputs && alike(problem) && self.fits_paired(problem, gate, &sorted) =>
            {
                self.run_paired(problem, gate, &sorted, inner);
            }
            _ => {
                let up = (up.at_least(queue, inner_bytes)?, 0);
                self.run_apart(problem, &sorted, choices.weights, [inner, up]);
            }
        }
        let routing = StackRouting::Sorted {
            tiles: sorted.tiles_count,
        };
        self.run_layer(&problem.down, routing, &sorted, [inner, products]);
        let buffers = [products, choices.weights, self.base_gate(problem), problem.output.all()];
        self.run(&self.outer(problem).sum(), &buffers);
        Ok(())
    }

    fn run_gathered(&self, problem: &Experts<'_, GpuOps<Q>>, choices: &Choices<'_, Q>, inner: Place<'_, Q>) {
        let gate = problem.gate.as_ref().unwrap_or(&problem.up);
        let [gate_codes, gate_scales, gate_biases] = gate.weights.stored.buffers();
        let [up_codes, up_scales, up_biases] = problem.up.weights.stored.buffers();
        self.run(
            &self.inner(problem, &choices.route).launch(),
            &[
                gate_codes,
                gate_scales,
                gate_biases,
                up_codes,
                up_scales,
                up_biases,
                problem.input.all(),
                self.optional(gate.biases),
                self.optional(problem.up.biases),
                choices.experts,
                inner,
                choices.weights,
            ],
        );
        let [codes, scales, biases] = problem.down.weights.stored.buffers();
        self.run(
            &self.outer(problem).launch(),
            &[
                codes,
                scales,
                biases,
                inner,
                self.optional(problem.down.biases),
                choices.experts,
                choices.weights,
                self.base_gate(problem),
                problem.output.all(),
            ],
        );
    }

    /// Gate, up and activation in one launch.
    fn run_paired(
        &self,
        problem: &Experts<'_, GpuOps<Q>>,
        gate: &ExpertLayer<'_, GpuOps<Q>>,
        sorted: &Sorted<'_, Q>,
        inner: Place<'_, Q>,
    ) {
        let [gate_codes, gate_scales, gate_biases] = gate.weights.stored.buffers();
        let [up_codes, up_scales, up_biases] = problem.up.weights.stored.buffers();
        let product = self.paired(problem, gate, sorted);
        self.run_stack(sorted.variant, &product, |buffer| match buffer {
            StackBuffer::Codes => gate_codes,
            StackBuffer::Scales => gate_scales,
            StackBuffer::Biases => gate_biases,
            StackBuffer::PairedCodes => up_codes,
            StackBuffer::PairedScales => up_scales,
            StackBuffer::PairedBiases => up_biases,
            StackBuffer::Input => problem.input.all(),
            StackBuffer::Added => self.optional(gate.biases),
            StackBuffer::PairedAdded => self.optional(problem.up.biases),
            StackBuffer::Order => sorted.order,
            StackBuffer::Tiles => sorted.tiles,
            StackBuffer::Output => inner,
        });
    }

    fn paired(
        &self,
        problem: &Experts<'_, GpuOps<Q>>,
        gate: &ExpertLayer<'_, GpuOps<Q>>,
        sorted: &Sorted<'_, Q>,
    ) -> StackProduct {
        StackProduct {
            paired: Some(problem.activation),
            ..self.stack_product(gate, sorted.routing_of_rows())
        }
    }

    /// Whether what multiplies takes gate and up at once.
    fn fits_paired(
        &self,
        problem: &Experts<'_, GpuOps<Q>>,
        gate: &ExpertLayer<'_, GpuOps<Q>>,
        sorted: &Sorted<'_, Q>,
    ) -> bool {
        (sorted.variant.fits)(&self.paired(problem, gate, sorted), &self.queue.features())
    }

    /// Gate and up one after the other, then the activation. `weights` are those of the entries.
    fn run_apart(
        &self,
        problem: &Experts<'_, GpuOps<Q>>,
        sorted: &Sorted<'_, Q>,
        weights: Place<'_, Q>,
        [inner, up]: [Place<'_, Q>; 2],
    ) {
        let (input, routing) = (problem.input.all(), sorted.routing_of_rows());
        match &problem.gate {
            Some(gate) => {
                self.run_layer(gate, routing, sorted, [input, inner]);
                self.run_layer(&problem.up, routing, sorted, [input, up]);
            }
            None => self.run_layer(&problem.up, routing, sorted, [input, inner]),
        }
        let entries = problem.rows * problem.route.rule.chosen;
        if problem.route.weighs_inputs {
            let scale = launch::ScaleRows {
                value: problem.input.float_type,
                rows: entries as u32,
                cols: problem.up.weights.rows() as u32,
            };
            // What the gates gave lies in the order of experts.
            self.run(&scale.launch(), &[inner, weights, sorted.order]);
        }
        let gate = launch::Gate {
            activation: problem.activation,
            value: problem.input.float_type,
            count: (entries * problem.up.weights.rows()) as u32,
            gated: problem.gate.is_some(),
        };
        self.run(&gate.launch(), &[inner, up]);
    }

    /// One projection of all experts.
    fn run_layer(
        &self,
        layer: &ExpertLayer<'_, GpuOps<Q>>,
        routing: StackRouting,
        sorted: &Sorted<'_, Q>,
        [input, output]: [Place<'_, Q>; 2],
    ) {
        let product = self.stack_product(layer, routing);
        let [codes, scales, biases] = layer.weights.stored.buffers();
        self.run_stack(sorted.variant, &product, |buffer| match buffer {
            StackBuffer::Codes => codes,
            StackBuffer::Scales => scales,
            StackBuffer::Biases => biases,
            StackBuffer::Input => input,
            StackBuffer::Added => self.optional(layer.biases),
            StackBuffer::Order => sorted.order,
            StackBuffer::Tiles => sorted.tiles,
            StackBuffer::Output => output,
            _ => self.optional(None),
        });
    }

    fn stack_product(&self, layer: &ExpertLayer<'_, GpuOps<Q>>, routing: StackRouting) -> StackProduct {
        let stack: &GpuStack<Q> = layer.weights;
        let first = StackMatmul {
            weight: stack.stored.kind,
            value: self.value,
            rows: stack.rows() as u32,
            cols: stack.cols() as u32,
            inputs: 0,
            transposed: false,
            added: layer.biases.is_some(),
            routing,
        };
        StackProduct { first, paired: None }
    }

    /// The best way to compute every projection.
    fn best_for_experts(&self, problem: &Experts<'_, GpuOps<Q>>) -> &'static StackVariant {
        let layers = [problem.gate.as_ref(), Some(&problem.up), Some(&problem.down)];
        // How many tiles there are changes nothing here.
        let routing = StackRouting::Sorted { tiles: 0 };
        let layers = layers.into_iter().flatten();
        let products: SmallVec<[StackProduct; 3]> = layers.map(|layer| self.stack_product(layer, routing)).collect();
        let (_, best) =
            StackVariant::best(products.iter(), &self.queue.features()).expect("a way for every projection");
        best
    }

    fn inner(&self, problem: &Experts<'_, GpuOps<Q>>, route: &launch::Route) -> ExpertsInner {
        ExpertsInner {
            weight: problem.up.weights.stored.kind,
            value: problem.input.float_type,
            inner: problem.up.weights.rows() as u32,
            cols: problem.up.weights.cols() as u32,
            entries: route.entries(),
            chosen: route.rule.chosen as u32,
            gated: problem.gate.is_some(),
            added: problem.up.biases.is_some(),
            weighed: problem.route.weighs_inputs,
            activation: problem.activation,
        }
    }

    fn outer(&self, problem: &Experts<'_, GpuOps<Q>>) -> ExpertsOuter {
        ExpertsOuter {
            weight: problem.down.weights.stored.kind,
            value: problem.output.float_type,
            hidden: problem.down.weights.rows() as u32,
            cols: problem.down.weights.cols() as u32,
            rows: problem.rows as u32,
            chosen: problem.route.rule.chosen as u32,
            added: problem.down.biases.is_some(),
            base: match problem.base {
                Base::Zero => SumBase::Zero,
                Base::Output => SumBase::Output,
                Base::Gated(_) => SumBase::Gated,
            },
        }
    }

    fn base_gate<'a>(&'a self, problem: &Experts<'a, GpuOps<Q>>) -> Place<'a, Q> {
        let gate: Option<&'a GpuTensor<Q>> = match problem.base {
            Base::Gated(gate) => Some(gate),
            _ => None,
        };
        self.optional(gate)
    }
}

/// Whether one kernel can read gate and up.
fn alike<Q: Queue>(problem: &Experts<'_, GpuOps<Q>>) -> bool {
    let kind = |layer: &ExpertLayer<'_, GpuOps<Q>>| (layer.weights.stored.kind, layer.biases.is_some());
    problem.gate.as_ref().is_none_or(|gate| kind(gate) == kind(&problem.up))
}
