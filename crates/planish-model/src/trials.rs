//! A model whose weights are tried in other forms, a few at a time: how much does packing this one alone change the logits?

use std::collections::{HashMap, HashSet};

use planish_checkpoint::Checkpoint;
use planish_format::Packing;
use planish_quantize::Recipe;

use crate::batch::Row;
use crate::model::checkpoint_source;
use crate::source::CheckpointSource;
use crate::{Architecture, Device, Error, LoadOptions, Model};

/// A model on the processor, and pieces of text that go through it once for each trial. Trials that go on from the input to the output
/// of the model ([`Trials::place`]) compute what comes before their weights only once.
pub struct Trials<'a> {
    checkpoint: &'a Checkpoint,
    architecture: Architecture,
    options: LoadOptions,
    model: Model,
}

impl<'a> Trials<'a> {
    /// Loads the model as it is stored; `options.quantize` and `options.device` are not used.
    ///
    /// # Errors
    /// As [`Model::load`]; a piece that the context cannot hold or that has a token outside of the vocabulary.
    pub fn new(checkpoint: &'a Checkpoint, options: &LoadOptions, pieces: &[Vec<u32>]) -> Result<Trials<'a>, Error> {
        let options = LoadOptions {
            device: Device::Cpu,
            quantize: None,
            tap: None,
            ..options.clone()
        };
        let mut model = Model::load(checkpoint, &options)?;
        model.begin_trials(pieces)?;
        Ok(Trials {
            checkpoint,
            architecture: model.architecture().clone(),
            options,
            model,
        })
    }

    /// The first part of the model that reads one of these entries, counted from its input, and how many parts there are; `None`
    /// where none does.
    pub fn place(&self, entries: &[&str]) -> Option<(usize, usize)> {
        let parts = self.parts_that_read(|name| entries.contains(&name));
        Some((*parts.first()?, self.model.parts().len()))
    }

    fn parts_that_read(&self, reads: impl Fn(&str) -> bool) -> Vec<usize> {
        let parts = self.model.parts().iter().enumerate();
        let reading = parts.filter(|(_, names)| names.iter().any(|name| reads(name)));
        reading.map(|(part, _)| part).collect()
    }

    /// The logits of the model as it is, after every token of every piece: [`Row::chunk`] is the piece.
    ///
    /// # Errors
    /// A file that was cut meanwhile.
    pub fn reference(&mut self, each: &mut dyn FnMut(Row<'_>)) -> Result<(), Error> {
        let source = checkpoint_source(self.checkpoint, &self.architecture.prefix_aliases, &self.options)?;
        self.model.run_trial(&[], &source, each)
    }

    /// The logits with these entries packed by the rule of `recipe`.
    ///
    /// # Errors
    /// A weight that cannot be packed so, a file that was cut meanwhile.
    pub fn run(
        &mut self,
        recipe: &Recipe,
        packings: HashMap<String, Packing>,
        each: &mut dyn FnMut(Row<'_>),
    ) -> Result<(), Error> {
        let names: HashSet<String> = packings.keys().cloned().collect();
        let parts = self.parts_that_read(|name| names.contains(name));
        let aliases = &self.architecture.prefix_aliases;
        let source = CheckpointSource::packing(self.checkpoint, aliases, (recipe, packings), self.options.exact);
        self.model.run_trial(&parts, &source, each)
    }
}
