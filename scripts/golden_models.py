"""Tiny random checkpoints of every family and the logits that transformers computes for them, for the tests of planish-model.

Writes crates/planish-model/tests/golden/<case>/{plain,metal}: config.json and model.safetensors (metal: 4 bits, packed by
transformers' own function, run by transformers after its own dequantization), and golden.safetensors beside them: tokens,
logits of a prefill of all but the last tokens, logits of those one by one; all float32. rope.json holds frequencies.
Versions and seeds stand in each golden file's metadata. Needs torch, transformers, safetensors.
"""

import json
import pathlib
import shutil

import safetensors.torch
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.metal_quantization import _affine_quantize_tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/planish-model/tests/golden"
STEPS = 5
SMALL = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64)
# name: (model type, settings, tokens, group of the 4-bit version, stored type)
CASES = {
    "llama_tied": ("llama", dict(tie_word_embeddings=True), 24, 16, torch.bfloat16),
    "llama_llama3_biases": ("llama", dict(
        attention_bias=True, mlp_bias=True, rope_parameters=dict(
            rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32)), 24, 16, torch.float32),
    "llama_yarn": ("llama", dict(head_dim=24, max_position_embeddings=64, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)), 40, 16, torch.bfloat16),
    "llama_linear_odd": ("llama", dict(
        vocab_size=101, hidden_size=56, intermediate_size=72, num_attention_heads=4, num_key_value_heads=1,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)), 70, 8, torch.float16),
    "llama_dynamic": ("llama", dict(max_position_embeddings=16, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, factor=3.0)), 24, 16, torch.bfloat16),
    "mistral_window": ("mistral", dict(sliding_window=7), 90, 16, torch.bfloat16),
    "qwen2_windows": ("qwen2", dict(
        use_sliding_window=True, sliding_window=9, max_window_layers=1, tie_word_embeddings=True), 24, 16, torch.bfloat16),
    "qwen3": ("qwen3", dict(head_dim=32, num_key_value_heads=1), 24, 16, torch.bfloat16),
}
ROPES = {
    "default": (64, dict(rope_type="default", rope_theta=100000.0)),
    "linear": (64, dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "dynamic": (96, dict(rope_type="dynamic", rope_theta=10000.0, factor=2.5)),
    "llama3": (128, dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                         original_max_position_embeddings=8192)),
    "yarn": (128, dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768)),
    "yarn_mscale": (64, dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, original_max_position_embeddings=4096,
                             beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.8)),
    "yarn_smooth": (80, dict(rope_type="yarn", rope_theta=150000.0, factor=32.0, original_max_position_embeddings=4096,
                             truncate=False, attention_factor=1.25)),
}


def random_model(kind, settings, stored, seed):
    config = AutoConfig.for_model(kind, **{**SMALL, **settings})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "norm" in name else 0.0
            parameter.copy_((around + 0.2 * torch.randn_like(parameter)).to(stored).float())
    return model.eval()


@torch.no_grad()
def logits(model, tokens):
    prompt = tokens[:-STEPS]
    result = model(prompt[None], use_cache=True)
    steps, cache = [], result.past_key_values
    for token in tokens[-STEPS:]:
        step = model(token[None, None], past_key_values=cache, use_cache=True)
        steps.append(step.logits[0, 0])
    return result.logits[0], torch.stack(steps)


def write_golden(path, model, tokens, seed):
    prefill, steps = logits(model, tokens)
    tensors = dict(tokens=tokens.to(torch.int32), prefill=prefill.contiguous(), steps=steps)
    metadata = dict(transformers=transformers.__version__, torch=torch.__version__, seed=str(seed))
    safetensors.torch.save_file(tensors, path, metadata)


def write_metal(model, folder, source, group):
    """The checkpoint that `MetalConfig(bits=4)` would save, packed on the CPU."""
    folder.mkdir()
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor.contiguous()
            continue
        codes, scales, biases = _affine_quantize_tensor(tensor, group, 4)
        module = name.removesuffix("weight")
        tensors |= {name: codes, module + "scales": scales, module + "qbiases": biases}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = dict(quant_method="metal", bits=4, group_size=group, modules_to_not_convert=None)
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_case(name, seed):
    kind, settings, count, group, stored = CASES[name]
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    plain, metal = folder / "plain", folder / "metal"
    plain.mkdir(parents=True)
    model = random_model(kind, settings, stored, seed)
    tokens = torch.randint(0, model.config.vocab_size, (count,))
    write_golden(plain / "golden.safetensors", model, tokens, seed)
    write_metal_from = random_model(kind, settings, stored, seed)
    model.to(stored).save_pretrained(plain)
    (plain / "generation_config.json").unlink(missing_ok=True)
    write_metal(write_metal_from, metal, plain, group)
    packed = AutoModelForCausalLM.from_pretrained(metal, device_map="cpu", dtype=torch.float32).eval()
    assert not any(parameter.dtype != torch.float32 for parameter in packed.parameters())
    write_golden(metal / "golden.safetensors", packed, tokens, seed)


def write_ropes():
    """Frequencies and factors; `length` is that of the sequence, for the scaling that depends on it."""
    rows = []
    for name, (head_dim, parameters) in ROPES.items():
        for length in (1, 300, 5000):
            config = AutoConfig.for_model("llama", hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim,
                                          max_position_embeddings=256, rope_parameters=dict(parameters))
            if parameters["rope_type"] == "default":
                compute = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding.compute_default_rope_parameters
                frequencies, factor = compute(config)
            else:
                frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, seq_len=length)
            rows.append(dict(name=name, length=length, config=dict(
                head_dim=head_dim, max_position_embeddings=256, rope_parameters=parameters),
                factor=factor, frequencies=frequencies.tolist()))
    versions = dict(transformers=transformers.__version__, torch=torch.__version__)
    (OUT / "rope.json").write_text(json.dumps(dict(versions=versions, rows=rows)) + "\n")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(CASES):
        write_case(name, seed)
    write_ropes()
