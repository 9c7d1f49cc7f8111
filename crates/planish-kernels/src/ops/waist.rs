//! The waist: every method checks its Problem and hands it to the file that knows its kernels.

use std::ops::Range;

use half::{bf16, f16};
use planish_format::FloatType;
use planish_gpu::{Error, Queue};

use super::{GpuChosen, GpuKeyValues, GpuOps, GpuSequences, GpuStack, GpuTensor, GpuWeight};
use planish_ops::{
    Add, Append, Attention, ChannelScan, Choose, Convolution, CopyHeads, CopyRows, Cut, Embed, Experts, Gate,
    HeadLinear, HostWeight, KeyValueSizes, Linear, Mix, Norm, Ops, Origin, PassSize, Placed, Recurrence, Rescale, Rope,
    RopeAngles, Span, Use,
};

impl<Q: Queue> Ops for GpuOps<Q> {
    type Tensor = GpuTensor<Q>;
    type Weight = GpuWeight<Q>;
    type Stack = GpuStack<Q>;
    type KeyValues = GpuKeyValues<Q>;
    type Sequences = GpuSequences<Q>;
    type Chosen = GpuChosen<Q>;
    type Error = Error;

    /// Every pass reads all weights once.
    const PASS: PassSize = PassSize {
        rows: 2048,
        batch: 64,
        few: None,
        bytes: 1 << 30,
    };
    const SYNCHRONOUS: bool = false;

    fn tensor(&self, rows: usize, cols: usize) -> Result<GpuTensor<Q>, Error> {
        GpuTensor::new(&self.queue, rows, cols, self.value)
    }

    fn tensor_f32(&self, rows: usize, cols: usize) -> Result<GpuTensor<Q>, Error> {
        GpuTensor::new(&self.queue, rows, cols, FloatType::F32)
    }

    fn vector(&self, values: &[f32]) -> Result<GpuTensor<Q>, Error> {
        let tensor = self.tensor_f32(1, values.len())?;
        self.queue.upload(bytemuck::cast_slice(values), &tensor.buffer, 0)?;
        Ok(tensor)
    }

    fn place<W: HostWeight>(&self, weight: W, use_as: Use) -> Placed<GpuWeight<Q>, GpuOps<Q>, W> {
        self.place_weight(weight, use_as)
    }

    fn place_stack<W: HostWeight>(&self, weights: Vec<W>) -> Placed<GpuStack<Q>, GpuOps<Q>, W> {
        self.place_matrices(weights)
    }

    fn key_values(&self, sizes: KeyValueSizes) -> Result<GpuKeyValues<Q>, Error> {
        Ok(GpuKeyValues::new(sizes, self.cached.size_bytes()))
    }

