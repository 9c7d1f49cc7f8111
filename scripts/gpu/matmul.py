"""Times and checks the kernels for packed weights on a CUDA GPU, beside cuBLAS.

    python scripts/gpu/matmul.py [--kernels crates/planish-kernels/text] [--shapes 14336x4096,..] [--inputs 1,8] [--bits 4]
                                 [--variants tensor,matvec] [--define NAME=VALUE].. [--check]

Needs torch with CUDA, whose NVRTC it uses. Weights take turns so that the second-level cache does not serve them; launches are
recorded in a graph; times are medians. `--check` compares with f64 on fresh random weights.
"""

import argparse
import ctypes
import glob
import os
import statistics

import torch

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
FILES = {
    "tensor": ["values", "tiles", "tensor"],
    "tensor_wide": ["values", "tiles", "tensor_wide"],
    "repack": ["values", "tiles", "repack"],
    "arrange": ["values", "tiles", "reduce", "arrange"],
    "warpgroup": ["values", "tiles", "stages", "warpgroup"],
    "matvec": ["values", "codes", "matvec"],
    "matmul": ["values", "codes", "matmul"],
}


class Compiler:
    """Kernel text to a function of the driver."""

    def __init__(self, folder):
        self.folder = folder
        torch.cuda.init()
        torch.zeros(1, device="cuda")
        self.driver = ctypes.CDLL("libcuda.so.1")
        places = [os.path.dirname(torch.__file__) + "/../nvidia/*/lib/libnvrtc.so.1[0-9]", "/usr/local/cuda/lib64/libnvrtc.so.1[0-9]"]
        self.nvrtc = ctypes.CDLL(next(path for place in places for path in glob.glob(place)))
        major, minor = torch.cuda.get_device_capability()
        self.options = [b"-default-device", b"--std=c++17", f"--gpu-architecture=sm_{major}{minor}a".encode()]
        self.known = {}

    def function(self, kernel, file, defines):
        key = (kernel, file, tuple(sorted(defines.items())))
        if key not in self.known:
            self.known[key] = self.compile(kernel, file, defines)
        return self.known[key]

    def compile(self, kernel, file, defines):
        text = "".join(f"#define {name} {value}\n" for name, value in defines.items())
        for part in ["cuda.h", "hopper.h"] + FILES[file]:
            (path,) = glob.glob(f"{self.folder}/*/{part if '.' in part else part + '.metal'}")
            text += open(path).read()
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), file.encode(), 0, None, None)
        options = (ctypes.c_char_p * len(self.options))(*self.options)
        if self.nvrtc.nvrtcCompileProgram(program, len(self.options), options):
            self.nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            self.nvrtc.nvrtcGetProgramLog(program, log)
            raise SystemExit(log.value.decode())
        self.nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        self.nvrtc.nvrtcGetCUBIN(program, code)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.must(self.driver.cuModuleLoadData(ctypes.byref(module), code))
        self.must(self.driver.cuModuleGetFunction(ctypes.byref(function), module, kernel.encode()))
        return function

    def allow_shared(self, function, bytes):
        self.must(self.driver.cuFuncSetAttribute(function, 8, bytes))

    def must(self, code):
        if code:
            raise SystemExit(f"the CUDA driver answers {code}")

    def launch(self, function, grid, threads, buffers, constants, shared=0):
        pointers = [ctypes.c_uint64(buffer.data_ptr()) for buffer in buffers]
        block = (ctypes.c_uint32 * len(constants))(*constants)
        arguments = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in pointers + [block]]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        table = (ctypes.c_void_p * len(arguments))(*arguments)
        self.must(self.driver.cuLaunchKernel(function, *grid, threads, 1, 1, shared, stream, table, None))


