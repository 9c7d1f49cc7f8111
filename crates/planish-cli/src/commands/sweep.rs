//! `planish sweep`: how far packed models are from the original, over widths, methods, budgets and mixes. Every row is written as soon
//! as it is known; a run that finds some in DIR goes on with the others.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use planish::{
    AutoTokenizer, BudgetOptions, CalibratedOptions, CalibrationText, LoadOptions, Method, Mix, Output, Packing, Point,
    PointMethod, PointWidths, Recipe, Sensitivities, Source, Sweep, SweepRow, calibrate, sweep_chart,
};
use serde_json::{Value, json};

use super::budget_flags::write_whole;
use super::interrupt;
use super::output_flags::FormatFlag;
use super::packing_flags::{bits, overrides};
use super::progress::{LayersBar, TokensBar};
use super::quantize::MethodFlag;
use super::run_flags::load;
use super::source::open;
use super::texts::read_text;

/// Tokens that layers are measured on, for budgets.
const BUDGET_TOKENS: usize = 1536;

/// Flags of `planish sweep`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A plain model: a folder, a .gguf file, or a Hub id (org/name)
    #[arg(value_name = "MODEL")]
    model: OsString,
    /// The folder for results.json, chart.svg and what was measured for budgets; rows that it has are not made again
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The text to predict, UTF-8; not one that the model is packed by
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens per chunk of the text, of whose second halves the tokens are scored
    #[arg(long, value_name = "N", default_value_t = 512)]
    context: usize,
    /// Maximum number of chunks
    #[arg(long, alias = "pieces", value_name = "N", default_value_t = 16)]
    chunks: usize,
    /// Widths that all layers get
    #[arg(long, value_name = "BITS", value_delimiter = ',', default_value = "2,3,4", value_parser = bits)]
    bits: Vec<u32>,
    /// How codes are chosen for these widths
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mlx,search")]
    methods: Vec<MethodFlag>,
    /// Bits per packed weight to spend, as planish quantize --budget does, with each of --mixed-methods
    #[arg(long, value_name = "BITS", value_delimiter = ',')]
    budgets: Vec<f64>,
    /// Mixes, as planish quantize --recipe knows them, with each of --mixed-methods
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    recipes: Vec<String>,
    /// How codes are chosen for budgets and mixes
    #[arg(long, value_enum, value_delimiter = ',', default_value = "search")]
    mixed_methods: Vec<MethodFlag>,
    /// Tokens of its own writing that the model runs over, for the methods weighted and calibrated
    #[arg(long, value_name = "N", default_value_t = 8192)]
    text_tokens: usize,
    /// Weights that share a scale and a bias
    #[arg(long, value_name = "SIZE", default_value_t = Packing::DEFAULT_GROUP)]
    group_size: usize,
    /// Format of the packed models; metal has no mixed widths
    #[arg(long, value_enum, default_value = "mlx")]
    format: FormatFlag,
    /// Leave this module plain (repeatable)
    #[arg(long, value_name = "NAME")]
    exclude: Vec<String>,
    /// Other bits for modules in whose name REGEX is found (MLX only, repeatable)
    #[arg(long = "override", value_name = "REGEX=BITS[,GROUP]|none")]
    overrides: Vec<String>,
    /// Keep the packed models, in DIR/models
    #[arg(long)]
    keep: bool,
    /// Compute in f32 throughout
    #[arg(long)]
    exact: bool,
    /// Branch, tag or commit of a Hub model
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.chunks > 0, "--chunks 0: at least 1");
    let recipe = arguments.recipe()?;
    let wanted = arguments.wanted()?;
    let source = open(&arguments.model, arguments.revision.as_deref())?;
    let file = || arguments.text.display().to_string();
    let text = read_text(&arguments.text)?;
    let mut chunks = AutoTokenizer::from_source(&source)?
        .chunks(&text, arguments.context)
        .with_context(file)?;
    chunks.truncate(arguments.chunks);
    fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let mut results = Results::open(&arguments.out.join("results.json"), arguments.identity(&source, &text)?)?;
    let missing: Vec<&Wanted> = wanted.iter().filter(|point| !results.has(point)).collect();
    for point in wanted.iter().filter(|point| results.has(point)) {
        eprintln!("{}: already there", point.name());
    }
    let options = LoadOptions {
        exact: arguments.exact,
        ..LoadOptions::default()
    };
    if !missing.is_empty() {
        let reference = load(&source, options.clone())?;
        let sweep = Sweep {
            source: &source,
            reference: &reference,
            options,
            recipe,
            chunks: &chunks,
        };
        arguments.run(&sweep, &missing, &mut results)?;
    }
    let title = arguments.model.to_string_lossy();
    let title = format!(
        "{}, groups of {}",
        title.rsplit('/').next().unwrap_or(&title),
        arguments.group_size
    );
    let chart = arguments.out.join("chart.svg");
    write_whole(&chart, &sweep_chart(&title, &results.rows)).with_context(|| chart.display().to_string())?;
    results.print();
    Ok(())
}

