"""Times planish's products of packed weights beside cuBLAS and MLX's CUDA build: the same shapes on the same GPU in one run.

    python scripts/gpu/compare.py --planish target/release/planish [--limit SECONDS] [--out times.json]

Needs torch with CUDA (for cuBLAS) and mlx with mlx-cuda-13; what is missing is said and left out, and so is what does not fit into
the time limit. Prints every time as it comes, then markdown tables.

Values are bf16, groups hold 64, weights take turns so that the second-level cache does not serve them, times are medians over
passes of many products, divided by their number. planish: `planish bench --kernels`, launches recorded in CUDA graphs by its own
queue, the fastest of its kernels. cuBLAS: torch.nn.functional.linear, recorded in a CUDA graph. MLX: quantized_matmul, the lazy
graph built before the clock starts, one mx.eval of all outputs inside it; they depend on nothing, so MLX may overlap them.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import time

SHAPES = [(2048, 2048), (8192, 2048), (2048, 8192), (4096, 4096), (14336, 4096), (4096, 14336), (28672, 8192)]
# More rows of activations on this shape, at 4 bits.
SWEPT = (14336, 4096)
INPUTS = [4, 16, 64, 512, 2048]
PROBLEMS = [(*shape, 1, 4) for shape in SHAPES] + [(*SWEPT, inputs, 4) for inputs in INPUTS] + [(*shape, 1, 8) for shape in SHAPES]
GROUP = 64
ROTATED_BYTES = 200_000_000


def say(name, problem, us):
    rows, cols, inputs, bits = problem
    print(f"{name:8} {rows:5} x {cols:<5} {bits or 16:2} bits, {inputs:4} inputs: {us:8.1f} us", flush=True)


def stored_bytes(rows, cols, bits):
    return rows * cols * bits // 8 + 4 * rows * cols // GROUP


class Runs:
    """Times of one library by (rows, cols, inputs, bits), until the deadline."""

    def __init__(self, name, deadline):
        self.name, self.deadline, self.times = name, deadline, {}

    def add(self, problem, us):
        self.times[problem] = us
        say(self.name, problem, us)

    def attempt(self, run, *arguments):
        """What goes wrong is said, never passed in silence."""
        try:
            run(self, *arguments)
        except Exception as error:
            print(f"**{self.name}: {type(error).__name__}: {error}**", flush=True)

    def is_late(self):
        if time.monotonic() > self.deadline:
            print(f"**{self.name}: the time is over, the rest was not measured**", flush=True)
            return True
        return False


def run_planish(runs, program, about):
    for bits, shapes, inputs in [(4, SHAPES, [1]), (4, [SWEPT], INPUTS), (8, SHAPES, [1])]:
        if runs.is_late():
            return
        command = [program, "bench", "--kernels", "--json", "--only", "tensor,matvec", "--widths", str(bits)]
        command += ["--shapes", ",".join(f"{rows}x{cols}" for rows, cols in shapes), "--inputs", ",".join(map(str, inputs))]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        about.update({key: report[key] for key in ("device", "copy_gb_per_s", "read_gb_per_s")})
        best = {}
        for row in report["products"]:
            key = row["rows"], row["cols"], row["inputs"], row["bits"]
            best[key] = min(best.get(key, (1e9, "")), (row["us"], row["kernel"]))
        for problem, (us, kernel) in best.items():
            about[problem] = kernel
            runs.add(problem, us)


def run_cublas(runs):
    import torch

    for rows, cols in SHAPES:
        count = max(2, -(-ROTATED_BYTES // (2 * rows * cols)))
        weights = [torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
        for inputs in [1] + (INPUTS if (rows, cols) == SWEPT else []):
            if runs.is_late():
                return
            x = torch.randn(inputs, cols, device="cuda", dtype=torch.bfloat16)
            runs.add((rows, cols, inputs, None), time_graph(torch, lambda: [torch.nn.functional.linear(x, weight) for weight in weights], count))
        del weights
    torch.cuda.empty_cache()


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
        for _ in range(12):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1000 / count)
    return statistics.median(times[3:])


def run_mlx(runs, about):
    import mlx.core as mx

    about["mlx"] = mx.__version__
    for problem in PROBLEMS:
        if runs.is_late():
            return
        rows, cols, inputs, bits = problem
        count = min(80, max(2, -(-ROTATED_BYTES // stored_bytes(rows, cols, bits))))
        # Random codes once, copies of them for the turns.
        codes = mx.random.randint(0, 2**31 - 1, (rows, cols * bits // 32)).astype(mx.uint32)
        scales, biases = (0.01 * mx.random.normal((2, rows, cols // GROUP))).astype(mx.bfloat16)
        weights = [(codes ^ index, scales + 0, biases + 0) for index in range(count)]
        x = mx.random.normal((inputs, cols)).astype(mx.bfloat16)
        mx.eval(weights, x)
        rounds = max(1, 20 // count)
        times = []
        for _ in range(5):
            products = [
                mx.quantized_matmul(x, *weight, transpose=True, group_size=GROUP, bits=bits) for _ in range(rounds) for weight in weights
            ]
            mx.synchronize()
            begin = time.perf_counter()
            mx.eval(products)
            mx.synchronize()
            times.append((time.perf_counter() - begin) * 1e6 / len(products))
            del products
        runs.add(problem, statistics.median(times[2:]))
        del weights, codes, scales, biases, x


def number(value):
    return f"{value:.1f}" if value else "-"


def ratio(a, b):
    return f"{a / b:.2f}" if a and b else "-"


def rate(problem, us):
    rows, cols, inputs, _ = problem
    return number(2 * rows * cols * inputs / us / 1e6 if us else None)


def print_tables(about, planish, cublas, mlx):
    read = about.get("read_gb_per_s")
    for bits in [4, 8]:
        print(f"\nOne input, {bits} bits, groups of {GROUP}, bf16, us:\n")
        print("| rows x cols | planish | MLX | MLX / planish | cuBLAS bf16 | cuBLAS / planish | of read speed |\n|---|---|---|---|---|---|---|")
        for rows, cols in SHAPES:
            problem = rows, cols, 1, bits
            ours, theirs, plain = planish.get(problem), mlx.get(problem), cublas.get((rows, cols, 1, None))
            share = f"{stored_bytes(rows, cols, bits) / ours / 1e3 / read:.0%}" if ours else "-"
            print(f"| {rows} x {cols} | {number(ours)} | {number(theirs)} | {ratio(theirs, ours)} | {number(plain)} | {ratio(plain, ours)} | {share} |")
        ratios = [mlx[key] / us for key, us in planish.items() if key in mlx and key[2:] == (1, bits)]
        if ratios:
            print(f"\nLeast MLX / planish of {len(ratios)} shapes: {min(ratios):.2f}.")
    rows, cols = SWEPT
    print(f"\n{rows} x {cols}, 4 bits, groups of {GROUP}, bf16:\n")
    print("| inputs | planish, us | TFLOP/s | kernel | MLX, us | MLX / planish | cuBLAS bf16, us | TFLOP/s | planish's TFLOP/s of cuBLAS's |")
    print("|---|---|---|---|---|---|---|---|---|")
    for inputs in [1] + INPUTS:
        problem = rows, cols, inputs, 4
        ours, theirs, plain = planish.get(problem), mlx.get(problem), cublas.get((rows, cols, inputs, None))
        cells = [inputs, number(ours), rate(problem, ours), about.get(problem, "-"), number(theirs), ratio(theirs, ours)]
        cells += [number(plain), rate(problem, plain), ratio(plain, ours)]
        print("| " + " | ".join(map(str, cells)) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", default="target/release/planish")
    parser.add_argument("--limit", type=float, default=90, help="seconds for all of it")
    parser.add_argument("--out", help="a file for all times, as JSON")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.limit
    about = {}
    planish, cublas, mlx = (Runs(name, deadline) for name in ("planish", "cuBLAS", "MLX"))
    planish.attempt(run_planish, arguments.planish, about)
    cublas.attempt(run_cublas)
    mlx.attempt(run_mlx, about)
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    machine = subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"\n{machine}; {datetime.date.today()}; MLX {about.get('mlx', '-')}; copy {about.get('copy_gb_per_s', 0):.0f} GB/s, read {about.get('read_gb_per_s', 0):.0f} GB/s")
    print_tables(about, planish.times, cublas.times, mlx.times)
    if arguments.out:
        times = [{"library": runs.name, "problem": key, "us": us} for runs in (planish, cublas, mlx) for key, us in runs.times.items()]
        with open(arguments.out, "w") as file:
            json.dump({"machine": machine, "times": times}, file, indent=1)


main()
