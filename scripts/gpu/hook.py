"""planish inside of transformers on an NVIDIA GPU: values, CUDA graphs, whole models, and rates beside transformers' own bf16.

    PYTHONPATH=crates/planish-python/python python3 scripts/gpu/hook.py [--parts values,graphs] [--floats models/demo-float]

Needs torch with CUDA, transformers, and the built `_planish.abi3.so` beside the package's Python files (or planish installed). A part that
fails is told with its traceback, the others follow in a process of their own, and the script ends with 1. `compiled` needs triton and a C
compiler, and some minutes; it runs when it is asked for by name.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
SHAPE_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
PARTS = {}


def part(function):
    PARTS[function.__name__] = function
    return function


def packed_layer(bits, group, scale_type, rows, cols, bias):
    """A layer with random codes; its weights as f64, unpacked by torch. // layer, (rows, cols)"""
    from planish.transformers.modules import PackedLinear

    layer = PackedLinear(cols, rows, bias, bits=bits, group_size=group, scale_type=scale_type)
    codes = torch.randint(0, 1 << bits, (rows, cols))
    stream = (codes.unsqueeze(-1) >> torch.arange(bits) & 1).reshape(rows, -1, 32)
    words = (stream << torch.arange(32)).sum(-1)
    layer.weight.data.view(torch.int32).copy_(torch.where(words >= 1 << 31, words - (1 << 32), words))
    layer.scales.data.copy_(torch.rand(rows, cols // group) * 0.02 + 0.001)
    layer.qbiases.data.copy_(-torch.rand(rows, cols // group) * 0.02 * (1 << bits - 1))
    if bias:
        layer.bias.data = torch.randn(rows)
    scales = layer.scales.double().repeat_interleave(group, 1)
    weight = scales * codes + layer.qbiases.double().repeat_interleave(group, 1)
    return layer.cuda(), weight.cuda()


def off(found, expected):
    """The largest error over the size of the expected."""
    return ((found.double() - expected).norm() / expected.norm()).item()


# Of 16-bit outputs the rounding (bf16: 2^-9, halved by the mean); warpgroups round weights to f16.
BOUNDS = {torch.float32: 3e-6, torch.float16: 6e-4, torch.bfloat16: 3e-3}


@part
def values():
    """Products, rows and the way back of every width, against codes that torch decodes in f64."""
    bf16, f16, f32 = torch.bfloat16, torch.float16, torch.float32
    # bits, group, scales, values, rows, cols, inputs
    cases = [
        (2, 64, bf16, bf16, 1000, 512, (1, 5, 40)),
        (3, 64, f16, f16, 130, 640, (1, 17)),
        (4, 64, bf16, bf16, 2048, 2048, (1, 2, 8, 33, 512)),
        (4, 32, f16, bf16, 77, 256, (1, 64)),
        (4, 128, bf16, f32, 512, 1024, (1, 9)),
        (5, 64, f16, f16, 256, 320, (1,)),
        (6, 32, f16, f32, 256, 320, (2,)),
        (8, 64, bf16, bf16, 2048, 8192, (1, 64)),
        (6, 16, f16, bf16, 200, 288, (1, 40)),
        (4, 64, f32, bf16, 200, 256, (3, 40)),
    ]
    for bits, group, scale_type, value, rows, cols, inputs in cases:
        layer, weight = packed_layer(bits, group, scale_type, rows, cols, bias=rows % 2 == 0)
        label = f"{bits} bits, groups of {group}, {scale_type}, {value}, {rows} x {cols}, {'tiles' if layer.folded else 'as stored'}"
        dense = layer.dequantized(torch.float32)
        assert off(dense, weight) < 1e-6, f"{label}: dequantized {off(dense, weight)}"
        errors = []
        for m in inputs:
            x = torch.randn(m, cols, device="cuda").to(value)
            expected = x.double() @ weight.T
            if layer.bias is not None:
                expected += layer.bias.double()
            with torch.no_grad():
                found = layer(x)
            assert found.dtype == value and found.shape == (m, rows)
            errors.append(off(found, expected))
        print(f"  {label}: inputs {inputs}, relative errors {', '.join(f'{error:.1e}' for error in errors)}", flush=True)
        assert max(errors) < BOUNDS[value], label


@part
def devices():
    """Layers that go to the GPU and back keep their bytes; x that is not contiguous or aligned; ids of a table; gradients; other streams."""
    from planish.transformers.modules import PackedEmbedding

    layer, weight = packed_layer(4, 64, torch.bfloat16, 192, 256, bias=False)
    assert layer.folded and layer.packed.is_cuda
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    back = layer.cpu()
    for name, value in back.state_dict().items():
        assert torch.equal(value.view(torch.uint8), state[name].cpu().view(torch.uint8)), name
    layer = back.cuda()
    with torch.no_grad():
        wide = torch.randn(6, 2 * 256 + 1, device="cuda", dtype=torch.bfloat16)
        for x in (wide[:, ::2][:, :256], wide[:, 1:257], wide[:0, :256]):
            assert off(layer(x), x.double() @ weight.T) < 3e-3 or not x.numel()
        stream = torch.cuda.Stream()
        x = torch.randn(4, 256, device="cuda")
        with torch.cuda.stream(stream):
            y = (x * 2 + 1).relu_()
            found = layer(y)
        stream.synchronize()
        assert off(found, y.double() @ weight.T) < 3e-6
    x = torch.randn(3, 256, device="cuda", requires_grad=True)
    layer(x).square().sum().backward()
    expected = 2 * (x.detach().double() @ weight.T) @ weight
    assert off(x.grad, expected) < 1e-5, f"gradient {off(x.grad, expected)}"
    table = PackedEmbedding(nn.Embedding(192, 256), torch.bfloat16, bits=4, group_size=64, scale_type=torch.bfloat16)
    table.load_state_dict(back.state_dict())
    table = table.cuda()
    ids = torch.tensor([[0, 5, 191], [7, 7, 1]], device="cuda")
    assert torch.equal(table(ids), weight[ids].float().bfloat16())
    try:
        layer(torch.randn(1, 256))
        raise AssertionError("an input on the CPU went through a layer on the GPU")
    except RuntimeError as error:
        print(f"  refused: {error}")


@part
def graphs():
    """Products that CUDA graphs of torch capture, by 1 and by 64 inputs, one of them compiled in the midst of a capture."""
    for m, warm in ((1, True), (64, True), (3, False)):
        layer, weight = packed_layer(4, 64, torch.bfloat16, 1024 + 64 * m, 4096, bias=False)
        x = torch.zeros(m, 4096, device="cuda", dtype=torch.bfloat16)
        with torch.no_grad():
            if warm:
                layer(x)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = layer(x + 1)
                z = y * 2
            for seed in range(3):
                torch.manual_seed(seed)
                x.copy_(torch.randn_like(x))
                graph.replay()
                error = off(z, 2 * ((x + 1).double() @ weight.T))
                assert error < 4e-3, f"{m} inputs: {error}"
        print(f"  {m} inputs: relative error {error:.1e}")


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits.double()


def divergence(expected, found):
    expected, found = expected.log_softmax(-1), found.log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1).mean().item()


@part
def blocks():
    """The blocks of transformers' page about metal quantization, with device "cuda" and a folder for the Hub's names."""
    from planish.transformers.modules import Packed
    from transformers import AutoModelForCausalLM, AutoTokenizer, MetalConfig

    floats = str(FLOATS)
    with tempfile.TemporaryDirectory() as folder:
        # On the fly.
        quantization_config = MetalConfig(bits=4, group_size=64)
        model = AutoModelForCausalLM.from_pretrained(
            floats,
            device_map="cuda",
            quantization_config=quantization_config,
        )
        tokenizer = AutoTokenizer.from_pretrained(floats)
        inputs = tokenizer("Once upon a time", return_tensors="pt").to("cuda")
        output = model.generate(**inputs, max_new_tokens=50)
        print("  ", repr(tokenizer.decode(output[0], skip_special_tokens=True)))
        packed = [module for module in model.modules() if isinstance(module, Packed)]
        print(f"   {len(packed)} packed layers, {sum(module.folded for module in packed)} as tiles")
        assert packed and all(tensor.is_cuda for tensor in [*model.parameters(), *model.buffers()])
        model.save_pretrained(folder)
        # Pre-quantized.
        again = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="cuda",
        )
        ids = inputs["input_ids"]
        assert torch.equal(logits(model, ids), logits(again, ids)), "what was saved gives other logits"
        # Dequantized, by transformers.
        config = MetalConfig(dequantize=True)
        plain = AutoModelForCausalLM.from_pretrained(
            folder,
            quantization_config=config,
            device_map="cpu",
        )
        print(f"   divergence from transformers' dequantized model: {divergence(logits(plain, ids.cpu()).cuda(), logits(model, ids)):.1e}")
        # Without some layers.
        config = MetalConfig(bits=4, group_size=64, modules_to_not_convert=["lm_head"])
        fewer = AutoModelForCausalLM.from_pretrained(floats, quantization_config=config, device_map="cuda")
        assert type(fewer.lm_head) is nn.Linear
        # No map, and moved afterwards.
        moved = AutoModelForCausalLM.from_pretrained(folder).to("cuda")
        assert torch.equal(logits(model, ids), logits(moved, ids)), "a model that was moved gives other logits"
        # In f32: every weight as the formula says, multiplied by torch.
        exact = AutoModelForCausalLM.from_pretrained(folder, device_map="cuda", dtype=torch.float32)
        found = logits(exact, ids)
        exact.dequantize()
        torch.backends.cuda.matmul.allow_tf32 = False
        expected = logits(exact, ids)
        error = ((found - expected).abs().max() / expected.abs().max()).item()
        print(f"   f32 against the dequantized formula: {error:.1e} of the largest logit")
        assert error < 2e-5


def random_model(packed, layers=None):
    """A model of a 1B shape with random weights on the GPU: plain bf16, or packed in 4 bits with a plain head."""
    from planish.transformers.modules import PackedLinear, fold_all
    from transformers import LlamaConfig, LlamaForCausalLM

    kind = {"bits": 4, "group_size": 64, "scale_type": torch.bfloat16}
    shape = SHAPE_1B | ({"num_hidden_layers": layers} if layers else {})
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape)).to(torch.bfloat16)
        for name, module in list(model.named_modules()):
            if packed and isinstance(module, nn.Linear) and name != "lm_head":
                model.set_submodule(name, PackedLinear(module.in_features, module.out_features, False, **kind))
    rotary = type(model.model.rotary_emb)(model.config)
    model.to_empty(device="cuda")
    model.model.rotary_emb = rotary.cuda()
    for parameter in model.parameters():
        if parameter.dtype == torch.uint32:
            parameter.data.view(torch.int32).random_(-(2**31), 2**31 - 1)
        else:
            parameter.data.normal_(0, 0.01)
    model.tie_weights()
    fold_all(model)
    model.generation_config.eos_token_id = None
    return model.eval()