class Weight:
    """Random codes; scales and biases of `dtype`."""

    def __init__(self, rows, cols, bits, group, dtype):
        self.rows, self.cols, self.bits, self.group = rows, cols, bits, group
        self.codes = torch.randint(-(2**31), 2**31 - 1, (rows, cols * bits // 32), dtype=torch.int32, device="cuda")
        self.scales = (torch.randn(rows, cols // group, device="cuda") / 2**bits).to(dtype)
        self.biases = (-self.scales.float() * 2 ** (bits - 1) + 0.1 * torch.randn_like(self.scales.float())).to(dtype)

    def values(self):
        stream = self.codes.view(torch.uint8).to(torch.int32)
        stream = ((stream[:, :, None] >> torch.arange(8, device="cuda")) & 1).view(self.rows, self.cols, self.bits)
        codes = (stream << torch.arange(self.bits, device="cuda")).sum(-1).double()
        groups = codes.view(self.rows, -1, self.group)
        weights = groups * self.scales.double()[:, :, None] + self.biases.double()[:, :, None]
        return weights.view(self.rows, self.cols)


def up(a, b):
    return -(-a // b)


class Tensor:
    """tensor.metal."""

    name = "tensor"

    def __init__(self, compiler, weight, dtype, inputs, extra):
        self.weight, self.inputs, self.compiler = weight, inputs, compiler
        blocks, groups = self.sharing(weight, inputs)
        defines = {"VALUE": TYPES[dtype], "WEIGHT": TYPES[dtype], "BITS": weight.bits, "GROUP": weight.group}
        defines.update({"BLOCKS": blocks, "ADDED": 0, "OUTPUT": TYPES[dtype]}, **groups)
        defines.update(extra)
        self.threads = defines["THREADS"]
        self.tile_rows, self.blocks = 16 * defines["TILES"], blocks
        self.function = compiler.function("tensor_matmul", "tensor", defines)
        self.repack = compiler.function("tensor_repack", "repack", defines)

    @staticmethod
    def sharing(weight, inputs):
        """As `Sharing` in src/launch/tensor.rs: blocks of 8 inputs, and the threadgroups."""
        sharers = up(inputs, 32)
        blocks = up(up(inputs, 8), sharers)
        turns = up(up(weight.rows, 16) * sharers, torch.cuda.get_device_properties(0).multi_processor_count)
        if turns == 1:
            groups = 512, 1, 1
        elif turns == 2:
            groups = (512, 1, 2) if blocks == 1 else (256, 1, 2) if blocks == 4 else (512, 2, 1)
        elif blocks == 1 and turns <= 8:
            groups = (256, 1, 4) if turns <= 4 else (256, 2, 4)
        elif blocks == 1 and weight.bits > 4:
            groups = 128, 2, 8
        else:
            groups = (256, 2, 2) if blocks > 1 and turns <= 4 else (128, 2, 4)
        return blocks, dict(zip(("THREADS", "TILES", "THREADGROUPS"), groups))

    def prepare(self, weight):
        rows = up(weight.rows, 16) * 16
        tiles = torch.empty(rows * weight.cols * weight.bits // 32, dtype=torch.int32, device="cuda")
        scales = torch.empty(rows * weight.cols // weight.group + rows, dtype=torch.int32, device="cuda")
        grid = (rows // 16, weight.cols // 64, 1)
        buffers = [weight.codes, weight.scales, weight.biases, tiles, scales]
        self.compiler.launch(self.repack, grid, 32, buffers, [weight.rows, weight.cols, 0])
        return tiles, scales

    def run(self, prepared, x, output):
        grid = (up(self.weight.rows, self.tile_rows), up(self.inputs, 8 * self.blocks), 1)
        buffers = [*prepared, x, x, output]
        self.compiler.launch(self.function, grid, self.threads, buffers, [self.weight.rows, self.weight.cols, self.inputs])


class Matvec:
    """matvec.metal."""

    name = "matvec"

    def __init__(self, compiler, weight, dtype, inputs, extra):
        self.weight, self.inputs, self.compiler = weight, inputs, compiler
        self.batch = min(8, 1 << (inputs - 1).bit_length())
        defines = {"THREADS": 64, "VALUE": TYPES[dtype], "WEIGHT": TYPES[dtype], "BITS": weight.bits, "GROUP": weight.group}
        defines.update({"BATCH": self.batch, "ROWS_EACH": 2 if weight.rows < 8192 else 4, "WHOLE": 1, "ADDED": 0, "GATHER": 0}, **extra)
        self.threads, self.rows_each = defines["THREADS"], defines["ROWS_EACH"]
        self.function = compiler.function("matvec", "matvec", defines)

    def prepare(self, weight):
        return weight.codes, weight.scales, weight.biases

    def run(self, prepared, x, output):
        grid = (up(self.weight.rows, self.rows_each * self.threads // 32), up(self.inputs, self.batch), 1)
        buffers = [*prepared, x, x, x, output]
        self.compiler.launch(self.function, grid, self.threads, buffers, [self.weight.rows, self.weight.cols, self.inputs, 1])


class Wide(Tensor):
    """tensor_wide.metal."""

    def __init__(self, compiler, weight, dtype, inputs, extra):
        super().__init__(compiler, weight, dtype, min(inputs, 8), extra)
        self.inputs = inputs
        defines = {"VALUE": TYPES[dtype], "WEIGHT": TYPES[dtype], "BITS": weight.bits, "GROUP": weight.group}
        defines.update({"ADDED": 0}, **extra)
        self.function = compiler.function("tensor_matmul_wide", "tensor_wide", defines)

    def run(self, prepared, x, output):
        grid = (up(self.inputs, 128), up(self.weight.rows, 128), 1)
        buffers = [*prepared, x, x, output]
        self.compiler.launch(self.function, grid, 128, buffers, [self.weight.rows, self.weight.cols, self.inputs])


class Warpgroup(Tensor):
    """arrange.metal, then warpgroup.metal: inputs of bf16."""

    arranges = True

    def __init__(self, compiler, weight, dtype, inputs, extra):
        self.weight, self.inputs, self.compiler = weight, inputs, compiler
        packing = {"VALUE": 1, "WEIGHT": TYPES[dtype], "BITS": weight.bits, "GROUP": weight.group}
        self.multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
        taken, rowgroups = self.sharing(inputs, weight, self.multiprocessors)
        shape = {"INPUTS": taken, "ROWGROUPS": rowgroups, "SPLITS": 3 - rowgroups}
        self.defines = {**packing, "ADDED": 0, "OUTPUT": TYPES[dtype], **shape, **extra}
        at = self.defines
        at["THREADS"] = self.threads = 128 * (at["ROWGROUPS"] * at["SPLITS"] + 1)
        stage = at["INPUTS"] * 128 + 64 * at["ROWGROUPS"] * (8 * weight.bits + 4 * max(1, 64 // weight.group)) + 16
        staged = at["ROWGROUPS"] * at["INPUTS"] * 144 if at["OUTPUT"] else 0
        partial = (at["SPLITS"] - 1) * at["ROWGROUPS"] * at["INPUTS"] * 256
        at.setdefault("STAGES", min(12, (227 * 1024 - staged - partial) // stage))
        self.shared = at["STAGES"] * stage + staged + partial
        self.repack = compiler.function("tensor_repack", "repack", packing)
        order = {"THREADS": 512, "VALUE": 2, "WEIGHT": 2, "BITS": 4, "GROUP": min(weight.group, 64)}
        self.arrange = compiler.function("arrange_inputs", "arrange", order)
        self.function = compiler.function("warpgroup_matmul", "warpgroup", at)
        compiler.allow_shared(self.function, self.shared)
        self.padded = up(inputs, 8) * 8
        self.arranged = torch.empty(self.padded * (weight.cols // 2 + 1), dtype=torch.float32, device="cuda")
        tiles = up(weight.rows, 64 * at["ROWGROUPS"]) * up(inputs, at["INPUTS"])
        self.grid = (min(tiles, self.multiprocessors), 1, 1)

    @staticmethod
    def sharing(inputs, weight, multiprocessors):
        """As `WarpgroupMatmul::sharing` in src/launch/warpgroup.rs, without parts of the columns."""

        def cost(taken):
            tiles = up(weight.rows, 64 * taken[1]) * up(inputs, taken[0])
            return up(tiles, multiprocessors) * (140 + taken[0]) * (2 + taken[1])

        return min(((size, rowgroups) for size in (32, 64, 128, 192, 256) for rowgroups in (1, 2)), key=cost)

    def run(self, prepared, x, output):
        if self.arranges:
            self.compiler.launch(self.arrange, (self.inputs, 1, 1), 512, [x, self.arranged], [self.weight.cols, self.padded])
        buffers = [*prepared, self.arranged, x, output]
        constants = [self.weight.rows, self.weight.cols, self.inputs, self.padded, 1]  # one part of the columns
        self.compiler.launch(self.function, self.grid, self.threads, buffers, constants, self.shared)


class WarpgroupAlone(Warpgroup):
    """The product without the arranging."""

    def run(self, prepared, x, output):
        super().run(prepared, x, output)
        self.arranges = False


VARIANTS = {"tensor": Tensor, "wide": Wide, "matvec": Matvec, "warpgroup": Warpgroup, "alone": WarpgroupAlone}


def time_us(calls):
    """Median over replays of a graph of all calls, for one call."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
        times = []
        for _ in range(15):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1000 / len(calls))
    return statistics.median(times[3:])


def read_speed():
    """Bytes a second of a plain read of 4 GB."""
    data = torch.empty(1 << 30, dtype=torch.float32, device="cuda").fill_(1.0)
    us = time_us([lambda: torch.max(data)])
    return data.numel() * 4 / us * 1e6


def check(variant, weight, dtype, inputs):
    x = torch.randn(inputs, weight.cols, device="cuda").to(dtype)
    output = torch.full((inputs, weight.rows), float("nan"), device="cuda", dtype=dtype)
    variant.run(variant.prepare(weight), x, output)
    expected = x.double() @ weight.values().T
    return ((output.double() - expected).norm() / expected.norm()).item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernels", default="crates/planish-kernels/text")
    parser.add_argument("--shapes", default="14336x4096,28672x8192,4096x4096")
    parser.add_argument("--inputs", default="1")
    parser.add_argument("--bits", default="4")
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--variants", default="tensor")
    parser.add_argument("--define", action="append", default=[])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--cublas", action="store_true")
    arguments = parser.parse_args()
    compiler = Compiler(arguments.kernels)
    dtype = getattr(torch, arguments.dtype)
    extra = {name: int(value) for name, value in (define.split("=") for define in arguments.define)}
    if not arguments.check:
        print(f"{torch.cuda.get_device_name()}: reads {read_speed() / 1e12:.2f} TB/s; {arguments.define}")
    for shape in arguments.shapes.split(","):
        rows, cols = map(int, shape.split("x"))
        for bits in map(int, arguments.bits.split(",")):
            weight = Weight(rows, cols, bits, arguments.group, dtype)
            stored = rows * cols * bits // 8 + 4 * rows * cols // arguments.group
            copies = max(2, 400_000_000 // stored)
            for inputs in map(int, arguments.inputs.split(",")):
                for name in arguments.variants.split(","):
                    variant = VARIANTS[name](compiler, weight, dtype, inputs, extra)
                    line = f"{name:7} {rows:6} x {cols:<6} {bits} bits M {inputs:4}: "
                    if arguments.check:
                        print(line + f"relative error {check(variant, weight, dtype, inputs):.2e}", flush=True)
                        continue
                    x = torch.randn(inputs, cols, device="cuda").to(dtype)
                    output = torch.empty(inputs, rows, device="cuda", dtype=dtype)
                    first = variant.prepare(weight)
                    places = [tuple(part.clone() for part in first) for _ in range(min(copies, 40 if inputs < 64 else 4))]
                    us = time_us([lambda place=place: variant.run(place, x, output) for place in places])
                    print(line + f"{us:8.1f} us {stored / us / 1e6:6.3f} TB/s {2 * rows * cols * inputs / us / 1e6:7.1f} TFLOP/s", flush=True)
                    del places
            if arguments.cublas and not arguments.check:
                plain = [torch.randn(rows, cols, device="cuda").to(dtype) for _ in range(max(2, 400_000_000 // (rows * cols * 2)))]
                for inputs in map(int, arguments.inputs.split(",")):
                    x = torch.randn(inputs, cols, device="cuda").to(dtype)
                    us = time_us([lambda w=w: torch.nn.functional.linear(x, w) for w in plain])
                    print(f"cublas  {rows:6} x {cols:<6} plain  M {inputs:4}: {us:8.1f} us {2 * rows * cols * inputs / us / 1e6:7.1f} TFLOP/s", flush=True)
                del plain


if __name__ == "__main__":
    main()
