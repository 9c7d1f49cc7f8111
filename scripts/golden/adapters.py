"""Adapters as PEFT and mlx-lm save them, and the logits that these libraries compute with them, for tests/adapters.rs of planish-model.

Writes crates/planish-model/tests/golden_adapters/<case>: the adapter, and golden.safetensors (tokens, logits in f32). The model is
tests/golden/llama_llama3_biases/plain. The seed is 5; versions stand in the golden files' metadata.
Needs torch, transformers, peft 0.21.2, mlx 0.32.4, mlx-lm 0.32.2, safetensors.
"""

import importlib.metadata
import json
import pathlib
import shutil

import safetensors.torch
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TESTS = pathlib.Path(__file__).resolve().parents[2] / "crates/planish-model/tests"
BASE = TESTS / "golden/llama_llama3_biases/plain"
OUT = TESTS / "golden_adapters"
TOKENS = [3, 17, 9, 30, 1, 22, 8, 13, 27, 5, 11, 2]
STEPS = 3
CASES = {
    "lora": dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"v_proj": 8},
                 alpha_pattern={"layers.1.self_attn.q_proj": 20}),
    "rslora": dict(r=4, lora_alpha=3, use_rslora=True, target_modules=["o_proj", "gate_proj"]),
    "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=["k_proj", "up_proj"]),
}


def save(folder, logits, by):
    golden = {"tokens": torch.tensor(TOKENS, dtype=torch.int32), "prefill": logits[:-STEPS].contiguous(),
              "steps": logits[-STEPS:].contiguous()}
    safetensors.torch.save_file(golden, folder / "golden.safetensors", {"by": by})
    print(folder.name)


def peft(name, settings):
    torch.manual_seed(5)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                factor = 1 + 0.3 * torch.rand_like(parameter) if "magnitude" in key else None
                parameter.copy_(parameter * factor if factor is not None else 0.1 * torch.randn_like(parameter))
        logits = model.eval()(torch.tensor([TOKENS])).logits[0]
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "llama_llama3_biases"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("peft", "transformers", "torch"))
    save(folder, logits, f"{versions}, seed 5")


def mlx(name, kind):
    import mlx.core as mx
    import numpy
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    mx.random.seed(5)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # mlx-lm does not know transformers 5's `rope_parameters`.
    rope = json.loads((BASE / "config.json").read_text())["rope_parameters"]
    model, _ = load_model(BASE, model_config={"rope_theta": rope["rope_theta"], "rope_scaling": rope})
    model.set_dtype(mx.float32)
    model.freeze()
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "mlp.down_proj"]}
    linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    trained = [(key, value + 0.05 * mx.random.normal(value.shape)) for key, value in tree_flatten(model.trainable_parameters())]
    model.load_weights(trained, strict=False)
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(trained))
    config = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    model.eval()
    logits = torch.from_numpy(numpy.array(model(mx.array([TOKENS]))[0].astype(mx.float32)).copy())
    save(folder, logits, f"mlx {importlib.metadata.version('mlx')}, mlx-lm {importlib.metadata.version('mlx-lm')}, seed 5")


if __name__ == "__main__":
    for name, settings in CASES.items():
        peft(name, settings)
    mlx("mlx_lora", "lora")
    mlx("mlx_dora", "dora")
