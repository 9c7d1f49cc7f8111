//! The emulation's own tests: kernels with a fault each, which it must find and name.

use planish_kernels::launch::{File, Launch, Program};

use crate::emulator::{Emulator, Watch};

const THREADS: u32 = 64;
/// Floats of each of the two buffers.
const COUNT: usize = 64;

/// A kernel `fault` over an input and an output, (COUNT) of f32 each.
macro_rules! text {
    ($body:literal) => {
        &[concat!(
            "struct FaultProblem { uint count; };\n",
            "KERNEL(fault)(device float* input [[buffer(0)]], device float* output [[buffer(1)]], PROBLEM(FaultProblem, 2)) {\n",
            $body,
            "\n}\n"
        )]
    };
}

struct Fault {
    name: &'static str,
    texts: &'static [&'static str],
    watch: Watch,
    /// Words of the report.
    report: &'static str,
}

const FAULTS: [Fault; 11] = [
    Fault {
        name: "two threads write one value",
        texts: text!("output[thread_index / 2] = input[thread_index];"),
        watch: Watch::Races,
        report: "data race",
    },
    Fault {
        name: "no barrier between a write of threadgroup memory and a read by another thread",
        texts: text!(
            "SHARED(float, held, THREADS); held[thread_index] = input[thread_index];
             output[thread_index] = held[THREADS - 1 - thread_index];"
        ),
        watch: Watch::Races,
        report: "data race",
    },
    Fault {
        name: "no barrier before threadgroup memory is written again",
        texts: text!(
            "SHARED(float, held, THREADS); held[thread_index] = input[thread_index];
             threadgroup_barrier(mem_flags::mem_threadgroup);
             float other = held[THREADS - 1 - thread_index]; held[thread_index] = other; output[thread_index] = other;"
        ),
        watch: Watch::Races,
        report: "data race",
    },
    Fault {
        name: "a barrier of a simdgroup where the threadgroup's is needed",
        texts: text!(
            "SHARED(float, held, THREADS); held[thread_index] = input[thread_index];
             simdgroup_barrier(mem_flags::mem_threadgroup);
             output[thread_index] = held[THREADS - 1 - thread_index];"
        ),
        watch: Watch::Races,
        report: "data race",
    },
    Fault {
        name: "a read past the end of a buffer",
        texts: text!("output[thread_index] = input[thread_index + 1];"),
        watch: Watch::Memory,
        report: "heap-buffer-overflow",
    },
    Fault {
        name: "a write before the start of a buffer",
        texts: text!("output[int(thread_index) - 1] = 1.0f;"),
        watch: Watch::Memory,
        report: "heap-buffer-overflow",
    },
    Fault {
        name: "a write past the end of threadgroup memory",
        texts: text!(
            "SHARED(float, held, THREADS); threadgroup float* places = held; places[thread_index + 1] = input[thread_index];
             threadgroup_barrier(mem_flags::mem_threadgroup); output[thread_index] = held[thread_index];"
        ),
        watch: Watch::Memory,
        report: "use-after-poison",
    },
    Fault {
        name: "a misaligned read of a vector",
        texts: text!("output[thread_index] = ((device const float4*)(input + thread_index % 8))->x;"),
        watch: Watch::Memory,
        report: "misaligned address",
    },
    Fault {
        name: "a barrier that some threads never reach",
        texts: text!(
            "if (thread_index < 40) threadgroup_barrier(mem_flags::mem_threadgroup); output[thread_index] = input[thread_index];"
        ),
        watch: Watch::Memory,
        report: "waits for threads that never come",
    },
    Fault {
        name: "lanes at different simd words",
        texts: text!("output[thread_index] = lane_index < 3 ? simd_sum(input[thread_index]) : simd_max(input[thread_index]);"),
        watch: Watch::Memory,
        report: "different simd or barrier words",
    },
    Fault {
        name: "a read of threadgroup memory that nothing wrote",
        texts: text!(
            "SHARED(uint, held, THREADS); if (thread_index != 7) held[thread_index] = thread_index;
             threadgroup_barrier(mem_flags::mem_threadgroup); output[thread_index] = held[THREADS - 1 - thread_index] & 64u ? 1.0f : 0.0f;"
        ),
        watch: Watch::Memory,
        report: "threadgroup memory that nothing wrote",
    },
];

/// What one threadgroup writes, another reads: right in one order of threadgroups only.
const ORDER: Fault = Fault {
    name: "a threadgroup reads what another writes",
    texts: text!("output[group_position.x * 2] = output[1] + 1.0f; output[group_position.x * 2 + 1] = 3.0f;"),
    watch: Watch::Memory,
    report: "order of threadgroups",
};

const SOUND: Fault = Fault {
    name: "no fault",
    texts: text!(
        "SHARED(float, held, THREADS); held[thread_index] = input[thread_index];
         threadgroup_barrier(mem_flags::mem_threadgroup); output[thread_index] = held[THREADS - 1 - thread_index];"
    ),
    watch: Watch::Races,
    report: "",
};

fn run(fault: &Fault, threadgroups: u32, threads: u32) -> Result<(), String> {
    let file = File {
        path: fault.name,
        texts: fault.texts,
    };
    let launch = Launch {
        program: Program {
            file,
            defines: [("THREADS", threads)].as_slice().into(),
        },
        kernel: "fault",
        threadgroups: [threadgroups, 1, 1],
        threads,
        buffers: 2,
        constants: (COUNT as u32).to_le_bytes().as_slice().into(),
        shared_bytes: 0,
    };
    let input = (0..COUNT).flat_map(|index| (index as f32).to_le_bytes()).collect();
    let mut emulator = Emulator::new(std::slice::from_ref(&launch), fault.watch);
    emulator.try_run(&launch, &mut [input, vec![0; 4 * COUNT]])
}

#[test]
fn every_fault_is_found_and_named() {
    for fault in &FAULTS {
        let report = run(fault, 1, THREADS).expect_err(fault.name);
        assert!(report.contains(fault.report), "{}: {report}", fault.name);
    }
    let report = run(&ORDER, 2, 32).expect_err(ORDER.name);
    assert!(report.contains(ORDER.report), "{report}");
}

#[test]
fn a_kernel_without_fault_passes_under_both_watches() {
    run(&SOUND, 3, THREADS).expect(SOUND.name);
    let memory = Fault {
        watch: Watch::Memory,
        ..SOUND
    };
    run(&memory, 3, THREADS).expect(SOUND.name);
}
