//! For every entry of a checkpoint: is it packed, with which bits and group, or why not. No weight is read.

use std::fmt;

use planish_checkpoint::{Dtype, Entry, Layout};
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

    /// The list that makes transformers leave plain what is plain here. A listed name may, as a pattern, match more modules
    /// than the one it names: those become plain as well, because transformers would expect them so.
    fn settle_metal(&self, steps: &mut [Step]) -> Result<Option<Vec<String>>, Error> {
        let is_linear = |step: &Step| matches!(self.classifier.role(&step.entry), Role::Linear | Role::Head);
        let plain = |step: &&Step| matches!(step.action, Action::Keep(_)) && is_linear(step);
        let is_default = |step: &&Step| matches!(step.action, Action::Keep(Reason::NotPackedByDialect));
        let default_suffices = steps.iter().filter(plain).all(|step| is_default(&step)) && !self.recipe.include_head;
        if default_suffices && self.recipe.exclude.is_empty() {
            return Ok(None);
        }
        let mut names: Vec<String> = Vec::new();
        if !self.recipe.include_head {
            names.push("lm_head".to_owned());
        }
        let excluded_by_pattern = |step: &Step| self.exclude.matches(step.module());
        let by_name = steps
            .iter()
            .filter(plain)
            .filter(|step| !excluded_by_pattern(step))
            .map(|step| step.module().to_owned());
        names.extend(self.recipe.exclude.iter().cloned().chain(by_name));
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let listed = Patterns::new(&names)?;
        for step in steps.iter_mut().filter(|step| matches!(step.action, Action::Pack(_))) {
            if listed.matches(step.module()) {
                step.action = Action::Keep(Reason::Excluded);
            }
        }
        Ok(Some(names))
    }
}

fn fit(entry: &Entry, packing: Packing) -> Action {
    let cols = entry.shape.last().copied().unwrap_or(0);
    let float = match entry.layout {
        Layout::Plain(dtype) => matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16),
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
