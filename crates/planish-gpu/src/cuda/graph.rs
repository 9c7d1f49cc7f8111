//! Launches on their way to the device: recorded into segments of some dozen steps. A token is mostly the same
//! launches as one before, so a segment seen twice at the same place of a pass becomes a CUDA graph: from then on it
//! costs one call, plus one for every step whose arguments changed. Everything else is launched step by step. Passes of
//! other numbers of rows take turns: the segments of each are kept beside one another.

use std::ops::Range;
use std::os::raw::c_void;
use std::ptr;

use cudarc::driver::{result, sys};

use super::{CudaQueue, pointer_to};
use crate::Launch;

/// Steps of a segment: enough that a graph pays.
const SEGMENT: usize = 48;
/// Of the first one: few enough that the device starts early.
const FIRST_SEGMENT: usize = 12;
/// Places whose segments are remembered; a pass of a model has fewer.
const MOST_PLACES: usize = 256;
/// Segments of one place: of passes of several numbers of rows, and of one-time passes between them.
const MOST_SEGMENTS: usize = 24;

/// One launch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    function: sys::CUfunction,
    grid: [u32; 3],
    threads: [u32; 3],
    shared_bytes: u32,
    arguments: Range<usize>, // of `starts`
    /// It waits itself for what it needs.
    early: bool,
}

/// Launches with their arguments.
#[derive(Default)]
struct Recording {
    steps: Vec<Step>,
    starts: Vec<usize>, // (arguments) first word of each
    words: Vec<u64>,
}

/// A recording and, once it came twice, its graph.
#[derive(Default)]
struct Segment {
    last: Recording,
    graph: Option<Graph>,
}

struct Graph {
    handle: sys::CUgraph,
    executable: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>, // (steps)
}

/// Collects launches.
#[derive(Default)]
pub(super) struct Recorder {
    now: Recording,
    first_argument: usize,
    /// By place, the one that came last first.
    places: Vec<Vec<Segment>>,
    place: usize,
    pointers: Vec<*mut c_void>,
}

type Outcome = Result<(), result::DriverError>;

impl Recording {
    /// Whether only values of arguments differ.
    fn is_like(&self, other: &Recording) -> bool {
        self.steps == other.steps && self.starts == other.starts && self.words.len() == other.words.len()
    }

    /// The words of a step's arguments.
    fn words_of(&self, step: &Step) -> Range<usize> {
        let word = |argument: usize| self.starts.get(argument).copied().unwrap_or(self.words.len());
        word(step.arguments.start)..word(step.arguments.end)
    }

    /// Fills `pointers` with the addresses of a step's arguments.
    fn point(&mut self, step: usize, pointers: &mut Vec<*mut c_void>) {
        pointers.clear();
        for &start in &self.starts[self.steps[step].arguments.clone()] {
            pointers.push(pointer_to(&mut self.words[start]));
        }
    }

    fn parameters(&mut self, step: usize, pointers: &mut Vec<*mut c_void>) -> sys::CUDA_KERNEL_NODE_PARAMS {
        self.point(step, pointers);
        let step = &self.steps[step];
        sys::CUDA_KERNEL_NODE_PARAMS {
            func: step.function,
            gridDimX: step.grid[0],
            gridDimY: step.grid[1],
            gridDimZ: step.grid[2],
            blockDimX: step.threads[0],
            blockDimY: step.threads[1],
            blockDimZ: step.threads[2],
            sharedMemBytes: step.shared_bytes,
            kernelParams: pointers.as_mut_ptr(),
            extra: ptr::null_mut(),
            kern: ptr::null_mut(),
            ctx: ptr::null_mut(),
        }
    }

    fn clear(&mut self) {
        self.steps.clear();
        self.starts.clear();
        self.words.clear();
    }
}

