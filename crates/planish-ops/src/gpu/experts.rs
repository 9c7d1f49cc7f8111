//! Routed experts: few rows read the weights of their experts each; many are sorted by expert, so that rows of an expert share
//! them. Who computes what is decided on the device, and never comes back.

use planish_gpu::{Error, Queue};

use super::stack::GpuStack;
use super::{GpuOps, GpuTensor, Scratch, lock};
use crate::kernels::{self, ExpertsInner, ExpertsOuter, Launch, StackInputs, StackMatmul, SumBase};
use crate::{Base, ExpertLayer, Experts, Shape, StackShape};

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
    route: kernels::Route,
    experts: Place<'a, Q>, // (rows, chosen)
    weights: Place<'a, Q>, // (rows, chosen)
}

/// Entries by expert.
struct Sorted<'a, Q: Queue> {
    tiles_count: u32,
    chosen: u32,
    order: Place<'a, Q>, // (entries)
    tiles: Place<'a, Q>, // (tiles, 3)
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_experts(&self, problem: &Experts<'_, GpuOps<Q>>) -> Result<(), Error> {
        if problem.rows == 0 {
            return Ok(());
        }
        let route = kernels::Route {
            rule: problem.route.rule,
            value: problem.route.logits.float_type,
            rows: problem.rows as u32,
            experts: problem.up.weights.count() as u32,
            corrected: problem.route.correction.is_some(),
            tile: StackMatmul::TILE,
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
        let correction = self.optional(problem.route.correction);
        let logits = problem.route.logits.all();
        self.run(&route.launch(), &[logits, correction, choices.experts, choices.weights]);
        let inner_bytes = entries * problem.up.weights.rows() * size;
        let inner = (inner.at_least(queue, inner_bytes)?, 0);
        if problem.rows <= MOST_GATHERED_ROWS && alike(problem) {
            self.run_gathered(problem, &choices, inner);
            return Ok(());
        }
        let sorted = Sorted {
            tiles_count: route.tiles(),
            chosen: route.rule.chosen as u32,
            order: (order.at_least(queue, 4 * entries)?, 0),
            tiles: (tiles.at_least(queue, 12 * route.tiles() as usize)?, 0),
        };
        self.run(&route.sort(), &[choices.experts, sorted.order, sorted.tiles]);
        let up = (up.at_least(queue, inner_bytes)?, 0);
        let product_bytes = entries * problem.output.cols * size;
        let products = (products.at_least(queue, product_bytes)?, 0);
        self.run_sorted(problem, &sorted, [inner, up, products]);
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

    /// From rows by way of `inner` and `up` to `products`.
    fn run_sorted(
        &self,
        problem: &Experts<'_, GpuOps<Q>>,
        sorted: &Sorted<'_, Q>,
        [inner, up, products]: [Place<'_, Q>; 3],
    ) {
        let value = problem.input.float_type;
        let count = sorted_count(problem);
        let from_rows = StackInputs::Rows {
            chosen: sorted.chosen,
            tiles: sorted.tiles_count,
        };
        let input = problem.input.all();
        let gate = kernels::Gate {
            activation: problem.activation,
            value,
            count: (count * problem.up.weights.rows()) as u32,
            gated: problem.gate.is_some(),
        };
        match &problem.gate {
            Some(gate) => {
                self.run_layer(gate, from_rows, sorted, [input, inner], false);
                self.run_layer(&problem.up, from_rows, sorted, [input, up], true);
            }
            None => self.run_layer(&problem.up, from_rows, sorted, [input, inner], false),
        }
        self.run(&gate.launch(), &[inner, up]);
        let from_places = StackInputs::Places {
            tiles: sorted.tiles_count,
        };
        self.run_layer(&problem.down, from_places, sorted, [inner, products], false);
    }

    /// One projection of all experts.
    fn run_layer(
        &self,
        layer: &ExpertLayer<'_, GpuOps<Q>>,
        meeting: StackInputs,
        sorted: &Sorted<'_, Q>,
        [input, output]: [Place<'_, Q>; 2],
        beside: bool,
    ) {
        let stack: &GpuStack<Q> = layer.weights;
        let launch: Launch = StackMatmul {
            weight: stack.stored.kind,
            value: self.value,
            rows: stack.rows() as u32,
            cols: stack.cols() as u32,
            inputs: 0,
            turned: false,
            added: layer.biases.is_some(),
            meeting,
        }
        .launch();
        let [codes, scales, biases] = stack.stored.buffers();
        let added = self.optional(layer.biases);
        self.run_beside(
            &launch,
            &[codes, scales, biases, input, added, sorted.order, sorted.tiles, output],
            beside,
        );
    }

    fn inner(&self, problem: &Experts<'_, GpuOps<Q>>, route: &kernels::Route) -> ExpertsInner {
        ExpertsInner {
            weight: problem.up.weights.stored.kind,
            value: problem.input.float_type,
            inner: problem.up.weights.rows() as u32,
            cols: problem.up.weights.cols() as u32,
            entries: route.entries(),
            chosen: route.rule.chosen as u32,
            gated: problem.gate.is_some(),
            added: problem.up.biases.is_some(),
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

/// Choices of all rows.
fn sorted_count<Q: Queue>(problem: &Experts<'_, GpuOps<Q>>) -> usize {
    problem.rows * problem.route.rule.chosen
}
