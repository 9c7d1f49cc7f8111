"""Tiny models of every architecture in golden/layer_models.py, packed by `planish quantize --format metal`, load in transformers.

Each weight must have the value that `planish dequantize` gives it. transformers unpacks as it loads, for there is no Apple GPU.
Prints what differs; the exit code is the number of those. Flags after the labels go to `planish quantize`, e.g.

    cargo build --release -p planish-cli
    python scripts/check_transformers_loading.py
    python scripts/check_transformers_loading.py "*moe" mixtral -- --include-experts

Known: GPT-2 has no layer that the format packs; transformers 5.23 loads no packed checkpoint of DINOv2 (its renaming of gated
layers has no words for scales) and no packed experts that the file holds as one tensor (Granite). Needs transformers, torch.
"""

import fnmatch
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent / "golden"))

import torch
import transformers
from transformers import AutoConfig

from layer_models import MODELS, SMALL

PROGRAM = pathlib.Path(__file__).parent.parent / "target/release/planish"


def write_source(case, folder):
    base = SMALL if case.base is None else case.base
    settings = {key: value for key, value in {**base, **case.settings}.items() if value is not None}
    torch.manual_seed(0)
    config = AutoConfig.for_model(case.kind, **settings)
    kind = getattr(transformers, case.auto)
    model = kind.from_config(config) if case.auto.startswith("Auto") else kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    model.float().save_pretrained(folder)


def loaded(case, folder):
    kind = getattr(transformers, case.auto)
    model, told = kind.from_pretrained(folder, dtype=torch.float32, device_map="cpu", output_loading_info=True)
    return model.state_dict(), {key: list(value) for key, value in told.items() if value}


def difference(case, folder, flags):
    """What differs, in words; empty where nothing does."""
    write_source(case, folder / "source")
    for arguments in (["quantize", "source", "--out", "packed", "--group-size", "32", *flags],
                      ["dequantize", "packed", "--out", "plain"]):
        ran = subprocess.run([PROGRAM.resolve(), *arguments], cwd=folder, capture_output=True, text=True)
        if ran.returncode:
            return ran.stderr.strip().splitlines()[-1]
    (found, told), (expected, told_of_plain) = loaded(case, folder / "packed"), loaded(case, folder / "plain")
    if found.keys() != expected.keys() or told != told_of_plain:
        return f"other weights: {sorted(found.keys() ^ expected.keys())[:3]} {told}"
    wrong = [name for name, value in expected.items() if not torch.allclose(found[name].float(), value.float(), atol=1e-5)]
    return f"other values: {wrong[:3]}" if wrong else ""


def main():
    transformers.logging.set_verbosity_error()
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    labels, flags = arguments[:cut], arguments[cut + 1 :]
    failures = count = 0
    for case in (case for cases in MODELS.values() for case in cases if not case.mlx_only):
        label = case.label or case.kind
        if labels and not any(fnmatch.fnmatch(label, pattern) for pattern in labels):
            continue
        count += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                problem = difference(case, pathlib.Path(folder), flags)
            except (RuntimeError, ValueError) as error:
                problem = str(error).strip().splitlines()[0]
        if problem:
            failures += 1
            print(f"{label}: {problem[:200]}", flush=True)
    print(f"{count - failures} of {count} load with equal values")
    sys.exit(failures)


main()