def eager_rate(model, tokens=64):
    """Tokens a second of `generate` as it is, between the tenth and the last."""
    times = []

    class Watch:
        def put(self, _):
            times.append(time.perf_counter())

        def end(self):
            pass

    ids = torch.arange(3, 19, device="cuda").reshape(1, -1)
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, streamer=Watch())
    return (len(times) - 11) / (times[-1] - times[10])


class Step:
    """One step of a decode with a static cache, as a CUDA graph."""

    def __init__(self, model, length=256):
        from transformers import StaticCache

        self.ids = torch.full((1, 1), 7, device="cuda")
        self.position = torch.full((1, 1), 20, device="cuda")
        self.mask = torch.zeros((1, 1, 1, length), device="cuda", dtype=torch.bool)
        self.mask[..., :21] = True
        # The graph writes into it as long as it is replayed.
        self.cache = StaticCache(config=model.config, max_cache_len=length)

        def step():
            for layer in self.cache.layers:
                layer.cumulative_length.fill_(20)
            return model(self.ids, attention_mask=self.mask, position_ids=self.position, past_key_values=self.cache, use_cache=True).logits

        with torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.eager = step().clone()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.logits = step()
        self.graph.replay()

    def rate(self, steps=100):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            self.graph.replay()
        torch.cuda.synchronize()
        return steps / (time.perf_counter() - start)


