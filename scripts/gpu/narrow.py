"""Times and checks the products of packed weights with few inputs (tensor_narrow.metal, tensor.metal) on a CUDA GPU.

    python scripts/gpu/narrow.py [--kernels crates/planish-kernels/text] [--shapes 14336x4096,..] [--bits 2,4] [--inputs 1,8]
                                 [--dtype bfloat16] [--layer] [--set NAME=VALUE]..

Weights take turns so that the second-level cache does not serve them; a graph holds all launches, which start early as those of a
model do; times are medians, for one launch. `--layer` times the seven products of a layer of Llama 3.1 8B in a row, with one input.
`--set` overrides what `Sharing` chose: threads, threadgroups, unit, stages, pace, early (0: no early starts). Errors are relative to f64.
"""

import argparse
import ctypes
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from matmul import FILES, TYPES, Compiler, Tensor, Weight, read_speed, time_us, up

FILES["tensor_narrow"] = ["values", "tiles", "tensor_narrow"]
LAYER = [(4096, 4096, 0), (1024, 4096, 1), (1024, 4096, 1), (4096, 4096, 0), (14336, 4096, 0), (14336, 4096, 1), (4096, 14336, 0)]
SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
STARTS_EARLY = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


class Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint), ("pad", ctypes.c_uint), ("value", ctypes.c_int), ("rest", ctypes.c_ubyte * 60)]


class Config(ctypes.Structure):
    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint), ("stream", ctypes.c_void_p),
                ("attributes", ctypes.POINTER(Attribute)), ("count", ctypes.c_uint)]  # fmt: skip


