//! A learned augmented residual layer.

use planish_ops::{Add, Ops};

use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass};
use crate::workspace::TensorSize;
use crate::{Error, LaurelSpec};

pub(super) struct LaurelBlock<O: Ops> {
    left: LinearLayer<O>,
    right: LinearLayer<O>,
    norm: NormLayer<O>,
    rank: usize,
}

impl<O: Ops> LaurelBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &LaurelSpec) -> Result<LaurelBlock<O>, Error> {
        Ok(LaurelBlock {
            left: loader.linear(&spec.left)?,
            right: loader.linear(&spec.right)?,
            norm: loader.norm(&spec.norm)?,
            rank: spec.left.rows,
        })
    }
}

impl<O: Ops> Block<O> for LaurelBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        vec![TensorSize::row(self.rank)]
    }

    fn run(&self, pass: &mut Pass<'_, O>, _state: &mut BlockState<O>) -> Result<(), Error> {
        let [ranked] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        pass.linear(pass.input, &[&self.left], &mut [&mut *ranked]);
        self.right.run(pass, ranked);
        pass.ops.norm(self.norm.of(0..pass.rows, pass.output));
        pass.ops.add(Add {
            rows: pass.rows,
            target: &mut *pass.output,
            source: pass.input,
            factor: 1.0,
        });
        Ok(())
    }
}
