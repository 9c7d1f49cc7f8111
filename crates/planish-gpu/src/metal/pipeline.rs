//! Kernel text to a pipeline. The machine code is kept in a binary archive, one file for each kernel.

use std::path::Path;

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2::{msg_send, sel};
use objc2_foundation::{NSArray, NSError, NSProcessInfo, NSString, NSURL};
use objc2_metal::{
    MTLBinaryArchive, MTLBinaryArchiveDescriptor, MTLCompileOptions, MTLComputePipelineDescriptor,
    MTLComputePipelineState, MTLDevice, MTLLanguageVersion, MTLLibrary, MTLMathMode, MTLPipelineOption,
};

use crate::{CodeCache, Error, Source};

type Archive = Retained<ProtocolObject<dyn MTLBinaryArchive>>;

/// A compiled kernel.
pub struct MetalKernel {
    pub(super) pipeline: Retained<ProtocolObject<dyn MTLComputePipelineState>>,
}

pub(super) fn compile(
    device: &ProtocolObject<dyn MTLDevice>,
    device_name: &str,
    cache: &CodeCache,
    source: &Source<'_>,
) -> Result<MetalKernel, Error> {
    autoreleasepool(|_| compile_in_pool(device, device_name, cache, source))
}

fn compile_in_pool(
    device: &ProtocolObject<dyn MTLDevice>,
    device_name: &str,
    cache: &CodeCache,
    source: &Source<'_>,
) -> Result<MetalKernel, Error> {
    let refuse = |log: String| Error::Compile {
        name: source.name.to_owned(),
        device: device_name.to_owned(),
        log,
    };
    let in_words = |error: Retained<NSError>| refuse(error.localizedDescription().to_string());
    let text = NSString::from_str(source.text);
    let library = device
        .newLibraryWithSource_options_error(&text, Some(&options()))
        .map_err(in_words)?;
    let function = library
        .newFunctionWithName(&NSString::from_str(source.entry))
        .ok_or_else(|| refuse(format!("the text has no kernel {}", source.entry)))?;
    let descriptor = MTLComputePipelineDescriptor::new();
    descriptor.setComputeFunction(Some(&function));
    let system = NSProcessInfo::processInfo().operatingSystemVersionString().to_string();
    let file = cache.file(&["metal", &system, device_name, source.entry, source.text]);
    let known = file
        .as_deref()
        .filter(|file| file.exists())
        .and_then(|file| archive(device, Some(file)));
    if let Some(archive) = &known {
        descriptor.setBinaryArchives(Some(&NSArray::from_slice(&[&**archive])));
    }
    let pipeline = device
        .newComputePipelineStateWithDescriptor_options_reflection_error(&descriptor, MTLPipelineOption::empty(), None)
        .map_err(in_words)?;
    if let (None, Some(file)) = (known, file) {
        keep(device, &descriptor, &file);
    }
    Ok(MetalKernel { pipeline })
}

/// Floats are computed as written: the results are compared with other implementations.
fn options() -> Retained<MTLCompileOptions> {
    let options = MTLCompileOptions::new();
    options.setLanguageVersion(MTLLanguageVersion::Version3_0);
    // SAFETY: asks whether a method exists.
    let has_modes: bool = unsafe { msg_send![&*options, respondsToSelector: sel!(setMathMode:)] };
    if has_modes {
        options.setMathMode(MTLMathMode::Safe);
    } else {
        // macOS 13 and 14 have only this one.
        #[allow(deprecated)]
        options.setFastMathEnabled(false);
    }
    options
}

fn archive(device: &ProtocolObject<dyn MTLDevice>, file: Option<&Path>) -> Option<Archive> {
    let descriptor = MTLBinaryArchiveDescriptor::new();
    if let Some(file) = file {
        descriptor.setUrl(Some(&url(file)));
    }
    device.newBinaryArchiveWithDescriptor_error(&descriptor).ok()
}

/// Writes the archive of one pipeline. The file appears whole or not at all; without it the next start compiles again.
fn keep(device: &ProtocolObject<dyn MTLDevice>, descriptor: &MTLComputePipelineDescriptor, file: &Path) {
    let Some(archive) = archive(device, None) else { return };
    let Some(folder) = file.parent().and_then(|folder| tempfile::tempdir_in(folder).ok()) else {
        return;
    };
    let unfinished = folder.path().join("archive");
    let written = archive
        .addComputePipelineFunctionsWithDescriptor_error(descriptor)
        .and_then(|()| archive.serializeToURL_error(&url(&unfinished)));
    if written.is_ok() {
        // Another process may have been first: its file is as good.
        let _ = std::fs::rename(&unfinished, file);
    }
}

fn url(path: &Path) -> Retained<NSURL> {
    NSURL::fileURLWithPath(&NSString::from_str(&path.to_string_lossy()))
}
