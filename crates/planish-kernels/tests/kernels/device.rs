//! What runs the kernels in these tests: the emulation on the processor, or, where `PLANISH_TEST_DEVICE` is `cuda` or `metal`, the
//! GPU of this machine with the queue that models use.

use std::cell::RefCell;
use std::collections::HashMap;
use std::env;
#[cfg(any(target_os = "linux", target_os = "windows"))]
use std::sync::OnceLock;

use planish_gpu::{Argument, Queue, Source};
use planish_kernels::launch::{Features, Launch, Program};

use crate::emulator::Emulator;
pub use crate::emulator::Watch;

/// Runs launches.
pub enum Device {
    Emulated(RefCell<Emulator>),
    #[cfg(any(target_os = "linux", target_os = "windows"))]
    Cuda(Gpu<planish_gpu::CudaQueue>),
    #[cfg(target_vendor = "apple")]
    Metal(Gpu<planish_gpu::MetalQueue>),
}

/// A queue with the kernels that it has compiled.
pub struct Gpu<Q: Queue> {
    queue: Q,
    kernels: RefCell<HashMap<(Program, &'static str), Q::Kernel>>,
}

/// Memory of a device.
pub enum Buffer {
    Host(RefCell<Vec<u8>>),
    #[cfg(any(target_os = "linux", target_os = "windows"))]
    Cuda(planish_gpu::CudaBuffer, usize),
    #[cfg(target_vendor = "apple")]
    Metal(planish_gpu::MetalBuffer, usize),
}

/// A GPU to run the tests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestDevice {
    Cuda,
    Metal,
}

/// Where the tests run: `None` is the emulation.
pub fn chosen() -> Option<TestDevice> {
    match env::var("PLANISH_TEST_DEVICE").as_deref() {
        Err(_) | Ok("" | "emulated") => None,
        Ok("cuda") => Some(TestDevice::Cuda),
        Ok("metal") => Some(TestDevice::Metal),
        Ok(other) => panic!("PLANISH_TEST_DEVICE is {other:?}: neither emulated, cuda nor metal"),
    }
}

/// What the device can do. The emulation can do all, and has the multiprocessors of an H100.
pub fn features() -> Features {
    match chosen() {
        None => Features {
            simdgroup_matrices: true,
            tensor_cores: true,
            warpgroups: true,
            multiprocessors: 132,
        },
        #[cfg(any(target_os = "linux", target_os = "windows"))]
        Some(TestDevice::Cuda) => {
            static ANSWER: OnceLock<Features> = OnceLock::new();
            *ANSWER.get_or_init(|| planish_gpu::CudaQueue::new().expect("a GPU").features())
        }
        #[cfg(target_vendor = "apple")]
        Some(TestDevice::Metal) => planish_gpu::MetalQueue::new().expect("a GPU").features(),
        Some(other) => panic!("this system has no {other:?}"),
    }
}

impl Device {
    /// The chosen one, for these launches.
    pub fn new(launches: &[Launch], watch: Watch) -> Device {
        match chosen() {
            None => Device::Emulated(RefCell::new(Emulator::new(launches, watch))),
            #[cfg(any(target_os = "linux", target_os = "windows"))]
            Some(TestDevice::Cuda) => Device::Cuda(Gpu::new(planish_gpu::CudaQueue::new())),
            #[cfg(target_vendor = "apple")]
            Some(TestDevice::Metal) => Device::Metal(Gpu::new(planish_gpu::MetalQueue::new())),
            Some(other) => panic!("this system has no {other:?}"),
        }
    }

    /// Runs a launch; the buffers come back as the kernel left them.
    pub fn run(&self, launch: &Launch, buffers: &mut [Vec<u8>]) {
        if let Device::Emulated(emulator) = self {
            return emulator.borrow_mut().run(launch, buffers);
        }
        let placed: Vec<Buffer> = buffers.iter().map(|bytes| self.place(bytes)).collect();
        self.run_placed(launch, &placed.iter().collect::<Vec<_>>());
        for (bytes, buffer) in buffers.iter_mut().zip(&placed) {
            *bytes = self.read(buffer);
        }
    }