def prefill_rate(model, tokens=512):
    ids = torch.arange(tokens, device="cuda").reshape(1, -1) % 1000 + 3
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        model(ids, logits_to_keep=1, use_cache=True)
    torch.cuda.synchronize()
    return tokens / (time.perf_counter() - start)


def compare(what, rates):
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratio = medians["packed"] / medians["bf16"]
    print(f"   {what}: bf16 {medians['bf16']:.1f}, packed {medians['packed']:.1f} tokens a second, ratio {ratio:.2f}", flush=True)


@part
def rates():
    """A 1B shape: memory, decoding by `generate`, by a CUDA graph of a step with a static cache, and a prefill, beside bf16."""
    models = {}
    for name in ("bf16", "packed"):
        before = torch.cuda.memory_allocated()
        models[name] = random_model(name == "packed")
        print(f"   {name}: {(torch.cuda.memory_allocated() - before) / 1e6:.0f} MB of weights", flush=True)
    for model in models.values():
        eager_rate(model, 16)
        prefill_rate(model)
    found = {what: {name: [] for name in models} for what in ("eager", "prefill", "graph")}
    for _ in range(3):
        for name, model in models.items():
            found["eager"][name].append(eager_rate(model))
            found["prefill"][name].append(prefill_rate(model))
    compare("decode by generate, eager", found["eager"])
    compare("prefill of 512", found["prefill"])
    steps = {name: Step(model) for name, model in models.items()}
    for name, step in steps.items():
        same = torch.allclose(step.logits.float(), step.eager.float(), atol=2e-2, rtol=2e-2)
        print(f"   {name}: the graph gives {'the same logits' if same else 'OTHER LOGITS'} as eager code")
        assert same
    for _ in range(5):
        for name, step in steps.items():
            found["graph"][name].append(step.rate())
    compare("decode by a CUDA graph", found["graph"])
    profile(models)


