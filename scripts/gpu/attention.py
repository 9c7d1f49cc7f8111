"""Times and checks the attention kernels on a CUDA GPU, beside torch's scaled_dot_product_attention.

    python scripts/gpu/attention.py [--kernels crates/planish-kernels/text] [--shapes 2048x32x8x128,..] [--variant NAME=VALUE,..]..

A shape is rows x heads x key-value heads x dimension, a prompt without anything before it. Needs torch with CUDA, whose NVRTC it
uses. Times are medians of graph launches; errors are relative to f64, of fresh random values.
"""

import argparse
import ctypes
import os
import statistics
import struct
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from matmul import FILES, TYPES, Compiler, up

FILES["tensor_attention"] = ["values", "tensor_attention"]
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class TensorAttention:
    """tensor_attention.metal, as src/launch/tensor_attention.rs launches it."""

    def __init__(self, compiler, shape, dtype, extra):
        self.rows, self.heads, self.kv_heads, self.dim = shape
        self.compiler = compiler
        each = self.heads // self.kv_heads
        defines = {"THREADS": 128, "VALUE": TYPES[dtype], "HEAD_DIM": self.dim, "VALUE_DIM": self.dim, "HEADS_EACH": each}
        defines.update({"KEYS": 64 if self.dim <= 128 else 32, "PARTS": 1, "WINDOW": 0, "SOFTCAP": 0, "ALIBI": 0, "SINKS": 0}, **extra)
        self.threads = defines["THREADS"]
        tile = self.threads // 2
        self.grid = (up(self.rows * each, tile), self.kv_heads, 1)
        stage, queries = 2 * defines["KEYS"] * (self.dim + 8), tile * (self.dim + 8)
        self.shared = 2 * (stage + (max(stage, queries) if self.dim <= 128 else stage + queries))
        self.function = compiler.function("tensor_attention", "tensor_attention", defines)
        compiler.must(compiler.driver.cuFuncSetAttribute(self.function, MAX_DYNAMIC_SHARED, self.shared))

    def run(self, q, k, v, output):
        constants = struct.pack("5I3f", self.rows, self.heads, self.kv_heads, 0, 0, self.dim**-0.5, 0.0, 0.0)
        pointers = [ctypes.c_uint64(buffer.data_ptr()) for buffer in (q, k, v, q, q, q, output)]
        block = ctypes.create_string_buffer(constants, len(constants))
        arguments = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in pointers + [block]]
        table = (ctypes.c_void_p * len(arguments))(*arguments)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.compiler.must(
            self.compiler.driver.cuLaunchKernel(self.function, *self.grid, self.threads, 1, 1, self.shared, stream, table, None)
        )


def reference(q, k, v):
    """Causal, in f64. // (rows, heads, dim)"""
    rows, heads, dim = q.shape
    output = torch.empty(rows, heads, dim, dtype=torch.float64, device="cuda")
    mask = torch.ones(rows, rows, device="cuda").tril().bool()
    for head in range(heads):
        kv = head // (heads // k.shape[1])
        scores = q[:, head].double() @ k[:, kv].double().T * dim**-0.5
        output[:, head] = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v[:, kv].double()
    return output


def time_of(call, count=20):
    """Microseconds of one call."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            for _ in range(count):
                call()
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / count)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernels", default="crates/planish-kernels/text")
    parser.add_argument("--shapes", default="2048x32x8x128,2048x32x8x64,512x32x8x128,70x6x2x80,2048x32x32x96,2048x16x8x256")
    parser.add_argument("--variant", action="append", default=[])
    arguments = parser.parse_args()
    compiler = Compiler(arguments.kernels)
    print("rows heads kv dim | variant | relative error | us | TFLOP/s (causal)")
    for shape in arguments.shapes.split(","):
        shape = tuple(int(part) for part in shape.split("x"))
        rows, heads, kv_heads, dim = shape
        work = 4 * dim * heads * rows * (rows + 1) / 2
        for dtype in (torch.bfloat16, torch.float16) if not arguments.variant else (torch.bfloat16,):
            q, k, v = (torch.randn(rows, count, dim, device="cuda").to(dtype) for count in (heads, kv_heads, kv_heads))
            expected = reference(q, k, v)
            show = lambda name, output, us: print(
                *shape, "|", name, "|", f"{((output.double() - expected).norm() / expected.norm()).item():.1e} | {us:.1f} | {work / us / 1e6:.0f}", flush=True
            )
            for variant in arguments.variant or [""]:
                extra = dict((part.split("=")[0], int(part.split("=")[1])) for part in variant.split(",") if part)
                kernel = TensorAttention(compiler, shape, dtype, extra)
                output = torch.full_like(q, float("nan"))
                kernel.run(q, k, v, output)
                torch.cuda.synchronize()
                show(f"{dtype} {variant}", output, time_of(lambda: kernel.run(q, k, v, output)))
            heads_first = [tensor.transpose(0, 1)[None] for tensor in (q, k.repeat_interleave(heads // kv_heads, 1), v.repeat_interleave(heads // kv_heads, 1))]
            torch_attention = lambda: torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True)
            show("torch", torch_attention()[0].transpose(0, 1), time_of(torch_attention))


if __name__ == "__main__":
    main()
