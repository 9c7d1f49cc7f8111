//! For every entry of a checkpoint: is it packed, with which bits and group, or why not. No weight is read.

use std::fmt;

use planish_checkpoint::mlx::{self, Arranged, Piece, View};
use planish_checkpoint::{Entry, Layout};
use planish_format::Packing;
use serde_json::{Map, Value};

use crate::layers::{Classifier, Role, TIED_HEADS};
use crate::mlx_rules;
use crate::{Choice, Error, Patterns, Recipe, Target};

/// Why an entry stays plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a matrix of weights: a norm, a bias, a table.
    NotAMatrix,
    /// The dialect's own library does not pack this kind of layer (embeddings, output head, experts, routers).
    NotPackedByDialect,
    /// The user excluded it.
    Excluded,
    /// The group does not divide the columns.
    NotDivisible {
        /// Columns of the weight.
        cols: usize,
        /// The group asked for.
        group: usize,
    },
    /// Its values are not F32, F16 or BF16.
    NotFloat,
}

impl fmt::Display for Reason {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotAMatrix => write!(to, "not a matrix of weights"),
            Reason::NotPackedByDialect => write!(to, "the format does not pack this kind of layer"),
            Reason::Excluded => write!(to, "excluded"),
            Reason::NotDivisible { cols, group } => write!(to, "a group of {group} does not divide its {cols} columns"),
            Reason::NotFloat => write!(to, "its values are not F32, F16 or BF16"),
        }
    }
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is packed.
    Pack(Packing),
    /// It stays (or becomes) plain.
    Keep(Reason),
}

/// One entry and what becomes of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The entry.
    pub entry: Entry,
    /// What becomes of it.
    pub action: Action,
}

impl Step {
    /// The module that owns the entry: its name without `.weight`.
    pub fn module(&self) -> &str {
        module(&self.entry.name)
    }
}

fn module(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// One tensor to write and what becomes of it.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its name and shape in the dialect, and the entries that it is made of.
    pub tensor: Arranged,
    /// What becomes of it.
    pub action: Action,
}

impl Written {
    /// The module that owns the tensor.
    pub fn module(&self) -> &str {
        module(&self.tensor.name)
    }
}

/// What a recipe means for one checkpoint.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One step for each entry, in the checkpoint's order.
    pub steps: Vec<Step>,
    /// The tensors of the output: those of the entries, but for what the dialect's library names or arranges otherwise.
    pub written: Vec<Written>,
    /// What a metal config lists as `modules_to_not_convert`; `None` when transformers' own default says the same.
    pub modules_to_not_convert: Option<Vec<String>>,
}

impl Plan {
    /// What becomes of the entry called `name`.
    pub fn action(&self, name: &str) -> Option<Action> {
        self.steps
            .iter()
            .find(|step| step.entry.name == name)
            .map(|step| step.action)
    }

    /// How many tensors of the output are packed.
    pub fn packed_count(&self) -> usize {
        self.written
            .iter()
            .filter(|written| matches!(written.action, Action::Pack(_)))
            .count()
    }
}

impl Recipe {
    /// Decides every entry.
    ///
    /// # Errors
    /// What the dialect cannot hold, a pattern that is not a regular expression, a recipe that packs nothing.
    pub fn plan(&self, config: &Map<String, Value>, entries: &[Entry]) -> Result<Plan, Error> {
        self.check()?;
        let classifier = Classifier::new(config, entries);
        let exclude = Patterns::new(&self.exclude)?;
        let planner = Planner {
            recipe: self,
            exclude,
            classifier,
            config,
        };
        let plan = match self.target {
            Target::Metal => planner.metal(entries)?,
            Target::Mlx => planner.mlx(entries)?,
        };
        if plan.packed_count() == 0 {
            return Err(Error::Source(format!(
                "none of the {} tensors would be packed: there is no linear layer whose columns a group of {} divides{}",
                entries.len(),
                self.packing.group(),
                if self.exclude.is_empty() {
                    ""
                } else {
                    " and that is not excluded"
                },
            )));
        }
        Ok(plan)
    }
}

struct Planner<'a> {
    recipe: &'a Recipe,
    exclude: Patterns,
    classifier: Classifier,
    config: &'a Map<String, Value>,
}

