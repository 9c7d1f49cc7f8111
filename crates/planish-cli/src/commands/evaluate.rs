//! `planish evaluate`: perplexity on a text; divergence from a reference model.
//!
//! The method is that of llama.cpp: the text is cut into pieces of `--context` tokens, each starts with the tokenizer's first
//! token where it adds one, and the second half of each piece is scored. Against a reference: the mean over scored positions
//! of the Kullback-Leibler divergence, and how often both models hold the same token for likeliest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use planish_generate::{Files, Tokenizer};
use planish_model::{LoadOptions, Model};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::run_flags::RunFlags;
use super::scoring::{Feed, Surprise, log_sum_exp, logits_from};
use super::source::{open, open_or_demo};
use super::speaker::print_notice;

/// Flags of `planish evaluate`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name) [default: the small demo model inside planish]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// The text to predict, UTF-8
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Compare with this model, run on the same device
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,
    /// Compute the reference in f32 throughout, as --exact does: what rounded activations cost, say
    #[arg(long, requires = "reference")]
    exact_reference: bool,
    /// Score tokens one at a time, as they are generated, instead of many at once
    #[arg(long)]
    one_by_one: bool,
    /// Tokens of a piece
    #[arg(long, value_name = "N", default_value_t = 512)]
    context: usize,
    /// Pieces at most
    #[arg(long, value_name = "N")]
    pieces: Option<usize>,
    /// Also write the tokens of the first piece and the logits after each of them, as safetensors (i32, f32)
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: RunFlags,
}

/// Sums over scored positions.
#[derive(Default)]
struct Sums {
    ours: Surprise,
    reference: Surprise,
    divergence: f64,
    agreements: usize,
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
    let mut model = Model::load(&source.checkpoint, &options)?;
    print_notice(&model);
    let tokenizer = Tokenizer::new(&Files::of(&source.checkpoint)?)?;
    let mut reference = load_reference(arguments, &options, &model)?;
    let text = fs::read_to_string(&arguments.text).with_context(|| arguments.text.display().to_string())?;
    let pieces = pieces(&tokenizer, &text, arguments)?;
    if let Some(path) = &arguments.logits {
        write_logits(&mut model, &pieces[0], path)?;
    }
    let mut sums = Sums::default();
    for (index, piece) in pieces.iter().enumerate() {
        score(arguments, &mut model, reference.as_mut(), piece, &mut sums)?;
        let perplexity = sums.ours.perplexity();
        eprintln!(
            "piece {} of {}: perplexity so far {perplexity:.4}",
            index + 1,
            pieces.len()
        );
    }
    report(arguments, &sums, pieces.len());
    Ok(())
}

fn load_reference(arguments: &Arguments, options: &LoadOptions, model: &Model) -> anyhow::Result<Option<Model>> {
    let Some(name) = &arguments.reference else {
        return Ok(None);
    };
    let options = LoadOptions {
        quantize: None,
        dequantize: false,
        exact: options.exact || arguments.exact_reference,
        cache: options.cache.filter(|_| !arguments.exact_reference),
        ..options.clone()
    };
    let reference = Model::load(&open(name, None)?.checkpoint, &options)?;
    let (ours, theirs) = (model.architecture().vocabulary, reference.architecture().vocabulary);
    anyhow::ensure!(
        ours == theirs,
        "{name}: a vocabulary of {theirs} cannot be compared with one of {ours}"
    );
    Ok(Some(reference))
}

/// The text as whole pieces of `--context` tokens.
fn pieces(tokenizer: &Tokenizer, text: &str, arguments: &Arguments) -> anyhow::Result<Vec<Vec<u32>>> {
    let tokens = tokenizer.encode(text)?;
    // A token that the tokenizer puts before every text also starts every piece.
    let first = tokenizer
        .encode("")?
        .first()
        .copied()
        .filter(|first| tokens.first() == Some(first));
    let mut pieces: Vec<Vec<u32>> = tokens.chunks_exact(arguments.context).map(<[u32]>::to_vec).collect();
    pieces.truncate(arguments.pieces.unwrap_or(usize::MAX));
    if let Some(first) = first {
        pieces.iter_mut().for_each(|piece| piece[0] = first);
    }
    anyhow::ensure!(
        !pieces.is_empty(),
        "{}: {} tokens are too few for a piece of {}; give a longer text or a smaller --context",
        arguments.text.display(),
        tokens.len(),
        arguments.context
    );
    Ok(pieces)
}

/// Scores the tokens of the second half of a piece but its first.
fn score(
    arguments: &Arguments,
    model: &mut Model,
    reference: Option<&mut Model>,
    piece: &[u32],
    sums: &mut Sums,
) -> anyhow::Result<()> {
    let half = piece.len() / 2;
    let expected = reference
        .map(|reference| logits_from(reference, piece, half, Feed::AtOnce, |logits| logits.to_vec()))
        .transpose()?;
    let feed = if arguments.one_by_one {
        Feed::OneByOne
    } else {
        Feed::AtOnce
    };
    let mut row = 0;
    logits_from(model, piece, half, feed, |logits| {
        let token = piece[half + 1 + row];
        let normalizer = log_sum_exp(logits);
        sums.ours.add(logits, normalizer, token);
        if let Some(expected) = expected.as_ref().map(|rows| &rows[row]) {
            let theirs = log_sum_exp(expected);
            sums.reference.add(expected, theirs, token);
            sums.divergence += divergence(expected, theirs, logits, normalizer);
            sums.agreements += usize::from(likeliest(expected) == likeliest(logits));
        }
        row += 1;
    })?;
    Ok(())
}

/// Sum of p ln(p / q) with p from `expected` and q from `found`.
fn divergence(expected: &[f32], expected_normalizer: f64, found: &[f32], found_normalizer: f64) -> f64 {
    let terms = expected.iter().zip(found).map(|(&expected, &found)| {
        let log_p = f64::from(expected) - expected_normalizer;
        log_p.exp() * (log_p - (f64::from(found) - found_normalizer))
    });
    terms.sum()
}

fn likeliest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

/// Tokens (n) and the logits after each (n, vocabulary).
fn write_logits(model: &mut Model, tokens: &[u32], path: &Path) -> anyhow::Result<()> {
    let mut cache = model.cache(tokens.len())?;
    let mut bytes = Vec::new();
    model.forward_all(tokens, &mut cache, &mut |_, logits| {
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

fn report(arguments: &Arguments, sums: &Sums, pieces: usize) {
    let count = sums.ours.count as f64;
    let perplexity = sums.ours.perplexity();
    let compared = arguments.reference.is_some();
    let reference_perplexity = compared.then(|| sums.reference.perplexity());
    let divergence = compared.then(|| sums.divergence / count);
    let agreement = compared.then(|| sums.agreements as f64 / count);
    if arguments.json {
        let result = json!({
            "model": arguments.model,
            "reference": arguments.reference,
            "context": arguments.context,
            "pieces": pieces,
            "scored_tokens": sums.ours.count,
            "perplexity": perplexity,
            "reference_perplexity": reference_perplexity,
            "mean_kl_divergence": divergence,
            "top1_agreement": agreement,
        });
        println!("{result}");
        return;
    }
    let context = arguments.context;
    println!(
        "perplexity {perplexity:.4} over {} tokens (second halves of {pieces} pieces of {context})",
        sums.ours.count
    );
    if let (Some(perplexity), Some(divergence), Some(agreement)) = (reference_perplexity, divergence, agreement) {
        println!("reference  {perplexity:.4}");
        println!(
            "mean KL divergence {divergence:.6}, same likeliest token {:.2} %",
            100.0 * agreement
        );
    }
}
