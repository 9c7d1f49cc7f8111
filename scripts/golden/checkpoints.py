"""Tiny checkpoints as the peers themselves save them: transformers (metal) and mlx-lm (MLX, mixed).

Writes crates/planish-checkpoint/tests/golden/{metal,mlx}: a Llama of one layer (hidden 32) and expected.json, the first row of
every packed weight as the peer dequantizes it, in f32. Made with transformers 5.23.0, torch 2.15.0, mlx 0.32.4 and mlx-lm
0.32.2, seed 0; run: python scripts/golden/checkpoints.py
"""

import json
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "crates/planish-checkpoint/tests/golden"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 16,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def metal():
    """What MetalQuantize stores, without the GPU that its quantizer asks for."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MetalConfig
    from transformers.integrations.metal_quantization import _affine_dequantize_tensor, _affine_quantize_tensor

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, attention_bias=True)).to(torch.bfloat16)
    quantization = MetalConfig(bits=4, group_size=32, modules_to_not_convert=["lm_head"])
    state, expected = {}, {}
    for name, value in model.state_dict().items():
        module = name.removesuffix(".weight")
        if module.endswith("_proj") and value.dim() == 2:
            codes, scales, biases = _affine_quantize_tensor(value, 32, 4)
            scales, biases = scales.to(value.dtype), biases.to(value.dtype)
            state |= {name: codes, f"{module}.scales": scales, f"{module}.qbiases": biases}
            expected[name] = _affine_dequantize_tensor(codes, scales, biases, 32, 4)[0].tolist()
        else:
            state[name] = value.normal_() if name.endswith(".bias") else value
    model.config.quantization_config = quantization
    folder = GOLDEN / "metal"
    model.save_pretrained(folder, state_dict=state)
    (folder / "expected.json").write_text(json.dumps(expected))


def mlx_mixed():
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.utils import quantize_model, save_config, save_model

    mx.random.seed(0)
    config = CONFIG | {"tie_word_embeddings": True}
    model = Model(ModelArgs.from_dict(config))
    model.update(tree_map(lambda value: value.astype(mx.float16), model.parameters()))

    def predicate(path, module):
        if path.endswith("down_proj"):
            return {"bits": 6, "group_size": 64}
        if path.endswith("v_proj"):
            return {"bits": 8, "group_size": 32}
        return not path.endswith("o_proj")

    model, config = quantize_model(model, config, group_size=32, bits=3, quant_predicate=predicate)
    folder = GOLDEN / "mlx"
    save_model(folder, model)
    save_config(config, folder / "config.json")
    weights, expected = mx.load(str(folder / "model.safetensors")), {}
    for name in weights:
        module = name.removesuffix(".weight")
        if f"{module}.scales" in weights and name.endswith(".weight"):
            found = config["quantization"].get(module, config["quantization"])
            scales, biases = (weights[f"{module}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            rows = mx.dequantize(weights[name], scales, biases, found["group_size"], found["bits"])
            expected[name] = rows[0].tolist()
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    metal()
    mlx_mixed()
