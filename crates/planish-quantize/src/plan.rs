//! For every entry of a checkpoint: is it packed, with which bits and group, or why not. No weight is read.

use std::fmt;

use planish_checkpoint::{Entry, Layout};
use planish_format::Packing;
use serde_json::{Map, Value};

use crate::layers::{Classifier, Role};
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
        self.entry.name.strip_suffix(".weight").unwrap_or(&self.entry.name)
    }
}

/// What a recipe means for one checkpoint.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One step for each entry, in the checkpoint's order.
    pub steps: Vec<Step>,
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

    /// How many entries are packed.
    pub fn packed_count(&self) -> usize {
        self.steps
            .iter()
            .filter(|step| matches!(step.action, Action::Pack(_)))
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
        let mut steps: Vec<Step> = entries
            .iter()
            .map(|entry| Step {
                entry: entry.clone(),
                action: planner.action(entry),
            })
            .collect();
        let modules_to_not_convert = match self.target {
            Target::Metal => planner.settle_metal(&mut steps)?,
            Target::Mlx => None,
        };
        let plan = Plan {
            steps,
            modules_to_not_convert,
        };
        if plan.packed_count() == 0 {
            return Err(Error::Source(format!(
                "none of the {} tensors would be packed: there is no linear layer whose columns a group of {} divides{}",
                plan.steps.len(),
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
    fn action(&self, entry: &Entry) -> Action {
        let role = self.classifier.role(entry);
        if matches!(role, Role::Other | Role::Transposed) {
            return Action::Keep(Reason::NotAMatrix);
        }
        let module = entry.name.strip_suffix(".weight").unwrap_or(&entry.name);
        let by_dialect = match self.recipe.target {
            Target::Metal => role == Role::Linear || (role == Role::Head && self.recipe.include_head),
            // mlx-lm drops a tied head that is stored all the same, and would stumble over its scales.
            Target::Mlx => !(role == Role::Head && self.is_tied()),
        };
        if !by_dialect {
            return Action::Keep(Reason::NotPackedByDialect);
        }
        if self.exclude.matches(module) {
            return Action::Keep(Reason::Excluded);
        }
        match self.choice(module) {
            Choice::Plain => Action::Keep(Reason::Excluded),
            Choice::Pack(packing) => fit(entry, packing),
        }
    }

    /// Bits and group of a module, before its shape has a say.
    fn choice(&self, module: &str) -> Choice {
        let mut overrides = self.recipe.overrides.iter();
        if let Some(found) = overrides.find(|exception| exception.pattern.is_match(module).unwrap_or(false)) {
            return found.choice;
        }
        let insisted = match self.recipe.target {
            Target::Metal => None,
            Target::Mlx => mlx_rules::packing(self.model_type(), module),
        };
        Choice::Pack(insisted.unwrap_or(self.recipe.packing))
    }

    fn model_type(&self) -> &str {
        self.config
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn is_tied(&self) -> bool {
        self.config
            .get("tie_word_embeddings")
            .and_then(Value::as_bool)
            .unwrap_or(false)
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
        let names = modules_to_not_convert(&layers, &self.recipe.exclude);
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
pub(crate) fn modules_to_not_convert(layers: &[Listed], asked: &[String]) -> Option<Vec<String>> {
    let head_packed = layers.iter().any(|layer| layer.role == Role::Head && layer.packed);
    let plain_linear = layers
        .iter()
        .filter(|layer| layer.role == Role::Linear && !layer.packed);
    let mut names: Vec<String> = plain_linear.map(|layer| layer.module.to_owned()).collect();
    if names.is_empty() && asked.is_empty() && !head_packed {
        return None;
    }
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
        .map(str::to_owned);
    for name in heads.chain(asked.iter().cloned()).chain(names) {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    Some(list)
}

fn fit(entry: &Entry, packing: Packing) -> Action {
    let cols = entry.shape.last().copied().unwrap_or(0);
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
