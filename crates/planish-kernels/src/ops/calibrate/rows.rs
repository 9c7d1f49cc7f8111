//! Codes of rows of weights: error feedback, then refits and sweeps, each of which a row keeps only where its error fell.

use planish_format::{FloatType, Packing};
use planish_gpu::{Error, Queue};

use super::basis::GpuBasis;
use crate::launch::{Added, CodeRows, Feedback, Multiply, RowStep, SearchGroups};

/// Bytes of the matrices of rows that are computed side by side.
const ROW_BYTES: usize = 2 << 30;
/// What a row takes of them for each column: targets, errors, products twice, codes less their means, codes three times.
const COLUMN_BYTES: usize = 6 * 4 + 3;
/// Bytes of systems.
const SYSTEM_BYTES: usize = 2 << 30;

/// Codes, one a byte, and scales and biases of rows, as they are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CodeValues {
    /// (rows, cols)
    pub codes: Vec<u8>,
    /// (rows, groups)
    pub scales: Vec<f32>,
    /// (rows, groups)
    pub biases: Vec<f32>,
}

/// Rows that were found, and what they are worth: `d H d^T` of each.
#[derive(Clone, Debug, Default)]
pub struct FoundRows {
    /// Their codes.
    pub values: CodeValues,
    /// Of them.
    pub errors: Vec<f64>,
    /// Of the codes that were there before.
    pub errors_before: Vec<f64>,
}

/// Which codes are looked for.
#[derive(Clone, Copy, Debug)]
pub struct RowPlan {
    /// Bits and group.
    pub packing: Packing,
    /// Type of scales and biases.
    pub scale_type: FloatType,
    /// Times that scales, biases and codes are gone over.
    pub rounds: usize,
    /// Added to the diagonals of systems, in parts of them.
    pub ridge: f64,
}

/// Codes on the device.
struct Held<Q: Queue> {
    codes: Q::Buffer,
    scales: Q::Buffer,
    biases: Q::Buffer,
    /// Errors times squares. // (rows, cols)
    products: Q::Buffer,
    /// f64 // (rows)
    errors: Q::Buffer,
}

impl<Q: Queue> GpuBasis<Q> {
    /// Whether there are kernels for rows of so many columns in these groups.
    pub fn takes(cols: usize, group: usize) -> bool {
        group <= SearchGroups::MOST_GROUP && CodeRows::has_room(cols, group)
    }

    /// Codes for rows of weights; `before` are some that were chosen without inputs. // weights (rows, cols)
    ///
    /// # Errors
    /// The device is out of memory, or fails.
    pub fn calibrate(&self, weights: &[f32], before: &CodeValues, plan: &RowPlan) -> Result<FoundRows, Error> {
        let (cols, groups) = (self.cols, self.cols / self.group);
        let at_once = (ROW_BYTES / (COLUMN_BYTES * cols)).max(1);
        let mut found = FoundRows::default();
        for (index, weights) in weights.chunks(at_once * cols).enumerate() {
            let rows = weights.len() / cols;
            let (first, end) = (index * at_once, index * at_once + rows);
            let before = CodeValues {
                codes: before.codes[first * cols..end * cols].to_vec(),
                scales: before.scales[first * groups..end * groups].to_vec(),
                biases: before.biases[first * groups..end * groups].to_vec(),
            };
            let some = RowsJob {
                basis: self,
                plan,
                rows,
            }
            .run(weights, &before)?;
            found.values.codes.extend(some.values.codes);
            found.values.scales.extend(some.values.scales);
            found.values.biases.extend(some.values.biases);
            found.errors.extend(some.errors);
            found.errors_before.extend(some.errors_before);
        }
        Ok(found)
    }
}

/// Rows that are computed side by side.
struct RowsJob<'a, Q: Queue> {
    basis: &'a GpuBasis<Q>,
    plan: &'a RowPlan,
    rows: usize,
}

