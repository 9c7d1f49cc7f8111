//! `planish evaluate`: perplexity on a text; divergence from a reference model; multiple-choice questions. The text is cut into chunks of `--context` tokens,
//! of whose second halves the tokens are scored. Brackets hold what the true mean is between 19 times of 20, as the pieces tell.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Context;
use planish::{CausalLM, Evaluation, EvaluationOptions, Interval, LoadOptions, evaluate_all};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::evaluate_tasks;
use super::run_flags::{RunFlags, load};
use super::source::open;
use super::texts::read_text;

/// Flags of `planish evaluate`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Folders, .gguf files, or Hub ids (org/name); several are compared with one pass of the reference [default: the small demo model
    /// inside planish]
    #[arg(value_name = "MODEL")]
    models: Vec<OsString>,
    /// The text to predict, UTF-8
    #[arg(long, value_name = "FILE", required_unless_present = "tasks")]
    text: Option<PathBuf>,
    /// Multiple-choice questions, JSON lines of context, choices and answer, or as HellaSwag or ARC have them
    #[arg(long, value_name = "FILE")]
    tasks: Option<PathBuf>,
    /// Compare with this model, run on the same device
    #[arg(long, value_name = "MODEL")]
    reference: Option<OsString>,
    /// Compute the reference in f32 throughout, as --exact does: what rounded activations cost, say
    #[arg(long, requires = "reference")]
    exact_reference: bool,
    /// Score tokens one at a time, as they are generated, instead of many at once
    #[arg(long)]
    one_by_one: bool,
    /// Tokens per chunk
    #[arg(long, value_name = "N", default_value_t = 512)]
    context: usize,
    /// Maximum number of chunks [default: all]
    #[arg(long, alias = "pieces", value_name = "N")]
    chunks: Option<usize>,
    /// Also write the tokens of the first chunk and the logits after each of them, as safetensors (i32, f32)
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: RunFlags,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(
        arguments.context >= 4,
        "--context {}: at least 4 tokens",
        arguments.context
    );
    anyhow::ensure!(arguments.chunks != Some(0), "--chunks 0: at least 1");
    let options = arguments.flags.load_options()?;
    let names: Vec<Option<&OsStr>> = match &arguments.models[..] {
        [] => vec![None],
        models => models.iter().map(|model| Some(model.as_os_str())).collect(),
    };
    let mut models = Vec::new();
    for name in &names {
        models.push(load(&arguments.flags.open(*name)?, options.clone())?);
    }
    let model = &models[0];
    let reference = load_reference(arguments, options)?;
    if let Some(path) = &arguments.tasks {
        let named: Vec<(Option<&OsStr>, &CausalLM)> = names.iter().copied().zip(&models).collect();
        let reference = arguments.reference.as_deref().zip(reference.as_ref());
        evaluate_tasks::run(path, &named, reference, arguments.json)?;
    }
    let Some(text) = &arguments.text else {
        return Ok(());
    };
    let file = || text.display().to_string();
    let text = read_text(text)?;
    let chunks = model.tokenizer()?.chunks(&text, arguments.context);
    let mut chunks = chunks.with_context(file)?;
    chunks.truncate(arguments.chunks.unwrap_or(usize::MAX));
    if let (Some(path), Some(first)) = (&arguments.logits, chunks.first()) {
        write_logits(model, first, path)?;
    }
    let options = EvaluationOptions {
        reference: reference.as_ref(),
        one_by_one: arguments.one_by_one,
        ..EvaluationOptions::default()
    };
    let models: Vec<&CausalLM> = models.iter().collect();
    let found = evaluate_all(&models, &chunks, &options, &mut |progress| {
        let (done, total) = (progress.done, progress.total);
        eprintln!("chunk {done} of {total}: perplexity so far {:.4}", progress.perplexity);
    })?;
    for (name, evaluation) in names.iter().zip(&found) {
        report(arguments, *name, evaluation, chunks.len());
    }
    Ok(())
}

fn load_reference(arguments: &Arguments, options: LoadOptions) -> anyhow::Result<Option<CausalLM>> {
    let Some(name) = &arguments.reference else {
        return Ok(None);
    };
    let options = LoadOptions {
        quantize: None,
        dequantize: false,
        exact: options.exact || arguments.exact_reference,
        cache: options.cache.filter(|_| !arguments.exact_reference),
        ..options
    };
    Ok(Some(load(&open(name, None)?, options)?))
}

/// Tokens (n) and the logits after each (n, vocabulary).
fn write_logits(model: &CausalLM, tokens: &[u32], path: &Path) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    model.logits_from(tokens, 0, &mut |_, logits| {
        bytes.extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
    })?;
    let ids: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let shape = vec![tokens.len(), model.architecture().vocabulary];
    let tensors = [
        ("tokens", TensorView::new(Dtype::I32, vec![tokens.len()], &ids)?),
        ("logits", TensorView::new(Dtype::F32, shape, &bytes)?),
    ];
    safetensors::serialize_to_file(tensors, None, path).with_context(|| path.display().to_string())
}

fn report(arguments: &Arguments, name: Option<&OsStr>, evaluation: &Evaluation, chunks: usize) {
    let Evaluation {
        scored_tokens,
        perplexity,
        interval,
        comparison,
    } = evaluation;
    let bounds = |interval: Option<Interval>| interval.map(|Interval { low, high }| [low, high]);
    if arguments.json {
        let result = json!({
            "model": name.map(OsStr::to_string_lossy),
            "reference": arguments.reference.as_deref().map(OsStr::to_string_lossy),
            "context": arguments.context,
            "chunks": chunks,
            "scored_tokens": scored_tokens,
            "perplexity": perplexity,
            "perplexity_interval": bounds(*interval),
            "reference_perplexity": comparison.map(|beside| beside.perplexity),
            "mean_kl_divergence": comparison.map(|beside| beside.mean_kl_divergence),
            "mean_kl_divergence_interval": comparison.and_then(|beside| bounds(beside.interval)),
            "kl_divergence_99th_percentile": comparison.map(|beside| beside.percentile_99),
            "largest_kl_divergence": comparison.map(|beside| beside.largest),
            "top1_agreement": comparison.map(|beside| beside.top1_agreement),
            "top5_agreement": comparison.map(|beside| beside.top5_agreement),
        });
        println!("{result}");
        return;
    }
    if let Some(name) = name.filter(|_| arguments.models.len() > 1) {
        println!("{}", name.to_string_lossy());
    }
    let context = arguments.context;
    let between = |interval: Option<Interval>, digits: usize| {
        interval.map_or_else(String::new, |Interval { low, high }| {
            format!(" [{low:.digits$}, {high:.digits$}]")
        })
    };
    println!(
        "perplexity {perplexity:.4}{} over {scored_tokens} tokens (second halves of {chunks} chunks of {context})",
        between(*interval, 4)
    );
    if let Some(beside) = comparison {
        println!("reference  {:.4}", beside.perplexity);
        println!(
            "mean KL divergence {:.6}{}, 99th percentile {:.4}, largest {:.4}",
            beside.mean_kl_divergence,
            between(beside.interval, 6),
            beside.percentile_99,
            beside.largest
        );
        println!(
            "same likeliest token {:.2} %, among the reference's five likeliest {:.2} %",
            100.0 * beside.top1_agreement,
            100.0 * beside.top5_agreement
        );
    }
}