impl Recorder {
    /// The next argument of the step that follows.
    pub(super) fn argument(&mut self, bytes: &[u8]) {
        self.now.starts.push(self.now.words.len());
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.now.words.push(u64::from_le_bytes(padded));
        }
    }

    /// A launch with the arguments since the last one.
    pub(super) fn step(&mut self, launch: &Launch<'_, CudaQueue>) {
        let arguments = self.first_argument..self.now.starts.len();
        self.first_argument = arguments.end;
        self.now.steps.push(Step {
            function: launch.kernel.function,
            grid: launch.grid,
            threads: launch.threads,
            shared_bytes: launch.threadgroup_bytes,
            arguments,
            early: launch.kernel.early,
        });
    }

    pub(super) fn is_full(&self) -> bool {
        self.now.steps.len() >= if self.place == 0 { FIRST_SEGMENT } else { SEGMENT }
    }

    /// Hands everything recorded to the device.
    pub(super) fn submit(&mut self, stream: sys::CUstream) -> Outcome {
        if self.now.steps.is_empty() {
            return Ok(());
        }
        let outcome = self.try_submit(stream);
        self.now.clear();
        self.first_argument = 0;
        self.place += 1;
        outcome
    }

    /// The next launch begins a pass.
    pub(super) fn rewind(&mut self) {
        self.place = 0;
    }

    fn try_submit(&mut self, stream: sys::CUstream) -> Outcome {
        let Recorder {
            now,
            places,
            place,
            pointers,
            ..
        } = self;
        if *place >= MOST_PLACES {
            return launch_each(now, pointers, stream);
        }
        if *place >= places.len() {
            places.resize_with(*place + 1, Vec::new);
        }
        let segments = &mut places[*place];
        let Some(known) = segments.iter().position(|segment| now.is_like(&segment.last)) else {
            let outcome = launch_each(now, pointers, stream);
            remember(segments, std::mem::take(now));
            return outcome;
        };
        segments[..=known].rotate_right(1);
        let segment = &mut segments[0];
        match &segment.graph {
            None => segment.graph = Some(Graph::new(now, pointers)?),
            Some(graph) => graph.update(&segment.last, now, pointers)?,
        }
        std::mem::swap(now, &mut segment.last);
        match &segment.graph {
            // SAFETY: the graph and the stream live.
            Some(graph) => unsafe { result::graph::launch(graph.executable, stream) },
            None => Ok(()),
        }
    }

    /// Frees the graphs. The device must be current and idle.
    pub(super) fn release(&mut self) {
        for segment in self.places.drain(..).flatten() {
            if let Some(graph) = segment.graph {
                graph.release();
            }
        }
    }
}

/// Puts a segment first. For it goes the oldest that has no graph, or the oldest of all.
fn remember(segments: &mut Vec<Segment>, last: Recording) {
    if segments.len() >= MOST_SEGMENTS {
        let plain = segments.iter().rposition(|segment| segment.graph.is_none());
        let oldest = segments.remove(plain.unwrap_or(segments.len() - 1));
        if let Some(graph) = oldest.graph {
            graph.release();
        }
    }
    segments.insert(0, Segment { last, graph: None });
}

fn launch_each(recording: &mut Recording, pointers: &mut Vec<*mut c_void>, stream: sys::CUstream) -> Outcome {
    for index in 0..recording.steps.len() {
        recording.point(index, pointers);
        let step = &recording.steps[index];
        let shape = (step.grid, step.threads, step.shared_bytes);
        start((step.function, step.early), shape, pointers, stream)?;
    }
    Ok(())
}

