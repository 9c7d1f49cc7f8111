"""Makes the small GGUF files that crates/planish-checkpoint/tests/gguf.rs reads, and what must come out of them.

Weights are random blocks (any bytes are valid; only half-precision scales are kept finite and small), dequantized by gguf-py;
query and key rows are put back in Hugging Face order by transformers' own GGUF loader. Token ids come from the tokenizers
library and from SentencePiece, which trained the vocabularies. Values are recorded as the SHA-256 of little-endian f32 with
negative zeros made positive.

Needs: gguf, numpy, sentencepiece, tokenizers, transformers. Run: python scripts/golden/gguf_types.py
"""

import hashlib
import io
import json
import math
import pathlib

import gguf
import numpy as np
import sentencepiece
import tokenizers
import transformers
from gguf import GGMLQuantizationType as T
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor, TensorProcessor

SEED = 20240917
HERE = pathlib.Path(__file__).resolve().parents[2]
OUT = HERE / "crates/planish-checkpoint/tests/golden/gguf"

# Where half-precision numbers lie in a block: keep them finite and of the size of real scales.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.TQ1_0: [52], T.TQ2_0: [64], T.MXFP4: [], T.NVFP4: [],
}  # fmt: skip

TEXT = """The quick brown fox jumps over the lazy dog. In 1984 there were 365 days, 12 months and 7 weekdays.
    def add(first, second):\n        return first + second  # it's what we'd expect\n\n
Grüße aus München, naïve café, Ελληνικά, русский текст, 日本語のテキスト, 한국어, emoji 🦊🚀, ½ ² ٣.
She said: "We'll see, they've gone; I'm sure you're right -- don't worry!"   Tabs\tand   spaces\r\nand lines.
"""
PROMPTS = [
    "The quick brown fox",
    " leading space",
    "two  spaces   three\n\nlines\n",
    "In 2024, 12345 days!",
    "don't we'll I'm",
    "Grüße, 日本語 🦊 ½٣",
    "<|im_start|>user\nhello<|im_end|>\n",
    "tab\tand\r\nreturn ",
    "",
]


