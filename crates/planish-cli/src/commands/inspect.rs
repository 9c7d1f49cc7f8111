//! `planish inspect`: a table of what a checkpoint holds, on standard output.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use planish::{Cost, Error, Inspection, ModelError, Source, TensorRow, WIDTHS, inspect, relative_errors};
use serde::Serialize;

use super::packing_flags::packing;
use super::progress::{Bar, bytes};
use super::source::open;

/// Flags of `planish inspect`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name)
    #[arg(value_name = "MODEL")]
    model: OsString,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// The group for which the error of packing plain layers is measured [default: 64]
    #[arg(long, value_name = "SIZE")]
    group_size: Option<usize>,
    /// Measure the error of each packed weight against this model, which it was made of
    #[arg(long, value_name = "MODEL")]
    against: Option<OsString>,
    /// Branch, tag or commit of a Hub model
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let group = packing(WIDTHS[0], arguments.group_size)?.group();
    let source = open(&arguments.model, arguments.revision.as_deref())?;
    // What says more than it holds is not listed as if it were whole.
    source.check_layers()?;
    let bar = Bar::new();
    let inspection = inspect(&source, group, &mut |progress| bar.conversion(progress))?;
    drop(bar);
    let support = Support::of(&source);
    let errors = match &arguments.against {
        Some(original) => Some(relative_errors(&open(original, None)?, &source)?),
        None => None,
    };
    let text = if arguments.json {
        let relative_rms_errors = errors.map(|errors| errors.into_iter().collect());
        let report = Report {
            inspection,
            support,
            relative_rms_errors,
        };
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        let errors = errors.as_deref().map_or_else(String::new, error_table);
        format!("{}{errors}{}\n", table(&inspection), support.line())
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether planish can run the checkpoint's architecture.
#[derive(Serialize)]
struct Support {
    /// As config.json names it.
    architecture: Option<String>,
    /// Whether the commands that run a model take it.
    supported: bool,
    /// What is not known, if it is not supported.
    unsupported_because: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    inspection: Inspection,
    #[serde(flatten)]
    support: Support,
    /// By weight, against the model that it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_rms_errors: Option<BTreeMap<String, f64>>,
}

impl Support {
    fn of(source: &Source) -> Support {
        let config = source.checkpoint().config();
        let name = config.get("architectures").and_then(|names| names.get(0)?.as_str());
        let refusal = source.architecture().err();
        Support {
            architecture: name.map(str::to_owned),
            supported: refusal.is_none(),
            unsupported_because: refusal.as_ref().map(|refusal| match refusal {
                // Its message lists all families, as `planish models` does.
                Error::Model(ModelError::UnknownArchitecture { found, .. }) => format!("no family is called `{found}`"),
                other => other.to_string(),
            }),
        }
    }

    fn line(&self) -> String {
        let name = self.architecture.as_deref().unwrap_or("the architecture");
        match &self.unsupported_because {
            None => format!("{name} is supported: generate, chat, evaluate and bench take this model"),
            Some(why) => format!(
                "{name} is not supported ({why}): quantize, dequantize, convert and inspect take this checkpoint, but \
                 planish cannot run it; `planish models` lists what it can"
            ),
        }
    }
}

/// The whole listing: a line for each tensor, columns aligned, then totals.
fn table(inspection: &Inspection) -> String {
    let with_cost = inspection.cost.is_some();
    let mut lines = vec![header(with_cost)];
    lines.extend(inspection.tensors.iter().map(|tensor| cells(tensor, with_cost)));
    if let Some(cost) = &inspection.cost {
        let mut total = vec!["all measured layers".to_owned()];
        total.extend(vec![String::new(); 5]);
        total.extend(percentages(cost));
        lines.push(total);
    }
    let mut text = align(&lines);
    let _ = writeln!(text, "\n{}", summary(inspection));
    if let Some(cost) = &inspection.cost {
        let group = inspection.cost_group_size;
        let _ = writeln!(
            text,
            "N-bit error: relative RMS of packing with the rule of MLX, groups of {group}{}",
            sampled(cost)
        );
    }
    text
}

/// The packed weights, worst first.
fn error_table(errors: &[(String, f64)]) -> String {
    let mut errors: Vec<&(String, f64)> = errors.iter().collect();
    errors.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    let lines = errors
        .iter()
        .map(|(name, error)| vec![name.clone(), format!("{:.2} %", error * 100.0)]);
    let mut all = vec![vec![
        "packed weight, worst first".to_owned(),
        "relative RMS error".to_owned(),
    ]];
    all.extend(lines);
    format!("{}\n", align(&all))
}

fn sampled(cost: &Cost) -> String {
    if cost.measured_rows == cost.rows {
        return String::new();
    }
    format!(
        ", measured on {} of {} rows, evenly spread",
        cost.measured_rows, cost.rows
    )
}

/// One line on all of it.
pub fn summary(inspection: &Inspection) -> String {
    let model_type = inspection.model_type.as_deref().unwrap_or("unknown model type");
    format!(
        "{model_type}, {}: {} tensors, {} weights, {}, {:.3} bits per weight",
        inspection.format,
        inspection.tensors.len(),
        inspection.weights,
        bytes(inspection.bytes),
        inspection.bits_per_weight
    )
}

fn header(with_cost: bool) -> Vec<String> {
    let mut header = ["tensor", "shape", "type", "bits", "group", "bytes"]
        .map(str::to_owned)
        .to_vec();
    if with_cost {
        header.extend(WIDTHS.map(|bits| format!("{bits}-bit error")));
    }
    header
}

fn cells(tensor: &TensorRow, with_cost: bool) -> Vec<String> {
    let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
    let mut cells = vec![
        tensor.name.clone(),
        shape.join(" x "),
        tensor.element_type.clone(),
        tensor.bits.map_or_else(String::new, |bits| bits.to_string()),
        tensor.group_size.map_or_else(String::new, |group| group.to_string()),
        bytes(tensor.bytes),
    ];
    match &tensor.cost {
        Some(cost) => cells.extend(percentages(cost)),
        None if with_cost => cells.extend(vec![String::new(); WIDTHS.len()]),
        None => {}
    }
    cells
}

fn percentages(cost: &Cost) -> impl Iterator<Item = String> {
    cost.relative_rms.into_iter().map(|rms| format!("{:.2} %", rms * 100.0))
}

/// Columns are as wide as their widest cell, or so; the library's limit is 65,535.
const WIDEST: usize = 250;

/// Names and shapes to the left, everything else to the right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
            .min(WIDEST)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            let _ = if column < 3 {
                write!(row, "{cell:width$}  ")
            } else {
                write!(row, "{cell:>width$}  ")
            };
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}
