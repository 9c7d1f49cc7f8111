"""planish's ways to choose codes beside mlx-lm's dwq, gptq, awq and dynamic_quant: one model, one calibration text, equal bits.

    python scripts/compare_quantizers.py --planish target/release/planish [--bits 2 3 4] [--only dwq,gptq] [--jobs 2]
        [--blas libopenblas.so.0] [--work DIR]

The model is models/demo-float; the text is what it writes itself, the judge models/demo/held-out.txt. The token table has 8 bits
everywhere but under a budget, where it takes part. Each run is a process, whose time and peak memory are its own; all files are
judged by one `planish evaluate`. Prints a Markdown table; a run that fails is a row that says so, and the exit code is their number.

mlx-lm computes in float32 here and its packed layers multiply by unpacked weights: the same arithmetic as theirs, some hundred times
faster on a processor, for which MLX has no fast packed product. MLX's wheel brings the reference BLAS: --blas names a faster one.
What a run rounds to bfloat16 in the end is scales and biases. dwq reads the text again until it has its samples, at its own
learning rate and at larger ones; dynamic_quant may miss its budget, so planish is given what it came to.

Needs mlx[cpu] 0.32.4 (mlx[cuda13] for --gpu), mlx-lm 0.32.2 and what they need. MLX compiles functions with a C++ compiler; where
that fails, set MLX_DISABLE_COMPILE=1.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import time

from safetensors import safe_open

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLAIN = ROOT / "models/demo-float"
JUDGE = ROOT / "models/demo/held-out.txt"
STORIES, TOKENS, PIECE = 250, 64 * 512, 512
GROUP, TABLE_BITS = 64, 8
DWQ_RATES = (1e-6, 1e-5, 1e-4)  # the first is its own
BUDGETS = [(2, 3, 2.75), (2, 4, 2.75), (3, 4, 3.75), (3, 6, 3.75)]  # low bits, high bits, bits per weight


# In the process of a peer.


def load_plain():
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm import utils

    mx.set_default_device(mx.gpu if "PEER_ON_GPU" in os.environ else mx.cpu)
    mx.random.seed(123)

    def unpacked(layer):
        return mx.dequantize(layer.weight, layer.scales, layer.biases, group_size=layer.group_size, bits=layer.bits)

    nn.QuantizedLinear.__call__ = lambda layer, x: x @ unpacked(layer).T
    nn.QuantizedEmbedding.as_linear = nn.QuantizedLinear.__call__
    return utils.load(str(PLAIN), return_config=True)


def pieces(tokenizer, text):
    import mlx.core as mx

    tokens = tokenizer.encode(pathlib.Path(text).read_text(), add_special_tokens=False)
    count = min(len(tokens), TOKENS) // PIECE
    return mx.array(tokens[: count * PIECE]).reshape(count, PIECE)


def table_apart(path, module):
    return {"group_size": GROUP, "bits": TABLE_BITS} if path.endswith("embed_tokens") else True


def run_peer(name, settings, text, out):
    import mlx.core as mx
    from mlx_lm import utils

    model, tokenizer, config = load_plain()
    data = pieces(tokenizer, text)
    bits = settings.get("bits")
    if name == "convert":
        model, config = utils.quantize_model(model, config, GROUP, bits, quant_predicate=table_apart)
    elif name == "dwq":
        import copy

        import mlx.optimizers as optimizers
        from mlx_lm.quant.dwq import dwq_quantize

        student, config = utils.quantize_model(copy.deepcopy(model), config, GROUP, bits, quant_predicate=table_apart)
        model.set_dtype(mx.float32)
        student.set_dtype(mx.float32)
        samples = [(piece, 0) for piece in data.tolist()]
        train = (samples * (settings["samples"] // len(samples) + 1))[: settings["samples"]]
        dwq_quantize(
            student, lambda batch, index, split: model(batch), optimizers.Adam(settings["rate"], bias_correction=True), train,
            samples[:4], batch_size=4, max_seq_length=PIECE, seed=123, dtype=mx.float32,
        )
        model = student
    elif name == "gptq":
        from mlx_lm.quant.gptq import gptq_quantize

        model.set_dtype(mx.float32)
        model, config["quantization"] = gptq_quantize(model, data, bits, GROUP, TABLE_BITS, GROUP)
    elif name == "awq":
        from mlx_lm.quant import awq

        model.set_dtype(mx.float32)
        chosen = awq.AWQ_MODEL_CONFIGS[config["model_type"]]
        awq.awq_quantize(model, data, chosen, bits=bits, group_size=GROUP, embed_bits=TABLE_BITS, embed_group_size=GROUP)
        config = awq.update_config(model, config)
    elif name == "dynamic_quant":
        from mlx_lm.quant import dynamic_quant

        widths = settings["low"], GROUP, settings["high"], GROUP
        model.set_dtype(mx.float32)
        found = dict(dynamic_quant.estimate_sensitivities(model, data, *widths))
        model.set_dtype(mx.bfloat16)  # scales of 16 bits count
        threshold = dynamic_quant.estimate_threshold(model, found, settings["budget"], *widths)

        def chosen(path, module):
            is_high = found.get(path, float("-inf")) > threshold
            return {"bits": settings["high"], "group_size": GROUP} if is_high else True

        model, config = utils.quantize_model(model, config, GROUP, settings["low"], quant_predicate=chosen)
    model.set_dtype(mx.bfloat16)
    utils.save(out, str(PLAIN), model, tokenizer, config)


# In the process that compares.


class Runs:
    def __init__(self, arguments):
        self.arguments = arguments
        arguments.planish = arguments.planish.resolve()
        self.work = arguments.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.text = self.work / "calibration.txt"

    def write_text(self):
        """Stories of the model's own, one after another as in its training."""
        prompts = self.work / "prompts.jsonl"
        line = {"prompt": "", "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 400}
        prompts.write_text("".join(json.dumps(line | {"seed": seed}) + "\n" for seed in range(1, STORIES + 1)))
        command = [self.arguments.planish, "generate", PLAIN, "--prompts", prompts, "--json"]
        answers = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        stories = [json.loads(answer)["text"] for answer in answers]
        self.text.write_text("".join(f"<|begin|>{story}<|end|>" for story in stories))

    def jobs(self):
        """Name, settings and command of each run; None of a command is the peer's process."""
        samples = self.arguments.dwq_samples
        peers = [("mlx-lm dwq", "dwq", {"rate": rate, "samples": samples}) for rate in DWQ_RATES]
        peers += [(f"mlx-lm {name}", name, {}) for name in ("awq", "gptq", "convert")]
        for label, name, settings in peers:
            for bits in self.arguments.bits:
                if name != "gptq" or bits in (2, 4):  # the widths that it knows
                    yield label, name, {"bits": bits} | settings, None
        for low, high, budget in BUDGETS:
            yield "mlx-lm dynamic_quant", "dynamic_quant", {"low": low, "high": high, "budget": budget}, None
        for bits in self.arguments.bits:
            for method in ("search", "weighted", "calibrated"):
                flags = ["--bits", bits, "--override", f"embed_tokens={TABLE_BITS}", "--method", method]
                yield f"planish {method}", method, {"bits": bits}, flags

    def budgets(self, found):
        """Runs of planish at the bits that dynamic_quant came to: it may miss what it was asked for."""
        came_to = {packed_bits(folder) for label, _, folder, *_ in found if folder and "dynamic_quant" in label}
        for bits in sorted(came_to):
            for method in ("search", "calibrated"):
                yield f"planish {method}", "budget", {"budget": bits}, ["--budget", bits, "--method", method]

    def run(self, job):
        """The label, what was asked, the folder, seconds, seconds of the processors, peak in MB; an error in place of the folder."""
        label, name, settings, flags = job
        out = self.work / "-".join([label.replace(" ", "-"), *(f"{key}{value}" for key, value in settings.items())])
        log = open(f"{out}.log", "w")
        environment = dict(os.environ, OPENBLAS_NUM_THREADS=str(self.arguments.threads))
        if flags is None:
            if self.arguments.gpu:
                environment["PEER_ON_GPU"] = "1"
            if self.arguments.blas:
                environment["LD_PRELOAD"] = str(self.arguments.blas)
            command = [sys.executable, __file__, "--peer", name, json.dumps(settings), self.text, out]
        else:
            text = [] if "search" in flags and "--budget" not in flags else ["--text", self.text]
            tokens = ["--text-tokens", TOKENS] if "weighted" in flags or "calibrated" in flags else []
            command = [self.arguments.planish, "quantize", PLAIN, "--out", out, "--format", "mlx", "--force", *flags, *text, *tokens]
        start = time.monotonic()
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        print(f"{label} {settings}: exit code {process.returncode}, {seconds:.1f} s", file=sys.stderr, flush=True)
        failed = process.returncode != 0
        return label, settings, None if failed else out, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def judge(self, folders):
        command = [self.arguments.planish, "evaluate", *folders, "--reference", PLAIN, "--text", JUDGE, "--pieces", "16", "--exact", "--json"]
        lines = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout.splitlines()
        return {str(folder): json.loads(line) for folder, line in zip(folders, lines)}


def bits_per_weight(folder, among=lambda name: True):
    """Of all tensors whose names are among those, over the weights that these stand for."""
    size = weights = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            if among(name):
                size += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    with safe_open(PLAIN / "model.safetensors", "np") as plain:
        for name in plain.keys():
            weights += math.prod(plain.get_slice(name).get_shape()) if among(name) else 0
    return 8 * size / weights


def packed_bits(folder):
    """Bits per weight of what is packed, norms left out; rounded down."""
    return math.floor(1000 * bits_per_weight(folder, lambda name: "norm" not in name)) / 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--planish", type=pathlib.Path, default=ROOT / "target/release/planish")
    parser.add_argument("--bits", type=int, nargs="*", default=[2, 3, 4])
    parser.add_argument("--only", help="words of which one stands in the name of a run, between commas")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of --blas in each")
    parser.add_argument("--blas", type=pathlib.Path)
    parser.add_argument("--gpu", action="store_true", help="mlx-lm computes on the GPU of MLX's build")
    parser.add_argument("--dwq-samples", type=int, default=2048)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("quantizers"))
    arguments = parser.parse_args()
    runs = Runs(arguments)
    if not runs.text.exists():
        runs.write_text()
    words = arguments.only.split(",") if arguments.only else [""]
    jobs = [job for job in runs.jobs() if any(word in f"{job[0]} {job[2]}" for word in words)]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(runs.run, jobs))
        found += pool.map(runs.run, runs.budgets(found))
    folders = [folder for _, _, folder, *_ in found if folder]
    judged = runs.judge(folders) if folders else {}
    print("| codes by | asked | bits per weight, all in all | KL | bounds | perplexity | s | processor s | peak, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for label, settings, folder, seconds, processor, peak in found:
        asked = ", ".join(f"{key} {value}" for key, value in settings.items())
        costs = f"{seconds:.0f} | {processor:.0f} | {peak:.0f}"
        if folder is None:
            print(f"| {label} | {asked} | failed | | | | {costs} |")
            continue
        row = judged[str(folder)]
        low, high = row["mean_kl_divergence_interval"]
        divergence = f"{row['mean_kl_divergence']:.4f} | {low:.4f} to {high:.4f} | {row['perplexity']:.4f}"
        print(f"| {label} | {asked} | {bits_per_weight(folder):.3f} | {divergence} | {costs} |")
    sys.exit(sum(folder is None for _, _, folder, *_ in found))


if sys.argv[1:2] == ["--peer"]:
    run_peer(sys.argv[2], json.loads(sys.argv[3]), *sys.argv[4:])
else:
    main()
