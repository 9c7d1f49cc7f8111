//! Bits to a budget: how much packing each layer alone changes the model is measured, then the budget is spent where it saves most.
//!
//! Measured is the mean Kullback-Leibler divergence from the model as it is, over the tokens of a short text, with one layer packed by
//! search at the two widths around the budget. A wider width costs what the last measured one does, times the ratio of the mean squared
//! errors of the search on normal weights; a narrower one is never guessed, since damage grows faster than errors there.

use std::collections::{BTreeMap, HashMap};

use planish_checkpoint::Checksum;
use planish_format::Packing;
use planish_model::{Device, LoadOptions, Trials};
use planish_quantize::{
    Allocation, Choices, Choosable, Error as QuantizeError, Method, Output, Recipe, Target, Unit, choices, spend,
};
use serde_json::{Map, Value, json};

use crate::convert::check_stop;
use crate::evaluate::{divergence, log_sum_exp};
use crate::own_writing;
use crate::{CalibrationText, Error, Source};

/// Root mean square error of each width on normal weights in groups of 64, packed by search, over their standard deviation
/// (`planish-format/tests/search.rs`).
const ERRORS: [(u32, f64); 6] = [
    (2, 0.3220),
    (3, 0.1653),
    (4, 0.0813),
    (5, 0.0401),
    (6, 0.0202),
    (8, 0.0053),
];

/// How to spend bits.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetOptions {
    /// Bits for each packed weight, scales and biases counted.
    pub budget: f64,
    /// What divergence is measured on.
    pub text: CalibrationText,
    /// Threads of the CPU; `None` is one for each core.
    pub threads: Option<usize>,
}

impl BudgetOptions {
    /// Tokens of one text of its own, at most, that layers are measured on.
    pub const LONGEST: usize = 256;
}

/// How far measuring is.
#[derive(Clone, Copy, Debug)]
pub struct BudgetProgress<'a> {
    /// Parts of the model that trials went through.
    pub done: u64,
    /// Parts that all trials go through.
    pub total: u64,
    /// The layer that was tried last.
    pub layer: &'a str,
    /// The bits that it was tried at.
    pub bits: u32,
    /// What was measured so far: it can be kept, and given to another run.
    pub sensitivities: &'a Sensitivities,
}

/// What was measured: of each layer the divergence at each width.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sensitivities {
    /// Of which model, on which text.
    of: Vec<(String, String)>,
    costs: BTreeMap<String, BTreeMap<u32, f64>>, // by the first module of a layer
}

impl Sensitivities {
    /// What it was measured at: layer, bits, divergence.
    pub fn rows(&self) -> impl Iterator<Item = (&str, u32, f64)> {
        self.costs
            .iter()
            .flat_map(|(layer, costs)| costs.iter().map(move |(&bits, &cost)| (layer.as_str(), bits, cost)))
    }

    fn get(&self, layer: &Choosable, bits: u32) -> Option<f64> {
        self.costs.get(&layer.modules[0])?.get(&bits).copied()
    }

    /// Reads what [`Sensitivities::to_json`] wrote.
    ///
    /// # Errors
    /// [`Error::Sensitivities`] names what is wrong.
    pub fn from_json(text: &str) -> Result<Sensitivities, Error> {
        let wrong = |what: String| Error::Sensitivities { what };
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
        let object = |key: &str| {
            let found = value.get(key).and_then(Value::as_object);
            found.ok_or_else(|| wrong(format!("expected an object `{key}`")))
        };
        let of = object("of")?.iter().map(|(what, value)| {
            let value = value
                .as_str()
                .ok_or_else(|| wrong(format!("`{what}` is {value}, expected a string")))?;
            Ok((what.clone(), value.to_owned()))
        });
        let mut found = Sensitivities {
            of: of.collect::<Result<_, Error>>()?,
            costs: BTreeMap::new(),
        };
        for (layer, widths) in object("divergence")? {
            let costs = widths.as_object().map(|widths| {
                let cost = |(bits, cost): (&String, &Value)| Some((bits.parse().ok()?, cost.as_f64()?));
                widths.iter().map(cost).collect::<Option<BTreeMap<u32, f64>>>()
            });
            let costs = costs.flatten().ok_or_else(|| {
                wrong(format!(
                    "`{layer}` is {widths}, expected an object of bits and divergences"
                ))
            })?;
            found.costs.insert(layer.clone(), costs);
        }
        Ok(found)
    }

