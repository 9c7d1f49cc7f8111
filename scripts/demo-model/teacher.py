# SmolLM2-135M-Instruct as one decoding step for many sequences: rebuilt from its quantized blocks (prepare_teacher.py),
# bf16 on the GPU, matrices that share an input fused, cache allocated once so that the step can be captured as a graph.
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import kernels

LAYERS, HIDDEN, WIDTH, HEADS, KV_HEADS, HEAD_DIM = 30, 576, 1536, 9, 3, 64
THETA, EPSILON = 100000.0, 1e-5


def halves(blocks, first):
    """The little-endian f16 at byte `first` of every block: (rows, blocks, bytes) u8 -> (rows, blocks, 1) f32."""
    return blocks[..., first:first + 2].contiguous().view(torch.float16).float()


def dequantize(data, kind):
    if kind == "F32":
        return data
    rows, size = data.shape[0], {"Q4_1": 20, "Q8_0": 34}[kind]
    blocks = data.reshape(rows, -1, size)
    if kind == "Q8_0":
        weights = halves(blocks, 0) * blocks[..., 2:].contiguous().view(torch.int8).float()
    else:
        codes = torch.cat([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], dim=-1).float()
        weights = halves(blocks, 0) * codes + halves(blocks, 2)
    return weights.reshape(rows, -1)


def load_weights(paths, device):
    weights = {}
    for path in paths:
        for key, data in load_file(path).items():
            name, kind = key.split("|")
            weights[name] = dequantize(data.to(device), kind).to(torch.bfloat16)
    return weights


class Teacher:
    """step(tokens, positions) -> logits (slots, vocabulary) bf16; the cache of a slot is valid below its position."""

    def __init__(self, paths, slots, length, device):
        weights = load_weights(paths, device)
        self.embedding, self.norm = weights["embed_tokens"], weights["norm"]
        self.layers = []
        for index in range(LAYERS):
            def part(*names, at=f"layers.{index}."):
                return torch.cat([weights[at + name] for name in names])
            self.layers.append((part("input_layernorm"), part("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                                part("self_attn.o_proj").t(), part("post_attention_layernorm"),
                                part("mlp.gate_proj", "mlp.up_proj"), part("mlp.down_proj").t()))
        new = dict(dtype=torch.bfloat16, device=device)
        self.keys = torch.zeros(LAYERS, slots, KV_HEADS, length, HEAD_DIM, **new)
        self.values = torch.zeros(LAYERS, slots, KV_HEADS, length, HEAD_DIM, **new)
        self.mixed = torch.zeros(slots, HIDDEN, **new)
        self.inner = torch.zeros(slots, WIDTH, **new)
        frequencies = THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
        self.cosines, self.sines = angles.cos().float().to(device), angles.sin().float().to(device)

    def step(self, tokens, positions):
        hidden = F.embedding(tokens, self.embedding)
        for index, (norm, qkv, out, norm2, gate_up, down) in enumerate(self.layers):
            normed = F.rms_norm(hidden, (HIDDEN,), norm, EPSILON)
            kernels.attend(F.linear(normed, qkv), self.cosines, self.sines, positions, self.keys[index], self.values[index],
                           self.mixed, KV_HEADS, HEADS // KV_HEADS)
            hidden = torch.addmm(hidden, self.mixed, out)
            normed = F.rms_norm(hidden, (HIDDEN,), norm2, EPSILON)
            kernels.gated(F.linear(normed, gate_up), self.inner)
            hidden = torch.addmm(hidden, self.inner, down)
        return F.linear(F.rms_norm(hidden, (HIDDEN,), self.norm, EPSILON), self.embedding)
