"""A random bf16 checkpoint in the shapes of Llama-3.2-1B (2.5 GB) or Llama-3.1-8B, for measuring memory and speed of conversions.

    python scripts/make_big_checkpoint.py [--shape 8b] [--layers 2] DIR
    python scripts/measure_quantize.py DIR OUT --format mlx --bits 4

Needs numpy. One block of normal noise is repeated, so the file is made as fast as the disk writes; norms are 1. The tokenizer is the
story model's, of whose few tokens a text may be made: the shapes have no tokenizer of their own.
"""

import argparse
import json
import pathlib
import shutil
import struct

import numpy as np

# Hidden size, feed-forward size, layers, heads, whether the head is the token table; 128256 tokens and 8 key heads in both.
SHAPES = {"1b": (2048, 8192, 16, 32, True), "8b": (4096, 14336, 32, 32, False)}
VOCABULARY, KEY_HEADS = 128256, 8
STORY_MODEL = pathlib.Path(__file__).resolve().parent.parent / "models/demo-float"


def config_and_shapes(name, layers):
    hidden, feed_forward, all_layers, heads, tied = SHAPES[name]
    layers, head = layers or all_layers, hidden // heads
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden, intermediate_size=feed_forward,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=KEY_HEADS, head_dim=head, vocab_size=VOCABULARY,
        max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=tied, torch_dtype="bfloat16",
    )
    layer = {
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,), "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (KEY_HEADS * head, hidden), "self_attn.v_proj": (KEY_HEADS * head, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (feed_forward, hidden), "mlp.up_proj": (feed_forward, hidden),
        "mlp.down_proj": (hidden, feed_forward),
    }
    shapes = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    shapes |= {f"model.layers.{index}.{name}.weight": shape for index in range(layers) for name, shape in layer.items()}
    return config, shapes if tied else shapes | {"lm_head.weight": (VOCABULARY, hidden)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--layers", type=int, help="how many [default: as the shape has]")
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    folder, (config, shapes) = arguments.folder, config_and_shapes(arguments.shape, arguments.layers)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(STORY_MODEL / name, folder)
    noise = np.random.default_rng(0).normal(0, 0.02, 4 << 20).astype(np.float32)
    noise = (noise.view(np.uint32) >> 16).astype("<u2").tobytes()  # the upper half of a float32 is a bfloat16
    header, position = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            size = 2 * int(np.prod(shape))
            if len(shape) == 1:
                file.write(b"\x80\x3f" * shape[0])
                continue
            for left in range(size, 0, -len(noise)):
                file.write(noise[: min(left, len(noise))])
    print(f"{folder}: {position / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
