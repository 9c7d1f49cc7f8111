"""Prefill and decode rates of planish and of llama-bench programs on this machine, interleaved, as a Markdown table with ratios.

    python scripts/bench_peers.py --planish target/release/planish [--model MODEL.gguf] [--shape llama-3.2-1b]
        [--threads 1 2] [--rounds 5] [--depth 4096] [--llama-bench [NAME=]COMMAND]... [--python PATH_WITH_MLX_LM]

Each round runs every program once, one after the other, so that what else the machine does meets all of them; the table gives
medians. planish measures in the same process how fast all threads read as many bytes as a token's weights have: the column
"of reading" is the share of that which a decode reaches. 4 bits meet Q4_0, 8 bits Q8_0; 2 bits stand alone.

--model is quantized by each side (planish in MLX's format, groups of 64). --shape is a model of random weights: planish makes it
itself, for llama-bench a GGUF file is written once into --work. llama.cpp is built from the source package of
llama-cpp-python on PyPI unless --llama-bench names builds, with options if need be, "ik_llama.cpp=PATH -rtr 1" say; the first is
called llama.cpp and has llama-quantize beside it. --depth adds decodes after so many tokens.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

LLAMA_PACKAGE = "llama-cpp-python==0.3.36"
BITS = (4, 8, 2)
PEERS = {4: "Q4_0", 8: "Q8_0"}
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


def run_planish(arguments, source, threads, depth):
    """`source` is a folder, or a shape with its bits."""
    text, peak = run([arguments.planish, "bench", *source, "--threads", threads, "--repeat", 1, "--json", "--depth", depth,
                      "--prompt-tokens", 0 if depth else arguments.prompt_tokens,
                      "--generate-tokens", arguments.generate_tokens])
    result = json.loads(text)
    return dict(prefill=result["prefill_tokens_per_s"], decode=result["decode_tokens_per_s"], load=result["load_s"],
                peak=result["peak_memory_bytes"] / 2**20, reading=result["decode"]["share_of_read_limit"],
                limit=result["limits"]["weights_bytes_per_s"] / 1e9, bytes=result["weight_bytes_per_token"])


def run_llama(arguments, command, model, threads, depth):
    """`command` is a llama-bench program and options of it."""
    text, peak = run([*command, "-m", model, "-t", threads, "-p", 0 if depth else arguments.prompt_tokens,
                      "-n", arguments.generate_tokens, "-r", 1, "-o", "json", *(["-d", depth] if depth else [])])
    rates = {"prefill" if test["n_prompt"] > 0 else "decode": test["avg_ts"] for test in json.loads(text)}
    return dict(rates, peak=peak)


def run_mlx(python, folder):
    text, peak = run([python, "-c", MLX_SCRIPT, folder, MLX_PROMPT, MLX_GENERATE])
    return dict(json.loads(text.splitlines()[-1]), peak=peak)


def llama_benches(arguments):
    """The command of each llama-bench by its name."""
    benches = {}
    for text in arguments.llama_bench or [str(build_llama(arguments.work))]:
        name, command = re.fullmatch(r"(?:([\w.+-]+)=)?(.+)", text).groups()
        benches["llama.cpp" if not benches else name or command] = shlex.split(command)
    return benches


def llama_files(arguments, benches):
    """The file of each type for llama-bench."""
    files = {}
    for kind in ("Q4_0", "Q8_0"):
        file = arguments.work / f"{arguments.model.stem if arguments.model else arguments.shape}-{kind}.gguf"
        if not file.exists() and arguments.model:
            quantize = Path(benches["llama.cpp"][0]).with_name("llama-quantize")
            run([quantize, "--allow-requantize", arguments.model, file, kind, 2])
        elif not file.exists():
            run([sys.executable, Path(__file__).with_name("random_gguf.py"), arguments.shape, kind, file])
        files[kind] = file
    return files


def planish_sources(arguments):
    """What `planish bench` takes for each width."""
    if not arguments.model:
        return {bits: ["--shape", arguments.shape, "--bits", bits] for bits in BITS}
    sources = {}
    for bits in BITS:
        folder = arguments.work / f"{arguments.model.stem}-{bits}bit"
        if not folder.exists():
            run([arguments.planish, "quantize", arguments.model, "--out", folder, "--format", "mlx", "--bits", bits])
        sources[bits] = [folder]
    return sources


def contenders(arguments, benches):
    """(name, threads, depth, peer that it is compared with) and what measures it."""
    files, sources = llama_files(arguments, benches), planish_sources(arguments)
    for depth in [0] + ([arguments.depth] if arguments.depth else []):
        for threads in arguments.threads:
            for bits in BITS if not depth else BITS[:1]:
                yield ((f"planish, {bits}-bit", threads, depth, PEERS.get(bits)),
                       lambda bits=bits, threads=threads, depth=depth:
                       run_planish(arguments, sources[bits], threads, depth))
            for name, command in benches.items():
                for kind in list(files) if not depth else ["Q4_0"]:
                    yield ((f"{name} {kind}", threads, depth, None),
                           lambda command=command, kind=kind, threads=threads, depth=depth:
                           run_llama(arguments, command, files[kind], threads, depth))
    if arguments.python and arguments.model:
        single = arguments.work / "mlx-4bit-f32"
        if not single.exists():
            run([arguments.planish, "quantize", arguments.model, "--out", single, "--format", "mlx", "--dtype", "float32"])
        yield (("mlx-lm, 4-bit with f32 scales", 1, 0, None), lambda: run_mlx(arguments.python, single))


def print_table(arguments, results, names):
    def median(measured, key):
        values = [result[key] for result in measured if result.get(key) is not None]
        return statistics.median(values) if values else None

    def number(value, form):
        return "-" if value is None else format(value, form)

    print("| | threads | after | prefill of %d, tokens/s | decode of %d, tokens/s |%s of reading | load, s | peak, MiB |"
          % (arguments.prompt_tokens, arguments.generate_tokens, "".join(f" over {name} |" for name in names)))
    print("|" + "---|" * (8 + len(names)))
    for (name, threads, depth, kind), measured in results.items():
        prefill, decode = median(measured, "prefill"), median(measured, "decode")
        ratios = []
        for peer in names:
            other = results.get((f"{peer} {kind}", threads, depth, None))
            rates = [(prefill, other and median(other, "prefill")), (decode, other and median(other, "decode"))]
            ratios.append(" / ".join(number(own / theirs, ".2f") for own, theirs in rates if own and theirs) or "-")
        print("| " + " | ".join([name, str(threads), str(depth), number(prefill, ".0f"), number(decode, ".1f"), *ratios,
                                 number(median(measured, "reading"), ".0%"), number(median(measured, "load"), ".2f"),
                                 number(median(measured, "peak"), ".0f")]) + " |")
    for threads in sorted({key[1] for key in results}):
        limits = [result["limit"] for key, measured in results.items() if key[1] == threads and key[0] == "planish, 4-bit"
                  for result in measured]
        if limits:
            print(f"\nReading as many bytes as 4-bit weights have, {threads} thread(s): {statistics.median(limits):.1f} GB/s "
                  f"({min(limits):.1f} to {max(limits):.1f}).")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="a GGUF file")
    what.add_argument("--shape", help="a model of random weights that both sides know")
    parser.add_argument("--planish", type=Path, default=Path("target/release/planish"))
    parser.add_argument("--llama-bench", metavar="[NAME=]COMMAND", action="append",
                        help="built already, and its options; may be given several times")
    parser.add_argument("--python", help="an interpreter that has mlx-lm; without it mlx-lm is left out")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--generate-tokens", type=int, default=128)
    parser.add_argument("--depth", type=int, default=0, help="also decode after so many tokens, at 4 bits")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "planish-peers")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    benches = llama_benches(arguments)
    programs = list(contenders(arguments, benches))
    results = {key: [] for key, _ in programs}
    for round_number in range(1, arguments.rounds + 1):
        for key, measure in programs:
            # mlx-lm on a CPU takes minutes.
            if round_number > 1 and key[0].startswith("mlx-lm"):
                continue
            start = time.perf_counter()
            results[key].append(measure())
            print(f"round {round_number}: {key[0]}, {key[1]} threads, after {key[2]}: {time.perf_counter() - start:.1f} s",
                  file=sys.stderr)
    print_table(arguments, results, list(benches))


if __name__ == "__main__":
    main()
