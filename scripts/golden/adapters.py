"""Adapters as PEFT and mlx-lm save them, and the logits that these libraries compute with them, for tests/adapters.rs of planish-model.

Writes crates/planish-model/tests/golden_adapters/<case>: the adapter, and golden.safetensors (tokens, logits in f32). The model is
tests/golden/llama_llama3_biases/plain; golden_metal.safetensors are the logits with the codes of its metal twin, unpacked by transformers'
own function. golden_adapters/mlx_base is a tiny Llama that mlx-lm packed; peft_on_mlx and mlx_on_mlx are adapters of it, for which PEFT has the weights
that `mlx.core.dequantize` gives. The seed is 5; versions stand in the golden files' metadata.
Needs torch, transformers, peft 0.21.2, mlx 0.32.4, mlx-lm 0.32.2, safetensors.
"""

import importlib.metadata
import json
import pathlib
import shutil
import tempfile

import safetensors.torch
import tokenizers
import torch
import transformers
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


def save(folder, logits, by, name="golden"):
    golden = {"tokens": torch.tensor(TOKENS, dtype=torch.int32), "prefill": logits[:-STEPS].contiguous(),
              "steps": logits[-STEPS:].contiguous()}
    safetensors.torch.save_file(golden, folder / f"{name}.safetensors", {"by": by})
    print(folder.name, name)


def versions(*packages):
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages) + ", seed 5"


def peft(name, settings, base=None, base_name="llama_llama3_biases"):
    torch.manual_seed(5)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    base = base or AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                factor = 1 + 0.3 * torch.rand_like(parameter) if "magnitude" in key else None
                parameter.copy_(parameter * factor if factor is not None else 0.1 * torch.randn_like(parameter))
        logits = model.eval()(torch.tensor([TOKENS])).logits[0]
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base_name
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save(folder, logits, versions("peft", "transformers", "torch"))


def peft_on_metal(name):
    """The logits of a saved adapter on the weights that the packed twin stands for."""
    from peft import PeftModel
    from transformers.integrations.metal_quantization import _affine_dequantize_tensor

    metal = BASE.parent / "metal"
    packing = json.loads((metal / "config.json").read_text())["quantization_config"]
    stored = safetensors.torch.load_file(metal / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            value, part = stored[key], key.removesuffix(".weight")
            if f"{part}.scales" in stored:
                scales, biases = stored[f"{part}.scales"].float(), stored[f"{part}.qbiases"].float()
                value = _affine_dequantize_tensor(value, scales, biases, packing["group_size"], packing["bits"])
            parameter.copy_(value.reshape(parameter.shape))
        logits = PeftModel.from_pretrained(model, OUT / name).eval()(torch.tensor([TOKENS])).logits[0]
    save(OUT / name, logits, versions("peft", "transformers", "torch"), "golden_metal")


def mlx_base():
    """A tiny Llama in 4 bits by mlx-lm, and the same in transformers with the weights that MLX unpacks."""
    import mlx.core as mx
    import numpy
    from mlx_lm.convert import convert
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=32)
    model = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.2, max_position_embeddings=64, tie_word_embeddings=True))
    folder = OUT / "mlx_base"
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as original:
        model.save_pretrained(original)
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(token): token for token in range(32)}, unk_token="0"))
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(original)
        convert(original, str(folder), quantize=True, q_bits=4, q_group_size=32, dtype="float16")
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    stored = mx.load(str(folder / "model.safetensors"))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            value, part = stored[key], key.removesuffix(".weight")
            if f"{part}.scales" in stored:
                scales, biases = (stored[f"{part}.{name}"].astype(mx.float32) for name in ("scales", "biases"))
                value = mx.dequantize(value, scales, biases, group_size=32, bits=4)
            parameter.copy_(torch.from_numpy(numpy.array(value.astype(mx.float32)).copy()))
    return model


def mlx(name, kind, base=BASE):
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
    rope = json.loads((base / "config.json").read_text())["rope_parameters"]
    scaling = rope if rope.get("rope_type") != "default" else None
    model, _ = load_model(base, model_config={"rope_theta": rope["rope_theta"], "rope_scaling": scaling})
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
    save(folder, logits, versions("mlx", "mlx-lm"))


if __name__ == "__main__":
    for name, settings in CASES.items():
        peft(name, settings)
    peft_on_metal("lora")
    peft_on_metal("dora")
    mlx("mlx_lora", "lora")
    mlx("mlx_dora", "dora")
    peft("peft_on_mlx", dict(r=4, lora_alpha=6, target_modules=["v_proj", "o_proj", "up_proj"]), mlx_base(), "mlx_base")
    mlx("mlx_on_mlx", "lora", OUT / "mlx_base")
    mlx("mlx_dora_on_mlx", "dora", OUT / "mlx_base")