    /// A buffer with these bytes.
    pub fn place(&self, bytes: &[u8]) -> Buffer {
        match self {
            Device::Emulated(_) => Buffer::Host(RefCell::new(bytes.to_vec())),
            #[cfg(any(target_os = "linux", target_os = "windows"))]
            Device::Cuda(gpu) => Buffer::Cuda(gpu.place(bytes), bytes.len()),
            #[cfg(target_vendor = "apple")]
            Device::Metal(gpu) => Buffer::Metal(gpu.place(bytes), bytes.len()),
        }
    }

    /// Runs a launch over buffers of this device.
    pub fn run_placed(&self, launch: &Launch, buffers: &[&Buffer]) {
        match self {
            Device::Emulated(emulator) => {
                let bytes = |buffer: &&Buffer| match buffer {
                    Buffer::Host(bytes) => bytes.clone().into_inner(),
                    #[allow(unreachable_patterns)]
                    _ => unreachable!("a buffer of another device"),
                };
                let mut all: Vec<Vec<u8>> = buffers.iter().map(bytes).collect();
                emulator.borrow_mut().run(launch, &mut all);
                for (buffer, bytes) in buffers.iter().zip(all) {
                    if let Buffer::Host(place) = buffer {
                        place.replace(bytes);
                    }
                }
            }
            #[cfg(any(target_os = "linux", target_os = "windows"))]
            Device::Cuda(gpu) => gpu.run(launch, buffers, |buffer| match buffer {
                Buffer::Cuda(buffer, _) => buffer,
                _ => unreachable!("a buffer of another device"),
            }),
            #[cfg(target_vendor = "apple")]
            Device::Metal(gpu) => gpu.run(launch, buffers, |buffer| match buffer {
                Buffer::Metal(buffer, _) => buffer,
                _ => unreachable!("a buffer of another device"),
            }),
        }
    }

    /// What a buffer holds.
    pub fn read(&self, buffer: &Buffer) -> Vec<u8> {
        match (self, buffer) {
            (_, Buffer::Host(bytes)) => bytes.borrow().clone(),
            #[cfg(any(target_os = "linux", target_os = "windows"))]
            (Device::Cuda(gpu), Buffer::Cuda(buffer, bytes)) => gpu.read(buffer, *bytes),
            #[cfg(target_vendor = "apple")]
            (Device::Metal(gpu), Buffer::Metal(buffer, bytes)) => gpu.read(buffer, *bytes),
            _ => unreachable!("a buffer of another device"),
        }
    }
}

impl<Q: Queue> Gpu<Q> {
    fn new(queue: Result<Q, planish_gpu::Error>) -> Gpu<Q> {
        Gpu {
            queue: queue.unwrap_or_else(|error| panic!("{error}")),
            kernels: RefCell::default(),
        }
    }

    fn place(&self, bytes: &[u8]) -> Q::Buffer {
        let buffer = self.queue.allocate(bytes.len()).expect("memory of the device");
        self.queue.upload(bytes, &buffer, 0).expect("copying to the device");
        buffer
    }

    fn read(&self, buffer: &Q::Buffer, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.queue
            .download(buffer, 0, &mut bytes)
            .expect("copying from the device");
        bytes
    }

    fn run(&self, launch: &Launch, buffers: &[&Buffer], own: fn(&Buffer) -> &Q::Buffer) {
        assert_eq!(buffers.len(), launch.buffers as usize, "buffers of {}", launch.kernel);
        let mut kernels = self.kernels.borrow_mut();
        let key = (launch.program.clone(), launch.kernel);
        let kernel = kernels.entry(key).or_insert_with(|| {
            let text = launch.program.text(self.queue.language());
            let source = Source {
                name: launch.program.file.name(),
                text: &text,
                entry: launch.kernel,
            };
            self.queue.compile(&source).unwrap_or_else(|error| panic!("{error}"))
        });
        let arguments = buffers.iter().map(|buffer| Argument::Buffer(own(buffer), 0));
        let arguments: Vec<Argument<'_, Q>> = arguments.chain([Argument::Value(&launch.constants)]).collect();
        let launch = planish_gpu::Launch {
            kernel,
            grid: launch.threadgroups,
            threads: [launch.threads, 1, 1],
            threadgroup_bytes: launch.shared_bytes,
            arguments: &arguments,
            overlaps: false,
        };
        self.queue.launch(&launch).unwrap_or_else(|error| panic!("{error}"));
    }
}
