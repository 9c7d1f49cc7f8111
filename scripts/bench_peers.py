"""Decode and prefill rates of planish, llama.cpp and mlx-lm on this machine, interleaved, as a Markdown table.

    python scripts/bench_peers.py MODEL.gguf --planish target/release/planish [--threads 1 2] [--rounds 5]
        [--llama-bench PATH]... [--python PATH_WITH_MLX_LM]

Each round runs every program once on the same weights at 4 bits, one after the other, so that what else the machine does
meets all of them; the table gives medians. llama.cpp is built from the source package of llama-cpp-python on PyPI unless
`--llama-bench` names builds (any llama-bench: ik_llama.cpp's, say; llama-quantize must lie beside the first). planish and
mlx-lm run the same folder, which planish makes from the GGUF file.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

LLAMA_PACKAGE = "llama-cpp-python==0.3.36"
PROMPT, GENERATE = 512, 128
# mlx-lm takes a second for a few tokens on a CPU, and seconds for one where scales are 16-bit: it gets the same codes with
# f32 scales, few tokens, and only the first round.
MLX_PROMPT, MLX_GENERATE = 32, 16

MLX_SCRIPT = """
import json, sys, time
import mlx.core as mx
mx.set_default_device(mx.cpu)
from mlx_lm import load, stream_generate
start = time.perf_counter()
model, tokenizer = load(sys.argv[1])
mx.eval(model.parameters())
seconds = time.perf_counter() - start
for last in stream_generate(model, tokenizer, [5] * int(sys.argv[2]), max_tokens=int(sys.argv[3])):
    pass
print(json.dumps(dict(prefill=last.prompt_tps, decode=last.generation_tps, load=seconds)))
"""


def build_llama(folder):
    """Builds llama-bench and llama-quantize for this machine and returns the path of llama-bench."""
    binary = folder / "build" / "bin" / "llama-bench"
    if binary.exists():
        return binary
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python", LLAMA_PACKAGE,
                    "--dest", folder], check=True)
    archive = next(folder.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    source = next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
    # GCC before 13 drops the stores to the tile configuration (its intrinsic names 8 of the 64 bytes) and AMX crashes.
    tiles = source / "ggml/src/ggml-cpu/amx/mmq.cpp"
    barrier = 'asm volatile("" : : "r"(&tc) : "memory"); '
    tiles.write_text(re.sub(r"(?<!; )_tile_loadconfig\(&tc\);", barrier + "_tile_loadconfig(&tc);", tiles.read_text()))
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF",
               "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF"]
    subprocess.run(["cmake", "-S", source, "-B", folder / "build", *options], check=True)
    subprocess.run(["cmake", "--build", folder / "build", "-j2", "--target", "llama-bench", "llama-quantize"], check=True)
    return binary


def run(command):
    """Standard output of a command, and the most memory it had in MiB."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            sys.exit(f"{command[0]} failed ({process.returncode}): {errors.read()[-2000:]}")
        return output.read(), usage.ru_maxrss / 1024


def run_planish(binary, folder, threads):
    text, peak = run([binary, "bench", folder, "--threads", threads, "--repeat", 1, "--json",
                      "--prompt-tokens", PROMPT, "--generate-tokens", GENERATE])
    result = json.loads(text)
    return dict(prefill=result["prefill_tokens_per_s"], decode=result["decode_tokens_per_s"], load=result["load_s"], peak=peak)


def run_llama(binary, model, threads):
    text, peak = run([binary, "-m", model, "-t", threads, "-p", PROMPT, "-n", GENERATE, "-r", 1, "-o", "json"])
    prefill, decode = (next(test["avg_ts"] for test in json.loads(text) if test[key] > 0) for key in ("n_prompt", "n_gen"))
    return dict(prefill=prefill, decode=decode, peak=peak)


def run_mlx(python, folder):
    text, peak = run([python, "-c", MLX_SCRIPT, folder, MLX_PROMPT, MLX_GENERATE])
    return dict(json.loads(text.splitlines()[-1]), peak=peak)


def megabytes(path):
    """The size of a file, or of the weights in a folder, in millions of bytes."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--planish", type=Path, default=Path("target/release/planish"))
    parser.add_argument("--llama-bench", type=Path, action="append", help="built already; may be given several times")
    parser.add_argument("--llama-type", default="Q4_0")
    parser.add_argument("--python", help="an interpreter that has mlx-lm; without it mlx-lm is left out")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "planish-peers")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    benches = arguments.llama_bench or [build_llama(arguments.work)]
    gguf = arguments.work / f"{arguments.llama_type}.gguf"
    folders = {dialect: arguments.work / f"{dialect}-4bit" for dialect in ("metal", "mlx")}
    for dialect, folder in folders.items():
        if not folder.exists():
            run([arguments.planish, "quantize", arguments.model, "--out", folder, "--format", dialect, "--bits", 4])
    if not gguf.exists():
        quantize = benches[0].with_name("llama-quantize")
        run([quantize, "--allow-requantize", arguments.model, gguf, arguments.llama_type, 2])

    contenders = []
    for threads in arguments.threads:
        for dialect, folder in folders.items():
            contenders.append((f"planish, {dialect} 4-bit, {threads} thread{'s' * (threads > 1)}", megabytes(folder),
                               lambda folder=folder, threads=threads: run_planish(arguments.planish, folder, threads)))
        for index, bench in enumerate(benches):
            name = "llama.cpp" if index == 0 else bench
            contenders.append((f"{name} {arguments.llama_type}, {threads} thread{'s' * (threads > 1)}", megabytes(gguf),
                               lambda bench=bench, threads=threads: run_llama(bench, gguf, threads)))
    if arguments.python:
        single = arguments.work / "mlx-4bit-f32"
        if not single.exists():
            run([arguments.planish, "quantize", arguments.model, "--out", single, "--format", "mlx", "--dtype", "float32"])
        contenders.append(("mlx-lm, mlx 4-bit with f32 scales, 1 thread", megabytes(single),
                           lambda: run_mlx(arguments.python, single)))

    results = {(name, size): [] for name, size, _ in contenders}
    for number in range(arguments.rounds):
        for name, size, measure in contenders:
            if number > 0 and name.startswith("mlx-lm"):
                continue
            start = time.perf_counter()
            results[name, size].append(measure())
            print(f"round {number + 1}: {name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)

    print(f"| | weights, MB | prefill of {PROMPT}, tokens/s | decode of {GENERATE}, tokens/s | load, s | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    for (name, size), measured in results.items():
        def median(key, digits=0):
            values = [result[key] for result in measured if key in result]
            if not values:
                return "-"
            middle = statistics.median(values)
            return f"{middle:.1f}" if digits == 0 and middle < 100 else f"{middle:.{digits}f}"
        print(f"| {name} | {size:.0f} | {median('prefill')} | {median('decode')} | {median('load', 2)} | {median('peak')} |")


if __name__ == "__main__":
    main()