    fn read<'a>(
        &self,
        tensor: &'a GpuTensor<Q>,
        rows: Range<usize>,
        staging: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], Error> {
        self.check_failure()?;
        let count = rows.len() * tensor.cols;
        let (buffer, offset) = tensor.after_row(rows.start);
        staging.resize(count, 0.0);
        if tensor.float_type == FloatType::F32 {
            self.queue.download(buffer, offset, bytemuck::cast_slice_mut(staging))?;
            return Ok(staging);
        }
        let mut bits = vec![0u16; count];
        self.queue
            .download(buffer, offset, bytemuck::cast_slice_mut(&mut bits))?;
        let widen = match tensor.float_type {
            FloatType::BF16 => |bits| bf16::from_bits(bits).to_f32(),
            _ => |bits| f16::from_bits(bits).to_f32(),
        };
        staging
            .iter_mut()
            .zip(bits)
            .for_each(|(value, bits)| *value = widen(bits));
        Ok(staging)
    }

    fn write(&self, tensor: &mut GpuTensor<Q>, values: &[f32]) -> Result<(), Error> {
        assert!(values.len() <= tensor.rows * tensor.cols, "rows of a tensor");
        match tensor.float_type {
            FloatType::F32 => self.queue.upload(bytemuck::cast_slice(values), &tensor.buffer, 0),
            narrow => {
                let mut bytes = vec![0; values.len() * narrow.size_bytes()];
                narrow.encode(values, &mut bytes);
                self.queue.upload(&bytes, &tensor.buffer, 0)
            }
        }
    }

    fn name(&self, weight: &GpuWeight<Q>, origin: &dyn Fn() -> Option<Origin>) {
        if let Some(tap) = &self.tap
            && let Some(origin) = origin()
        {
            tap.name(weight.id, origin);
        }
    }

    fn sequences(&self) -> Result<GpuSequences<Q>, Error> {
        GpuSequences::new(&self.queue)
    }

    fn begin_pass(&self, spans: &[Span], sequences: &mut GpuSequences<Q>) -> Result<(), Error> {
        self.run_begin_pass(spans, sequences)
    }

    fn abandon_pass(&self, sequences: &mut GpuSequences<Q>) {
        sequences.undo();
    }

    fn chosen(&self) -> Result<GpuChosen<Q>, Error> {
        GpuChosen::new(&self.queue)
    }

    fn choose(&self, problem: Choose<'_, GpuOps<Q>>) -> Result<(), Error> {
        problem.check();
        self.run_choose(problem)
    }

    fn take(&self, chosen: &mut GpuChosen<Q>, tokens: &mut Vec<Option<u32>>) -> Result<(), Error> {
        self.take_tokens(chosen, tokens)
    }

    fn flush(&self) -> Result<(), Error> {
        self.queue.flush()
    }

    fn used_bytes(&self) -> Option<u64> {
        Some(self.queue.memory().ok()?.used_bytes)
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(self.queue.memory().ok()?.free_bytes)
    }

    fn embed(&self, problem: Embed<'_, GpuOps<Q>>) {
        problem.check();
        if let Err(error) = self.run_embed(&problem) {
            self.fail(error);
        }
    }

    fn norm(&self, problem: Norm<'_, GpuOps<Q>>) {
        problem.check();
        self.run_norm(&problem);
    }

    fn add(&self, problem: Add<'_, GpuOps<Q>>) {
        problem.check();
        self.run_add(&problem);
    }

    fn mix(&self, problem: Mix<'_, GpuOps<Q>>) {
        problem.check();
        self.run_mix(&problem);
    }

    fn cut(&self, problem: Cut<'_, GpuOps<Q>>) {
        problem.check();
        self.run_cut(&problem);
    }

    fn rescale(&self, problem: Rescale<'_, GpuOps<Q>>) {
        problem.check();
        self.run_rescale(&problem);
    }

    fn linear(&self, problem: Linear<'_, '_, GpuOps<Q>>) {
        problem.check();
        self.run_linear(&problem);
    }

    fn rope_angles(&self, problem: RopeAngles<'_, GpuOps<Q>>) {
        problem.check();
        if let Err(error) = self.run_rope_angles(&problem) {
            self.fail(error);
        }
    }

    fn rope(&self, problem: Rope<'_, GpuOps<Q>>) {
        problem.check();
        self.run_rope(&problem);
    }

    fn append(&self, problem: Append<'_, GpuOps<Q>>) -> Result<(), Error> {
        problem.check();
        self.run_append(problem)
    }

    fn attention(&self, problem: Attention<'_, GpuOps<Q>>) {
        problem.check();
        if let Err(error) = self.run_attention(&problem) {
            self.fail(error);
        }
    }

    fn gate(&self, problem: Gate<'_, GpuOps<Q>>) {
        problem.check();
        self.run_gate(&problem);
    }

    fn convolve(&self, problem: Convolution<'_, GpuOps<Q>>) {
        problem.check();
        self.run_convolve(&problem);
    }

    fn recur(&self, problem: Recurrence<'_, GpuOps<Q>>) {
        problem.check();
        self.run_recur(&problem);
    }

    fn scan_channels(&self, problem: ChannelScan<'_, GpuOps<Q>>) {
        problem.check();
        self.run_scan_channels(&problem);
    }

    fn experts(&self, problem: Experts<'_, GpuOps<Q>>) {
        problem.check();
        if let Err(error) = self.run_experts(&problem) {
            self.fail(error);
        }
    }

    fn head_linear(&self, problem: HeadLinear<'_, GpuOps<Q>>) {
        problem.check();
        if let Err(error) = self.run_head_linear(&problem) {
            self.fail(error);
        }
    }

    fn copy_rows(&self, problem: CopyRows<'_, GpuOps<Q>>) {
        problem.check();
        self.run_copy_rows(&problem);
    }

    fn copy_heads(&self, problem: CopyHeads<'_, GpuOps<Q>>) {
        problem.check();
        self.run_copy_heads(&problem);
    }
}
