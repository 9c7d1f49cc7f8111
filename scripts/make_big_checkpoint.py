"""A random bf16 checkpoint of 2.5 GB in the shapes of Llama-3.2-1B, for measuring memory and speed of conversions.

    python scripts/make_big_checkpoint.py DIR
    /usr/bin/time -v target/release/planish quantize DIR --out OUT

Needs numpy. One block of normal noise is repeated, so the file is made as fast as the disk writes.
"""

import json
import pathlib
import struct
import sys

import numpy as np

HIDDEN, FEED_FORWARD, LAYERS, VOCABULARY, KEY_VALUE = 2048, 8192, 16, 128256, 512
CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=HIDDEN, intermediate_size=FEED_FORWARD,
    num_hidden_layers=LAYERS, num_attention_heads=32, num_key_value_heads=8, head_dim=64, vocab_size=VOCABULARY,
    max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True, torch_dtype="bfloat16",
)
LAYER = {
    "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,), "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN), "self_attn.v_proj": (KEY_VALUE, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (FEED_FORWARD, HIDDEN), "mlp.up_proj": (FEED_FORWARD, HIDDEN), "mlp.down_proj": (HIDDEN, FEED_FORWARD),
}


def shapes():
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        for name, shape in LAYER.items():
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (HIDDEN,)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    noise = np.random.default_rng(0).normal(0, 0.02, 4 << 20).astype(np.float32)
    noise = (noise.view(np.uint32) >> 16).astype("<u2").tobytes()  # the upper half of a float32 is a bfloat16
    header, position = {}, 0
    for name, shape in shapes():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for left in range(position, 0, -len(noise)):
            file.write(noise[: min(left, len(noise))])
    print(f"{folder}: {position / 1e9:.2f} GB")


main()
