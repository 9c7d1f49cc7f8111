//! What helps, in the words of the command line. The library's errors name no flags and commands; a hint continues their message.

use planish::{CheckpointError, DeviceError, Error, GenerateError, HubError, ModelError, QuantizeError, Remedy};

/// The message of an error that ended a command, with its hint.
pub fn describe(error: &anyhow::Error) -> String {
    let hint = match error.downcast_ref::<Error>() {
        Some(error) => hint(error),
        None => error
            .downcast_ref::<QuantizeError>()
            .and_then(quantize)
            .or_else(|| error.downcast_ref::<DeviceError>().map(device))
            .or_else(|| error.downcast_ref::<planish_server::Error>().and_then(server)),
    };
    let mut message = error.to_string();
    // Some errors tell their cause themselves.
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    format!("{message}{}", hint.unwrap_or_default())
}

/// The message of an error of the library, with its hint.
pub fn with_hint(error: &Error) -> String {
    format!("{error}{}", hint(error).unwrap_or_default())
}

/// What to add to the message.
fn hint(error: &Error) -> Option<String> {
    match error {
        Error::Hub(error) => hub(error),
        Error::Checkpoint(error) => checkpoint(error),
        Error::Quantize(error) => quantize(error),
        Error::Model(error) => model(error),
        Error::Generate(GenerateError::Checkpoint(error)) => checkpoint(error),
        Error::Generate(GenerateError::Model(error)) => model(error),
        Error::NoChatTemplate => Some(" (`planish generate` continues texts)".to_owned()),
        Error::ShortText { .. } => Some(" (--context)".to_owned()),
        Error::Context { .. } => Some(" (--prompt-tokens, --generate-tokens, --depth, --batch)".to_owned()),
        _ => None,
    }
}

fn server(error: &planish_server::Error) -> Option<String> {
    match error {
        planish_server::Error::Open { .. } => Some(" (--api-key or --open)".to_owned()),
        planish_server::Error::Listen { .. } => Some(" (--host, --port)".to_owned()),
        _ => None,
    }
}

fn hub(error: &HubError) -> Option<String> {
    match error {
        HubError::RevisionOfLocal { .. } => Some("; leave --revision out".to_owned()),
        _ => None,
    }
}

fn checkpoint(error: &CheckpointError) -> Option<String> {
    match error {
        CheckpointError::Hub(error) => hub(error),
        CheckpointError::OutputExists { .. } => Some(", or --force to replace it".to_owned()),
        CheckpointError::OtherRun { .. } => Some(" (without --resume it is begun anew)".to_owned()),
        CheckpointError::OutputNotAModel { .. } => Some(" even with --force".to_owned()),
        _ => None,
    }
}

fn quantize(error: &QuantizeError) -> Option<String> {
    match error {
        QuantizeError::Checkpoint(error) => checkpoint(error),
        QuantizeError::MetalOverrides => Some(": use --format mlx, or --exclude to keep layers plain".to_owned()),
        QuantizeError::Inexpressible { remedy, .. } | QuantizeError::Source { remedy, .. } => remedy.and_then(cure),
        QuantizeError::NonFinite { .. } => Some(", or pass --allow-nan to go on all the same".to_owned()),
        QuantizeError::Overflow { .. } => Some(" with --dtype, or --clamp for the largest that it holds".to_owned()),
        QuantizeError::BeyondMode { .. } => Some(", or --clamp for the largest that it holds".to_owned()),
        QuantizeError::Scale { .. } => Some(" with --dtype".to_owned()),
        QuantizeError::Device(error) => error.downcast_ref::<DeviceError>().map(device),
        _ => None,
    }
}

fn cure(remedy: Remedy) -> Option<String> {
    let words = match remedy {
        Remedy::Dialect(target) => format!(", or --format {}", target.name()),
        Remedy::PackBoth(target) => format!("; --format {} packs both", target.name()),
        Remedy::Dequantize => ": `planish dequantize` it".to_owned(),
        Remedy::Requantize(target) => {
            format!(
                ": `planish dequantize` it, then `planish quantize --format {}`",
                target.name()
            )
        }
        Remedy::QuantizeAnew => ": `planish dequantize` it, then `planish quantize` it anew".to_owned(),
        Remedy::QuantizePlain(target) => {
            format!(
                ": quantize the plain checkpoint with `planish quantize --format {}`",
                target.name()
            )
        }
        Remedy::Quantize(target) => {
            format!(": make a packed one with `planish quantize --format {}`", target.name())
        }
        Remedy::StartFromPlain => {
            ": quantize the plain checkpoint it was made from, `planish dequantize` it first, or change \
             its dialect with `planish convert`"
                .to_owned()
        }
        Remedy::ChangeType => ": --dtype would change the type of its tensors".to_owned(),
        Remedy::SameException => ": change --exclude or --override".to_owned(),
        Remedy::OtherRecipe => ": choose another --recipe, or widths by --override".to_owned(),
        _ => return None,
    };
    Some(words)
}

fn model(error: &ModelError) -> Option<String> {
    match error {
        ModelError::Checkpoint(error) => checkpoint(error),
        ModelError::Quantize(error) => quantize(error),
        ModelError::Device(error) => error.downcast_ref::<DeviceError>().map(device),
        ModelError::DeviceAbsent { .. } | ModelError::NoQuantizing { .. } => Some("; use --device cpu".to_owned()),
        ModelError::Threads { .. } => Some(" (--threads)".to_owned()),
        ModelError::CacheType { .. } => Some(" (--cache); use --device cpu".to_owned()),
        _ => None,
    }
}

fn device(error: &DeviceError) -> String {
    let cpu = "compute with --device cpu";
    match error {
        DeviceError::NoKernel { .. } => format!(": {cpu}"),
        DeviceError::OutOfMemory { .. } => format!(" (--bits 4), or {cpu}"),
        DeviceError::Lost { .. } => format!(": start planish again; if it happens again, {cpu}"),
        // The compiler's log ends the message.
        DeviceError::Compile { .. } => format!("\n{cpu} until then"),
        DeviceError::Call { .. } => format!("; {cpu} until then"),
        _ => format!(", or {cpu}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_of_a_device_names_the_processor() {
        let lost = DeviceError::Lost {
            device: "GPU".to_owned(),
            reason: "unplugged".to_owned(),
        };
        let errors = [
            DeviceError::NoDriver { vendor: "NVIDIA" },
            DeviceError::NoCompiler,
            DeviceError::NoKernel { operation: "sorting" },
            lost,
        ];
        for error in errors {
            let plain = error.to_string();
            assert!(!plain.contains("--"), "{plain}");
            let wrapped = Error::Model(ModelError::Device(Box::new(error.clone())));
            for told in [describe(&anyhow::Error::from(wrapped)), describe(&error.into())] {
                assert!(told.starts_with(&plain) && told.contains("--device cpu"), "{told}");
            }
        }
    }

    #[test]
    fn hints_are_found_behind_what_was_being_done() {
        let error = Error::Checkpoint(CheckpointError::OutputExists { path: "out".into() });
        let error = anyhow::Error::from(error).context("writing");
        let told = describe(&error);
        assert_eq!(
            told,
            "writing: out: exists already; give another folder, or --force to replace it"
        );
    }
}
