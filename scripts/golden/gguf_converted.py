"""What llama.cpp's converter makes of the checkpoints whose logits models.py recorded, as recipes.

Writes crates/planish-model/tests/golden_converted/recipes.json: for each case the metadata that the converter writes, and for each
tensor its name, its shape, the tensor of the checkpoint that its values come from, and how they were moved. The converter is run and
its file is searched for the values; nothing is taken from its text. A sum over all tensors is recorded, so that a test that
follows the recipe knows that it has the converter's file. `config` are changes to config.json, for what a file cannot say.

How, step by step, on matrices (rows, cols): `T8` transposes each block of 8 rows, `R0-4,9-5` takes rows (first-last, a third number
is the step), `C0-4` takes columns, `+1` adds one, `E` is the negative exponential. `{}` in the name stands for every expert.

Needs gguf, numpy, safetensors, torch, transformers, and the source of llama.cpp.
Run: python scripts/golden/gguf_converted.py LLAMA.CPP [--files FOLDER] [CASE ..]; with --files the files are kept, with a vocabulary,
for scripts/compare_llama_cpp.py.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parents[2]
SOURCE = HERE / "crates/planish-model/tests/golden"
OUT = HERE / "crates/planish-model/tests/golden_converted/recipes.json"
# Case to changes of config.json.
CASES = {
    "gpt_oss": {"swiglu_limit": 7.0},
    "deepseek_v2": {"rope_parameters": {"factor": 4.0, "mscale": 0.8, "mscale_all_dim": 0.8, "original_max_position_embeddings": 16,
                                        "rope_theta": 10000.0, "rope_type": "yarn"}},
    "deepseek_v3": {"scoring_func": "sigmoid"},
    "lfm2": {}, "lfm2_moe": {}, "granitemoe": {}, "granitemoeshared": {},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "granitemoehybrid_experts": {"layer_types": ["attention", "mamba"], "position_embedding_type": "nope"},
    "glm4_moe": {}, "dots1": {"sliding_window": None, "layer_types": None}, "ernie4_5_moe": {},
    "qwen3_next": {}, "qwen3_5": {}, "qwen3_5_moe": {},
    "gemma4_text": {}, "gemma4_text_shared": {}, "gemma4_text_experts": {}, "olmo_clipped": {},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llama_cpp", type=pathlib.Path)
    parser.add_argument("--files", type=pathlib.Path)
    parser.add_argument("cases", nargs="*")
    return parser.parse_args()


def add_vocabulary(model):
    """Tokens without a meaning, so that llama.cpp loads the file."""
    count, writer = model.hparams["vocab_size"], model.gguf_writer
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{index}" for index in range(count)])
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([1] * count)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def convert(conversion, gguf, case, changes, path, scratch):
    folder = scratch / case
    shutil.copytree(SOURCE / case / "plain", folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    # Gemma's converter counts tokens there.
    vocabulary = {"model": {"vocab": {f"t{index}": index for index in range(config["vocab_size"])}}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    config = {key: value for key, value in config.items() if value is not None or key not in changes}
    kind = conversion.get_model_class(config["architectures"][0])
    kind.no_mtp = True
    for name in ("set_vocab", "_set_vocab_gpt2", "_set_vocab_sentencepiece"):
        setattr(kind, name, add_vocabulary)
    kind(folder, gguf.LlamaFileType.ALL_F32, path, eager=True, hparams=config).write()


def sources(case):
    """Tensors of the checkpoint as f32; experts also as one, under a name with `{}`."""
    import safetensors.torch

    tensors = safetensors.torch.load_file(SOURCE / case / "plain/model.safetensors")
    tensors = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    experts = {}
    for name in tensors:
        if match := re.match(r"(.*\.experts\.)\d+(\..*)", name):
            experts.setdefault(f"{match[1]}{{}}{match[2]}", []).append(name)
    key = lambda name: int(re.search(r"\.experts\.(\d+)", name)[1])  # noqa: E731
    stacks = {name: np.stack([tensors[one] for one in sorted(all, key=key)]) for name, all in experts.items()}
    return tensors | stacks


def matrix(values):
    return values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values.reshape(-1, 1)


def transposed(values, rows):
    """Each block of rows transposed."""
    values = matrix(values)
    return np.ascontiguousarray(values.reshape(-1, rows, values.shape[1]).swapaxes(1, 2)).reshape(-1, rows)


def runs(indices):
    """0-3,8-14/2 for [0, 1, 2, 3, 8, 10, 12, 14]."""
    found, at = [], 0
    while at < len(indices):
        step, end = (indices[at + 1] - indices[at] if at + 1 < len(indices) else 1), at + 1
        while end < len(indices) and step > 0 and indices[end] - indices[end - 1] == step:
            end += 1
        found.append(f"{indices[at]}-{indices[end - 1]}" + (f"-{step}" if step > 1 and end - at > 1 else ""))
        at = end
    return ",".join(found)


def rows_of(target, values):
    """Which rows of `values` those of `target` are."""
    if target.shape[1] != values.shape[1]:
        return None
    places = {}
    for index, row in enumerate(values):
        places.setdefault(row.tobytes(), index)
    if target.shape == values.shape and np.array_equal(target, values):
        return ""
    found = [places.get(row.tobytes()) for row in target]
    return None if None in found else "R" + runs(found)


def hows(target, values):
    """Ways from the values of a source to a target, the simplest first."""
    flat = matrix(values)
    if target.size == values.size and np.array_equal(target.ravel(), values.ravel()):
        yield ""
    if target.size == values.size and np.array_equal(target.ravel(), (values + np.float32(1)).ravel()):
        yield "+1"
    if target.size == values.size and np.allclose(target.ravel(), -np.exp(values.ravel()), rtol=1e-6):
        yield "E"
    goal = matrix(target)
    if (how := rows_of(goal, flat)) is not None:
        yield how
    if values.ndim > 1:
        rows = values.shape[-2]
        if (how := rows_of(goal, transposed(values, rows))) is not None:
            yield f"T{rows} {how}".strip()
        if values.ndim == 2 and (how := rows_of(goal.T, flat.T)) is not None:
            yield "C" + how[1:]
    if target.ndim == 3:
        rows = target.shape[-1]
        if (how := rows_of(transposed(target, target.shape[-2]), flat)) is not None:
            yield f"{how} T{rows}".strip()
    if values.ndim == 1 and target.size == len(values):
        # Reordered, then the negative exponential.
        order = [int(np.abs(-np.exp(values) - value).argmin()) for value in target.ravel()]
        if np.allclose(-np.exp(values[order]), target.ravel(), rtol=1e-6):
            yield f"R{runs(order)} E"


def find(name, target, tensors):
    layer = re.match(r"blk\.(\d+)\.", name)
    best = None
    for source, values in tensors.items():
        inside = re.search(r"\.layers\.(\d+)\.", source)
        if (layer and layer[1]) != (inside and inside[1]) or values.size < target.size:
            continue
        for how in hows(target, values):
            rank = (len(how), abs(values.size - target.size), source)
            best = min(best or (rank, source, how), (rank, source, how))
    return best and best[1:]


def recipe(gguf, case, changes, path):
    reader = gguf.GGUFReader(path)
    metadata = {}
    for key, field in reader.fields.items():
        if not key.startswith(("tokenizer.", "GGUF.")) and (key == "general.architecture" or not key.startswith("general.")):
            metadata[key] = field.contents()
    tensors, total, listed = sources(case), hashlib.sha256(), []
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        values = np.array(tensor.data, dtype=np.float32).reshape(shape)
        found = find(tensor.name, values, tensors)
        if found is None and tensor.name.startswith("rope_"):
            listed.append([tensor.name, shape, [float(value) for value in values], ""])
            continue
        if found is None:
            raise ValueError(f"{case}: {tensor.name} is of no tensor")
        if "E" not in found[1]:
            total.update(values.tobytes())
        listed.append([tensor.name, shape, *found])
    return {"config": changes, "metadata": metadata, "sha256": total.hexdigest()[:16], "tensors": listed}


def main():
    options = arguments()
    os.environ["TQDM_DISABLE"] = "1"
    sys.path[:0] = [str(options.llama_cpp), str(options.llama_cpp / "gguf-py")]
    import conversion
    import gguf
    import logging

    logging.disable(logging.CRITICAL)
    recipes = {}
    with tempfile.TemporaryDirectory() as scratch:
        files = options.files or pathlib.Path(scratch)
        for case in options.cases or CASES:
            path = files / f"{case}.gguf"
            convert(conversion, gguf, case, CASES[case], path, pathlib.Path(scratch))
            recipes[case] = recipe(gguf, case, CASES[case], path)
            print(f"{case}: {len(json.dumps(recipes[case]))} bytes")
    if not options.cases:
        lines = (f"{json.dumps(case)}: {json.dumps(recipe, separators=(',', ':'))}" for case, recipe in recipes.items())
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
