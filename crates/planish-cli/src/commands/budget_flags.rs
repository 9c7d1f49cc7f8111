//! Flags of mixed widths: a budget of bits, or a recipe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use planish::{Error, FormatError, Packing, Sensitivities, Widths};

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

impl BudgetFlags {
    /// What was asked for; files are read.
    pub fn widths(&self) -> anyhow::Result<Option<Widths>> {
        if let Some(bits) = self.budget {
            return Ok(Some(Widths::Budget {
                bits,
                tokens: self.budget_tokens,
                known: self.known()?,
            }));
        }
        let widths = self.recipe.as_deref().map(Widths::of_recipe);
        widths.transpose().context("--recipe")
    }

    /// Whether a text is of use.
    pub fn takes_text(&self) -> bool {
        self.budget.is_some()
    }

    /// The flag that was given.
    pub fn flag(&self) -> &'static str {
        if self.budget.is_some() { "--budget" } else { "--recipe" }
    }

    /// Keeps what is measured so far where that was asked for.
    pub fn keep(&self, measured: &Sensitivities) -> io::Result<()> {
        match &self.sensitivities {
            Some(path) => write_whole(path, &measured.to_json()),
            None => Ok(()),
        }
    }

    /// The file that keeps it, for messages.
    pub fn kept_in(&self) -> String {
        self.sensitivities
            .as_deref()
            .map_or_else(String::new, |path| path.display().to_string())
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
    anyhow::ensure!(
        group.is_none() || !matches!(widths, Widths::File(_)),
        "--group-size: the file of --recipe says the group"
    );
    widths.packing(group).map_err(|error| match (error, group) {
        (error @ FormatError::Group { .. }, Some(group)) => {
            anyhow::Error::from(error).context(format!("--group-size {group}"))
        }
        (error, _) => error.into(),
    })
}
