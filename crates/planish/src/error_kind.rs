//! Whose fault an error is, for callers who tell errors apart by class, as Python does.

use std::io;

use planish_checkpoint::hub::HubError;
use planish_generate::Error as GenerateError;
use planish_gpu::Error as DeviceError;
use planish_model::Error as ModelError;
use planish_quantize::Error as QuantizeError;

use crate::Error;

/// The class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file or folder that is not there.
    NotFound,
    /// A value that is not allowed, or a file whose content contradicts its format.
    Value,
    /// A valid file or request that planish does not handle.
    Unsupported,
    /// The Hub says no, or cannot be reached.
    Hub,
    /// The memory ran out, here or on a device.
    Memory,
    /// The file system says no.
    System,
    /// The device failed or is not there.
    Device,
    /// The caller asked for an end.
    Stopped,
}

impl Error {
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Hub(error) => hub(error),
            Error::Checkpoint(error) => checkpoint(error),
            Error::Quantize(error) => quantize(error),
            Error::Model(error) => model(error),
            Error::Generate(error) => generate(error),
            Error::Memory(_) => ErrorKind::Memory,
            Error::NoTokenizer { found: None } => ErrorKind::NotFound,
            Error::NoTokenizer { found: Some(_) } => ErrorKind::Unsupported,
            Error::Packing(_)
            | Error::Config { .. }
            | Error::NoChatTemplate
            | Error::ShortText { .. }
            | Error::Context { .. }
            | Error::Sensitivities { .. }
            | Error::Widths { .. }
            | Error::Task { .. }
            | Error::Choice { .. }
            | Error::Vocabularies { .. } => ErrorKind::Value,
        }
    }
}

fn system(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::OutOfMemory => ErrorKind::Memory,
        _ => ErrorKind::System,
    }
}

fn hub(error: &HubError) -> ErrorKind {
    match error {
        HubError::NotFoundLocally { .. } => ErrorKind::NotFound,
        HubError::RevisionOfLocal { .. } => ErrorKind::Value,
        HubError::Cache { source, .. } => system(source),
        _ => ErrorKind::Hub,
    }
}

fn checkpoint(error: &planish_checkpoint::Error) -> ErrorKind {
    use planish_checkpoint::Error as CheckpointError;
    match error {
        CheckpointError::Io { source, .. } => system(source),
        CheckpointError::Missing { .. } => ErrorKind::NotFound,
        CheckpointError::Hub(error) => hub(error),
        CheckpointError::Unsupported { .. } => ErrorKind::Unsupported,
        CheckpointError::OutputExists { .. }
        | CheckpointError::OutputNotAModel { .. }
        | CheckpointError::Output { .. }
        | CheckpointError::Changed { .. } => ErrorKind::System,
        CheckpointError::Memory(_) => ErrorKind::Memory,
        _ => ErrorKind::Value,
    }
}

fn quantize(error: &QuantizeError) -> ErrorKind {
    match error {
        QuantizeError::Checkpoint(error) => checkpoint(error),
        QuantizeError::Memory(_) => ErrorKind::Memory,
        QuantizeError::Stopped { .. } => ErrorKind::Stopped,
        QuantizeError::Device(error) => device(&**error),
        _ => ErrorKind::Value,
    }
}

fn model(error: &ModelError) -> ErrorKind {
    match error {
        ModelError::Checkpoint(error) => checkpoint(error),
        ModelError::Quantize(error) => quantize(error),
        ModelError::Memory(_) => ErrorKind::Memory,
        ModelError::UnknownArchitecture { .. } | ModelError::TensorType { .. } | ModelError::NoQuantizing { .. } => {
            ErrorKind::Unsupported
        }
        ModelError::Device(error) => device(&**error),
        ModelError::DeviceAbsent { .. } => ErrorKind::Device,
        _ => ErrorKind::Value,
    }
}

fn generate(error: &GenerateError) -> ErrorKind {
    match error {
        GenerateError::MissingFile { .. } => ErrorKind::NotFound,
        GenerateError::UnsupportedTokenizer { .. } => ErrorKind::Unsupported,
        GenerateError::Checkpoint(error) => checkpoint(error),
        GenerateError::Model(error) => model(error),
        _ => ErrorKind::Value,
    }
}

fn device(error: &(dyn std::error::Error + Send + Sync + 'static)) -> ErrorKind {
    match error.downcast_ref() {
        Some(DeviceError::OutOfMemory { .. }) => ErrorKind::Memory,
        Some(DeviceError::NoKernel { .. }) => ErrorKind::Unsupported,
        _ => ErrorKind::Device,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{AutoModelForCausalLM, GenerationConfig, Source};

    #[test]
    fn errors_have_the_class_of_their_cause() {
        let opened = |name: &str| Source::open(name).map(|_| ()).unwrap_err().kind();
        assert_eq!(opened("./no/such/folder"), ErrorKind::NotFound);
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let here = |path: &Path| opened(path.to_str().unwrap());
        assert_eq!(here(folder.path()), ErrorKind::NotFound, "no config.json");
        write("config.json", "{");
        assert_eq!(here(folder.path()), ErrorKind::Value, "no JSON");
        let model = AutoModelForCausalLM::demo().load().unwrap();
        let failed = |prompt: &[u32]| model.generate(prompt, &GenerationConfig::default()).unwrap_err().kind();
        assert_eq!(failed(&[]), ErrorKind::Value);
        assert_eq!(failed(&[u32::MAX]), ErrorKind::Value);
        let revision = Source::open_revision(folder.path().to_str().unwrap(), Some("main"), &mut |_| {});
        assert_eq!(revision.map(|_| ()).unwrap_err().kind(), ErrorKind::Value);
        let unknown = ModelError::UnknownArchitecture {
            found: "Other".to_owned(),
            known: Vec::new(),
        };
        assert_eq!(Error::Model(unknown).kind(), ErrorKind::Unsupported);
        let full = DeviceError::OutOfMemory {
            device: "a GPU".to_owned(),
            needed_bytes: 1,
            free_bytes: 0,
            total_bytes: 1,
        };
        assert_eq!(Error::Model(ModelError::Device(full.into())).kind(), ErrorKind::Memory);
    }
}
