//! What a checkpoint holds, tensor by tensor, and what packing its plain layers would cost.

use planish_checkpoint::{Checkpoint, Entry, Layout, Weight};
use planish_format::{Encoder, FloatType, Packing, dequantize, memory};
use serde::Serialize;

use crate::compare::Squares;
use crate::layers::Classifier;
use crate::pack::Floats;
use crate::transfer::{OnProgress, Progress};
use crate::{Error, Method, Recipe, Target, source};

/// The bit-widths whose cost is measured.
pub const WIDTHS: [u32; 6] = Packing::WIDTHS;

/// Weights of a tensor that are measured at most: whole rows, evenly spread.
const SAMPLE_WEIGHTS: usize = 1 << 20;

/// One tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorRow {
    /// Hugging Face name.
    pub name: String,
    /// As plain floats, outermost first.
    pub shape: Vec<usize>,
    /// The element type, or that of the scales of a packed weight.
    #[serde(rename = "type")]
    pub element_type: String,
    /// Of a packed weight.
    pub bits: Option<u32>,
    /// Of a packed weight.
    pub group_size: Option<usize>,
    /// In the file, scales and biases included.
    pub bytes: u64,
    /// What packing would cost, if the tensor is plain and a layer that can be packed.
    pub cost: Option<Cost>,
}

/// The error of packing, relative: root of (sum of squared errors / sum of squared weights).
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// For each of [`WIDTHS`].
    pub relative_rms: [f64; WIDTHS.len()],
    /// Rows that were measured.
    pub measured_rows: usize,
    /// Rows there are.
    pub rows: usize,
    /// Weights there are, for means over several tensors.
    #[serde(skip)]
    weights: u64,
}

/// All of a checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// `plain`, or the dialect with its bits and group.
    pub format: String,
    /// `model_type` of config.json.
    pub model_type: Option<String>,
    /// The group that the costs are for.
    pub cost_group_size: usize,
    /// Every tensor, layers in numerical order.
    pub tensors: Vec<TensorRow>,
    /// Numbers in all tensors, each weight counted once.
    pub weights: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bits for each number, scales included.
    pub bits_per_weight: f64,
    /// Over all measured layers, by weight count.
    pub cost: Option<Cost>,
}

/// Lists `checkpoint`; of one that is not packed, measures what each of [`WIDTHS`] with this `group` would cost its plain layers
/// with the rule of MLX.
///
/// # Errors
/// A tensor that cannot be read.
pub fn inspect(checkpoint: &Checkpoint, group: usize, on_progress: &mut OnProgress) -> Result<Inspection, Error> {
    let classifier = Classifier::new(checkpoint.config(), checkpoint.entries());
    // In a packed checkpoint what is plain was left so on purpose.
    let is_plain = source::packed_as(checkpoint.dialect()).is_none();
    let total_bytes: u64 = checkpoint.entries().iter().map(|entry| entry.stored_bytes).sum();
    let mut done_bytes = 0;
    let mut tensors = Vec::new();
    for entry in checkpoint.entries() {
        on_progress(Progress {
            tensor: &entry.name,
            done_bytes,
            total_bytes,
        });
        let measured = is_plain && classifier.role(entry).is_layer() && is_float(entry);
        let cost = if measured {
            memory::or_out_of_memory(|| measure(checkpoint, entry, group))??
        } else {
            None
        };
        tensors.push(row(entry, cost));
        done_bytes += entry.stored_bytes;
    }
    let weights: u64 = checkpoint.entries().iter().map(Entry::element_count).sum();
    Ok(Inspection {
        format: format(checkpoint),
        model_type: checkpoint
            .config()
            .get("model_type")
            .and_then(|value| value.as_str())
            .map(str::to_owned),
        cost_group_size: group,
        cost: total(tensors.iter().filter_map(|tensor| tensor.cost.as_ref())),
        tensors,
        weights,
        bytes: total_bytes,
        bits_per_weight: total_bytes as f64 * 8.0 / (weights as f64).max(1.0),
    })
}

