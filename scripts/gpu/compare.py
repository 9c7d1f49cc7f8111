"""Times planish's products of packed weights beside MLX's CUDA build and cuBLAS: the same shapes on the same GPU in one run, in turns.

    python scripts/gpu/compare.py --planish KERNELS [--limit SECONDS] [--out times.json]

KERNELS is what `cargo bench -p planish-kernels --bench kernels --no-run` names. Needs mlx with mlx-cuda-13, and torch with CUDA for cuBLAS; each runs in a process of its own, beside which planish is started for every
shape. What is missing or takes too long is said and left out. Prints every time as it comes, then markdown tables.

Values are bf16, groups hold 64, weights take turns so that the second-level cache does not serve them, times are medians over
passes of many products, divided by their number. planish: that bench, launches recorded in CUDA graphs by its own
queue, of its kernels those that models run on such a GPU. cuBLAS: torch.nn.functional.linear, recorded in a CUDA graph. MLX:
quantized_matmul, the lazy graph built before the clock starts, one mx.eval of all outputs inside it; they depend on nothing, so MLX may
overlap them.
"""

import argparse
import datetime
import json
import queue
import statistics
import subprocess
import sys
import threading
import time

SHAPES = [(2048, 2048), (8192, 2048), (2048, 8192), (4096, 4096), (14336, 4096), (4096, 14336), (28672, 8192)]
# More rows of activations on this shape, at 4 bits.
SWEPT = (14336, 4096)
INPUTS = [4, 16, 64, 512, 2048]
GROUP = 64
ROTATED_BYTES = 200_000_000
# Seconds for one answer (MLX compiles some kernels when it first needs them), and for a process to be ready.
ANSWER = 60
START = 30


def stored_bytes(rows, cols, bits):
    return rows * cols * bits // 8 + 4 * rows * cols // GROUP


# Libraries, each in a process of its own: (rows, cols, inputs, bits) to us.


