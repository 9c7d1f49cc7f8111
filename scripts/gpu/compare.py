"""Times planish's products of packed weights beside MLX's CUDA build and cuBLAS: the same shapes on the same GPU in one run.

    python scripts/gpu/compare.py --planish target/release/planish [--bits 4,8] [--json FILE]

Needs torch with CUDA (for cuBLAS) and mlx with mlx-cuda-13; what is missing is said and left out. Prints markdown tables.

Values are bf16, groups hold 64, weights take turns so that the second-level cache does not serve them, times are medians over
passes of many products, divided by their number. planish: `planish bench --kernels`, launches recorded in CUDA graphs by its own
queue. cuBLAS: torch.nn.functional.linear, recorded in a CUDA graph. MLX: quantized_matmul on as many weights, the lazy graph
built before the clock starts, one mx.eval of all outputs inside it; they depend on nothing, so MLX may overlap them.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import time

SHAPES = [(2048, 2048), (8192, 2048), (2048, 8192), (4096, 4096), (14336, 4096), (4096, 14336), (28672, 8192)]
# Rows of activations, all of them on this shape.
INPUTS = [1, 2, 4, 8, 16, 32, 64, 512, 2048]
SWEPT = (14336, 4096)
GROUP = 64
ROTATED_BYTES = 400_000_000
PASSES = 9


def problems(bits):
    """(rows, cols, inputs, bits)"""
    for width in bits:
        for rows, cols in SHAPES:
            for inputs in INPUTS if (rows, cols) == SWEPT else [1]:
                yield rows, cols, inputs, width


def copies_of(stored_bytes):
    return max(2, -(-ROTATED_BYTES // stored_bytes))


def run_planish(program, bits):
    """Median µs of the fastest variant by problem, its name, and the whole report."""
    times = {}
    reports = []
    for shapes, inputs in [(SHAPES, [1]), ([SWEPT], INPUTS[1:])]:
        command = [program, "bench", "--kernels", "--json", "--only", "mat", "--widths", ",".join(map(str, bits))]
        command += ["--shapes", ",".join(f"{rows}x{cols}" for rows, cols in shapes), "--inputs", ",".join(map(str, inputs))]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        reports.append(report)
        for row in report["products"]:
            key = row["rows"], row["cols"], row["inputs"], row["bits"]
            times[key] = min(times.get(key, (1e9, "")), (row["us"], row["kernel"]))
    return times, reports[0]


def run_cublas():
    import torch

    times = {}
    for rows, cols in SHAPES:
        weights = [torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) for _ in range(copies_of(2 * rows * cols))]
        for inputs in INPUTS if (rows, cols) == SWEPT else [1]:
            x = torch.randn(inputs, cols, device="cuda", dtype=torch.bfloat16)
            times[rows, cols, inputs] = time_graph(torch, lambda: [torch.nn.functional.linear(x, weight) for weight in weights], len(weights))
        del weights
        torch.cuda.empty_cache()
    return times


def time_graph(torch, products, count):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            products()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            products()
        times = []
        for _ in range(PASSES + 3):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1000 / count)
    return statistics.median(times[3:])


def run_mlx(bits):
    import mlx.core as mx

    mx.set_default_device(mx.gpu)
    times = {}
    for rows, cols, inputs, width in problems(bits):
        stored = rows * cols * width // 8 + 4 * rows * cols // GROUP
        weights = []
        for _ in range(copies_of(stored)):
            codes = mx.random.randint(0, 2**31 - 1, (rows, cols * width // 32)).astype(mx.uint32)
            scales, biases = (0.01 * mx.random.normal((2, rows, cols // GROUP))).astype(mx.bfloat16)
            mx.eval(codes, scales, biases)
            weights.append((codes, scales, biases))
        x = mx.random.normal((inputs, cols)).astype(mx.bfloat16)
        mx.eval(x)
        rounds = max(1, 64 // len(weights)) if inputs <= 64 else 1
        passes = []
        for _ in range(PASSES + 2):
            products = [
                mx.quantized_matmul(x, *weight, transpose=True, group_size=GROUP, bits=width) for _ in range(rounds) for weight in weights
            ]
            mx.synchronize()
            begin = time.perf_counter()
            mx.eval(products)
            mx.synchronize()
            passes.append((time.perf_counter() - begin) * 1e6 / len(products))
            del products
        times[rows, cols, inputs, width] = statistics.median(passes[2:])
        del weights
        mx.clear_cache()
    return times, mx.__version__


def attempt(name, run, *arguments):
    try:
        return run(*arguments)
    except Exception as error:  # said, never passed in silence
        print(f"\n**{name} was not measured: {type(error).__name__}: {error}**\n")
        return None


def ratio(a, b):
    return f"{a / b:.2f}" if a and b else "-"


def number(value):
    return f"{value:.1f}" if value else "-"


def tables(bits, report, planish, cublas, mlx):
    read = report["read_gb_per_s"]
    for width in bits:
        print(f"\nOne input, {width} bits, groups of {GROUP}, bf16, µs:\n")
        print("| rows x cols | planish | MLX | MLX / planish | cuBLAS bf16 | cuBLAS / planish | of read speed |\n|---|---|---|---|---|---|---|")
        for rows, cols in SHAPES:
            ours = planish[rows, cols, 1, width][0]
            theirs, plain = mlx.get((rows, cols, 1, width)), cublas.get((rows, cols, 1))
            stored = rows * cols * width / 8 + 4 * rows * cols / GROUP
            share = f"{stored / ours / 1e3 / read:.0%}"
            print(f"| {rows} x {cols} | {number(ours)} | {number(theirs)} | {ratio(theirs, ours)} | {number(plain)} | {ratio(plain, ours)} | {share} |")
        ratios = [mlx[rows, cols, 1, width] / planish[rows, cols, 1, width][0] for rows, cols in SHAPES if (rows, cols, 1, width) in mlx]
        if ratios:
            print(f"\nLeast MLX / planish: {min(ratios):.2f}.")
    rows, cols = SWEPT
    for width in bits:
        print(f"\n{rows} x {cols}, {width} bits, groups of {GROUP}, bf16:\n")
        print("| inputs | planish, µs | TFLOP/s | kernel | MLX, µs | MLX / planish | cuBLAS bf16, µs | TFLOP/s | planish over cuBLAS, TFLOP/s |")
        print("|---|---|---|---|---|---|---|---|---|")
        for inputs in INPUTS:
            ours, kernel = planish[rows, cols, inputs, width]
            theirs, plain = mlx.get((rows, cols, inputs, width)), cublas.get((rows, cols, inputs))
            rate = lambda us: number(2 * rows * cols * inputs / us / 1e6 if us else None)
            print(
                f"| {inputs} | {number(ours)} | {rate(ours)} | {kernel} | {number(theirs)} | {ratio(theirs, ours)} "
                f"| {number(plain)} | {rate(plain)} | {ratio(plain, ours)} |"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", default="target/release/planish")
    parser.add_argument("--bits", default="4,8")
    parser.add_argument("--json", help="also write all times into this file")
    arguments = parser.parse_args()
    bits = [int(width) for width in arguments.bits.split(",")]
    planish, report = run_planish(arguments.planish, bits)
    cublas = attempt("cuBLAS", run_cublas) or {}
    mlx, version = attempt("MLX", run_mlx, bits) or ({}, "-")
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    machine = subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout.strip() or report["device"]
    print(f"\n{machine}; {datetime.date.today()}; MLX {version}; copy {report['copy_gb_per_s']:.0f} GB/s, read {report['read_gb_per_s']:.0f} GB/s")
    tables(bits, report, planish, cublas, mlx)
    if arguments.json:
        named = lambda times: [{"problem": key, "time": value} for key, value in times.items()]
        with open(arguments.json, "w") as file:
            json.dump({"machine": machine, "planish": named(planish), "cublas": named(cublas), "mlx": named(mlx)}, file, indent=1)


main()
