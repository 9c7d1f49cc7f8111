//! Stacks of matrices and routed experts on the CPU.

use crate::experts::{ExpertsWorkspace, Run};
use crate::{Choices, CpuMatrix};

use super::{CpuOps, lock};
use planish_ops::{Base, Experts, Resident, Shape, StackShape};

/// Matrices of equal shape in memory, each where it lies.
pub struct CpuStack {
    matrices: Vec<CpuMatrix>, // at least one
}

impl CpuStack {
    /// Panics if there is no matrix, or their shapes differ.
    pub(super) fn new(matrices: Vec<CpuMatrix>) -> CpuStack {
        let shape = |matrix: &CpuMatrix| (matrix.rows(), matrix.cols());
        assert!(!matrices.is_empty() && matrices.iter().all(|matrix| shape(matrix) == shape(&matrices[0])));
        CpuStack { matrices }
    }

    pub(crate) fn matrices(&self) -> &[CpuMatrix] {
        &self.matrices
    }
}

impl Shape for CpuStack {
    fn rows(&self) -> usize {
        self.matrices[0].rows()
    }

    fn cols(&self) -> usize {
        self.matrices[0].cols()
    }
}

impl Resident for CpuStack {
    fn bytes(&self) -> usize {
        self.matrices.iter().map(CpuMatrix::bytes).sum()
    }
}

impl StackShape for CpuStack {
    fn count(&self) -> usize {
        self.matrices.len()
    }
}

/// Memory that calls of [`Ops::experts`] reuse.
#[derive(Default)]
pub(super) struct RoutedWorkspace {
    choices: Choices,
    experts: ExpertsWorkspace,
}

impl CpuOps {
    /// For a checked problem.
    pub(super) fn run_experts(&self, mut problem: Experts<'_, CpuOps>) {
        let (rows, cols) = (problem.rows, problem.output.cols());
        begin(&problem.base, cols, problem.output.first_mut(rows));
        let mut workspace = lock(&self.experts);
        let RoutedWorkspace { choices, experts } = &mut *workspace;
        crate::route(self.cpu.pool(), rows, &problem.route, choices);
        Run {
            cpu: &self.cpu,
            precision: self.precision,
            whole: self.whole().max(rows),
            choices,
            problem: &mut problem,
        }
        .run(experts);
    }
}

/// What the sum over experts begins with.
fn begin(base: &Base<'_, CpuOps>, cols: usize, output: &mut [f32]) {
    match base {
        Base::Zero => output.fill(0.0),
        Base::Output => {}
        Base::Gated(gate) => {
            for (row, &value) in output.chunks_exact_mut(cols).zip(gate.values()) {
                let factor = 1.0 / (1.0 + (-value).exp());
                row.iter_mut().for_each(|value| *value *= factor);
            }
        }
    }
}