impl Planner<'_> {
    /// Every entry is a tensor of the output.
    fn metal(&self, entries: &[Entry]) -> Result<Plan, Error> {
        let step = |entry: &Entry| Step {
            entry: entry.clone(),
            action: self.metal_action(entry),
        };
        let mut steps: Vec<Step> = entries.iter().map(step).collect();
        let modules_to_not_convert = self.settle_metal(&mut steps)?;
        let written = steps.iter().enumerate().map(|(index, step)| Written {
            tensor: unchanged(index, &step.entry),
            action: step.action,
        });
        Ok(Plan {
            written: written.collect(),
            steps,
            modules_to_not_convert,
        })
    }

    fn metal_action(&self, entry: &Entry) -> Action {
        let role = self.classifier.role(entry);
        let packs = match role {
            Role::Other | Role::Transposed => return Action::Keep(Reason::NotAMatrix),
            Role::Linear => true,
            Role::Head => self.recipe.include_head,
            // A stack without `.weight` has no module whose scales could stand beside it.
            Role::Expert => self.recipe.include_experts && entry.module().is_some(),
            Role::Embedding | Role::Router | Role::LinearRouter | Role::Single => false,
        };
        let module = module(&entry.name);
        match packs {
            false => Action::Keep(Reason::NotPackedByDialect),
            true if self.exclude.matches(module) => Action::Keep(Reason::Excluded),
            true => match self.choice(module) {
                Choice::Plain => Action::Keep(Reason::Excluded),
                Choice::Pack(packing) => fit(entry, &entry.shape, packing),
            },
        }
    }

    fn mlx(&self, entries: &[Entry]) -> Result<Plan, Error> {
        let tensors = mlx::arrange(self.config, entries).map_err(Error::Source)?;
        let mut steps: Vec<Step> = entries
            .iter()
            .map(|entry| Step {
                entry: entry.clone(),
                action: Action::Keep(Reason::NotAMatrix),
            })
            .collect();
        let mut written = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let action = self.mlx_action(&tensor, entries)?;
            for piece in &tensor.pieces {
                steps[piece.entry].action = action;
            }
            written.push(Written { tensor, action });
        }
        Ok(Plan {
            steps,
            written,
            modules_to_not_convert: None,
        })
    }

    fn mlx_action(&self, tensor: &Arranged, entries: &[Entry]) -> Result<Action, Error> {
        let Some(first) = tensor.pieces.first() else {
            return Ok(Action::Keep(Reason::NotAMatrix));
        };
        let entry = &entries[first.entry];
        let role = self.classifier.role(entry);
        if role == Role::Other || (role == Role::Transposed && !first.view.turned) || !tensor.name.ends_with(".weight")
        {
            return Ok(Action::Keep(Reason::NotAMatrix));
        }
        let name = module(&tensor.name);
        // mlx-lm drops a tied head that is stored all the same, and would stumble over its scales.
        if (role == Role::Head && self.is_tied()) || self.stays_plain(name) {
            return Ok(Action::Keep(Reason::NotPackedByDialect));
        }
        // A user may name a layer as Hugging Face does, or as MLX.
        let choice = |piece: &Piece| {
            let source = module(&entries[piece.entry].name);
            match [name, source].into_iter().any(|name| self.exclude.matches(name)) {
                true => Choice::Plain,
                false => self.mlx_choice(source, name),
            }
        };
        let chosen = choice(first);
        if let Some(other) = tensor.pieces.iter().find(|piece| choice(piece) != chosen) {
            return Err(Error::Inexpressible(format!(
                "all experts of `{name}` are one tensor in MLX, but --exclude or --override tells {} from {}",
                module(&entry.name),
                module(&entries[other.entry].name),
            )));
        }
        Ok(match chosen {
            Choice::Plain => Action::Keep(Reason::Excluded),
            Choice::Pack(packing) => fit(entry, &tensor.shape, packing),
        })
    }

    fn mlx_choice(&self, source: &str, name: &str) -> Choice {
        match self.overridden(source).or_else(|| self.overridden(name)) {
            Some(choice) => choice,
            None => Choice::Pack(mlx_rules::packing(self.model_type(), name).unwrap_or(self.recipe.packing)),
        }
    }

    fn overridden(&self, module: &str) -> Option<Choice> {
        let mut overrides = self.recipe.overrides.iter();
        let found = overrides.find(|exception| exception.pattern.is_match(module).unwrap_or(false));
        found.map(|exception| exception.choice)
    }

    /// Bits and group of a module, before its shape has a say.
    fn choice(&self, module: &str) -> Choice {
        self.overridden(module).unwrap_or(Choice::Pack(self.recipe.packing))
    }

    fn model_type(&self) -> &str {
        self.config
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn stays_plain(&self, module: &str) -> bool {
        let class = self
            .config
            .get("architectures")
            .and_then(|names| names.get(0)?.as_str());
        let generates = class.is_some_and(|class| class.ends_with("ForConditionalGeneration"));
        mlx_rules::is_plain_router(self.model_type(), module) || (generates && mlx_rules::is_not_language(module))
    }

    fn is_tied(&self) -> bool {
        let says = |config: &Map<String, Value>| config.get("tie_word_embeddings").and_then(Value::as_bool);
        let text = self.config.get("text_config").and_then(Value::as_object);
        says(self.config).or_else(|| says(text?)).unwrap_or(false)
    }

    /// A listed name may, as a pattern, match more modules than the one it names: those become plain as well, because
    /// transformers would expect them so.
    fn settle_metal(&self, steps: &mut [Step]) -> Result<Option<Vec<String>>, Error> {
        let roles: Vec<Role> = steps.iter().map(|step| self.classifier.role(&step.entry)).collect();
        if self.recipe.include_head && !roles.contains(&Role::Head) {
            return Err(Error::Inexpressible(
                "there is no output head to pack: it is tied to the embeddings, which the metal format leaves plain; \
                 --format mlx packs both"
                    .to_owned(),
            ));
        }
        let listed =
            |(step, role): (&'_ Step, &Role)| (step.module().to_owned(), *role, matches!(step.action, Action::Pack(_)));
        let layers: Vec<(String, Role, bool)> = steps.iter().zip(&roles).map(listed).collect();
        let layers: Vec<Listed> = layers
            .iter()
            .map(|(module, role, packed)| Listed {
                module,
                role: *role,
                packed: *packed,
            })
            .collect();
        let names = modules_to_not_convert(self.config, &layers, &self.recipe.exclude);
        let patterns = Patterns::new(names.iter().flatten())?;
        for step in steps.iter_mut().filter(|step| matches!(step.action, Action::Pack(_))) {
            if patterns.matches(step.module()) {
                step.action = Action::Keep(Reason::Excluded);
            }
        }
        Ok(names)
    }
}

/// A layer, as the list of exceptions in a metal config sees it.
pub(crate) struct Listed<'a> {
    pub module: &'a str,
    pub role: Role,
    pub packed: bool,
}