def profile(models):
    """Where the time of a step on the GPU goes: all kernels, and those of products."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    for name, model in models.items():
        ids = torch.full((1, 1), 7, device="cuda")
        with torch.no_grad(), profiler(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
            for _ in range(3):
                model(ids, use_cache=False)
            torch.cuda.synchronize()
        events = [event for event in found.key_averages() if event.self_device_time_total > 0]
        events.sort(key=lambda event: -event.self_device_time_total)
        whole = sum(event.self_device_time_total for event in events) / 3
        print(f"   {name}: {whole:.0f} us on the GPU a step")
        for event in events[:7]:
            print(f"      {event.self_device_time_total / 3:8.1f} us {event.count / 3:6.1f} x {event.key[:90]}")


@part
def calls():
    """Host time of one call of a layer beside `nn.Linear`, in us, without waiting for the GPU."""
    layer, _ = packed_layer(4, 64, torch.bfloat16, 256, 256, bias=False)
    plain = nn.Linear(256, 256, bias=False, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(1, 1, 256, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        for name, module in (("bf16", plain), ("packed", layer), ("bf16", plain), ("packed", layer)):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(500):
                module(x)
            taken = time.perf_counter() - start
            torch.cuda.synchronize()
            print(f"   {name}: {taken / 500 * 1e6:.1f} us a call, {(time.perf_counter() - start) / 500 * 1e6:.1f} with the GPU")


def compiled():
    """The same decode by `generate` with a static cache, which transformers compiles on CUDA by itself."""
    rates = {}
    for name in ("bf16", "packed"):
        model = random_model(name == "packed")
        ids = torch.arange(3, 19, device="cuda").reshape(1, -1)

        def generate(tokens):
            options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "cache_implementation": "static"}
            torch.cuda.synchronize()
            start = time.perf_counter()
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)
            torch.cuda.synchronize()
            return time.perf_counter() - start

        print(f"   {name}: first {generate(64):.1f} s", flush=True)
        generate(64), generate(8)
        rates[name] = [56 / (generate(64) - generate(8)) for _ in range(3)]
    compare("decode by generate, static cache, compiled", rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", help=f"some of {', '.join([*PARTS, 'compiled'])}; all but the last if left out")
    parser.add_argument("--floats", type=Path, default=ROOT / "models" / "demo-float", help="a plain model with a tokenizer")
    chosen = parser.parse_args()
    global FLOATS
    FLOATS = chosen.floats
    started = time.perf_counter()
    import transformers

    import planish.transformers

    assert planish.transformers.enabled()
    print(f"planish {planish.__version__}, torch {torch.__version__}, transformers {transformers.__version__}, {torch.cuda.get_device_name()}")
    print(f"imported after {time.perf_counter() - started:.1f} s", flush=True)
    names = chosen.parts.split(",") if chosen.parts else list(PARTS)
    for done, name in enumerate(names):
        torch.manual_seed(20261130)
        start = time.perf_counter()
        print(f"== {name}", flush=True)
        try:
            (PARTS | {"compiled": compiled})[name]()
            torch.cuda.synchronize()
            print(f"   ok, {time.perf_counter() - start:.1f} s", flush=True)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f"   FAILED: {name} after {time.perf_counter() - start:.1f} s", flush=True)
            # Nothing may be left of the device for this process.
            rest = names[done + 1 :]
            if rest:
                subprocess.run([sys.executable, __file__, "--parts", ",".join(rest), "--floats", FLOATS])
            return 1
    print(f"{', '.join(names)}: all well, {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