    /// As JSON, to go on with or to spend another budget by.
    pub fn to_json(&self) -> String {
        let of: Map<String, Value> = self
            .of
            .iter()
            .map(|(what, value)| (what.clone(), json!(value)))
            .collect();
        let widths = |costs: &BTreeMap<u32, f64>| -> Map<String, Value> {
            costs
                .iter()
                .map(|(bits, cost)| (bits.to_string(), json!(cost)))
                .collect()
        };
        let layers: Map<String, Value> = self
            .costs
            .iter()
            .map(|(layer, costs)| (layer.clone(), Value::Object(widths(costs))))
            .collect();
        format!("{:#}\n", json!({"of": of, "divergence": layers}))
    }

    /// Takes over what was measured of the same model on the same text.
    fn check(&mut self, of: Vec<(String, String)>) -> Result<(), Error> {
        if self.costs.is_empty() {
            self.of = of;
            return Ok(());
        }
        let differs =
            |(what, value): &&(String, String)| !self.of.iter().any(|(other, found)| other == what && found == value);
        match of.iter().find(differs) {
            None => Ok(()),
            Some((what, value)) => {
                let found = self.of.iter().find(|(other, _)| other == what);
                let found = found.map_or("missing", |(_, found)| found);
                let what = format!("{what} is {value}, but it was measured with {found}");
                Err(Error::Sensitivities { what })
            }
        }
    }
}

/// Chooses the bits of each layer that `recipe` packs for MLX: of exceptions by name nothing changes, though their bits count.
/// `known` is what was measured before, and afterwards all that is. `output.stop` ends it.
///
/// # Errors
/// A recipe for metal, which holds one width; a budget below 2-bit codes or above 8-bit ones; a model that cannot be run; what was
/// measured of another model.
pub fn allocate(
    source: &Source,
    recipe: &Recipe,
    options: &BudgetOptions,
    known: &mut Sensitivities,
    output: &Output,
    on_progress: &mut dyn FnMut(BudgetProgress<'_>),
) -> Result<Allocation, Error> {
    if recipe.target == Target::Metal {
        return Err(QuantizeError::MetalOverrides.into());
    }
    let recipe = Recipe {
        method: Method::Search,
        allocation: None,
        ..recipe.clone()
    };
    let choices = choices(source.checkpoint(), &recipe)?;
    let widths = widths(&choices, options.budget)?;
    let measured = &widths[..widths.len().min(2)];
    // Where all get the same, nothing is to be known.
    let bits = choices.code_bits(options.budget);
    let is_whole = (bits - f64::from(widths[0])).abs() < 1e-9 || widths.len() == 1;
    if !is_whole {
        let mut measuring = Measuring {
            source,
            recipe: &recipe,
            choices: &choices,
            output,
        };
        measuring.run(measured, options, known, on_progress)?;
    }
    let units: Vec<Unit> = choices
        .layers
        .iter()
        .map(|layer| Unit {
            weights: layer.weights,
            costs: match is_whole {
                true => vec![0.0; widths.len()],
                false => costs(layer, &widths, known),
            },
        })
        .collect();
    let of_codes: Vec<f64> = widths.iter().map(|&bits| f64::from(bits)).collect();
    let chosen = spend(&units, &of_codes, bits);
    let group = recipe.packing.group();
    let mut layers = Vec::new();
    for (layer, &width) in choices.layers.iter().zip(&chosen) {
        let packing = Packing::checked(widths[width], group)?;
        layers.extend(layer.modules.iter().map(|module| (module.clone(), Some(packing))));
    }
    let spent: f64 = units
        .iter()
        .zip(&chosen)
        .map(|(unit, &width)| unit.weights as f64 * of_codes[width])
        .sum();
    let spent = choices.budget(spent / choices.weights() as f64);
    let mut about = json!({
        "budget": options.budget,
        "bits_per_packed_weight": (spent * 1e6).round() / 1e6,
        "planish": env!("CARGO_PKG_VERSION"),
    });
    if !is_whole {
        let text = known.of.iter().find(|(what, _)| what == TEXT);
        about["measured_on"] = json!(text.map(|(_, text)| text));
        let sum: f64 = units.iter().zip(&chosen).map(|(unit, &width)| unit.costs[width]).sum();
        about["sum_of_single_divergences"] = json!((sum * 1e9).round() / 1e9);
    }
    Ok(Allocation::new(Packing::checked(widths[0], group)?, layers).about(about))
}

/// What the text is called where measurements say what they are of.
const TEXT: &str = "the text";

/// The widths that may be given: the widest that all could have, and all above.
fn widths(choices: &Choices, budget: f64) -> Result<Vec<u32>, Error> {
    let all = Packing::WIDTHS;
    let bits = choices.code_bits(budget);
    let wrong = |what: String| Error::Quantize(QuantizeError::Budget { budget, what });
    if choices.layers.is_empty() {
        return Err(wrong("exceptions fix the bits of all layers".to_owned()));
    }
    let (least, most) = (
        choices.budget(f64::from(all[0])),
        choices.budget(f64::from(all[all.len() - 1])),
    );
    if !(bits + 1e-9 >= f64::from(all[0]) && budget <= most + 1e-9) {
        return Err(wrong(format!(
            "expected {least:.3} to {most:.3}: that is what codes of {} to {} bits take with their scales and biases",
            all[0],
            all[all.len() - 1]
        )));
    }
    let first = all
        .iter()
        .rposition(|&width| f64::from(width) <= bits + 1e-9)
        .unwrap_or(0);
    Ok(all[first..].to_vec())
}

/// What each width costs: measured, or measured at the last measured width and scaled by errors.
fn costs(layer: &Choosable, widths: &[u32], known: &Sensitivities) -> Vec<f64> {
    let error = |bits: u32| {
        ERRORS
            .iter()
            .find(|(width, _)| *width == bits)
            .map_or(1.0, |(_, error)| *error)
    };
    let mut last = (widths[0], 0.0);
    let cost = |&bits: &u32| {
        if let Some(cost) = known.get(layer, bits) {
            last = (bits, cost);
            return cost;
        }
        last.1 * (error(bits) / error(last.0)).powi(2)
    };
    widths.iter().map(cost).collect()
}

/// One run of measuring.
struct Measuring<'a> {
    source: &'a Source,
    recipe: &'a Recipe,
    choices: &'a Choices,
    output: &'a Output,
}

