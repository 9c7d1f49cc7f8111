"""Rates of AWQ and GPTQ checkpoints beside our own format with the same codes, in the shape of Llama-3.2-1B, as a Markdown table.

    python scripts/bench_dialects.py --planish target/release/planish [--layers 16] [--rounds 5] [--threads 2] [--device cuda]
        [--work FOLDER]

Codes of 4 bits in groups of 128 are random (seed 0), and so are zero points and scales; all layers hold the same. "own" is the metal
format with float16 scales and biases, "gptq" is asymmetric and "gptq sym" symmetric (version 1), "awq" is packed as gemm. The vocabulary
is small, so that the plain head does not hide the layers. Each round runs every checkpoint once; the table gives medians and their
ratios to "own". On a CPU runs are under `chrt -f 10` where that is allowed. Needs numpy.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile

import numpy as np
from make_big_checkpoint import STORY_MODEL, config_and_shapes

GROUP, VOCABULARY = 128, 4096
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def words(codes):
    """Eight codes along the last axis in a word, the first in the lowest bits."""
    codes = codes.reshape(*codes.shape[:-1], -1, 8).astype(np.uint32)
    return np.bitwise_or.reduce(codes << np.arange(0, 32, 4, dtype=np.uint32), axis=-1)


def parts(kind, rows, cols, rng):
    """The tensors of a layer (rows, cols), by their suffixes."""
    codes = rng.integers(0, 16, (rows, cols), dtype=np.uint8)
    zeros = rng.integers(1, 16, (rows, cols // GROUP), dtype=np.uint8)
    if kind == "gptq sym":
        zeros[:] = 8
    scales = rng.uniform(0.002, 0.004, (rows, cols // GROUP)).astype(np.float16)
    columns = np.ascontiguousarray(scales.T)
    if kind == "own":
        return {"weight": words(codes), "scales": scales, "qbiases": (-scales.astype(np.float32) * zeros).astype(np.float16)}
    if kind == "awq":
        order = lambda values: words(values.T.reshape(-1, rows // 8, 8)[:, :, AWQ_ORDER].reshape(-1, rows)).view(np.int32)
        return {"qweight": order(codes), "qzeros": order(zeros), "scales": columns}
    groups = (np.arange(cols) // GROUP).astype(np.int32)
    qweight = np.ascontiguousarray(words(codes).T).view(np.int32)
    return {"qweight": qweight, "qzeros": words((zeros - 1).T).view(np.int32), "scales": columns, "g_idx": groups}


QUANTIZATION = {
    "own": {"quant_method": "metal", "bits": 4, "group_size": GROUP, "modules_to_not_convert": ["lm_head"]},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": False, "desc_act": False, "checkpoint_format": "gptq"},
    "gptq sym": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False, "checkpoint_format": "gptq"},
}
DTYPES = {"uint32": "U32", "int32": "I32", "float16": "F16"}


def write(kind, folder, layers):
    config, shapes = config_and_shapes("1b", layers)
    config |= {"vocab_size": VOCABULARY, "torch_dtype": "float16", "quantization_config": QUANTIZATION[kind]}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(STORY_MODEL / name, folder)
    rng, made, tensors = np.random.default_rng(0), {}, {}
    for name, shape in shapes.items():
        if "_proj" in name:
            if shape not in made:
                made[shape] = parts(kind, *shape, rng)
            module = name.removesuffix(".weight")
            tensors |= {f"{module}.{part}": values for part, values in made[shape].items()}
        elif len(shape) == 1:
            tensors[name] = np.ones(shape, np.float16)
        else:
            tensors[name] = rng.normal(0, 0.02, (VOCABULARY, shape[1])).astype(np.float16)
    header, position = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": DTYPES[values.dtype.name], "shape": values.shape, "data_offsets": [position, position + values.nbytes]}
        position += values.nbytes
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())


def measure(arguments, folder):
    command = [arguments.planish, "bench", folder, "--json", "--repeat", "1", "--device", arguments.device,
               "--prompt-tokens", arguments.prompt, "--generate-tokens", arguments.generate]
    command += ["--threads", arguments.threads] if arguments.threads else []
    if arguments.device == "cpu" and subprocess.run(["chrt", "-f", "10", "true"], capture_output=True).returncode == 0:
        command = ["chrt", "-f", "10", *command]
    result = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--planish", default="target/release/planish")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--work", type=pathlib.Path, help="where the checkpoints are made and stay")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or pathlib.Path(scratch)
        folders = {kind: work / f"{kind.replace(' ', '-')}-{arguments.layers}" for kind in QUANTIZATION}
        for kind, folder in folders.items():
            if not folder.exists():
                write(kind, folder, arguments.layers)
        found = {kind: {"prefill": [], "decode": []} for kind in folders}
        for _ in range(arguments.rounds):
            for kind, folder in folders.items():
                result = measure(arguments, folder)
                for what, rates in found[kind].items():
                    rates.append(result[f"{what}_tokens_per_s"])
    print("| | prefill, tokens/s | to own | decode, tokens/s | to own |\n|---|---|---|---|---|")
    for kind, rates in found.items():
        medians = {what: statistics.median(values) for what, values in rates.items()}
        cells = [f"{medians[what]:.1f} | {medians[what] / statistics.median(found['own'][what]):.3f}" for what in medians]
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