impl<Q: Queue> RowsJob<'_, Q> {
    fn run(&self, weights: &[f32], before: &CodeValues) -> Result<FoundRows, Error> {
        let queue = &self.basis.ops.queue;
        let target = self.target(weights)?;
        let tried = self.held()?;
        let off = queue.allocate(self.bytes())?;
        queue.upload(&before.codes, &tried.codes, 0)?;
        queue.upload(bytemuck::cast_slice(&before.scales), &tried.scales, 0)?;
        queue.upload(bytemuck::cast_slice(&before.biases), &tried.biases, 0)?;
        self.judge(&tried, &target, &off)?;
        let errors_before = self.read_errors(&tried)?;
        let held = self.held()?;
        self.feedback(&target, &off, &held)?;
        self.judge(&held, &target, &off)?;
        for _ in 0..self.plan.rounds {
            self.refit(&held, &tried, &off)?;
            self.judge(&tried, &target, &off)?;
            self.keep(&held, &tried)?;
            self.sweep(&held, &tried)?;
            self.judge(&tried, &target, &off)?;
            self.keep(&held, &tried)?;
        }
        let groups = self.rows * self.groups();
        let mut values = CodeValues {
            codes: vec![0; self.rows * self.basis.cols],
            scales: vec![0.0; groups],
            biases: vec![0.0; groups],
        };
        queue.download(&held.codes, 0, &mut values.codes)?;
        queue.download(&held.scales, 0, bytemuck::cast_slice_mut(&mut values.scales))?;
        queue.download(&held.biases, 0, bytemuck::cast_slice_mut(&mut values.biases))?;
        self.basis.ops.check_failure()?;
        Ok(FoundRows {
            values,
            errors: self.read_errors(&held)?,
            errors_before,
        })
    }

    fn groups(&self) -> usize {
        self.basis.cols / self.basis.group
    }

    /// Of a matrix (rows, cols) of f32.
    fn bytes(&self) -> usize {
        4 * self.rows * self.basis.cols
    }

    fn held(&self) -> Result<Held<Q>, Error> {
        let queue = &self.basis.ops.queue;
        let scale_bytes = 4 * self.rows * self.groups();
        Ok(Held {
            codes: queue.allocate(self.rows * self.basis.cols)?,
            scales: queue.allocate(scale_bytes)?,
            biases: queue.allocate(scale_bytes)?,
            products: queue.allocate(self.bytes())?,
            errors: queue.allocate(8 * self.rows)?,
        })
    }

    fn read_errors(&self, held: &Held<Q>) -> Result<Vec<f64>, Error> {
        let mut errors = vec![0.0f64; self.rows];
        let bytes = bytemuck::cast_slice_mut(&mut errors);
        self.basis.ops.queue.download(&held.errors, 0, bytes)?;
        Ok(errors)
    }

    fn step(&self, step: RowStep) -> CodeRows {
        CodeRows {
            step,
            scale: self.plan.scale_type,
            rows: self.rows as u32,
            cols: self.basis.cols as u32,
            group: self.basis.group as u32,
            index: 0,
            first_row: 0,
            ridge: self.plan.ridge as f32,
        }
    }

    fn run_step(&self, step: &CodeRows, buffers: &[&Q::Buffer]) -> Result<(), Error> {
        let buffers: Vec<(&Q::Buffer, usize)> = buffers.iter().map(|&buffer| (buffer, 0)).collect();
        self.basis.ops.try_run(&step.launch(), &buffers, false)
    }

    /// `left` and `right` as buffer and value at which they begin, likewise `to`.
    fn multiply(
        &self,
        product: Multiply,
        left: (&Q::Buffer, usize),
        right: (&Q::Buffer, usize),
        to: (&Q::Buffer, usize),
    ) -> Result<(), Error> {
        let ops = &self.basis.ops;
        let place = |(buffer, value): (_, usize)| (buffer, 4 * value);
        let buffers = [place(left), place(right), (&ops.nothing, 0), place(to)];
        ops.try_run(&product.launch(), &buffers, false)
    }

    /// What codes are to come close to. // (rows, cols)
    fn target(&self, weights: &[f32]) -> Result<Q::Buffer, Error> {
        let ops = &self.basis.ops;
        let target = ops.uploaded(weights)?;
        if let Some((drift, share)) = &self.basis.drift {
            let plain = ops.queue.allocate(self.bytes())?;
            ops.queue.copy(&target, &plain, self.bytes())?;
            let cols = self.basis.cols as u32;
            let correction = Multiply {
                factor: *share,
                added: Added::Itself,
                ..Multiply::new(self.rows as u32, cols, cols)
            };
            self.multiply(correction, (&plain, 0), (drift, 0), (&target, 0))?;
        }
        Ok(target)
    }

    /// Fills in products and errors. `off` is room for d.
    fn judge(&self, held: &Held<Q>, target: &Q::Buffer, off: &Q::Buffer) -> Result<(), Error> {
        let errors = self.step(RowStep::Errors);
        self.run_step(&errors, &[&held.codes, &held.scales, &held.biases, target, off])?;
        let cols = self.basis.cols as u32;
        let product = Multiply::new(self.rows as u32, cols, cols);
        self.multiply(product, (off, 0), (&self.basis.squares, 0), (&held.products, 0))?;
        self.run_step(&self.step(RowStep::Products), &[off, &held.products, &held.errors])
    }

    /// Fills in codes, scales and biases. `left` is room for the weights that are left.
    fn feedback(&self, target: &Q::Buffer, left: &Q::Buffer, held: &Held<Q>) -> Result<(), Error> {
        let GpuBasis {
            ops,
            cols,
            group,
            weights,
            upper,
            order,
            ..
        } = self.basis;
        self.run_step(&self.step(RowStep::Gather), &[target, order, left])?;
        let errors = ops.queue.allocate(4 * self.rows * group)?;
        for first in (0..*cols).step_by(*group) {
            let feedback = Feedback {
                packing: self.plan.packing,
                scale: self.plan.scale_type,
                rows: self.rows as u32,
                cols: *cols as u32,
                first: first as u32,
            };
            let buffers = [
                left,
                weights,
                upper,
                order,
                &held.codes,
                &held.scales,
                &held.biases,
                &errors,
            ];
            ops.try_run(&feedback.launch(), &buffers.map(|buffer| (buffer, 0)), false)?;
            let end = first + group;
            if end < *cols {
                let rest = Multiply {
                    right_stride: *cols as u32,
                    to_stride: *cols as u32,
                    added: Added::Itself,
                    ..Multiply::new(self.rows as u32, (cols - end) as u32, *group as u32)
                };
                self.multiply(rest, (&errors, 0), (upper, first * cols + end), (left, end))?;
            }
        }
        Ok(())
    }

    /// Fills in other scales and biases for the codes of `held`. `room` is overwritten.
    fn refit(&self, held: &Held<Q>, tried: &Held<Q>, room: &Q::Buffer) -> Result<(), Error> {
        let (ops, cols, group) = (&self.basis.ops, self.basis.cols, self.basis.group);
        let groups = self.groups();
        ops.queue.copy(&held.codes, &tried.codes, self.rows * cols)?;
        let means = ops.queue.allocate(4 * self.rows * groups)?;
        let centred = ops.queue.allocate(self.bytes())?;
        self.run_step(&self.step(RowStep::Centre), &[&held.codes, &means, &centred])?;
        let at_once = (SYSTEM_BYTES / CodeRows::system_bytes(cols, group)).clamp(1, self.rows);
        let systems = ops.queue.allocate(at_once * CodeRows::system_bytes(cols, group))?;
        let changes = ops.queue.allocate(8 * at_once * 2 * groups)?;
        for first_row in (0..self.rows).step_by(at_once) {
            let rows = at_once.min(self.rows - first_row);
            let of_rows = |step| CodeRows {
                rows: rows as u32,
                first_row: first_row as u32,
                ..self.step(step)
            };
            for index in 0..groups {
                let products = Multiply {
                    left_stride: cols as u32,
                    ..Multiply::new(rows as u32, cols as u32, group as u32)
                };
                let first = index * group;
                let left = (&centred, first_row * cols + first);
                self.multiply(products, left, (&self.basis.squares, first * cols), (room, 0))?;
                let terms = CodeRows {
                    index: index as u32,
                    ..of_rows(RowStep::Terms)
                };
                self.run_step(&terms, &[room, &centred, &systems])?;
            }
            self.run_step(&of_rows(RowStep::Sides), &[&held.products, &centred, &systems])?;
            let solve = [&systems, &self.basis.group_squares, &changes];
            self.run_step(&of_rows(RowStep::Solve), &solve)?;
            let change = [
                &held.scales,
                &held.biases,
                &means,
                &changes,
                &tried.scales,
                &tried.biases,
            ];
            self.run_step(&of_rows(RowStep::Change), &change)?;
        }
        Ok(())
    }

    /// Fills in other codes for the scales and biases of `held`.
    fn sweep(&self, held: &Held<Q>, tried: &Held<Q>) -> Result<(), Error> {
        let (ops, cols) = (&self.basis.ops, self.basis.cols);
        let scale_bytes = 4 * self.rows * self.groups();
        ops.queue.copy(&held.codes, &tried.codes, self.rows * cols)?;
        ops.queue.copy(&held.scales, &tried.scales, scale_bytes)?;
        ops.queue.copy(&held.biases, &tried.biases, scale_bytes)?;
        ops.queue.copy(&held.products, &tried.products, self.bytes())?;
        let block = Feedback::SWEPT as usize;
        let changes = ops.queue.allocate(4 * self.rows * block)?;
        for first in (0..cols).step_by(block) {
            let sweep = Feedback {
                packing: self.plan.packing,
                scale: self.plan.scale_type,
                rows: self.rows as u32,
                cols: cols as u32,
                first: first as u32,
            };
            let squares = &self.basis.squares;
            let buffers = [
                &tried.codes,
                &tried.scales,
                &tried.biases,
                squares,
                &tried.products,
                &changes,
            ];
            ops.try_run(&sweep.launch_sweep(), &buffers.map(|buffer| (buffer, 0)), false)?;
            // The products of earlier columns are not read again.
            let end = first + block;
            if end < cols {
                let rest = Multiply {
                    right_stride: cols as u32,
                    to_stride: cols as u32,
                    added: Added::Itself,
                    ..Multiply::new(self.rows as u32, (cols - end) as u32, Feedback::SWEPT)
                };
                self.multiply(
                    rest,
                    (&changes, 0),
                    (squares, first * cols + end),
                    (&tried.products, end),
                )?;
            }
        }
        Ok(())
    }

    /// Takes over rows of what was tried that are better.
    fn keep(&self, held: &Held<Q>, tried: &Held<Q>) -> Result<(), Error> {
        let buffers = [
            &held.codes,
            &held.scales,
            &held.biases,
            &held.products,
            &held.errors,
            &tried.codes,
            &tried.scales,
            &tried.biases,
            &tried.products,
            &tried.errors,
        ];
        self.run_step(&self.step(RowStep::Keep), &buffers)
    }
}
