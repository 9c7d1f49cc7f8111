"""transformers with weights that planish keeps packed beside transformers' own bf16, in one process, round by round.

    python scripts/bench_transformers_hook.py --model METAL_OR_MLX_FOLDER
    python scripts/bench_transformers_hook.py --shape llama-3.2-1b

A folder is loaded twice: packed, and dequantized to bf16 (an MLX folder by `dequantize()`). A shape has random weights: plain ones in
bf16, and packed ones of 4 bits in groups of `--group-size`, with a plain head as metal checkpoints have it and, with `--packed-head`, a packed
one as folders of mlx-lm have it. Rates are medians; weights are the bytes of all tensors of a model.
"""

import argparse
import os
import statistics
import time

SHAPES = {
    "llama-3.2-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "tinyllama-1.1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a metal folder or one of mlx-lm")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--group-size", type=int, default=64, help="of a shape's packed weights")
    parser.add_argument("--packed-head", action="store_true", help="pack the table of a shape with a tied head")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prefill")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a decode")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if (chosen.model is None) == (chosen.shape is None):
        parser.error("expected --model or --shape")
    return chosen


def folders(path):
    from transformers import AutoModelForCausalLM, MetalConfig

    packed = AutoModelForCausalLM.from_pretrained(path, dtype="bfloat16")
    try:
        plain = AutoModelForCausalLM.from_pretrained(
            path, dtype="bfloat16", device_map="cpu", quantization_config=MetalConfig(dequantize=True)
        )
    except ValueError:
        plain = AutoModelForCausalLM.from_pretrained(path, dtype="bfloat16")
        plain.dequantize()
    return packed, plain


def random_packed(shape, group_size, packed_head):
    """A model with packed weights that nobody trained."""
    import torch
    from planish.transformers.modules import PackedEmbedding, PackedLinear, TiedHead, fold_all
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM

    kind = {"bits": 4, "group_size": group_size, "scale_type": torch.bfloat16}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape)).to(torch.bfloat16)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and name != "lm_head":
                model.set_submodule(name, PackedLinear(module.in_features, module.out_features, False, **kind))
        if packed_head:
            table = PackedEmbedding(model.model.embed_tokens, torch.bfloat16, **kind)
            model.model.embed_tokens, model.lm_head = table, TiedHead(table)
            model.all_tied_weights_keys = {}
    rotary = type(model.model.rotary_emb)(model.config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = rotary
    for parameter in model.parameters():
        if parameter.dtype == torch.uint32:
            parameter.data.view(torch.int32).random_(-(2**31), 2**31 - 1)
        else:
            parameter.data.normal_(0, 0.01)
    model.tie_weights(recompute_mapping=False)
    fold_all(model)
    return model.eval()


def random_plain(shape):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape)).to(torch.bfloat16)
    rotary = type(model.model.rotary_emb)(model.config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = rotary
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02)
    model.tie_weights()
    return model.eval()


class Stopwatch:
    """A streamer that notes when tokens come."""

    def __init__(self):
        self.times = []

    def put(self, _):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def decode_rate(model, tokens):
    import torch

    watch = Stopwatch()
    ids = torch.arange(3, 19).reshape(1, -1)
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, streamer=watch)
    times = watch.times[1:]
    return (len(times) - 1) / (times[-1] - times[0])


def prefill_rate(model, tokens):
    import torch

    ids = torch.arange(tokens).reshape(1, -1) % 1000 + 3
    start = time.perf_counter()
    with torch.no_grad():
        model(ids, logits_to_keep=1, use_cache=True)
    return tokens / (time.perf_counter() - start)


def weights(model):
    """Bytes of all tensors, each memory once; of its layers without tables and heads; both in MB."""
    storages = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        storages.setdefault((tensor.data_ptr(), tensor.numel()), (name, tensor.numel() * tensor.element_size()))
    layers = sum(size for name, size in storages.values() if "embed_tokens" not in name and "lm_head" not in name)
    return sum(size for _, size in storages.values()) / 1e6, layers / 1e6


def main():
    chosen = arguments()
    import torch

    import planish.transformers

    assert planish.transformers.enabled()
    torch.set_num_threads(chosen.threads)
    if chosen.model:
        packed, plain = folders(chosen.model)
    else:
        packed = random_packed(SHAPES[chosen.shape], chosen.group_size, chosen.packed_head)
        plain = random_plain(SHAPES[chosen.shape])
    models = {"bf16": plain, "packed": packed}
    for model in models.values():
        model.generation_config.eos_token_id = None
        decode_rate(model, 4)
        prefill_rate(model, chosen.prompt)
    rates = {name: {"decode": [], "prefill": []} for name in models}
    for _ in range(chosen.rounds):
        for name, model in models.items():
            rates[name]["decode"].append(decode_rate(model, chosen.tokens))
        for name, model in models.items():
            rates[name]["prefill"].append(prefill_rate(model, chosen.prompt))
    medians = {name: {what: statistics.median(found) for what, found in each.items()} for name, each in rates.items()}
    print(f"{chosen.model or chosen.shape}, {chosen.threads} threads, load {os.getloadavg()[0]:.1f}")
    for name, model in models.items():
        whole, layers = weights(model)
        row = medians[name]
        print(f"{name:7} decode {row['decode']:7.1f}  prefill {row['prefill']:7.0f}  weights {whole:7.1f} MB, layers {layers:7.1f} MB")
    ratio = {what: medians["packed"][what] / medians["bf16"][what] for what in ("decode", "prefill")}
    sizes = [ours / theirs for ours, theirs in zip(weights(packed), weights(plain))]
    print(f"packed over bf16: decode {ratio['decode']:.2f}, prefill {ratio['prefill']:.2f}, weights {sizes[0]:.3f}, layers {sizes[1]:.3f}")


if __name__ == "__main__":
    main()