def launch(compiler, function, grid, threads, shared, buffers, constants, early):
    values = [ctypes.c_uint64(buffer.data_ptr()) for buffer in buffers] + [(ctypes.c_uint32 * len(constants))(*constants)]
    arguments = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
    table = (ctypes.c_void_p * len(arguments))(*arguments)
    attribute = Attribute(STARTS_EARLY, 0, 1)
    stream = torch.cuda.current_stream().cuda_stream
    config = Config((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(threads, 1, 1), shared, stream, ctypes.pointer(attribute), early)
    compiler.must(compiler.driver.cuLaunchKernelEx(ctypes.byref(config), function, table, None))


class Narrow:
    """One or two inputs, or any number in f32."""

    def __init__(self, compiler, weight, dtype, inputs, chosen):
        self.compiler, self.weight, self.inputs = compiler, weight, inputs
        self.side = min(inputs, 2)
        defines, self.shared, self.threads, self.groups = self.sharing(weight, chosen)
        defines.update(VALUE=TYPES[dtype], OUTPUT=TYPES[dtype], WEIGHT=TYPES[weight.scales.dtype], BITS=weight.bits, ADDED=0)
        defines.update(GROUP=weight.group, SIDE=self.side)
        self.early = chosen.get("early", 1)
        self.function = compiler.function("tensor_narrow", "tensor_narrow", defines)
        compiler.must(compiler.driver.cuFuncSetAttribute(self.function, SHARED_BYTES, self.shared))

    def sharing(self, weight, chosen):
        """As `Sharing::of` in src/launch/tensor_narrow.rs."""
        side, bits, group = self.side, weight.bits, weight.group
        processors = torch.cuda.get_device_properties(0).multi_processor_count
        tiles, words = up(weight.rows, 16), 2 if weight.scales.dtype == torch.float32 else 1
        groups = min(tiles, processors * up(tiles, processors * 48 // side))
        each = up(tiles, groups)
        most = 8 if each <= 8 else 48 // side

        def piece(unit):
            return unit // 64 * 128 * bits + (up(unit, group) if unit % group == 0 else unit // group + 2) * 64 * words

        small = each * up(weight.cols, 64) * piece(64) <= 76 << 10
        threads, threadgroups, most_shared, ring = (256, 2, 112 << 10, 76 << 10) if small else (512, 1, 225 << 10, 160 << 10)
        threads, threadgroups = chosen.get("threads", threads), chosen.get("threadgroups", threadgroups)
        unit = chosen.get("unit", 512 if small or bits <= 4 else 256)
        cols = up(weight.cols, unit) * unit
        stage, inputs = threads // 32 * piece(unit), side * (3 * (up(cols, 128) * 128 + 64) + cols // min(group, 64) * 8)
        room = min(ring, most_shared - inputs - most * threads // 32 * 64 * side)
        stages = chosen.get("stages", max(1, min(room // stage, 1024 // unit)))
        pace = chosen.get("pace", 1 if small else stages)
        defines = {"THREADS": threads, "THREADGROUPS": threadgroups, "UNIT": unit, "STAGES": stages, "PACE": pace, "MOST_TILES": most}
        defines["WHOLE"] = int(weight.cols % unit == 0)
        return defines, stages * stage + inputs, threads, groups

    def run(self, prepared, x, output, beside=0):
        constants = [self.weight.rows, self.weight.cols, self.inputs, beside]
        grid = (self.groups, up(self.inputs, self.side), 1)
        launch(self.compiler, self.function, grid, self.threads, self.shared, [*prepared, x, x, output], constants, self.early)


class Few(Tensor):
    """Few inputs."""

    def __init__(self, compiler, weight, dtype, inputs, chosen):
        super().__init__(compiler, weight, dtype, inputs, {})
        self.early = chosen.get("early", 1)

    def run(self, prepared, x, output):
        grid = (up(self.weight.rows, self.tile_rows), up(self.inputs, 8 * self.blocks), 1)
        constants = [self.weight.rows, self.weight.cols, self.inputs]
        launch(self.compiler, self.function, grid, self.threads, 0, [*prepared, x, x, output], constants, self.early)


def prepare(compiler, weight):
    """Tiles and their scales."""
    return Tensor(compiler, weight, torch.bfloat16, 1, {}).prepare(weight)


def kind_of(dtype, inputs):
    return Narrow if dtype == torch.float32 or inputs <= 2 else Few


def relative_error(kernel, weight, prepared, dtype):
    x = torch.randn(kernel.inputs, weight.cols, device="cuda").to(dtype)
    output = torch.full((kernel.inputs, weight.rows), float("nan"), device="cuda", dtype=dtype)
    kernel.run(prepared, x, output)
    expected = x.double() @ weight.values().T
    return ((output.double() - expected).norm() / expected.norm()).item()


def measure(compiler, rows, cols, bits, inputs, dtype, chosen, reading):
    weight = Weight(rows, cols, bits, 64, torch.bfloat16 if dtype == torch.float32 else dtype)
    prepared = prepare(compiler, weight)
    kernel = kind_of(dtype, inputs)(compiler, weight, dtype, inputs, chosen)
    error = f"{relative_error(kernel, weight, prepared, dtype):.1e}" if rows * cols < 70_000_000 else ""
    stored = rows * cols * bits // 8 + 4 * rows * cols // 64
    places = [tuple(part.clone() for part in prepared) for _ in range(min(40, max(3, 400_000_000 // stored)))]
    x, output = torch.randn(inputs, cols, device="cuda").to(dtype), torch.empty(inputs, rows, device="cuda", dtype=dtype)
    us = time_us([lambda place=place: kernel.run(place, x, output) for place in places])
    share = 100 * stored / us * 1e6 / reading
    print(f"{rows:6} x {cols:<6} {bits} bits M {inputs:<3} {us:7.2f} us {stored / us / 1e6:5.2f} TB/s {share:5.1f} % {error} {chosen or ''}", flush=True)


def measure_layer(compiler, bits, chosen, reading):
    kinds, calls, stored = {}, [], 0
    for rows, cols, _ in LAYER:
        stored += rows * cols * bits // 8 + 4 * rows * cols // 64
        if (rows, cols) not in kinds:
            weight = Weight(rows, cols, bits, 64, torch.bfloat16)
            x = torch.randn(1, cols, device="cuda").bfloat16()
            kinds[rows, cols] = prepare(compiler, weight), Narrow(compiler, weight, torch.bfloat16, 1, chosen), x
    for _ in range(6):
        for rows, cols, beside in LAYER:
            prepared, kernel, x = kinds[rows, cols]
            place, output = tuple(part.clone() for part in prepared), torch.empty(1, rows, device="cuda", dtype=torch.bfloat16)
            calls.append(lambda k=kernel, p=place, x=x, o=output, b=beside: k.run(p, x, o, b))
    us = time_us(calls) * len(LAYER)
    print(f"products of a layer of 8B, {bits} bits: {us:.1f} us; reading alone {stored / reading * 1e6:.1f} us {chosen or ''}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernels", default="crates/planish-kernels/text")
    parser.add_argument("--shapes", default="14336x4096,28672x8192,4096x4096")
    parser.add_argument("--inputs", default="1")
    parser.add_argument("--bits", default="4")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--layer", action="store_true")
    arguments = parser.parse_args()
    compiler, dtype = Compiler(arguments.kernels), getattr(torch, arguments.dtype)
    chosen = {name: int(value) for name, value in (pair.split("=") for pair in arguments.set)}
    reading = read_speed()
    print(f"{torch.cuda.get_device_name()}: reads {reading / 1e12:.2f} TB/s")
    for shape in filter(None, arguments.shapes.split(",")):
        rows, cols = map(int, shape.split("x"))
        for bits in map(int, arguments.bits.split(",")):
            for inputs in map(int, arguments.inputs.split(",")):
                measure(compiler, rows, cols, bits, inputs, dtype, chosen, reading)
    for bits in map(int, arguments.bits.split(",")):
        if arguments.layer:
            measure_layer(compiler, bits, chosen, reading)


if __name__ == "__main__":
    main()
