//! `planish models`: the families that can be run, and what is tested of each.

use std::io::Write as _;

use planish::{Architecture, FamilyInfo, Tested};
use serde_json::{Map, Value, json};

/// Flags of `planish models`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Print the table in Markdown, as docs/MODELS.md has it
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let families = Architecture::families();
    let text = match arguments {
        Arguments { json: true, .. } => format!("{}\n", as_json(&families)),
        Arguments { markdown: true, .. } => markdown(&families),
        _ => table(&families),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn as_json(families: &[FamilyInfo]) -> Value {
    let family = |family: &FamilyInfo| {
        let tested: Vec<&str> = family.tested.iter().map(|form| form.name()).collect();
        json!({"architecture": family.architecture, "model_type": family.model_type, "tested": tested})
    };
    let meanings = Tested::ALL.map(|form| (form.name().to_owned(), Value::from(form.meaning())));
    json!({
        "families": families.iter().map(family).collect::<Vec<_>>(),
        "tested": Map::from_iter(meanings),
    })
}

/// The same as a document: a row for each family, a column for each form.
fn markdown(families: &[FamilyInfo]) -> String {
    let forms: Vec<&str> = Tested::ALL.iter().map(|form| form.name()).collect();
    let mut text = format!(
        "# Models that run\n\n{} families. Made by `planish models --markdown`. ",
        families.len()
    );
    text += "On tiny checkpoints it is tested that\n\n";
    for form in Tested::ALL {
        text += &format!("- {}: {}\n", form.name(), form.meaning());
    }
    text += &format!("\n| architecture | model type | {} |\n", forms.join(" | "));
    text += &format!("|---|---|{}\n", "---|".repeat(forms.len()));
    for family in families {
        let cells = Tested::ALL.map(|form| if family.tested.contains(&form) { "yes" } else { "" });
        let (architecture, model_type) = (family.architecture, family.model_type);
        text += &format!("| {architecture} | {model_type} | {} |\n", cells.join(" | "));
    }
    text
}

/// A line for each family, then what the words mean.
fn table(families: &[FamilyInfo]) -> String {
    let width = |text: fn(&FamilyInfo) -> &'static str| families.iter().map(|family| text(family).len()).max();
    let wide = width(|family| family.architecture).unwrap_or(0);
    let narrow = width(|family| family.model_type).unwrap_or(0);
    let mut text = format!("{:wide$}  {:narrow$}  tested\n", "architecture", "model type");
    for family in families {
        let tested: Vec<&str> = family.tested.iter().map(|form| form.name()).collect();
        let (architecture, model_type) = (family.architecture, family.model_type);
        text += &format!("{architecture:wide$}  {model_type:narrow$}  {}\n", tested.join(" "));
    }
    text += &format!("\n{} families; on tiny checkpoints it is tested that\n", families.len());
    for form in Tested::ALL {
        text += &format!("{:6} {}\n", form.name(), form.meaning());
    }
    text + "\nquantize, dequantize, convert and inspect take any safetensors checkpoint.\n"
}
