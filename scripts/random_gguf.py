"""A GGUF file of random blocks in the shape of a well-known model, to measure llama-bench beside `planish bench --shape`.

    python scripts/random_gguf.py llama-3.2-1b Q4_0 OUT.gguf

Every matrix is of the given type, the token table (which is the head, too) included, as in planish's random models. No vocabulary.
"""

import argparse
import math

import numpy
from gguf import GGMLQuantizationType, GGUFWriter

SHAPES = {
    "llama-3.2-1b": dict(hidden=2048, inner=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocabulary=128256,
                         context=131072, theta=500000.0),
}
# (bytes of codes in a block of 32 weights, scale of uniform codes with variance 1)
BLOCKS = {"Q4_0": (16, math.sqrt(12) / 16), "Q8_0": (32, math.sqrt(12) / 256)}


def blocks(rng, rows, cols, kind):
    """Random blocks of a matrix, as bytes: a half-precision scale, then codes. // (rows, bytes of a row)"""
    code_bytes, scale = BLOCKS[kind]
    count = rows * cols // 32
    out = numpy.empty((count, 2 + code_bytes), dtype=numpy.uint8)
    out[:, :2] = numpy.frombuffer(numpy.float16(scale / math.sqrt(cols)).tobytes(), dtype=numpy.uint8)
    out[:, 2:] = numpy.frombuffer(rng.bytes(count * code_bytes), dtype=numpy.uint8).reshape(count, code_bytes)
    return out.reshape(rows, -1)


def write(name, kind, path):
    shape = SHAPES[name]
    hidden, inner, keys = shape["hidden"], shape["inner"], shape["kv_heads"] * shape["head_dim"]
    rng = numpy.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_rope_freq_base(shape["theta"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape["vocabulary"])
    writer.add_tokenizer_model("no_vocab")

    def matrix(tensor, rows, cols):
        writer.add_tensor(tensor, blocks(rng, rows, cols, kind), raw_dtype=GGMLQuantizationType[kind])

    def norm(tensor):
        writer.add_tensor(tensor, numpy.ones(hidden, dtype=numpy.float32))

    matrix("token_embd.weight", shape["vocabulary"], hidden)
    norm("output_norm.weight")
    for layer in range(shape["layers"]):
        prefix = f"blk.{layer}."
        norm(prefix + "attn_norm.weight")
        norm(prefix + "ffn_norm.weight")
        for tensor, rows, cols in [("attn_q", hidden, hidden), ("attn_k", keys, hidden), ("attn_v", keys, hidden),
                                   ("attn_output", hidden, hidden), ("ffn_gate", inner, hidden), ("ffn_up", inner, hidden),
                                   ("ffn_down", hidden, inner)]:
            matrix(f"{prefix}{tensor}.weight", rows, cols)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=BLOCKS)
    parser.add_argument("out")
    arguments = parser.parse_args()
    write(arguments.shape, arguments.type, arguments.out)