/// A point as flags say it.
struct Wanted {
    method: MethodFlag,
    widths: PointWidths,
}

impl Wanted {
    fn point(&self, method: PointMethod) -> Point {
        Point {
            method_name: self.method.name(),
            method,
            widths: self.widths.clone(),
        }
    }

    fn name(&self) -> String {
        let point = self.point(PointMethod::Rule(Method::Search));
        format!("{}, {}", point.curve(), point.setting())
    }
}

impl Arguments {
    fn recipe(&self) -> anyhow::Result<Recipe> {
        let packing = Packing::checked(4, self.group_size).context("--group-size")?;
        Ok(Recipe {
            exclude: self.exclude.clone(),
            overrides: overrides(&self.overrides, packing)?,
            ..Recipe::new(self.format.target(), packing)
        })
    }

    fn wanted(&self) -> anyhow::Result<Vec<Wanted>> {
        let mixed = !self.budgets.is_empty() || !self.recipes.is_empty();
        anyhow::ensure!(
            !mixed || self.format == FormatFlag::Mlx,
            "the metal format has one bit-width for all layers, so it cannot hold --budgets or --recipes: use --format mlx"
        );
        let mut wanted = Vec::new();
        for &method in &self.methods {
            let point = |&bits: &u32| Wanted {
                method,
                widths: PointWidths::Bits(bits),
            };
            wanted.extend(self.bits.iter().map(point));
        }
        let mixes = self.recipes.iter().map(|name| {
            let names: Vec<&str> = Mix::names().collect();
            Mix::named(name).with_context(|| format!("--recipes {name}: expected one of {}", names.join(", ")))
        });
        let mixes = mixes.collect::<anyhow::Result<Vec<Mix>>>()?;
        for &method in &self.mixed_methods {
            let budget = |&budget: &f64| {
                let text = CalibrationText::OwnWriting {
                    seed: 1,
                    tokens: BUDGET_TOKENS,
                    longest: BudgetOptions::LONGEST,
                };
                PointWidths::Budget(BudgetOptions {
                    budget,
                    text,
                    threads: None,
                })
            };
            let widths = self
                .budgets
                .iter()
                .map(budget)
                .chain(mixes.iter().copied().map(PointWidths::Mix));
            wanted.extend(widths.map(|widths| Wanted { method, widths }));
        }
        Ok(wanted)
    }

