"""Rates of `planish serve` and of llama.cpp's server on this machine's CPU, interleaved, as a Markdown table with ratios.

    python scripts/bench_servers.py MODEL.gguf [--planish target/release/planish] [--threads 2] [--clients 1 4 8 16]
        [--rounds 3] [--prompt-tokens 512] [--generate-tokens 128]

MODEL.gguf is requantized for each side: for planish to 4 bits in groups of 64 (MLX's format and rule), for llama.cpp to Q4_0,
embedding and head included, the type that it computes fastest. `planish bench --serve` is the client of both. Each round starts
one server after the other, so that what else the machine does meets both; the table gives medians.

Needs: gguf, numpy, xllamacpp (llama.cpp's server, built).
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

LLAMA_SERVER = """
import sys, time
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port, threads, params.n_parallel, context = map(int, sys.argv[2:])
params.n_ctx = context * params.n_parallel
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.cont_batching = True
# Prompts are never those of a round before, and planish's server is fresh too.
params.cache_prompt, params.cache_ram_mib = False, 0
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""


def requantize(source, target):
    """Writes the file's matrices as Q4_0, all else as it is."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        part = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, part)
    for tensor in reader.tensors:
        values, kind = tensor.data, tensor.tensor_type
        if len(tensor.shape) == 2 and kind != gguf.GGMLQuantizationType.Q4_0:
            floats = gguf.quants.dequantize(values, kind)
            kind = gguf.GGMLQuantizationType.Q4_0
            values = gguf.quants.quantize(floats, kind)
        writer.add_tensor(tensor.name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_healthy(process, port):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    sys.exit("the server did not become healthy in a minute")


def measure(arguments, command, port):
    with open(arguments.work / "server.log", "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    try:
        wait_until_healthy(process, port)
        done = subprocess.run(
            [arguments.planish, "bench", "--serve", f"http://127.0.0.1:{port}", "--json", "--repeat", str(arguments.repeat),
             "--prompt-tokens", str(arguments.prompt_tokens), "--generate-tokens", str(arguments.generate_tokens),
             "--concurrency", ",".join(map(str, arguments.clients))], check=True, capture_output=True, text=True)
    finally:
        process.terminate()
        process.wait()
    result = json.loads(done.stdout)
    assert result["ignores_end"], "answers would have other lengths"
    return {level["clients"]: level for level in result["levels"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--planish", type=Path, default=Path("target/release/planish"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="answers that each client asks for")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--generate-tokens", type=int, default=128)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "planish-servers")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    theirs, ours = arguments.work / "q4_0.gguf", arguments.work / "mlx-4bit"
    if not theirs.exists():
        requantize(arguments.model, theirs)
    if not ours.exists():
        subprocess.run([arguments.planish, "quantize", arguments.model, "--out", ours, "--format", "mlx", "--method", "mlx"],
                       check=True)
    context = arguments.prompt_tokens + arguments.generate_tokens + 256
    results = {"planish": [], "llama.cpp": []}
    for number in range(1, arguments.rounds + 1):
        port = free_port()
        commands = {
            "planish": [arguments.planish, "serve", ours, "--port", str(port), "--threads", str(arguments.threads)],
            "llama.cpp": [sys.executable, "-c", LLAMA_SERVER, theirs, str(port), str(arguments.threads),
                          str(max(arguments.clients)), str(context)],
        }
        for name, command in commands.items():
            start = time.perf_counter()
            results[name].append(measure(arguments, command, port))
            print(f"round {number}: {name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)

    def median(name, clients, *path):
        def value(level):
            for key in path:
                level = level[key]
            return level
        return statistics.median(value(levels[clients]) for levels in results[name])

    print("| clients | planish, tokens/s | llama.cpp | ratio | first token p50, s: planish | llama.cpp | gap p99, ms: planish | llama.cpp |")
    print("|" + "---|" * 8)
    for clients in arguments.clients:
        rates = [median(name, clients, "tokens_per_s") for name in results]
        first = [median(name, clients, "first_token_s", "p50") for name in results]
        gaps = [1e3 * median(name, clients, "gap_s", "p99") for name in results]
        print(f"| {clients} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[0] / rates[1]:.2f} | {first[0]:.2f} | {first[1]:.2f} "
              f"| {gaps[0]:.0f} | {gaps[1]:.0f} |")


if __name__ == "__main__":
    main()
