# transformers' affine rule (its metal integration): per group of 64 inputs a scale and a bias, codes rounded half to even
# with the unrounded scale, then scale and bias in bf16. Straight-through: the gradient passes as if nothing were rounded.
import torch


def encode(weight, bits, group=64):
    """(rows, cols) -> codes (rows, cols / group, group) f32, scales and biases (rows, cols / group, 1) bf16."""
    groups = weight.to(torch.bfloat16).float().unflatten(1, (-1, group))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scales = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    codes = ((groups - low) / scales).round().clamp(0, 2**bits - 1)
    return codes, scales.to(torch.bfloat16), low.to(torch.bfloat16)


def rounded(weight, bits, group=64):
    codes, scales, biases = encode(weight, bits, group)
    return (codes * scales.float() + biases.float()).flatten(1)


def straight_through(weight, bits):
    return weight + (rounded(weight.detach(), bits) - weight.detach())
