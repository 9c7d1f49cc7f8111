# The demo model: Llama, small, tied head; written plainly for training. Tensor names are Hugging Face's.
import torch
import torch.nn.functional as F
from torch import nn

from affine import rounded, straight_through

CONFIG = dict(vocab_size=4096, hidden_size=256, intermediate_size=704, num_hidden_layers=8, num_attention_heads=8,
              num_key_value_heads=4, head_dim=32, rms_norm_eps=1e-5, max_position_embeddings=512)
ROPE_THETA = 10000.0


class Linear(nn.Module):
    """No bias; `bits` (0: none) rounds the weight in the forward pass."""

    def __init__(self, cols, rows, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, cols) * 0.02 * scale)

    def forward(self, x, bits):
        return F.linear(x, straight_through(self.weight, bits) if bits else self.weight)


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight, CONFIG["rms_norm_eps"])


def rotate(x, cosines, sines):
    """x (batch, heads, positions, 32); the pairs lie half a head apart."""
    low, high = x.chunk(2, -1)
    return torch.cat([low * cosines - high * sines, high * cosines + low * sines], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, self.heads, self.kv_heads, self.size = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.q_proj = Linear(hidden, self.heads * self.size)
        self.k_proj = Linear(hidden, self.kv_heads * self.size)
        self.v_proj = Linear(hidden, self.kv_heads * self.size)
        self.o_proj = Linear(self.heads * self.size, hidden, (2 * c["num_hidden_layers"]) ** -0.5)

    def forward(self, x, cosines, sines, bits):
        q, k, v = (p(x, bits).unflatten(-1, (-1, self.size)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        return self.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2), bits)


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = Linear(c["hidden_size"], c["intermediate_size"])
        self.up_proj = Linear(c["hidden_size"], c["intermediate_size"])
        self.down_proj = Linear(c["intermediate_size"], c["hidden_size"], (2 * c["num_hidden_layers"]) ** -0.5)

    def forward(self, x, bits):
        return self.down_proj(F.silu(self.gate_proj(x, bits)) * self.up_proj(x, bits), bits)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(c["hidden_size"]), Norm(c["hidden_size"])
        self.self_attn, self.mlp = Attention(c), FeedForward(c)

    def forward(self, x, cosines, sines, bits):
        x = x + self.self_attn(self.input_layernorm(x), cosines, sines, bits)
        return x + self.mlp(self.post_attention_layernorm(x), bits)


class Model(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"])
        steps = torch.arange(0, c["head_dim"], 2, dtype=torch.float64) / c["head_dim"]
        angles = torch.arange(c["max_position_embeddings"], dtype=torch.float64)[:, None] * ROPE_THETA**-steps
        self.register_buffer("cosines", angles.cos().float(), persistent=False)
        self.register_buffer("sines", angles.sin().float(), persistent=False)

    def forward(self, tokens, bits=0):
        """tokens (batch, positions) -> logits (batch, positions, vocabulary)."""
        x = self.embed_tokens(tokens)
        cosines, sines = self.cosines[:tokens.shape[1]], self.sines[:tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, cosines, sines, bits)
        return F.linear(self.norm(x), self.embed_tokens.weight)

    @torch.no_grad()
    def round_weights(self, bits):
        """Every linear weight as it is after packing (0: as it is in bf16)."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.weight.copy_(rounded(module.weight, bits) if bits else module.weight.bfloat16().float())
        for parameter in self.parameters():
            parameter.copy_(parameter.bfloat16().float())