impl Measuring<'_> {
    fn load_options(&self, options: &BudgetOptions) -> LoadOptions {
        LoadOptions {
            device: planish_model::Device::Cpu,
            threads: options.threads,
            exact: true,
            in_place: true,
            ..LoadOptions::default()
        }
    }

    /// Everything that divergences depend on.
    fn identity(&self, options: &BudgetOptions) -> Result<Vec<(String, String)>, Error> {
        let mut identity = self.source.checkpoint().identity()?;
        identity.push((TEXT.to_owned(), options.text.description()));
        if let CalibrationText::Pieces { pieces, .. } = &options.text {
            let mut checksum = Checksum::default();
            let tokens = pieces.iter().flatten();
            tokens.for_each(|token| checksum.update(&token.to_le_bytes()));
            identity.push(("the text's checksum".to_owned(), format!("{:016x}", checksum.value())));
        }
        identity.push(("the group".to_owned(), self.recipe.packing.group().to_string()));
        identity.push(("the type of scales".to_owned(), format!("{:?}", self.recipe.dtype)));
        identity.push((
            "the version of planish".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        ));
        Ok(identity)
    }

    /// Measures what is not known.
    fn run(
        &mut self,
        widths: &[u32],
        options: &BudgetOptions,
        known: &mut Sensitivities,
        on_progress: &mut dyn FnMut(BudgetProgress<'_>),
    ) -> Result<(), Error> {
        known.check(self.identity(options)?)?;
        let missing = |layer: &&Choosable| widths.iter().any(|&bits| known.get(layer, bits).is_none());
        let mut layers: Vec<&Choosable> = self.choices.layers.iter().filter(missing).collect();
        if layers.is_empty() {
            return Ok(());
        }
        let pieces = self.pieces(options)?;
        let mut trials = Trials::new(self.source.checkpoint(), &self.load_options(options), &pieces)?;
        let reference = Reference::of(&mut trials, &pieces)?;
        // From the input of the model to its output; what it does not read comes last, and costs nothing.
        let place = |layer: &&Choosable| {
            let entries: Vec<&str> = layer.entries.iter().map(String::as_str).collect();
            trials.place(&entries)
        };
        layers.sort_by_key(|layer| place(layer).map_or(usize::MAX, |(part, _)| part));
        let work = |layer: &&Choosable| place(layer).map_or(0, |(part, parts)| (parts - part) as u64);
        let works: Vec<u64> = layers.iter().map(work).collect();
        let places: Vec<bool> = layers.iter().map(|layer| place(layer).is_some()).collect();
        let total = works.iter().sum::<u64>() * widths.len() as u64;
        let mut done = 0;
        for ((layer, work), is_read) in layers.into_iter().zip(works).zip(places) {
            for &bits in widths {
                check_stop(self.output)?;
                if known.get(layer, bits).is_none() {
                    let cost = match is_read {
                        true => self.divergence(&mut trials, &reference, layer, bits)?,
                        false => 0.0,
                    };
                    let costs = known.costs.entry(layer.modules[0].clone()).or_default();
                    costs.insert(bits, (cost * 1e10).round() / 1e10);
                }
                done += work;
                on_progress(BudgetProgress {
                    done,
                    total,
                    layer: &layer.modules[0],
                    bits,
                    sensitivities: known,
                });
            }
        }
        Ok(())
    }

    /// The text, cut into what the context holds.
    fn pieces(&self, options: &BudgetOptions) -> Result<Vec<Vec<u32>>, Error> {
        let (seed, tokens, longest) = match &options.text {
            CalibrationText::Pieces { pieces, .. } => return Ok(pieces.clone()),
            CalibrationText::OwnWriting { seed, tokens, longest } => (*seed, *tokens, *longest),
        };
        let model = own_writing::model(self.source, (Device::Cpu, options.threads), None)?;
        let written = own_writing::write(&model, (seed, tokens, longest), 1, &mut |_| check_stop(self.output))?;
        let (mut texts, mut done) = (Vec::new(), 0);
        for mut text in written.into_iter().map(|text| text.tokens) {
            if done >= tokens || text.is_empty() {
                continue;
            }
            text.truncate((tokens - done).max(2));
            done += text.len();
            texts.push(text);
        }
        Ok(texts)
    }

    /// The mean divergence with one layer packed.
    fn divergence(
        &self,
        trials: &mut Trials<'_>,
        reference: &Reference,
        layer: &Choosable,
        bits: u32,
    ) -> Result<f64, Error> {
        let packing = Packing::checked(bits, self.recipe.packing.group())?;
        let packings: HashMap<String, Packing> = layer.entries.iter().map(|name| (name.clone(), packing)).collect();
        let mut sum = 0.0;
        trials.run(self.recipe, packings, &mut |row| {
            let (expected, normalizer) = reference.row(row.chunk, row.token);
            sum += divergence(expected, normalizer, row.logits, log_sum_exp(row.logits));
        })?;
        Ok(sum / reference.normalizers.len() as f64)
    }
}

/// The logits of the model as it is.
struct Reference {
    starts: Vec<usize>, // the first row of each piece
    logits: Vec<f32>,   // (rows, vocabulary)
    normalizers: Vec<f64>,
}

impl Reference {
    fn of(trials: &mut Trials<'_>, pieces: &[Vec<u32>]) -> Result<Reference, Error> {
        let mut starts = vec![0];
        for piece in pieces {
            starts.push(starts.last().copied().unwrap_or(0) + piece.len());
        }
        let mut found = Reference {
            starts,
            logits: Vec::new(),
            normalizers: Vec::new(),
        };
        trials.reference(&mut |row| {
            found.logits.extend_from_slice(row.logits);
            found.normalizers.push(log_sum_exp(row.logits));
        })?;
        Ok(found)
    }

    fn row(&self, piece: usize, token: usize) -> (&[f32], f64) {
        let index = self.starts[piece] + token;
        let vocabulary = self.logits.len() / self.normalizers.len().max(1);
        (
            &self.logits[index * vocabulary..][..vocabulary],
            self.normalizers[index],
        )
    }
}
