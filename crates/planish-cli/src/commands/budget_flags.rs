//! Flags of mixed widths: a budget of bits, or a recipe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use planish::{
    Allocation, BudgetOptions, CalibrationText, Error, Mix, Output, Packing, Recipe, Sensitivities, Source, allocate,
};

use super::packing_flags::packing;
use super::progress::LayersBar;
use super::texts::text_of;

/// Tokens of one text that the model writes, at most.
pub const LONGEST: usize = 256;

/// Flags of mixed widths.
#[derive(clap::Args, Debug)]
pub struct BudgetFlags {
    /// Bits per packed weight to spend, scales and biases counted: measures how much each layer suffers and chooses its width (MLX
    /// only). Writes the choice to DIR/allocation.json, for --recipe
    #[arg(long, value_name = "BITS", conflicts_with_all = ["bits", "recipe"])]
    budget: Option<f64>,
    /// For --budget: tokens that layers are measured on, of --text or of the model's own writing
    #[arg(long, value_name = "N", default_value_t = 1536, requires = "budget")]
    budget_tokens: usize,
    /// For --budget: keep what is measured in this file, and measure only what it lacks
    #[arg(long, value_name = "FILE", requires = "budget")]
    sensitivities: Option<PathBuf>,
    /// Widths by layer (MLX only): a mix of mlx-lm (mixed_2_6, mixed_3_4, mixed_3_6, mixed_4_6) or like one of llama.cpp (q3_k_m,
    /// q4_k_m, q5_k_m), or a JSON file like allocation.json
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "bits")]
    recipe: Option<String>,
}

/// Where widths come from.
pub enum Widths {
    /// Of the flag --budget.
    Budget(f64),
    /// A mix of this name.
    Mix(Mix),
    /// Of a file.
    File(Box<Allocation>),
}

impl BudgetFlags {
    /// What was asked for; a file is read.
    pub fn widths(&self) -> anyhow::Result<Option<Widths>> {
        if let Some(budget) = self.budget {
            return Ok(Some(Widths::Budget(budget)));
        }
        let Some(name) = &self.recipe else {
            return Ok(None);
        };
        if let Some(mix) = Mix::named(name) {
            return Ok(Some(Widths::Mix(mix)));
        }
        let names: Vec<&str> = Mix::names().collect();
        let text = text_of(Path::new(name)).with_context(|| {
            let names = names.join(", ");
            format!("--recipe {name}: neither one of {names} nor a file that can be read")
        })?;
        let allocation = Allocation::from_json(&text).with_context(|| format!("--recipe {name}"))?;
        Ok(Some(Widths::File(Box::new(allocation))))
    }

    /// Whether a text is of use.
    pub fn takes_text(&self) -> bool {
        self.budget.is_some()
    }

    /// The flag that was given.
    pub fn flag(&self) -> &'static str {
        if self.budget.is_some() { "--budget" } else { "--recipe" }
    }

    /// Measures, and chooses the width of every layer.
    pub fn spend(
        &self,
        (source, output): (&Source, &Output),
        recipe: &Recipe,
        (budget, seed): (f64, u64),
        text: Option<(&Path, &str)>,
    ) -> Result<Allocation, Error> {
        let tokens = self.budget_tokens;
        let text = match text {
            Some((path, text)) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                CalibrationText::given(source, &name, text, tokens)?
            }
            None => CalibrationText::OwnWriting {
                seed,
                tokens,
                longest: LONGEST,
            },
        };
        let options = BudgetOptions {
            budget,
            text,
            threads: None,
        };
        let mut known = self.known()?;
        let bar = LayersBar::new();
        let mut failure = None;
        let allocation = allocate(source, recipe, &options, &mut known, output, &mut |progress| {
            bar.layer(progress);
            if let Some(path) = &self.sensitivities
                && let Err(error) = write_whole(path, &progress.sensitivities.to_json())
            {
                failure.get_or_insert(error);
            }
        })?;
        drop(bar);
        if let (Some(error), Some(path)) = (failure, &self.sensitivities) {
            eprintln!("note: {}: what was measured is not kept: {error}", path.display());
        }
        Ok(allocation)
    }

    /// What an earlier run measured.
    fn known(&self) -> Result<Sensitivities, Error> {
        let Some(path) = &self.sensitivities else {
            return Ok(Sensitivities::default());
        };
        let wrong = |what: String| Error::Sensitivities {
            what: format!("{}: {what}", path.display()),
        };
        match fs::read_to_string(path) {
            Ok(text) => Sensitivities::from_json(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Sensitivities::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

/// Replaces a file: at every moment it is whole, the old one or the new.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, text)?;
    fs::rename(&part, path)
}

/// Bits and group that most layers get.
pub fn most(widths: &Widths, group: Option<usize>) -> anyhow::Result<Packing> {
    match widths {
        // The budget says the bits; these stand for the layers that it is about.
        Widths::Budget(_) => packing(2, group),
        Widths::Mix(mix) => packing(mix.bits(), group),
        Widths::File(allocation) => {
            anyhow::ensure!(group.is_none(), "--group-size: the file of --recipe says the group");
            Ok(allocation.default_packing())
        }
    }
}

/// How many layers have each width.
pub fn tell(allocation: &Allocation) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for (_, packing) in allocation.layers() {
        *counts.entry(packing.map_or(0, Packing::bits)).or_insert(0) += 1;
    }
    let words = counts.into_iter().map(|(bits, count): (u32, usize)| match bits {
        0 => format!("{count} plain"),
        bits => format!("{count} in {bits} bits"),
    });
    words.collect::<Vec<_>>().join(", ")
}