def start_cublas():
    import torch

    def time_product(rows, cols, inputs, _bits):
        count = max(2, -(-ROTATED_BYTES // (2 * rows * cols)))
        weights = [torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
        x = torch.randn(inputs, cols, device="cuda", dtype=torch.bfloat16)
        return time_graph(torch, lambda: [torch.nn.functional.linear(x, weight) for weight in weights], count)

    torch.zeros(1, device="cuda")
    return time_product, torch.__version__


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


def start_mlx():
    import mlx.core as mx

    def time_product(rows, cols, inputs, bits):
        count = min(80, max(2, -(-ROTATED_BYTES // stored_bytes(rows, cols, bits))))
        # Random codes once, copies of them for the turns.
        codes = mx.random.randint(0, 2**31 - 1, (rows, cols * bits // 32)).astype(mx.uint32)
        scales, biases = (0.01 * mx.random.normal((2, rows, cols // GROUP))).astype(mx.bfloat16)
        weights = [(codes + index, scales + 0, biases + 0) for index in range(count)]
        x = mx.random.normal((inputs, cols)).astype(mx.bfloat16)
        mx.eval(weights, x)
        rounds = max(1, 20 // count)
        times = []
        for _ in range(7):
            products = [
                mx.quantized_matmul(x, *weight, transpose=True, group_size=GROUP, bits=bits) for _ in range(rounds) for weight in weights
            ]
            mx.synchronize()
            begin = time.perf_counter()
            mx.eval(products)
            mx.synchronize()
            times.append((time.perf_counter() - begin) * 1e6 / len(products))
        return statistics.median(times[2:])

    mx.eval(mx.zeros(1) + 1)
    return time_product, mx.__version__


LIBRARIES = {"cuBLAS": start_cublas, "MLX": start_mlx}


def serve(library):
    """Answers problems on standard input with times on standard output, one JSON a line; says first that it is ready."""
    time_product, version = LIBRARIES[library]()
    print(json.dumps(version), flush=True)
    for line in sys.stdin:
        print(json.dumps(time_product(*json.loads(line))), flush=True)


class Library:
    """A process that serves, until it fails or takes too long."""

    def __init__(self, name):
        self.name, self.times, self.version, self.began = name, {}, None, time.monotonic()
        command = [sys.executable, __file__, "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answers = queue.SimpleQueue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def answer(self, seconds):
        try:
            line = self.answers.get(timeout=max(0.1, seconds))
        except queue.Empty:
            return self.end(f"no answer within {seconds:.0f} s")
        return json.loads(line) if line else self.end("it ended")

    def end(self, why):
        print(f"**{self.name}: {why}; the rest is left out**", flush=True)
        self.process.kill()
        self.process = None

    def wait_until_ready(self):
        self.version = self.answer(self.began + START - time.monotonic())
        if self.process:
            print(f"{self.name} {self.version} is ready after {time.monotonic() - self.began:.1f} s", flush=True)

    def time(self, *problem):
        if self.process is None:
            return
        self.process.stdin.write(json.dumps(problem) + "\n")
        self.process.stdin.flush()
        us = self.answer(ANSWER)
        if us is not None:
            self.times[problem] = us
            say(self.name, problem, us)


class Planish:
    """The bench of kernels, started for every question."""

    def __init__(self, program):
        self.name, self.program, self.times, self.kernels, self.about = "planish", program, {}, {}, {}

    def time(self, rows, cols, inputs, bits):
        command = [self.program, "--json", "--device", "cuda", "--only", "tensor_matmul,warpgroup_matmul"]
        command += ["--shapes", f"{rows}x{cols}", "--inputs", str(inputs), "--widths", str(bits)]
        try:
            report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=ANSWER).stdout)
        except (subprocess.SubprocessError, ValueError) as error:
            return print(f"**planish: {error}**", flush=True)
        problem = rows, cols, inputs, bits
        self.about = {key: report[key] for key in ("device", "copy_gb_per_s", "read_gb_per_s")}
        for row in report["products"]:
            if row["chosen"]:
                self.times[problem], self.kernels[problem] = row["us"], row["kernel"]
        if problem in self.times:
            say(self.name, problem, self.times[problem])


def say(name, problem, us):
    rows, cols, inputs, bits = problem
    print(f"{name:8} {rows:5} x {cols:<5} {bits:2} bits, {inputs:4} inputs: {us:8.1f} us", flush=True)


def measure(planish, cublas, mlx, is_late, save):
    turns = [(*shape, 1, bits) for bits in (4, 8) for shape in SHAPES] + [(*SWEPT, inputs, 4) for inputs in INPUTS]
    for rows, cols, inputs, bits in turns:
        if is_late():
            return
        planish.time(rows, cols, inputs, bits)
        mlx.time(rows, cols, inputs, bits)
        if (rows, cols, inputs, 16) not in cublas.times:
            cublas.time(rows, cols, inputs, 16)
        save()


def number(value):
    return f"{value:.1f}" if value else "-"


def ratio(a, b):
    return f"{a / b:.2f}" if a and b else "-"


def rate(problem, us):
    rows, cols, inputs, _ = problem
    return number(2 * rows * cols * inputs / us / 1e6 if us else None)


def print_tables(planish, cublas, mlx):
    read = planish.about.get("read_gb_per_s", 0)
    for bits in [4, 8]:
        print(f"\nOne input, {bits} bits, groups of {GROUP}, bf16, us:\n")
        print("| rows x cols | planish | of read speed | MLX | MLX / planish | cuBLAS bf16 | cuBLAS / planish |\n|---|---|---|---|---|---|---|")
        for rows, cols in SHAPES:
            problem = rows, cols, 1, bits
            ours, theirs, plain = planish.times.get(problem), mlx.times.get(problem), cublas.times.get((rows, cols, 1, 16))
            share = f"{stored_bytes(rows, cols, bits) / ours / 1e3 / read:.0%}" if ours else "-"
            print(f"| {rows} x {cols} | {number(ours)} | {share} | {number(theirs)} | {ratio(theirs, ours)} | {number(plain)} | {ratio(plain, ours)} |")
        ratios = [mlx.times[key] / us for key, us in planish.times.items() if key in mlx.times and key[2:] == (1, bits)]
        if ratios:
            print(f"\nLeast MLX / planish of {len(ratios)} shapes: {min(ratios):.2f}.")
    rows, cols = SWEPT
    print(f"\n{rows} x {cols}, 4 bits, groups of {GROUP}, bf16:\n")
    print("| inputs | planish, us | TFLOP/s | kernel | MLX, us | MLX / planish | cuBLAS bf16, us | TFLOP/s | planish's TFLOP/s of cuBLAS's |")
    print("|---|---|---|---|---|---|---|---|---|")
    for inputs in [1] + INPUTS:
        problem = rows, cols, inputs, 4
        ours, theirs, plain = planish.times.get(problem), mlx.times.get(problem), cublas.times.get((rows, cols, inputs, 16))
        cells = [inputs, number(ours), rate(problem, ours), planish.kernels.get(problem, "-"), number(theirs), ratio(theirs, ours)]
        cells += [number(plain), rate(problem, plain), ratio(plain, ours)]
        print("| " + " | ".join(map(str, cells)) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", required=True, help="the bench of kernels")
    parser.add_argument("--limit", type=float, default=90, help="seconds after which nothing new is measured")
    parser.add_argument("--out", help="a file for all times, as JSON, written anew after every shape")
    parser.add_argument("--serve", choices=LIBRARIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    deadline = time.monotonic() + arguments.limit
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    machine = subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout.strip()
    planish, mlx, cublas = Planish(arguments.planish), Library("MLX"), Library("cuBLAS")
    mlx.wait_until_ready()
    cublas.wait_until_ready()

    def is_late():
        late = time.monotonic() > deadline
        if late:
            print("**the time is over: the rest was not measured**", flush=True)
        return late

    def save():
        if arguments.out:
            times = [{"library": runs.name, "problem": key, "us": us} for runs in (planish, cublas, mlx) for key, us in runs.times.items()]
            with open(arguments.out, "w") as file:
                json.dump({"machine": machine, "mlx": mlx.version, "torch": cublas.version, **planish.about, "times": times}, file, indent=1)

    measure(planish, cublas, mlx, is_late, save)
    about = planish.about
    print(f"\n{machine}; {datetime.date.today()}; MLX {mlx.version}; torch {cublas.version}; ", end="")
    print(f"copy {about.get('copy_gb_per_s', 0):.0f} GB/s, read {about.get('read_gb_per_s', 0):.0f} GB/s")
    print_tables(planish, cublas, mlx)
    for library in (mlx, cublas):
        if library.process:
            library.process.kill()


main()
