"""A table of module names against patterns, decided by `should_convert_module` of transformers 5.23.0.

Writes crates/planish-quantize/tests/golden/patterns.json; run: python scripts/golden/patterns.py
"""

import json
import pathlib

import transformers
from transformers.quantizers.quantizers_utils import should_convert_module

NAMES = [
    "lm_head", "model.lm_head", "lm_head.dense", "my_lm_head", "model.embed_tokens", "model.norm", "",
    "model.layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj", "model.layers.1.mlp.gate",
    "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.down_proj", "model.layers.21.mlp.down_proj",
    "model.decoder.layers.23.fc1", "model.decoder.layers.23.fc10", "layer.1.attn", "layer.11.attn", "layer1.attn",
    "visual.blocks.0.attn.qkv", "model.visual.blocks.0.attn.qkv", "transformer.h.3.c_attn", "model.layers.1", "é.ü",
    "model.layers.1.mlp.experts.3.w1", "model.layers.1.block_sparse_moe.gate", "pooler.dense", "pooler.dense.bias",
]
PATTERNS = [
    "lm_head", "model.lm_head", "model", "model.", "layer.1", "layer.*", "layers.1", "model.layers.1", "model.layers.1.",
    "model.layers.1.mlp.gate", "mlp.gate", "gate", "fc1", r".*fc1", r"model\.layers\.\d+\.mlp\.down_proj",
    r"model\.layers\.1\d*\.self_attn\..*", r"model\.layers\.(1|11)\.self_attn", "q_proj|down_proj", ".*q_proj|.*down_proj",
    "down_proj", "visual", "visual.*", ".*visual", "", ".", "x*", "head", r"(?i:LM_HEAD)", r"model\.layers\.(?!1\.).*",
    r"(?P<a>model)\.layers", "transformer.h.3", "transformer.h", "pooler.dense.bias", "pooler.dense", r"\w+\.\w+", "é",
    r".*\.experts\..*", "model.layers.1|lm_head", r"^model\.norm$", r"model\.norm$", r"[a-z]+\.layers\.[0-5]", "layer",
]
LISTS = [[p] for p in PATTERNS] + [["lm_head", "model.layers.1"], [], ["fc1", "visual", "gate"]]


def main():
    rows = [[patterns, [not should_convert_module(name, patterns) for name in NAMES]] for patterns in LISTS]
    data = {"versions": {"transformers": transformers.__version__}, "names": NAMES, "kept_plain": rows}
    target = pathlib.Path(__file__).parents[2] / "crates/planish-quantize/tests/golden/patterns.json"
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    head = json.dumps(data["versions"]), json.dumps(NAMES, ensure_ascii=False)
    target.write_text(f'{{"versions": {head[0]},\n"names": {head[1]},\n"kept_plain": [\n{lines}\n]}}\n')


main()