fn format(checkpoint: &Checkpoint) -> String {
    match source::packed_as(checkpoint.dialect()) {
        Some(packed_as) => packed_as,
        None if source::is_gguf(checkpoint) => "GGUF".to_owned(),
        None => "plain".to_owned(),
    }
}

fn is_float(entry: &Entry) -> bool {
    matches!(entry.layout, Layout::Plain(dtype) if dtype.float_type().is_some())
}

fn row(entry: &Entry, cost: Option<Cost>) -> TensorRow {
    let (element_type, packing) = match &entry.layout {
        Layout::Plain(dtype) => (dtype.to_string(), None),
        Layout::Packed { packing, scale_type } => (
            planish_checkpoint::Dtype::from(*scale_type).to_string(),
            Some((packing.bits(), packing.group())),
        ),
    };
    TensorRow {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        element_type,
        bits: packing.map(|(bits, _)| bits),
        group_size: packing.map(|(_, group)| group),
        bytes: entry.stored_bytes,
        cost,
    }
}

/// `None` where the group does not divide the columns.
fn measure(checkpoint: &Checkpoint, entry: &Entry, group: usize) -> Result<Option<Cost>, Error> {
    let (rows, cols) = entry.rows_cols();
    if rows == 0 || cols == 0 || !cols.is_multiple_of(group) {
        return Ok(None);
    }
    let weight = checkpoint.read(entry)?;
    let measured_rows = (SAMPLE_WEIGHTS / cols).clamp(1, rows);
    let sample = sample(entry, &weight, measured_rows)?;
    let tensor = planish_checkpoint::Tensor {
        dtype: FloatType::F32.into(),
        shape: vec![measured_rows, cols],
        data: sample.into(),
    };
    checkpoint.release(entry);
    let mut relative_rms = [0.0; WIDTHS.len()];
    for (rms, bits) in relative_rms.iter_mut().zip(WIDTHS) {
        *rms = relative_error(&entry.name, &Weight::Plain(tensor.clone()), bits, group)?;
    }
    Ok(Some(Cost {
        relative_rms,
        measured_rows,
        rows,
        weights: entry.element_count(),
    }))
}

/// Rows evenly spread over the weight, as f32. // (count, cols)
fn sample(entry: &Entry, weight: &Weight, count: usize) -> Result<Vec<u8>, Error> {
    let floats = Floats::new(&entry.name, weight, Some(FloatType::F32))?;
    let mut sample = memory::with_room("weights", count * floats.cols * 4);
    for index in 0..count {
        let row = index * floats.rows / count;
        sample.extend_from_slice(&floats.rows(row..row + 1));
    }
    Ok(sample)
}

fn relative_error(name: &str, weight: &Weight, bits: u32, group: usize) -> Result<f64, Error> {
    let Some(packing) = Packing::new(bits, group) else {
        return Ok(f64::NAN);
    };
    let floats = Floats::new(name, weight, None)?;
    let recipe = Recipe {
        method: Method::Peer(Encoder::MlxMetal),
        allow_non_finite: true,
        ..Recipe::new(Target::Mlx, packing)
    };
    let packed = floats.pack(0..floats.rows, packing, &recipe, None)?;
    let decoded = dequantize(&packed, FloatType::F32);
    let original = floats.rows(0..floats.rows);
    let mut squares = Squares::default();
    squares.add(&original, &decoded);
    Ok(squares.relative())
}

/// The root mean square over tensors, each counted by its weights.
fn total<'a>(costs: impl Iterator<Item = &'a Cost>) -> Option<Cost> {
    let mut sum: Option<Cost> = None;
    for cost in costs {
        let sum = sum.get_or_insert(Cost {
            relative_rms: [0.0; WIDTHS.len()],
            measured_rows: 0,
            rows: 0,
            weights: 0,
        });
        for (sum, rms) in sum.relative_rms.iter_mut().zip(cost.relative_rms) {
            *sum += rms * rms * cost.weights as f64;
        }
        sum.measured_rows += cost.measured_rows;
        sum.rows += cost.rows;
        sum.weights += cost.weights;
    }
    let mut total = sum?;
    total
        .relative_rms
        .iter_mut()
        .for_each(|rms| *rms = (*rms / total.weights as f64).sqrt());
    Some(total)
}
