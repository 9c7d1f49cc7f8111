//! What adds up and chooses codes: the processor, or a device with the same arithmetic in another order.

use std::fmt::Debug;

use planish_format::PackedMatrix;

use super::{Calibrated, InputBasis, Moments, calibrate_rows};
use crate::Error;

/// A place for the sums and factors of calibration.
pub trait Calibrator: Debug + Send + Sync {
    /// What a run is told apart by: single codes may differ between devices.
    fn name(&self) -> String;

    /// Nothing seen of inputs of `cols` columns, a multiple of 8.
    ///
    /// # Errors
    /// A device that is out of memory.
    fn moments(&self, cols: usize) -> Result<Box<dyn InputMoments>, Error>;
}

/// Sums of products of inputs: [`Moments`].
pub trait InputMoments {
    /// Rows that were seen.
    fn rows(&self) -> u64;
    /// Columns of the inputs.
    fn cols(&self) -> usize;
    /// As [`Moments::add`].
    ///
    /// # Errors
    /// A failing device.
    fn add(&mut self, inputs: &[f32], original: Option<&[f32]>) -> Result<(), Error>;
    /// The same sums again.
    ///
    /// # Errors
    /// A device that is out of memory.
    fn copy(&self) -> Result<Box<dyn InputMoments>, Error>;
    /// As [`InputBasis::new`].
    ///
    /// # Errors
    /// A failing device.
    fn basis(self: Box<Self>, group: usize) -> Result<Option<Box<dyn Basis>>, Error>;
}

/// What the inputs of a layer say about the errors of its weights: [`InputBasis`].
pub trait Basis {
    /// Columns of the weights.
    fn cols(&self) -> usize;
    /// Columns of a group.
    fn group(&self) -> usize;
    /// As [`calibrate_rows`].
    ///
    /// # Errors
    /// A failing device.
    fn calibrate(&self, weights: &[f32], searched: &PackedMatrix) -> Result<Calibrated, Error>;
}

/// The processor's threads.
#[derive(Clone, Copy, Debug)]
pub struct OnProcessor;

impl Calibrator for OnProcessor {
    fn name(&self) -> String {
        "the processor".to_owned()
    }

    fn moments(&self, cols: usize) -> Result<Box<dyn InputMoments>, Error> {
        Ok(Box::new(Moments::new(cols)))
    }
}

impl InputMoments for Moments {
    fn rows(&self) -> u64 {
        Moments::rows(self)
    }

    fn cols(&self) -> usize {
        Moments::cols(self)
    }

    fn add(&mut self, inputs: &[f32], original: Option<&[f32]>) -> Result<(), Error> {
        Moments::add(self, inputs, original);
        Ok(())
    }

    fn copy(&self) -> Result<Box<dyn InputMoments>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn basis(self: Box<Self>, group: usize) -> Result<Option<Box<dyn Basis>>, Error> {
        let basis = InputBasis::new(*self, group);
        Ok(basis.map(|basis| Box::new(basis) as Box<dyn Basis>))
    }
}

impl Basis for InputBasis {
    fn cols(&self) -> usize {
        InputBasis::cols(self)
    }

    fn group(&self) -> usize {
        InputBasis::group(self)
    }

    fn calibrate(&self, weights: &[f32], searched: &PackedMatrix) -> Result<Calibrated, Error> {
        Ok(calibrate_rows(self, weights, searched))
    }
}
