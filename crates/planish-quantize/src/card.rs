//! The model card (README.md): YAML front matter for the Hub, how the model was made, and the card of the source below.

use planish_checkpoint::Checkpoint;

use crate::{Error, Output, Report, Target};

/// What a card says besides what it takes from the source's card.
pub(crate) struct Card {
    /// `library_name` of the front matter: who can load the model.
    pub library: &'static str,
    /// Tags of the front matter besides those of the source.
    pub tags: Vec<String>,
    /// `base_model_relation`, with a Hub id as base.
    pub relation: Option<&'static str>,
    /// How the model was made, one sentence or more.
    pub made: String,
    /// Two cells each.
    pub facts: Vec<(&'static str, String)>,
    /// Sentences without a capital and a full stop.
    pub notes: Vec<String>,
    /// Packed weights of whose inputs too little is known.
    pub unseen: Vec<String>,
    /// Layers that stay plain, with the reason.
    pub plain: Vec<(String, String)>,
    /// Lines of code that run the model, with their language.
    pub usage: Vec<(&'static str, String)>,
}

impl Card {
    /// The whole file.
    pub fn render(&self, checkpoint: &Checkpoint, output: &Output) -> Result<String, Error> {
        let source = checkpoint.file("README.md")?.unwrap_or_default();
        let source = String::from_utf8_lossy(&source);
        let (front, body) = split(&source);
        let title = output.folder_name();
        let mut card = format!(
            "---\n{}---\n\n# {title}\n\n{}\n",
            self.front_matter(front, output),
            self.made
        );
        if !self.facts.is_empty() {
            card += "\n| | |\n|---|---|\n";
            self.facts
                .iter()
                .for_each(|(key, value)| card += &format!("| {key} | {value} |\n"));
        }
        if !self.notes.is_empty() {
            card += "\nTo know:\n\n";
            self.notes.iter().for_each(|note| card += &format!("- {note}\n"));
        }
        if !self.unseen.is_empty() {
            card += "\nThe codes of these weights are searched for without inputs, of which too little is known:\n\n";
            self.unseen.iter().for_each(|name| card += &format!("- `{name}`\n"));
        }
        if !self.plain.is_empty() {
            card += "\nThese layers stay plain:\n\n";
            self.plain
                .iter()
                .for_each(|(module, reason)| card += &format!("- `{module}`: {reason}\n"));
        }
        for (language, code) in &self.usage {
            card += &format!("\n```{language}\n{code}\n```\n");
        }
        if !body.trim().is_empty() {
            card += &format!("\n## The card of the source\n\n{}\n", body.trim());
        }
        Ok(card)
    }

    fn front_matter(&self, source: &str, output: &Output) -> String {
        let mut tags: Vec<String> = Vec::new();
        let mut text = String::new();
        for (key, block) in blocks(source) {
            let replaced = match key {
                "tags" => {
                    tags.extend(list(block).into_iter().filter(|tag| !is_format_tag(tag)));
                    true
                }
                "library_name" => true,
                "base_model" | "base_model_relation" => output.base_model.is_some(),
                _ => false,
            };
            if !replaced {
                text += block;
            }
        }
        if let Some(base_model) = &output.base_model {
            text += &format!("base_model: {base_model}\n");
            self.relation
                .iter()
                .for_each(|relation| text += &format!("base_model_relation: {relation}\n"));
        }
        text += &format!("library_name: {}\ntags:\n", self.library);
        tags.retain(|tag| !self.tags.contains(tag));
        tags.iter()
            .chain(&self.tags)
            .for_each(|tag| text += &format!("- {tag}\n"));
        text
    }
}

/// The source and the version of planish, for the first sentence of a card: ("`org/name`", "0.1.0").
pub(crate) fn origin(output: &Output) -> (String, &'static str) {
    let source = output.base_model.as_ref();
    let source = source.map_or_else(|| "a local model".to_owned(), |id| format!("`{id}`"));
    (source, env!("CARGO_PKG_VERSION"))
}

/// The facts that every packed output states.
pub(crate) fn sizes(report: &Report) -> [(&'static str, String); 2] {
    [
        ("packed tensors", report.packed.to_string()),
        (
            "bits per weight, all tensors",
            format!("{:.3}", report.bits_per_weight()),
        ),
    ]
}

/// How the output is run, by planish and by the library whose dialect it has.
pub(crate) fn usage(target: Target, output: &Output) -> Vec<(&'static str, String)> {
    let folder = output.folder_name();
    let python = match target {
        Target::Metal => format!(
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             model = AutoModelForCausalLM.from_pretrained(\"{folder}\", device_map=\"auto\")\n\
             tokenizer = AutoTokenizer.from_pretrained(\"{folder}\")"
        ),
        Target::Mlx => format!("from mlx_lm import load\n\nmodel, tokenizer = load(\"{folder}\")"),
    };
    vec![
        (
            "sh",
            format!("planish generate {folder} --prompt \"Why is the sky blue?\""),
        ),
        ("python", python),
    ]
}

/// Tags that say how the source was stored: the output says it anew.
fn is_format_tag(tag: &str) -> bool {
    matches!(tag, "mlx" | "metal" | "gguf" | "planish")
        || tag.strip_suffix("-bit").is_some_and(|bits| bits.parse::<u32>().is_ok())
}

/// Front matter (without its `---` lines) and body.
fn split(card: &str) -> (&str, &str) {
    let text = card.trim_start_matches('\u{feff}');
    let Some(rest) = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n")) else {
        return ("", text);
    };
    let mut position = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return (&rest[..position], &rest[position + line.len()..]);
        }
        position += line.len();
    }
    ("", text)
}

/// The top-level keys of a YAML mapping, each with its lines.
fn blocks(front: &str) -> Vec<(&str, &str)> {
    let mut starts: Vec<(usize, &str)> = Vec::new();
    let mut position = 0;
    for line in front.split_inclusive('\n') {
        let key = line
            .split_once(':')
            .map(|(key, _)| key)
            .filter(|key| !key.starts_with([' ', '\t', '-', '#']));
        if let Some(key) = key {
            starts.push((position, key));
        }
        position += line.len();
    }
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([front.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|((start, key), end)| (*key, &front[*start..end]))
        .collect()
}

/// The items of a YAML list, inline or one a line.
fn list(block: &str) -> Vec<String> {
    let clean = |item: &str| item.trim().trim_matches(['"', '\'']).to_owned();
    let value = block.split_once(':').map_or("", |(_, value)| value);
    if let Some(inline) = value.trim().strip_prefix('[').and_then(|value| value.strip_suffix(']')) {
        return inline.split(',').map(clean).filter(|item| !item.is_empty()).collect();
    }
    value
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- "))
        .map(clean)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "---\nlicense: apache-2.0\ntags: [chat, 'mlx', 8-bit]\nlanguage:\n- en\n---\n# Old\n\ntext: a\n---\n";

    #[test]
    fn front_matter_is_taken_apart() {
        let (front, body) = split(SOURCE);
        let keys: Vec<&str> = blocks(front).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["license", "tags", "language"]);
        assert_eq!(body, "# Old\n\ntext: a\n---\n");
        assert_eq!(list(blocks(front)[1].1), ["chat", "mlx", "8-bit"]);
        assert_eq!(list(blocks(front)[2].1), ["en"]);
        assert_eq!(split("no front matter"), ("", "no front matter"));
        assert_eq!(split("---\nnever: closed\n"), ("", "---\nnever: closed\n"));
    }

    #[test]
    fn licence_and_tags_of_the_source_stay() {
        let card = Card {
            library: "mlx",
            tags: vec!["mlx".to_owned(), "4-bit".to_owned()],
            relation: Some("quantized"),
            made: String::new(),
            facts: Vec::new(),
            notes: Vec::new(),
            unseen: Vec::new(),
            plain: Vec::new(),
            usage: Vec::new(),
        };
        let output = Output {
            base_model: Some("org/name".to_owned()),
            ..Output::new("out")
        };
        let expected = "license: apache-2.0\nlanguage:\n- en\nbase_model: org/name\nbase_model_relation: quantized\n\
                        library_name: mlx\ntags:\n- chat\n- mlx\n- 4-bit\n";
        assert_eq!(card.front_matter(split(SOURCE).0, &output), expected);
    }
}
