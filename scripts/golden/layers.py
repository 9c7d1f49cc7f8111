"""Which layers transformers ("metal") and mlx-lm quantize, for tiny random models of many architectures.

Writes crates/planish-quantize/tests/golden/layers.json: for each model its config.json, the names and shapes of the tensors of
its checkpoint, and the modules that each library turns into packed ones (group 32). Made with transformers 5.23.0 and mlx-lm
0.32.2; run: python scripts/golden/layers.py
"""

import json
import pathlib
import re
import struct
import tempfile

import mlx_lm
import torch
import transformers
from mlx.utils import tree_flatten
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, MetalConfig
from transformers.integrations.metal_quantization import MetalLinear, replace_with_metal_linear
from transformers.quantizers.base import HfQuantizer

GROUP = 32
SMALL = dict(
    vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
MOE = dict(num_local_experts=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, decoder_sparse_step=1)
GPT2 = dict(vocab_size=96, n_embd=64, n_layer=2, n_head=4, n_positions=64, n_inner=128)
# (label, model type, changes to SMALL or None for a config of its own, own config)
MODELS = [
    ("llama tied", "llama", dict(tie_word_embeddings=True)),
    ("llama untied", "llama", dict(tie_word_embeddings=False)),
    ("llama with biases", "llama", dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True)),
    ("llama whose down_proj the group does not divide", "llama", dict(intermediate_size=80, tie_word_embeddings=True)),
    ("mistral", "mistral", {}),
    ("qwen2", "qwen2", {}),
    ("qwen3", "qwen3", {}),
    ("gemma", "gemma", {}),
    ("gemma2", "gemma2", {}),
    ("gemma3", "gemma3_text", {}),
    ("phi", "phi", {}),
    ("phi3", "phi3", {}),
    ("starcoder2", "starcoder2", {}),
    ("stablelm", "stablelm", {}),
    ("olmo2", "olmo2", {}),
    ("cohere", "cohere", {}),
    ("granite", "granite", {}),
    ("smollm3", "smollm3", {}),
    ("gpt-neox", "gpt_neox", {}),
    ("gpt2", "gpt2", GPT2),
    ("mixtral", "mixtral", MOE),
    ("qwen3-moe", "qwen3_moe", MOE),
    ("qwen2-moe", "qwen2_moe", MOE | dict(shared_expert_intermediate_size=64)),
    ("opt", "opt", dict(ffn_dim=128, word_embed_proj_dim=64)),
    ("bert", "bert", {}),
]
# Keys that mlx-lm asks for and that transformers 5 writes under another name.
FOR_MLX = {
    "granite": dict(rope_theta=10000.0), "qwen3_moe": dict(rope_theta=10000.0, num_experts=4),
    "stablelm": dict(rope_theta=10000.0, partial_rotary_factor=0.25),
}
EXPERTS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def header(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        for name, value in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                tensors[name] = value["shape"]
    return dict(sorted(tensors.items()))


def metal_modules(config, auto):
    with torch.device("meta"):
        model = auto.from_config(config)
    skipped = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_metal_linear(model, skipped, MetalConfig(bits=4, group_size=GROUP), pre_quantized=True)
    return sorted(name for name, module in model.named_modules() if isinstance(module, MetalLinear)), sorted(skipped)


def mlx_modules(folder, tensors):
    """Paths of the checkpoint that mlx-lm packs, or None where it has no such model or names the tensors otherwise."""
    config = json.loads((folder / "config.json").read_text())
    try:
        model, config = mlx_lm.utils.load_model(folder, model_config=FOR_MLX.get(config["model_type"]))
    except (ValueError, TypeError, FileNotFoundError) as error:
        print("  mlx-lm:", str(error).splitlines()[0])
        return None
    _, config = mlx_lm.utils.quantize_model(model, config, GROUP, 4)
    paths = [name.removesuffix(".scales") for name, _ in tree_flatten(model.parameters()) if name.endswith(".scales")]
    found, unknown = {}, []
    for path in paths:
        packing = config["quantization"].get(path, config["quantization"])
        packing = [packing["bits"], packing["group_size"]]
        if f"{path}.weight" in tensors:
            found[path] = packing
            continue
        block, _, projection = path.rpartition(".switch_mlp.")
        expert = re.compile(re.escape(block) + r"\.experts\.\d+\.(\w+)\.weight")
        matches = [name for name in tensors if (m := expert.fullmatch(name)) and EXPERTS.get(m[1], m[1]) == projection]
        found |= {name.removesuffix(".weight"): packing for name in matches}
        if not matches:
            unknown.append(path)
    if unknown:
        print("  mlx-lm renames", unknown[:2])
        return None
    return dict(sorted(found.items()))


def main():
    rows = []
    for label, model_type, changes in MODELS:
        print(label)
        config = AutoConfig.for_model(model_type, **(changes if model_type == "gpt2" else SMALL | changes))
        auto = AutoModel if model_type == "bert" else AutoModelForCausalLM
        torch.manual_seed(0)
        model = auto.from_config(config).to(torch.bfloat16)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            model.save_pretrained(folder)
            tensors = header(folder)
            metal, skipped = metal_modules(config, auto)
            rows.append(
                dict(
                    label=label, config=json.loads((folder / "config.json").read_text()), tensors=tensors,
                    skipped=skipped, metal=metal, mlx=mlx_modules(folder, tensors),
                )
            )
    versions = {"transformers": transformers.__version__, "mlx-lm": mlx_lm.__version__}
    target = pathlib.Path(__file__).parents[2] / "crates/planish-quantize/tests/golden/layers.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    target.write_text(f'{{"versions": {json.dumps(versions)}, "group": {GROUP}, "models": [\n{lines}\n]}}\n')


main()
