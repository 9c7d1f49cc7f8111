"""Tiny random checkpoints of every family and the logits that transformers computes for them, for the tests of planish-model.

Writes crates/planish-model/tests/golden/<case>/{plain,metal}: config.json and model.safetensors (metal: 4 bits, packed by
transformers' own function, run by transformers after its own dequantization), and golden.safetensors beside them: tokens,
logits of a prefill of all but the last tokens, logits of those one by one; all float32. rope.json holds frequencies.
The cases stand in cases/; names or patterns as arguments make only those. Versions and seeds stand in each golden file's metadata.
Needs torch, transformers, safetensors.
"""

import fnmatch
import json
import pathlib
import re
import shutil
import sys
import zlib

import safetensors.torch
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, MetalConfig
from transformers.integrations.metal_quantization import (MetalLinear, _affine_quantize_tensor,
                                                          replace_with_metal_linear)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.quantizers.quantizer_metal import MetalHfQuantizer

from cases import all_cases

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/planish-model/tests/golden"
STEPS = 5
SMALL = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64)
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
    "longrope": (32, dict(rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=128,
                          short_factor=[1 + i / 16 for i in range(16)], long_factor=[1 + i * i / 4 for i in range(16)])),
    "longrope_factor": (16, dict(rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=4096,
                                 factor=32.0, partial_rotary_factor=0.5, short_factor=[1.0, 1.25, 1.5, 2.0],
                                 long_factor=[1.0, 4.0, 12.0, 40.0])),
    "proportional": (32, dict(rope_type="proportional", rope_theta=1000000.0, partial_rotary_factor=0.25, factor=2.0)),
}


def configuration(case):
    settings = {key: value for key, value in {**SMALL, **case.settings}.items() if value is not None or key not in SMALL}
    if hasattr(transformers, case.kind):
        return getattr(transformers, case.kind)(**settings)
    return AutoConfig.for_model(case.kind, **settings)


def auto_class(config, case):
    """Wrappers with images have a class of their own; only their text part runs here."""
    causal = type(config) in AutoModelForCausalLM._model_mapping and not case.wrapper
    return AutoModelForCausalLM if causal else AutoModelForImageTextToText


def random_model(case, seed):
    """Weights that the stored type holds exactly, those of norms around 1."""
    torch.manual_seed(seed)
    config = configuration(case)
    model = auto_class(config, case).from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if re.search(r"(norm|ln_)[^.]*(\.\d+)?\.weight$|router\.scale$|per_expert_scale$", name) else 0.0
            parameter.copy_((around + case.spread * torch.randn_like(parameter)).to(case.stored).float())
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_((case.spread * torch.randn_like(buffer)).to(case.stored).float())
            if name.endswith("layer_scalar"):
                buffer.copy_((1.0 + case.spread * torch.randn_like(buffer)).to(case.stored).float())
    return model.eval()


@torch.no_grad()
def logits(model, tokens, whole):
    prompt = tokens[:-STEPS]
    if whole:
        result = model(tokens[None]).logits[0]
        return result[:-STEPS], result[-STEPS:].clone()
    result = model(prompt[None], use_cache=True)
    cache_name = "past_key_values" if "past_key_values" in result else "cache_params"
    steps, cache = [], {cache_name: result[cache_name]}
    for token in tokens[-STEPS:]:
        step = model(token[None, None], **cache, use_cache=True)
        steps.append(step.logits[0, 0])
    return result.logits[0], torch.stack(steps)


def write_golden(path, model, tokens, seed, whole):
    prefill, steps = logits(model, tokens, whole)
    tensors = dict(tokens=tokens.to(torch.int32), prefill=prefill.contiguous(), steps=steps)
    metadata = dict(transformers=transformers.__version__, torch=torch.__version__, seed=str(seed))
    safetensors.torch.save_file(tensors, path, metadata)


@torch.no_grad()
def write_metal(model, folder, case):
    """What `MetalConfig(bits=4)` would save: its choice of layers and its packing, done on the CPU."""
    quantization = MetalConfig(bits=4, group_size=case.group, modules_to_not_convert=list(case.unpacked) or None)
    excluded = MetalHfQuantizer(quantization).get_modules_to_not_convert(
        model, quantization.modules_to_not_convert, model._keep_in_fp32_modules)
    floats = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    replace_with_metal_linear(model, excluded, quantization, pre_quantized=True)
    for name, source in floats.items():
        module = model.get_submodule(name)
        if not isinstance(module, MetalLinear):
            continue
        codes, scales, biases = _affine_quantize_tensor(source.weight, case.group, 4)
        module.weight = torch.nn.Parameter(codes, requires_grad=False)
        module.scales, module.qbiases = torch.nn.Parameter(scales), torch.nn.Parameter(biases)
        if source.bias is not None:
            module.bias = source.bias
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            parameter.data = parameter.to(case.stored)
    model.config.quantization_config = quantization
    model.save_pretrained(folder, save_original_format=not case.module_layout)
    (folder / "generation_config.json").unlink(missing_ok=True)


def drop_towers(folder):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if not re.search(r"_tower\.|embed_(audio|vision)\.", name)}
    safetensors.torch.save_file(kept, path, dict(format="pt"))


def edit_config(folder, changes):
    path = folder / "config.json"
    config = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if changes.get(key, 0) is not None}
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_case(name, case):
    seed = zlib.crc32(name.encode())
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    plain, metal = folder / "plain", folder / "metal"
    plain.mkdir(parents=True)
    model = random_model(case, seed)
    tokens = torch.randint(0, model.config.get_text_config().vocab_size, (case.tokens,))
    write_golden(plain / "golden.safetensors", model, tokens, seed, case.whole)
    model.to(case.stored).save_pretrained(plain, save_original_format=not case.plain_module_layout)
    (plain / "generation_config.json").unlink(missing_ok=True)
    write_metal(random_model(case, seed), metal, case)
    packed = auto_class(model.config, case).from_pretrained(metal, device_map="cpu", dtype=torch.float32).float().eval()
    assert not any(parameter.dtype != torch.float32 for parameter in packed.parameters())
    write_golden(metal / "golden.safetensors", packed, tokens, seed, case.whole)
    if case.text_only:
        drop_towers(plain)
        drop_towers(metal)
    if case.published:
        edit_config(plain, case.published)
        edit_config(metal, case.published)
    size = sum(path.stat().st_size for path in folder.rglob("*.*"))
    print(f"{name}: {size / 1024:.0f} KiB")


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
    wanted = sys.argv[1:]
    for name, case in all_cases().items():
        if not wanted or any(fnmatch.fnmatch(name, pattern) for pattern in wanted):
            write_case(name, case)
    if not wanted:
        write_ropes()
