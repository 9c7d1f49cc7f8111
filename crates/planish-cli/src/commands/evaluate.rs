//! `planish evaluate`: perplexity on a text; divergence from a reference model. The text is cut into chunks of `--context` tokens,
//! of whose second halves the tokens are scored.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use planish::{CausalLM, Evaluation, EvaluationOptions, LoadOptions};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::run_flags::{RunFlags, load};
use super::source::{open, open_or_demo};

/// Flags of `planish evaluate`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name) [default: the small demo model inside planish]
    #[arg(value_name = "MODEL")]
    model: Option<OsString>,
    /// The text to predict, UTF-8
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
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
    let options = arguments.flags.load_options()?;
    let source = open_or_demo(arguments.model.as_deref(), arguments.flags.revision.as_deref())?;
    let model = load(&source, options.clone())?;
    let reference = load_reference(arguments, options)?;
    let file = || arguments.text.display().to_string();
    let text = fs::read_to_string(&arguments.text).with_context(file)?;
    let chunks = model.tokenizer()?.chunks(&text, arguments.context);
    let mut chunks = chunks.with_context(file)?;
    chunks.truncate(arguments.chunks.unwrap_or(usize::MAX));
    if let (Some(path), Some(first)) = (&arguments.logits, chunks.first()) {
        write_logits(&model, first, path)?;
    }
    let options = EvaluationOptions {
        reference: reference.as_ref(),
        one_by_one: arguments.one_by_one,
        ..EvaluationOptions::default()
    };
    let evaluation = model.evaluate(&chunks, &options, &mut |progress| {
        let (done, total) = (progress.done, progress.total);
        eprintln!("chunk {done} of {total}: perplexity so far {:.4}", progress.perplexity);
    })?;
    report(arguments, &evaluation, chunks.len());
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

fn report(arguments: &Arguments, evaluation: &Evaluation, chunks: usize) {
    let Evaluation {
        scored_tokens,
        perplexity,
        comparison,
    } = evaluation;
    if arguments.json {
        let result = json!({
            "model": arguments.model.as_deref().map(OsStr::to_string_lossy),
            "reference": arguments.reference.as_deref().map(OsStr::to_string_lossy),
            "context": arguments.context,
            "chunks": chunks,
            "scored_tokens": scored_tokens,
            "perplexity": perplexity,
            "reference_perplexity": comparison.map(|beside| beside.perplexity),
            "mean_kl_divergence": comparison.map(|beside| beside.mean_kl_divergence),
            "top1_agreement": comparison.map(|beside| beside.top1_agreement),
        });
        println!("{result}");
        return;
    }
    let context = arguments.context;
    println!("perplexity {perplexity:.4} over {scored_tokens} tokens (second halves of {chunks} chunks of {context})");
    if let Some(beside) = comparison {
        println!("reference  {:.4}", beside.perplexity);
        println!(
            "mean KL divergence {:.6}, same likeliest token {:.2} %",
            beside.mean_kl_divergence,
            100.0 * beside.top1_agreement
        );
    }
}