/// The list that makes transformers leave plain what is plain here: `asked` for by the user, or plain for another reason.
/// `None` where its own default, which keeps the output head and tied weights, says the same.
pub(crate) fn modules_to_not_convert(
    config: &Map<String, Value>,
    layers: &[Listed],
    asked: &[String],
) -> Option<Vec<String>> {
    let head_packed = layers.iter().any(|layer| layer.role == Role::Head && layer.packed);
    let plain_linear = layers
        .iter()
        .filter(|layer| layer.role == Role::Linear && !layer.packed);
    let mut names: Vec<String> = plain_linear.map(|layer| layer.module.to_owned()).collect();
    if layers.iter().any(|layer| layer.role == Role::LinearRouter) {
        names.push("mlp.router".to_owned()); // as transformers calls it
    }
    if names.is_empty() && asked.is_empty() && !head_packed {
        return None;
    }
    // transformers 5 holds the language model of a multimodal checkpoint under another name than the file.
    let moved = |name: &String| {
        Some(format!(
            "model.language_model.{}",
            name.strip_prefix("language_model.model.")?
        ))
    };
    names.extend(names.iter().filter_map(moved).collect::<Vec<_>>());
    // A name that the user's own patterns cover need not be listed again.
    if let Ok(patterns) = Patterns::new(asked) {
        names.retain(|name| !patterns.matches(name));
    }
    // A tied head has no tensor of its own, and is a linear layer to transformers all the same.
    let plain_heads = layers
        .iter()
        .filter(|layer| layer.role == Role::Head && !layer.packed)
        .map(|layer| layer.module);
    let mut list: Vec<String> = Vec::new();
    let heads = (!head_packed)
        .then_some("lm_head")
        .into_iter()
        .chain(plain_heads)
        .map(str::to_owned)
        .chain(tied_heads(config));
    for name in heads.chain(asked.iter().cloned()).chain(names) {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    Some(list)
}

/// The heads that models other than causal language models may have without a tensor of their own.
fn tied_heads(config: &Map<String, Value>) -> Vec<String> {
    let class = config.get("architectures").and_then(|names| names.get(0)?.as_str());
    if class.is_none_or(|class| class.ends_with("ForCausalLM")) {
        return Vec::new();
    }
    let pattern = |(above, name): &(&str, &str)| match *above {
        "" => format!("{name}$"), // at the top level only
        above => format!("{above}.{name}"),
    };
    TIED_HEADS.iter().map(pattern).collect()
}

/// An entry as a tensor of the output.
pub(crate) fn unchanged(index: usize, entry: &Entry) -> Arranged {
    let piece = Piece {
        entry: index,
        view: View::whole(entry.rows_cols().0),
    };
    Arranged {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        pieces: vec![piece],
    }
}

/// Whether a tensor of this shape, made of this entry, can be packed so.
fn fit(entry: &Entry, shape: &[usize], packing: Packing) -> Action {
    let cols = shape.last().copied().unwrap_or(0);
    let float = match entry.layout {
        Layout::Plain(dtype) => dtype.float_type().is_some(),
        Layout::Packed { .. } => true,
        Layout::Unsupported(_) => false,
    };
    if !float {
        Action::Keep(Reason::NotFloat)
    } else if cols == 0 || !cols.is_multiple_of(packing.group()) {
        Action::Keep(Reason::NotDivisible {
            cols,
            group: packing.group(),
        })
    } else {
        Action::Pack(packing)
    }
}
