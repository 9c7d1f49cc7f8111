//! Points of a curve: a model packed in one way, how many bits that takes, and how far the result is from the model.

use std::sync::Arc;
use std::time::Instant;

use planish_checkpoint::Layout;
use planish_format::Packing;
use planish_model::LoadOptions;
use planish_quantize::{Method, Mix, Output, Recipe};
use serde_json::{Map, Value, json};

use crate::evaluate::{EvaluationOptions, evaluate_all};
use crate::{
    AutoModelForCausalLM, BudgetOptions, BudgetProgress, CalibratedOptions, CausalLM, Error, Sensitivities, Source,
    allocate, quantize_calibrated,
};

/// How the widths of a point are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum PointWidths {
    /// All layers alike.
    Bits(u32),
    /// To a budget.
    Budget(BudgetOptions),
    /// As a mix has them.
    Mix(Mix),
}

/// One way to pack a model.
#[derive(Clone, Debug)]
pub struct Point {
    /// What the method is called.
    pub method_name: String,
    /// How codes are chosen.
    pub method: Method,
    /// To choose them by the inputs of layers, in place of `method`.
    pub calibration: Option<CalibratedOptions>,
    /// How widths are chosen.
    pub widths: PointWidths,
}

impl Point {
    /// The curve that it lies on.
    pub fn curve(&self) -> String {
        match &self.widths {
            PointWidths::Bits(_) => self.method_name.clone(),
            PointWidths::Budget(_) => format!("{}, budget", self.method_name),
            PointWidths::Mix(_) => format!("{}, mixes", self.method_name),
        }
    }

    /// Its place on the curve.
    pub fn setting(&self) -> String {
        match &self.widths {
            PointWidths::Bits(bits) => format!("{bits} bits"),
            PointWidths::Budget(options) => format!("budget {}", options.budget),
            PointWidths::Mix(mix) => mix.name().to_owned(),
        }
    }
}

/// What came of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepRow {
    /// The curve that it lies on.
    pub curve: String,
    /// Its place there.
    pub setting: String,
    /// Bits of each packed weight, scales and biases counted.
    pub packed_bits: f64,
    /// Bits of each weight of the model.
    pub bits: f64,
    /// Mean KL divergence of the model from the result, in nats.
    pub divergence: f64,
    /// Its bounds, where there is more than one piece of text.
    pub divergence_interval: Option<[f64; 2]>,
    /// Of the result.
    pub perplexity: f64,
    /// The share of positions at which both hold the same token for likeliest.
    pub top1_agreement: f64,
    /// Seconds that packing took, measuring for a budget and running the model over a text not counted.
    pub seconds: f64,
}

impl SweepRow {
    /// As one object of JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "curve": self.curve,
            "setting": self.setting,
            "packed_bits": self.packed_bits,
            "bits": self.bits,
            "mean_kl_divergence": self.divergence,
            "mean_kl_divergence_interval": self.divergence_interval,
            "perplexity": self.perplexity,
            "top1_agreement": self.top1_agreement,
            "seconds": self.seconds,
        })
    }

    /// Reads what [`SweepRow::to_json`] made; `None` where a key is missing or of another kind.
    pub fn from_json(fields: &Map<String, Value>) -> Option<SweepRow> {
        let text = |key: &str| fields.get(key)?.as_str().map(str::to_owned);
        let number = |key: &str| fields.get(key)?.as_f64();
        let interval = match fields.get("mean_kl_divergence_interval")? {
            Value::Null => None,
            bounds => Some([bounds.get(0)?.as_f64()?, bounds.get(1)?.as_f64()?]),
        };
        Some(SweepRow {
            curve: text("curve")?,
            setting: text("setting")?,
            packed_bits: number("packed_bits")?,
            bits: number("bits")?,
            divergence: number("mean_kl_divergence")?,
            divergence_interval: interval,
            perplexity: number("perplexity")?,
            top1_agreement: number("top1_agreement")?,
            seconds: number("seconds")?,
        })
    }
}

/// What all points have in common.
pub struct Sweep<'a> {
    /// The model, plain.
    pub source: &'a Source,
    /// The same, loaded.
    pub reference: &'a CausalLM,
    /// How results are loaded.
    pub options: LoadOptions,
    /// Target, group, exceptions; the points say bits and method.
    pub recipe: Recipe,
    /// The text, in pieces.
    pub chunks: &'a [Vec<u32>],
}

impl Sweep<'_> {
    /// Packs the model into `output`, whose folder stays, and compares. `known` is as in [`allocate`].
    ///
    /// # Errors
    /// As [`allocate`], [`quantize`](crate::quantize) and [`evaluate_all`].
    pub fn run(
        &self,
        point: &Point,
        output: &Output,
        known: &mut Sensitivities,
        on_layer: &mut dyn FnMut(BudgetProgress<'_>),
    ) -> Result<SweepRow, Error> {
        let recipe = self.recipe(point, output, known, on_layer)?;
        let start = Instant::now();
        let report = match &point.calibration {
            Some(options) => quantize_calibrated(self.source, &recipe, options, output, &mut |_| {}, &mut |_| {})?,
            None => crate::quantize(self.source, &recipe, output, &mut |_| {})?,
        };
        let seconds = start.elapsed().as_secs_f64();
        let packed = Source::open_path(&output.folder)?;
        let model = AutoModelForCausalLM::from_source(&packed)
            .options(self.options.clone())
            .load()?;
        let options = EvaluationOptions {
            reference: Some(self.reference),
            ..EvaluationOptions::default()
        };
        let found = evaluate_all(&[&model], self.chunks, &options, &mut |_| {})?[0];
        let beside = found.comparison;
        Ok(SweepRow {
            curve: point.curve(),
            setting: point.setting(),
            packed_bits: packed_bits(&packed),
            bits: report.bits_per_weight(),
            divergence: beside.map_or(f64::NAN, |beside| beside.mean_kl_divergence),
            divergence_interval: beside
                .and_then(|beside| beside.interval)
                .map(|bounds| [bounds.low, bounds.high]),
            perplexity: found.perplexity,
            top1_agreement: beside.map_or(f64::NAN, |beside| beside.top1_agreement),
            seconds,
        })
    }

    fn recipe(
        &self,
        point: &Point,
        output: &Output,
        known: &mut Sensitivities,
        on_layer: &mut dyn FnMut(BudgetProgress<'_>),
    ) -> Result<Recipe, Error> {
        let group = self.recipe.packing.group();
        let recipe = Recipe {
            method: point.method.clone(),
            ..self.recipe.clone()
        };
        let allocation = match &point.widths {
            PointWidths::Bits(bits) => {
                let packing = Packing::checked(*bits, group)?;
                return Ok(Recipe { packing, ..recipe });
            }
            PointWidths::Budget(options) => allocate(self.source, &recipe, options, known, output, on_layer)?,
            PointWidths::Mix(mix) => {
                let checkpoint = self.source.checkpoint();
                mix.allocation(&recipe, checkpoint.config(), checkpoint.entries())?
            }
        };
        Ok(Recipe {
            packing: allocation.default_packing(),
            allocation: Some(Arc::new(allocation)),
            ..recipe
        })
    }
}

/// Bits of each packed weight.
fn packed_bits(source: &Source) -> f64 {
    let entries = source.checkpoint().entries().iter();
    let packed = entries.filter(|entry| matches!(entry.layout, Layout::Packed { .. }));
    let (mut bits, mut weights) = (0.0, 0.0);
    for entry in packed {
        bits += 8.0 * entry.stored_bytes as f64;
        weights += entry.element_count() as f64;
    }
    bits / weights
}
