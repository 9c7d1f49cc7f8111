# Triton kernels of one decoding step for many sequences at once, each at its own position. Every tensor is contiguous.
# attend: rotary embedding, cache update and grouped-query attention, one program per (sequence, key-value head).
# sample: allowed tokens, min-p filter and Gumbel-max draw, one program per row of logits. gated: silu(gate) * up.
import math

import triton
import triton.language as tl


@triton.jit
def attend_kernel(qkv, cosines, sines, positions, key_cache, value_cache, output, scale,
                  KV_HEADS: tl.constexpr, GROUP: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    # qkv (slots, (GROUP + 2) * KV_HEADS * 64), cosines and sines (LENGTH, 32), caches (slots, KV_HEADS, LENGTH, 64)
    slot = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    position = tl.load(positions + slot)
    half = tl.arange(0, 32)
    full = tl.arange(0, 64)
    rows = tl.arange(0, 16)
    cosine = tl.load(cosines + position * 32 + half)
    sine = tl.load(sines + position * 32 + half)
    start = qkv + slot * ((GROUP + 2) * KV_HEADS * 64)

    query_rows = start + (head * GROUP + rows)[:, None] * 64 + half[None, :]
    present = (rows < GROUP)[:, None]
    q_low = tl.load(query_rows, mask=present, other=0.0).to(tl.float32)
    q_high = tl.load(query_rows + 32, mask=present, other=0.0).to(tl.float32)
    query_low = q_low * cosine[None, :] - q_high * sine[None, :]
    query_high = q_high * cosine[None, :] + q_low * sine[None, :]

    key_row = start + (GROUP * KV_HEADS + head) * 64
    k_low = tl.load(key_row + half).to(tl.float32)
    k_high = tl.load(key_row + 32 + half).to(tl.float32)
    key_low = k_low * cosine - k_high * sine
    key_high = k_high * cosine + k_low * sine
    value = tl.load(start + ((GROUP + 1) * KV_HEADS + head) * 64 + full)

    cache = (slot * KV_HEADS + head) * (LENGTH * 64)
    tl.store(key_cache + cache + position * 64 + half, key_low.to(tl.bfloat16))
    tl.store(key_cache + cache + position * 64 + 32 + half, key_high.to(tl.bfloat16))
    tl.store(value_cache + cache + position * 64 + full, value)

    # The token attends to itself from registers, to earlier ones from the cache: no read of what was just written.
    top = (tl.sum(query_low * key_low[None, :], 1) + tl.sum(query_high * key_high[None, :], 1)) * scale
    total = tl.full((16,), 1.0, tl.float32)
    mixed = tl.zeros((16, 64), tl.float32) + value.to(tl.float32)[None, :]
    query_low = query_low.to(tl.bfloat16)
    query_high = query_high.to(tl.bfloat16)
    for first in range(0, position, BLOCK):
        places = first + tl.arange(0, BLOCK)
        seen = places < position
        key_rows = key_cache + cache + places[:, None] * 64 + half[None, :]
        low = tl.load(key_rows, mask=seen[:, None], other=0.0)
        high = tl.load(key_rows + 32, mask=seen[:, None], other=0.0)
        scores = (tl.dot(query_low, tl.trans(low)) + tl.dot(query_high, tl.trans(high))) * scale
        scores = tl.where(seen[None, :], scores, -1e30)
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - new_top[:, None])
        shrink = tl.exp(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        values = tl.load(value_cache + cache + places[:, None] * 64 + full[None, :], mask=seen[:, None], other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(tl.bfloat16), values)
        top = new_top
    mixed = mixed / total[:, None]
    target = output + slot * (GROUP * KV_HEADS * 64) + (head * GROUP + rows)[:, None] * 64 + full[None, :]
    tl.store(target, mixed.to(tl.bfloat16), mask=present)


@triton.jit
def sample_kernel(logits, allowed, output, step, VOCABULARY: tl.constexpr, BLOCK: tl.constexpr, INVERSE_TEMPERATURE: tl.constexpr,
                  LOG_MIN_P: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    start = logits + row * VOCABULARY
    peaks = tl.full((BLOCK,), -1e30, tl.float32)
    for first in range(0, VOCABULARY, BLOCK):
        here = first + columns
        scores = tl.load(start + here, mask=here < VOCABULARY, other=-1e30).to(tl.float32)
        usable = tl.load(allowed + here, mask=here < VOCABULARY, other=0) != 0
        peaks = tl.maximum(peaks, tl.where(usable, scores, -1e30))
    floor = tl.max(peaks, 0) + LOG_MIN_P / INVERSE_TEMPERATURE
    seed = tl.load(step)
    best = tl.full((BLOCK,), -1e30, tl.float32)
    chosen = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, VOCABULARY, BLOCK):
        here = first + columns
        scores = tl.load(start + here, mask=here < VOCABULARY, other=-1e30).to(tl.float32)
        scores = tl.where(tl.load(allowed + here, mask=here < VOCABULARY, other=0) != 0, scores, -1e30)
        if tl.max(scores, 0) >= floor:
            uniform = tl.rand(seed, (row * VOCABULARY + here).to(tl.int32))
            gumbel = -tl.log(-tl.log(uniform + 1e-9) + 1e-9)
            keys = tl.where(scores >= floor, scores * INVERSE_TEMPERATURE + gumbel, -1e30)
            chosen = tl.where(keys > best, here, chosen)
            best = tl.maximum(best, keys)
    winner = tl.max(best, 0)
    tl.store(output + row, tl.max(tl.where(best == winner, chosen, 0), 0).to(tl.int64))


@triton.jit
def gated_kernel(gate_up, output, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    for first in range(0, WIDTH, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < WIDTH
        gate = tl.load(gate_up + row * 2 * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(output + row * WIDTH + columns, (gate * tl.sigmoid(gate) * up).to(tl.bfloat16), mask=inside)


def attend(qkv, cosines, sines, positions, key_cache, value_cache, output, kv_heads, group):
    slots, _, length, _ = key_cache.shape
    attend_kernel[(slots, kv_heads)](qkv, cosines, sines, positions, key_cache, value_cache, output, 0.125,
                                     KV_HEADS=kv_heads, GROUP=group, LENGTH=length, BLOCK=64, num_warps=4)


def sample(logits, allowed, output, step, temperature, min_p):
    rows, vocabulary = logits.shape
    sample_kernel[(rows,)](logits, allowed, output, step, VOCABULARY=vocabulary, BLOCK=4096,
                           INVERSE_TEMPERATURE=1.0 / temperature, LOG_MIN_P=math.log(min_p), num_warps=8)


def gated(gate_up, output):
    rows, width = output.shape
    gated_kernel[(rows,)](gate_up, output, WIDTH=width, BLOCK=512, num_warps=4)