/// Starts a kernel, which may be one that waits itself for what it needs, with a grid, threads and bytes of shared memory.
pub(super) fn start(
    (function, early): (sys::CUfunction, bool),
    (grid, threads, shared_bytes): ([u32; 3], [u32; 3], u32),
    pointers: &mut [*mut c_void],
    stream: sys::CUstream,
) -> Outcome {
    let mut attribute = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue {
            programmaticStreamSerializationAllowed: 1,
        },
    };
    let config = sys::CUlaunchConfig {
        gridDimX: grid[0],
        gridDimY: grid[1],
        gridDimZ: grid[2],
        blockDimX: threads[0],
        blockDimY: threads[1],
        blockDimZ: threads[2],
        sharedMemBytes: shared_bytes,
        hStream: stream,
        attrs: &mut attribute,
        numAttrs: u32::from(early),
    };
    // SAFETY: the callers of `Queue::launch` and `CudaQueue::launch_on` give arguments that fit the kernel; buffers live until the work
    // is done. Pointers and attribute live through the call.
    unsafe { sys::cuLaunchKernelEx(&config, function, pointers.as_mut_ptr(), ptr::null_mut()) }.result()
}

impl Graph {
    /// A chain of steps.
    fn new(recording: &mut Recording, pointers: &mut Vec<*mut c_void>) -> Result<Graph, result::DriverError> {
        let mut handle = ptr::null_mut();
        // SAFETY: writes one handle.
        unsafe { sys::cuGraphCreate(&mut handle, 0) }.result()?;
        let mut graph = Graph {
            handle,
            executable: ptr::null_mut(),
            nodes: Vec::new(),
        };
        match graph.fill(recording, pointers) {
            Ok(()) => Ok(graph),
            Err(error) => {
                graph.release();
                Err(error)
            }
        }
    }

    fn fill(&mut self, recording: &mut Recording, pointers: &mut Vec<*mut c_void>) -> Outcome {
        for index in 0..recording.steps.len() {
            let parameters = recording.parameters(index, pointers);
            let early = recording.steps[index].early;
            // An early start is told by the edge, and an edge of that kind is added later.
            let before = self.nodes.last().filter(|_| !early);
            let (first, count) = (before.map_or(ptr::null(), ptr::from_ref), usize::from(before.is_some()));
            let mut node = ptr::null_mut();
            // SAFETY: the graph lives; parameters and their pointers live through the call, which copies them.
            unsafe { sys::cuGraphAddKernelNode_v2(&mut node, self.handle, first, count, &parameters) }.result()?;
            if let (true, Some(before)) = (early, self.nodes.last()) {
                self.start_early(before, &node)?;
            }
            self.nodes.push(node);
        }
        // SAFETY: the graph is complete.
        self.executable = unsafe { result::graph::instantiate(self.handle, sys::CUgraphInstantiate_flags_enum(0)) }?;
        Ok(())
    }

    /// `node` may start while `before` still runs.
    fn start_early(&self, before: &sys::CUgraphNode, node: &sys::CUgraphNode) -> Outcome {
        let edge = sys::CUgraphEdgeData {
            from_port: sys::CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC as u8,
            to_port: 0,
            type_: sys::CUgraphDependencyType_enum::CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC as u8,
            reserved: [0; 5],
        };
        // SAFETY: graph and nodes live, and the edge through the call.
        unsafe { sys::cuGraphAddDependencies_v2(self.handle, before, node, &edge, 1) }.result()
    }

    /// Gives steps whose arguments are not those of `last` their new ones.
    fn update(&self, last: &Recording, now: &mut Recording, pointers: &mut Vec<*mut c_void>) -> Outcome {
        for index in 0..now.steps.len() {
            let words = now.words_of(&now.steps[index]);
            if now.words[words.clone()] == last.words[words] {
                continue;
            }
            let parameters = now.parameters(index, pointers);
            // SAFETY: node and graph live; only the values of arguments change. Work under way keeps the old ones.
            unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.executable, self.nodes[index], &parameters) }
                .result()?;
        }
        Ok(())
    }

    fn release(self) {
        // SAFETY: destroyed once; the driver keeps what work under way needs. A failure means a lost device.
        unsafe {
            if !self.executable.is_null() {
                let _ = result::graph::exec_destroy(self.executable);
            }
            let _ = result::graph::destroy(self.handle);
        }
    }
}
