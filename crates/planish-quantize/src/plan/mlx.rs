//! The plan for MLX: the tensors that mlx-lm's model has, some of them packed as it insists.

use planish_checkpoint::mlx::{self, Arranged};
use planish_checkpoint::{Entry, Part};
use planish_format::Packing;
use serde_json::Value;

use super::{Plan, Planner, Reason, fit, module};
use crate::layers::Role;
use crate::{Error, Remedy, mlx_rules, tied};

impl Planner<'_> {
    pub(super) fn mlx(&self, entries: &[Entry]) -> Result<Plan, Error> {
        let tensors = mlx::arrange(self.config, entries).map_err(|what| Error::source(what, None))?;
        let decided = |tensor: Arranged| {
            let packing = self.mlx_packing(&tensor, entries)?;
            let entry = &entries[tensor.parts[0].entry];
            Ok(self.decided(tensor, entry, packing))
        };
        Ok(Plan {
            tensors: tensors.into_iter().map(decided).collect::<Result<_, Error>>()?,
            modules_to_not_convert: None,
        })
    }

    fn mlx_packing(&self, tensor: &Arranged, entries: &[Entry]) -> Result<Result<Packing, Reason>, Error> {
        let first = &tensor.parts[0];
        let entry = &entries[first.entry];
        let role = self.classifier.role(entry);
        if role == Role::Other
            || (role == Role::Transposed && !first.view.transposed)
            || !tensor.name.ends_with(".weight")
        {
            return Ok(Err(Reason::NotAMatrix));
        }
        let name = module(&tensor.name);
        // mlx-lm drops a tied head that is stored all the same, and would stumble over its scales.
        if (role == Role::Head && tied::is_tied(self.config)) || self.stays_plain(name) {
            return Ok(Err(Reason::NotPackedByDialect));
        }
        // A user may name a layer as Hugging Face does, or as MLX.
        let choice = |part: &Part| {
            let source = module(&entries[part.entry].name);
            match [name, source].into_iter().any(|name| self.exclude.matches(name)) {
                true => None,
                false => self.mlx_choice(source, name),
            }
        };
        let chosen = choice(first);
        if let Some(other) = tensor.parts.iter().find(|part| choice(part) != chosen) {
            let what = format!(
                "all experts of `{name}` are one tensor in MLX, but an exception tells {} from {}",
                module(&entry.name),
                module(&entries[other.entry].name),
            );
            return Err(Error::inexpressible(what, Remedy::SameException));
        }
        Ok(match chosen {
            None => Err(Reason::Excluded),
            Some(packing) => {
                fit(entry, &tensor.shape, packing).and_then(|packing| self.fit_floats(&tensor.shape, packing))
            }
        })
    }

    /// `None` for a layer that stays plain.
    fn mlx_choice(&self, source: &str, name: &str) -> Option<Packing> {
        let allocated = |name| self.recipe.allocation.as_ref()?.of(name);
        let overridden = self.overridden(source).or_else(|| self.overridden(name));
        match overridden.or_else(|| allocated(source)).or_else(|| allocated(name)) {
            Some(choice) => choice,
            None => Some(mlx_rules::packing(self.model_type(), name).unwrap_or(self.recipe.packing)),
        }
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
}
