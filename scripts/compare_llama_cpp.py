"""Compares llama.cpp's probabilities with the recorded logits of transformers, on files of scripts/golden/gguf_converted.py.

After the prompt of each case llama.cpp (xllamacpp) chooses greedily; the logarithms of the probabilities of all tokens are compared
with those of the golden logits, and the tokens with the likeliest ones as long as they agree. Cases whose recipe changes
config.json have no recorded logits and are left out, unless the folder has CASE.npy (tokens of the vocabulary, float32) for them.

Needs: numpy, xllamacpp. Run: python scripts/compare_llama_cpp.py FOLDER [CASE ..]
"""

import json
import pathlib
import subprocess
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = HERE / "crates/planish-model/tests/golden"


def safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    kinds = {"F32": "<f4", "I64": "<i8", "I32": "<i4", "U32": "<u4"}
    read = lambda entry: np.frombuffer(  # noqa: E731
        data[8 + size + entry["data_offsets"][0] : 8 + size + entry["data_offsets"][1]], kinds[entry["dtype"]]
    ).reshape(entry["shape"])
    return {name: read(entry) for name, entry in json.loads(data[8 : 8 + size]).items() if name != "__metadata__"}


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def probabilities(path, prompt, vocabulary):
    """Logarithms of the probabilities after the prompt, by token; -inf for what is not told."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 64
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.cpuparams.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(parameters)
    request = {"prompt": prompt, "n_predict": 1, "temperature": 0.0, "n_probs": vocabulary, "cache_prompt": False, "logprobs": vocabulary}
    answer = server.handle_completions(request)
    found = np.full(vocabulary, -np.inf)
    tops = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    for top in tops:
        found[top["id"]] = top["logprob"]
    return found


def compare(path):
    case = path.stem
    golden = safetensors(GOLDEN / case / "plain/golden.safetensors")
    other = path.with_suffix(".npy")
    logits = np.load(other) if other.exists() else golden["prefill"].reshape(-1, golden["prefill"].shape[-1])[-1]
    prompt = [int(token) for token in golden["tokens"].ravel()][: golden["prefill"].reshape(-1, len(logits)).shape[0]]
    found, expected = probabilities(path, prompt, len(logits)), log_softmax(logits)
    told = np.isfinite(found)
    error = np.abs(found - expected)[told].max()
    same = found.argmax() == expected.argmax()
    print(f"{case}: {told.sum()} of {len(logits)} tokens, largest difference {error:.2e}, the likeliest {'agrees' if same else 'DIFFERS'}")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[2].endswith(".gguf"):
        compare(pathlib.Path(sys.argv[1], sys.argv[2]))
    else:
        files = sorted(pathlib.Path(sys.argv[1]).glob("*.gguf"))
        for file in (file for file in files if not sys.argv[2:] or file.stem in sys.argv[2:]):
            # What llama.cpp does not load may end its process.
            done = subprocess.run([sys.executable, __file__, sys.argv[1], file.name], capture_output=True, text=True, timeout=60)
            lines = [line for line in done.stdout.splitlines() if line.startswith(f"{file.stem}: ")]
            print(lines[-1] if lines else f"{file.stem}: not loaded", flush=True)