    /// Everything that rows of one file have in common.
    fn identity(&self, source: &Source, text: &str) -> anyhow::Result<Value> {
        let mut of: Vec<(String, String)> = source.checkpoint().identity()?;
        let mut say = |what: &str, value: String| of.push((what.to_owned(), value));
        say("the text", format!("{} bytes of {}", text.len(), self.text.display()));
        say("chunks", format!("{} of {} tokens", self.chunks, self.context));
        say("the format", self.format.target().name().to_owned());
        say("the group", self.group_size.to_string());
        say("plain modules", format!("{:?}", self.exclude));
        say("exceptions", format!("{:?}", self.overrides));
        say("tokens of its own writing", self.text_tokens.to_string());
        say("exact", self.exact.to_string());
        say("the version of planish", env!("CARGO_PKG_VERSION").to_owned());
        Ok(of
            .into_iter()
            .map(|(what, value)| (what, json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into())
    }

    /// All points that are missing.
    fn run(&self, sweep: &Sweep<'_>, missing: &[&Wanted], results: &mut Results) -> anyhow::Result<()> {
        let watch = interrupt::watch();
        let measured = self.out.join("sensitivities.json");
        let mut known = match fs::read_to_string(&measured) {
            Ok(text) => Sensitivities::from_json(&text).with_context(|| measured.display().to_string())?,
            Err(_) => Sensitivities::default(),
        };
        let mut weighted: Option<Method> = None;
        for (index, wanted) in missing.iter().enumerate() {
            let name = wanted.name();
            let output = Output {
                force: true,
                stop: watch.flag().clone(),
                ..Output::new(
                    self.out
                        .join("models")
                        .join(name.replace([',', ' '], "-").replace("--", "-")),
                )
            };
            let method = self.method(wanted.method, || match &weighted {
                Some(method) => Ok(method.clone()),
                None => Ok(weighted.insert(self.weighted(sweep.source, &output)?).clone()),
            })?;
            let bar = LayersBar::new();
            let row = sweep.run(&wanted.point(method), &output, &mut known, &mut |progress| {
                bar.layer(progress);
                // What cannot be kept is measured again.
                let _ = write_whole(&measured, &progress.sensitivities.to_json());
            });
            drop(bar);
            let row = row.with_context(|| name.clone())?;
            let (divergence, bits) = (row.divergence, row.packed_bits);
            eprintln!(
                "{} of {}: {name}: mean KL divergence {divergence:.6} at {bits:.3} bits per packed weight",
                index + 1,
                missing.len()
            );
            results.add(row)?;
            if !self.keep {
                fs::remove_dir_all(&output.folder).with_context(|| output.folder.display().to_string())?;
                // Only when nothing else is in it.
                let _ = fs::remove_dir(self.out.join("models"));
            }
        }
        Ok(())
    }

    /// How codes are chosen; `weighted` sees the inputs of layers first.
    fn method(
        &self,
        method: MethodFlag,
        weighted: impl FnOnce() -> anyhow::Result<Method>,
    ) -> anyhow::Result<PointMethod> {
        Ok(match method {
            MethodFlag::Weighted => PointMethod::Rule(weighted()?),
            MethodFlag::Calibrated => PointMethod::Calibrated(CalibratedOptions {
                text: self.own_writing(),
                threads: None,
                calibrator: None,
                device: planish::Device::Cpu,
            }),
            rule => PointMethod::Rule(rule.method()),
        })
    }

    /// What weighted and calibrated run over.
    fn own_writing(&self) -> CalibrationText {
        CalibrationText::OwnWriting {
            seed: 1,
            tokens: self.text_tokens,
            longest: CalibrationText::LONGEST,
        }
    }

    fn weighted(&self, source: &Source, output: &Output) -> anyhow::Result<Method> {
        let bar = TokensBar::new();
        let inputs = calibrate(source, &self.own_writing(), None, output, &mut |progress| {
            bar.tokens(progress);
        })?;
        Ok(Method::Weighted(Arc::new(inputs)))
    }
}

/// The rows so far, and where they are kept.
struct Results {
    path: PathBuf,
    of: Value,
    rows: Vec<SweepRow>,
}

impl Results {
    /// What an earlier run with the same options left.
    fn open(path: &Path, of: Value) -> anyhow::Result<Results> {
        let mut results = Results {
            path: path.to_owned(),
            of,
            rows: Vec::new(),
        };
        let file = || path.display().to_string();
        if !path.exists() {
            return Ok(results);
        }
        let text = read_text(path)?;
        let found: Value = serde_json::from_str(&text).with_context(file)?;
        if let Some((what, value)) = differing(&results.of, &found["of"]) {
            anyhow::bail!(
                "{}: its rows are of another run: {what} is {value} now; give another --out",
                file()
            );
        }
        let rows = found["rows"].as_array().into_iter().flatten();
        let rows = rows.map(|row| row.as_object().and_then(SweepRow::from_json));
        let rows: Option<Vec<SweepRow>> = rows.collect();
        results.rows = rows.with_context(|| format!("{}: a row lacks a key", file()))?;
        Ok(results)
    }

    fn has(&self, wanted: &Wanted) -> bool {
        let point = wanted.point(PointMethod::Rule(Method::Search));
        let (curve, setting) = (point.curve(), point.setting());
        self.rows.iter().any(|row| row.curve == curve && row.setting == setting)
    }

    fn add(&mut self, row: SweepRow) -> anyhow::Result<()> {
        self.rows.push(row);
        let rows: Vec<Value> = self.rows.iter().map(SweepRow::to_json).collect();
        let text = format!("{:#}\n", json!({"of": self.of, "rows": rows}));
        write_whole(&self.path, &text).with_context(|| self.path.display().to_string())
    }

    fn print(&self) {
        println!(
            "{:28} {:>13} {:>7} {:>10} {:>22} {:>11} {:>7}",
            "curve", "setting", "bits", "KL", "bounds", "perplexity", "top 1"
        );
        for row in &self.rows {
            let bounds = row
                .divergence_interval
                .map_or_else(String::new, |[low, high]| format!("[{low:.6}, {high:.6}]"));
            println!(
                "{:28} {:>13} {:>7.3} {:>10.6} {bounds:>22} {:>11.4} {:>5.1} %",
                row.curve,
                row.setting,
                row.packed_bits,
                row.divergence,
                row.perplexity,
                100.0 * row.top1_agreement
            );
        }
    }
}

/// The first value that differs.
fn differing<'a>(of: &'a Value, found: &Value) -> Option<(&'a str, &'a Value)> {
    let fields = of.as_object().into_iter().flatten();
    let mut differing = fields.filter(|(what, value)| found.get(what.as_str()) != Some(value));
    differing.next().map(|(what, value)| (what.as_str(), value))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn methods_that_see_a_text_do() {
        let flags = [
            "sweep",
            "model",
            "--out",
            "out",
            "--text",
            "text",
            "--text-tokens",
            "99",
        ];
        let arguments = Program::parse_from(flags).arguments;
        let seen = || Ok(Method::Weighted(Arc::default()));
        let method = |flag| arguments.method(flag, seen).unwrap();
        assert!(matches!(
            method(MethodFlag::Weighted),
            PointMethod::Rule(Method::Weighted(_))
        ));
        assert!(matches!(method(MethodFlag::Search), PointMethod::Rule(Method::Search)));
        let PointMethod::Calibrated(options) = method(MethodFlag::Calibrated) else {
            panic!("calibrated is not a rule")
        };
        assert!(matches!(options.text, CalibrationText::OwnWriting { tokens: 99, .. }));
    }
}
