//! A model opened by name: a folder, a `.gguf` file, or a Hub id that is fetched first. Headers are read, weights are not.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use planish_checkpoint::Checkpoint;
use planish_checkpoint::hub::{self, Download, Settings, resolve_with};
use planish_model::Architecture;

use crate::Error;

/// An opened model: what is loaded, quantized, converted or inspected.
pub struct Source {
    checkpoint: Checkpoint,
    hub_id: Option<String>,
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Source");
        text.field("path", &self.checkpoint.path())
            .field("hub_id", &self.hub_id);
        text.finish_non_exhaustive()
    }
}

impl Source {
    /// Opens `model`: a local folder, a `.gguf` file, or a Hub id (`org/name`), which is downloaded quietly unless it is in the
    /// cache.
    ///
    /// # Errors
    /// What is missing or malformed; see [`Error`].
    pub fn open(model: &str) -> Result<Source, Error> {
        Source::open_revision(model, None, &mut |_| {})
    }

    /// Opens a branch, tag or commit of a Hub model (`None` is `main`), reporting the download as it goes.
    ///
    /// # Errors
    /// As [`Source::open`]; a revision of a local path.
    pub fn open_revision(
        model: impl AsRef<OsStr>,
        revision: Option<&str>,
        on_download: &mut dyn FnMut(Download),
    ) -> Result<Source, Error> {
        Source::open_as(model, revision, None, on_download)
    }

    /// The same for who has this token of the Hub, in place of the one that the environment names.
    ///
    /// # Errors
    /// As [`Source::open_revision`].
    pub fn open_as(
        model: impl AsRef<OsStr>,
        revision: Option<&str>,
        token: Option<&str>,
        on_download: &mut dyn FnMut(Download),
    ) -> Result<Source, Error> {
        let Some(model) = model.as_ref().to_str() else {
            // No name of the Hub.
            return Source::open_path(Path::new(model.as_ref()));
        };
        let hub_id = hub::repository(model);
        let mut settings = Settings::from_environment();
        if let Some(token) = token {
            settings.token = Some(token.to_owned());
        }
        let path = resolve_with(&settings, model, revision, on_download)?;
        Ok(Source {
            checkpoint: Checkpoint::open(&path)?,
            hub_id,
        })
    }

    /// Opens a local folder or `.gguf` file, whatever its name.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_path(path: &Path) -> Result<Source, Error> {
        Ok(Source {
            checkpoint: Checkpoint::open(path)?,
            hub_id: None,
        })
    }

    /// Opens the small story model that the library carries inside.
    ///
    /// # Errors
    /// As [`Checkpoint::from_memory`].
    #[cfg(feature = "demo-model")]
    pub fn demo() -> Result<Source, Error> {
        Ok(Source {
            checkpoint: crate::demo_checkpoint()?,
            hub_id: None,
        })
    }

    /// The same model with the adapter in `folder` (PEFT's LoRA or DoRA, mlx-lm's): merged into its weights as they are read, but run beside
    /// packed ones.
    ///
    /// # Errors
    /// As [`Checkpoint::adapted`].
    pub fn adapted(self, folder: &Path) -> Result<Source, Error> {
        let Source { checkpoint, hub_id } = self;
        Ok(Source {
            checkpoint: checkpoint.adapted(folder)?,
            hub_id,
        })
    }

    /// The Hub id `org/name`, if the model came from the Hub.
    pub fn hub_id(&self) -> Option<&str> {
        self.hub_id.as_deref()
    }

    /// The named weights and the files beside them.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What the model is made of, if its family can be run.
    ///
    /// # Errors
    /// [`planish_model::Error`] names the architecture or the key of config.json that is not known.
    pub fn architecture(&self) -> Result<Architecture, Error> {
        Ok(Architecture::of(&self.checkpoint)?)
    }

    /// Refuses a model that says more layers than it holds tensors of; one of another family, or none, passes.
    ///
    /// # Errors
    /// [`planish_model::Error::Layers`].
    pub fn check_layers(&self) -> Result<(), Error> {
        match self.architecture() {
            Err(error @ Error::Model(planish_model::Error::Layers { .. })) => Err(error),
            _ => Ok(()),
        }
    }
}