def random_tensor(rng, quantization, rows, cols):
    """Stored bytes (rows, bytes of a row) and the f32 weights that gguf-py makes of them."""
    if quantization in (T.F32, T.F16, T.BF16):
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        stored = gguf.quants.quantize(values, quantization)
        return stored, gguf.quants.dequantize(stored.view(np.uint8), quantization).reshape(rows, cols)
    block, size = gguf.GGML_QUANT_SIZES[quantization]
    stored = rng.integers(0, 256, (rows * cols // block, size), dtype=np.uint8)
    for place in HALVES[quantization]:
        half = (rng.standard_normal(len(stored)) * 0.01).astype(np.float16)
        stored[:, place : place + 2] = half.view(np.uint8).reshape(-1, 2)
    if quantization == T.MXFP4:
        stored[:, 0] = rng.integers(0, 252, len(stored))
    stored = stored.reshape(rows, -1)
    return stored, gguf.quants.dequantize(stored, quantization).reshape(rows, cols)


class File:
    """A GGUF writer that remembers what a reader must find."""

    def __init__(self, name, rng, heads, key_value_heads, architecture="llama", most_tensors=0):
        self.writer = gguf.GGUFWriter(OUT / name, architecture, split_max_tensors=most_tensors)
        self.path = OUT / name
        self.rng = rng
        processor = LlamaTensorProcessor if architecture == "llama" else TensorProcessor
        self.undo = processor({"num_attention_heads": heads, "num_key_value_heads": key_value_heads})
        self.expected = {}

    def add(self, name, hugging_face, quantization, *shape):
        rows, cols = shape if len(shape) == 2 else (1, shape[0])
        stored, values = random_tensor(self.rng, quantization, rows, cols)
        stored = stored.reshape(*shape[:-1], -1)
        values = values.reshape(shape)
        self.writer.add_tensor(name, stored, raw_dtype=quantization)
        values = self.undo.process(values, name).weights
        values = np.ascontiguousarray(values, dtype="<f4") + np.float32(0)
        self.expected[hugging_face] = {
            "type": quantization.name,
            "shape": list(shape),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
            "first": [float(value) for value in values.reshape(-1)[:4]],
        }

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def byte_level_vocabulary():
    """A byte-level BPE as SmolLM2's: digits alone, then the pattern of GPT-2."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def types_file():
    """Every tensor type, a byte-level tokenizer, a tied head, query and key biases."""
    rng = np.random.default_rng(SEED)
    hidden, heads, key_value_heads, head, feed_forward = 256, 4, 2, 8, 32
    tokenizer = byte_level_vocabulary()
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]

    file = File("types.gguf", rng, heads, key_value_heads)
    w = file.writer
    w.add_context_length(128)
    w.add_embedding_length(hidden)
    w.add_block_count(2)
    w.add_feed_forward_length(feed_forward)
    w.add_head_count(heads)
    w.add_head_count_kv(key_value_heads)
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_rope_dimension_count(head)
    w.add_rope_freq_base(100000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    w.add_token_merges([" ".join(merge) for merge in merges])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_pad_token_id(2)
    w.add_add_bos_token(False)
    w.add_chat_template("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}")

    file.add("token_embd.weight", "model.embed_tokens.weight", T.Q4_0, len(tokens), hidden)
    file.add("output_norm.weight", "model.norm.weight", T.F32, hidden)
    types = [
        [T.Q4_K, T.Q6_K, T.Q3_K, T.Q5_0, T.Q2_K, T.Q5_K, T.Q5_1],
        [T.Q8_0, T.Q4_0, T.F16, T.Q4_1, T.BF16, T.Q4_1, T.Q8_0],
    ]
    for layer, (q, k, v, o, gate, up, down) in enumerate(types):
        mine, theirs = f"blk.{layer}.", f"model.layers.{layer}."
        file.add(mine + "attn_norm.weight", theirs + "input_layernorm.weight", T.F32, hidden)
        file.add(mine + "attn_q.weight", theirs + "self_attn.q_proj.weight", q, heads * head, hidden)
        file.add(mine + "attn_q.bias", theirs + "self_attn.q_proj.bias", T.F32, heads * head)
        file.add(mine + "attn_k.weight", theirs + "self_attn.k_proj.weight", k, key_value_heads * head, hidden)
        file.add(mine + "attn_k.bias", theirs + "self_attn.k_proj.bias", T.F32, key_value_heads * head)
        file.add(mine + "attn_v.weight", theirs + "self_attn.v_proj.weight", v, key_value_heads * head, hidden)
        file.add(mine + "attn_v.bias", theirs + "self_attn.v_proj.bias", T.F32, key_value_heads * head)
        file.add(mine + "attn_output.weight", theirs + "self_attn.o_proj.weight", o, hidden, heads * head)
        file.add(mine + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", T.F32, hidden)
        file.add(mine + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", gate, feed_forward, hidden)
        file.add(mine + "ffn_up.weight", theirs + "mlp.up_proj.weight", up, feed_forward, hidden)
        file.add(mine + "ffn_down.weight", theirs + "mlp.down_proj.weight", down, hidden, feed_forward)
    file.close()
    ids = [{"text": text, "ids": tokenizer.encode(text).ids} for text in PROMPTS]
    return {"tensors": file.expected, "tokens": len(tokens), "encoded": ids}


def coded_file():
    """Types whose codes stand for numbers of a table, or for three; no tokenizer. Split over three files."""
    rng = np.random.default_rng(SEED + 2)
    hidden, heads, key_value_heads, head, feed_forward = 256, 4, 2, 8, 32
    file = File("coded.gguf", rng, heads, key_value_heads, most_tensors=4)
    w = file.writer
    w.add_context_length(128)
    w.add_embedding_length(hidden)
    w.add_block_count(1)
    w.add_feed_forward_length(feed_forward)
    w.add_head_count(heads)
    w.add_head_count_kv(key_value_heads)
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_rope_dimension_count(head)
    w.add_layer_norm_rms_eps(1e-5)
    file.add("token_embd.weight", "model.embed_tokens.weight", T.IQ4_NL, 16, hidden)
    file.add("output_norm.weight", "model.norm.weight", T.F32, hidden)
    mine, theirs = "blk.0.", "model.layers.0."
    file.add(mine + "attn_norm.weight", theirs + "input_layernorm.weight", T.F32, hidden)
    file.add(mine + "attn_q.weight", theirs + "self_attn.q_proj.weight", T.IQ4_XS, heads * head, hidden)
    file.add(mine + "attn_k.weight", theirs + "self_attn.k_proj.weight", T.TQ1_0, key_value_heads * head, hidden)
    file.add(mine + "attn_v.weight", theirs + "self_attn.v_proj.weight", T.TQ2_0, key_value_heads * head, hidden)
    file.add(mine + "attn_output.weight", theirs + "self_attn.o_proj.weight", T.MXFP4, hidden, heads * head)
    file.add(mine + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", T.F32, hidden)
    file.add(mine + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", T.NVFP4, feed_forward, hidden)
    file.add(mine + "ffn_up.weight", theirs + "mlp.up_proj.weight", T.IQ4_XS, feed_forward, hidden)
    file.add(mine + "ffn_down.weight", theirs + "mlp.down_proj.weight", T.IQ4_NL, hidden, feed_forward)
    file.close()
    return {"tensors": file.expected}


def llama3_factors(theta, head, factor, low, high, original):
    """The divisors of the rotation frequencies as llama.cpp's converter writes them."""
    factors = []
    for frequency in 1.0 / theta ** (np.arange(0, head, 2) / head):
        wavelength = 2 * math.pi / frequency
        smooth = (original / wavelength - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        factors.append(1 if wavelength < original / high else factor if wavelength > original / low else between)
    return np.array(factors, dtype=np.float32)


def sentencepiece_file():
    """A SentencePiece tokenizer, llama3 rotation, a head of its own; marked version 2, data aligned to 64 bytes."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=0.98,
        num_threads=1,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    count = pieces.get_piece_size()
    kinds = [
        2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1 for i in range(count)
    ]
    rng = np.random.default_rng(SEED + 1)
    hidden, heads, head, feed_forward, theta = 32, 2, 16, 64, 500000.0
    file = File("sentencepiece.gguf", rng, heads, heads)
    w = file.writer
    w.add_custom_alignment(64)
    w.add_context_length(131072)
    w.add_embedding_length(hidden)
    w.add_block_count(1)
    w.add_feed_forward_length(feed_forward)
    w.add_head_count(heads)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(theta)
    w.add_tokenizer_model("llama")
    w.add_token_list([pieces.id_to_piece(i) for i in range(count)])
    w.add_token_scores([pieces.get_score(i) for i in range(count)])
    w.add_token_types(kinds)
    w.add_bos_token_id(pieces.bos_id())
    w.add_eos_token_id(pieces.eos_id())
    w.add_unk_token_id(pieces.unk_id())
    w.add_tensor("rope_freqs.weight", llama3_factors(theta, head, 32.0, 1.0, 4.0, 8192))
    file.add("token_embd.weight", "model.embed_tokens.weight", T.Q8_0, count, hidden)
    file.add("output_norm.weight", "model.norm.weight", T.F32, hidden)
    file.add("output.weight", "lm_head.weight", T.Q8_0, count, hidden)
    mine, theirs = "blk.0.", "model.layers.0."
    file.add(mine + "attn_norm.weight", theirs + "input_layernorm.weight", T.F32, hidden)
    file.add(mine + "attn_q.weight", theirs + "self_attn.q_proj.weight", T.F16, heads * head, hidden)
    file.add(mine + "attn_k.weight", theirs + "self_attn.k_proj.weight", T.F16, heads * head, hidden)
    file.add(mine + "attn_v.weight", theirs + "self_attn.v_proj.weight", T.F16, heads * head, hidden)
    file.add(mine + "attn_output.weight", theirs + "self_attn.o_proj.weight", T.F16, hidden, heads * head)
    file.add(mine + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", T.F32, hidden)
    file.add(mine + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", T.F16, feed_forward, hidden)
    file.add(mine + "ffn_up.weight", theirs + "mlp.up_proj.weight", T.F16, feed_forward, hidden)
    file.add(mine + "ffn_down.weight", theirs + "mlp.down_proj.weight", T.F16, hidden, feed_forward)
    file.close()
    content = bytearray(file.path.read_bytes())
    content[4:8] = (2).to_bytes(4, "little")  # versions 2 and 3 differ in nothing else
    file.path.write_bytes(content)
    texts = [text for text in PROMPTS if "<|" not in text and text]
    ids = [{"text": text, "ids": [pieces.bos_id()] + pieces.encode(text)} for text in texts]
    return {"tensors": file.expected, "tokens": count, "encoded": ids}


def qwen3_file():
    """Rows of queries and keys as Hugging Face has them, norms of both, yarn rotation, no tokenizer. Split over three files."""
    rng = np.random.default_rng(SEED + 2)
    vocabulary, hidden, heads, head, feed_forward = 24, 32, 2, 8, 32
    file = File("qwen3.gguf", rng, heads, 1, "qwen3")
    w = file.writer
    w.add_context_length(4096)
    w.add_embedding_length(hidden)
    w.add_block_count(1)
    w.add_feed_forward_length(feed_forward)
    w.add_head_count(heads)
    w.add_head_count_kv(1)
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1000000.0)
    w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    w.add_rope_scaling_factor(4.0)
    w.add_rope_scaling_orig_ctx_len(1024)
    file.add("token_embd.weight", "model.embed_tokens.weight", T.BF16, vocabulary, hidden)
    file.add("output_norm.weight", "model.norm.weight", T.F32, hidden)
    mine, theirs = "blk.0.", "model.layers.0."
    file.add(mine + "attn_norm.weight", theirs + "input_layernorm.weight", T.F32, hidden)
    file.add(mine + "attn_q.weight", theirs + "self_attn.q_proj.weight", T.BF16, heads * head, hidden)
    file.add(mine + "attn_k.weight", theirs + "self_attn.k_proj.weight", T.BF16, head, hidden)
    file.add(mine + "attn_v.weight", theirs + "self_attn.v_proj.weight", T.BF16, head, hidden)
    file.add(mine + "attn_q_norm.weight", theirs + "self_attn.q_norm.weight", T.F32, head)
    file.add(mine + "attn_k_norm.weight", theirs + "self_attn.k_norm.weight", T.F32, head)
    file.add(mine + "attn_output.weight", theirs + "self_attn.o_proj.weight", T.BF16, hidden, heads * head)
    file.add(mine + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", T.F32, hidden)
    file.add(mine + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", T.BF16, feed_forward, hidden)
    file.add(mine + "ffn_up.weight", theirs + "mlp.up_proj.weight", T.BF16, feed_forward, hidden)
    file.add(mine + "ffn_down.weight", theirs + "mlp.down_proj.weight", T.BF16, hidden, feed_forward)
    file.close()
    return {"tensors": file.expected}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    libraries = [gguf, np, sentencepiece, tokenizers, transformers]
    made_with = {library.__name__: getattr(library, "__version__", None) for library in libraries}
    made_with["gguf"] = made_with["gguf"] or __import__("importlib.metadata").metadata.version("gguf")
    expected = {
        "made_with": made_with,
        "seed": SEED,
        "types.gguf": types_file(),
        "sentencepiece.gguf": sentencepiece_file(),
        "qwen3.gguf": qwen3_file(),
        "coded.gguf": coded_file(),
    }
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
