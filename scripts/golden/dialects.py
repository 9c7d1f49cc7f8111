"""A tiny Llama as other quantizers store it, and what their own code makes of it, for tests/dialects.rs of planish-model.

Writes crates/planish-model/tests/golden_dialects/<case>: config.json and model.safetensors as the quantizer's library writes them,
weights.json (SHA-256 or first row of each weight as that library dequantizes it, in f32, zeros without sign) and golden.safetensors (tokens, and
the logits of transformers with those weights, in f32). Which code packed and unpacked a case stands in its weights.json, with
versions; the seed is 17. Names of cases as arguments make only those.
Needs torch, transformers, safetensors and the libraries of the cases: autoawq 0.2.7, auto_gptq 0.7.1, hqq 0.2.8 (single files of
them, which run without the rest; HQQ as PYTHONPATH), auto-round 0.16.1, bitsandbytes 0.50.2, compressed-tensors 0.20.1, torchao 0.18.0.
"""

import copy
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import pathlib
import shutil
import sys
import types

import safetensors.torch
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/planish-model/tests/golden_dialects"
CONFIG = dict(vocab_size=32, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
TOKENS = [3, 17, 9, 30, 1, 22, 8, 13, 27, 5, 11, 2]
STEPS = 3
CASES = {}


def case(name, *arguments, **settings):
    def add(function):
        CASES[name] = lambda: function(*arguments, **settings)
        return function
    return add


def bare(package):
    """A package whose modules can be imported without what its __init__ imports."""
    if package not in sys.modules:
        module = types.ModuleType(package)
        module.__path__ = list(importlib.util.find_spec(package).submodule_search_locations)
        sys.modules[package] = module


def model(dtype=torch.float16):
    torch.manual_seed(17)
    made = LlamaForCausalLM(LlamaConfig(**CONFIG)).float()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            around = 1.0 if "norm" in name else 0.0
            parameter.copy_((around + 0.1 * torch.randn_like(parameter)).to(dtype).float())
    return made.eval().requires_grad_(False)


def linears(made):
    return [(name, module) for name, module in made.named_modules()
            if isinstance(module, torch.nn.Linear) and name != "lm_head"]


def write(name, made, state, weights, quantization, by, config=None, rounds=False):
    """`state` replaces the weights of the quantized modules, `weights` are what they mean. // (outputs, inputs) in f32

    Where sums of ours may round once more than the library's, first rows stand in place of hashes."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dtype = getattr(torch, (config or {}).get("torch_dtype", "float16"))
    plain = {key: value.to(dtype) for key, value in made.state_dict().items() if key not in weights}
    tensors = {key: value.contiguous() for key, value in {**plain, **state}.items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = made.config.to_dict()
    settings = {key: settings[key] for key in [*CONFIG, "model_type", "architectures", "rms_norm_eps", "head_dim", "hidden_act",
                                               "rope_parameters"] if settings.get(key) is not None}
    settings |= {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float16"} | (config or {})
    (folder / "config.json").write_text(json.dumps(settings | {"quantization_config": quantization}, indent=1) + "\n")
    weights = {key: value.detach().float() + 0.0 for key, value in weights.items()}
    hashes = {key: hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in weights.items()}
    rows = {key: value[0].tolist() for key, value in weights.items()} if rounds else {}
    by = f"{by}; torch {torch.__version__}, transformers {transformers.__version__}, seed 17"
    (folder / "weights.json").write_text(json.dumps({"by": by, "sha256": {} if rounds else hashes, "rows": rows}, indent=1) + "\n")
    made = copy.deepcopy(made)
    made.load_state_dict({**{key: value.float() for key, value in plain.items()}, **weights})
    with torch.no_grad():
        logits = made(torch.tensor([TOKENS])).logits[0]
    golden = {"tokens": torch.tensor(TOKENS, dtype=torch.int32), "prefill": logits[:-STEPS].contiguous(),
              "steps": logits[-STEPS:].contiguous()}
    safetensors.torch.save_file(golden, folder / "golden.safetensors", {"by": by})
    print(name)


def scales_and_zeros(weight, bits, group, symmetric):
    """By least and largest weight; zero points are whole numbers. // (outputs, groups) each"""
    groups = weight.reshape(weight.shape[0], -1, group if group > 0 else weight.shape[1])
    top = 2 ** bits - 1
    if symmetric:
        scale = (groups.abs().amax(-1) * 2 / top).half().float()
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = ((high - low) / top).half().float()
    return scale, (-low / scale).round().clamp(1, top)


@case("awq", 32)
@case("awq_rows", -1)
def awq(group):
    bare("awq"), bare("awq.modules"), bare("awq.utils"), bare("awq.modules.linear")
    gemm = importlib.import_module("awq.modules.linear.gemm")
    dequantize = importlib.import_module("awq.utils.packing_utils").dequantize_gemm
    made, state, weights = model(), {}, {}
    for name, linear in linears(made):
        scale, zero = scales_and_zeros(linear.weight, 4, group, False)
        own = group if group > 0 else linear.in_features
        packed = gemm.WQLinear_GEMM.from_linear(linear, 4, own, scales=scale.t().contiguous(), zeros=zero.t().contiguous())
        state |= {f"{name}.{key}": value for key, value in packed.state_dict().items()}
        weights[f"{name}.weight"] = dequantize(packed.qweight, packed.qzeros, packed.scales.float(), 4, own).t().contiguous()
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
              "modules_to_not_convert": None}
    by = f"WQLinear_GEMM and dequantize_gemm of autoawq {importlib.metadata.version('autoawq')}"
    write(f"awq{'_rows' if group < 0 else ''}", made, state, weights, config, by)


@case("gptq", "gptq", 4, 32, True)
@case("gptq_zeros", "gptq_zeros", 4, 32, False)
@case("gptq_2", "gptq_2", 2, 64, False)
@case("gptq_3", "gptq_3", 3, 32, False)
@case("gptq_8", "gptq_8", 8, -1, True)
@case("gptq_v2", "gptq_v2", 4, 32, False, v2=True)
@case("gptq_order", "gptq_order", 4, 16, False, reversed_groups=True)
def gptq(case_name, bits, group, symmetric, v2=False, reversed_groups=False):
    bare("auto_gptq"), bare("auto_gptq.nn_modules"), bare("auto_gptq.nn_modules.qlinear")
    old = importlib.import_module("auto_gptq.nn_modules.qlinear.qlinear_cuda_old")
    made, state, weights = model(), {}, {}
    for name, linear in linears(made):
        scale, zero = scales_and_zeros(linear.weight, bits, group, symmetric)
        own = group if group > 0 else linear.in_features
        packed = old.QuantLinear(bits, own, linear.in_features, linear.out_features, False)
        packed.autogptq_cuda_available = False
        packed.pack(linear.half().float(), scale, zero.clone(), None)
        packed.scales = scale.t().contiguous()
        packed.half = packed.float
        weight = packed(torch.eye(linear.in_features)).t().contiguous()
        tensors = {"qweight": packed.qweight, "qzeros": packed.qzeros, "scales": packed.scales.half(),
                   "g_idx": (torch.arange(linear.in_features) // own).int()}
        if v2:
            tensors["qzeros"] = (tensors["qzeros"].long() + 0x11111111).int()
        if reversed_groups:
            tensors["qzeros"], tensors["scales"] = tensors["qzeros"].flip(0), tensors["scales"].flip(0)
            tensors["g_idx"] = tensors["g_idx"].max() - tensors["g_idx"]
        state |= {f"{name}.{key}": value for key, value in tensors.items()}
        weights[f"{name}.weight"] = weight
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": reversed_groups,
              "checkpoint_format": "gptq_v2" if v2 else "gptq", "true_sequential": True, "damp_percent": 0.01}
    by = "QuantLinear (qlinear_cuda_old) of auto_gptq 0.7.1, scales in f32"
    if v2:
        by += "; zero points plus one by the format's definition"
    write(case_name, made, state, weights, config, by)


@case("auto_round", "auto_round", "auto_round:auto_gptq", False)
@case("auto_round_plain", "auto_round_plain", "auto_round", False)
def auto_round(case_name, packing, symmetric):
    """Zero points less one, or as they are."""
    kind = "qlinear_torch_zp" if packing.endswith("auto_gptq") else "qlinear_torch"
    bare("auto_round_extension"), bare("auto_round_extension.torch"), bare("auto_round"), bare("auto_round.utils")
    sys.modules["auto_round.utils"].get_packing_device = lambda device=None: torch.device("cpu")
    linear_class = importlib.import_module(f"auto_round_extension.torch.{kind}").QuantLinear
    made, state, weights = model(), {}, {}
    for name, linear in linears(made):
        scale, zero = scales_and_zeros(linear.weight, 4, 32, symmetric)
        packed = linear_class(4, 32, linear.in_features, linear.out_features, False)
        packed.device = "cpu"
        packed.pack(linear, scale, zero, None, device="cpu")
        state |= {f"{name}.{key}": getattr(packed, key) for key in ("qweight", "qzeros", "scales")}
        packed.post_init()
        packed.scales = packed.scales.float()
        weights[f"{name}.weight"] = packed.float()(torch.eye(linear.in_features)).t().contiguous()
    config = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": symmetric, "data_type": "int",
              "packing_format": packing}
    write(case_name, made, state, weights, config, f"{kind}.QuantLinear of auto-round {importlib.metadata.version('auto-round')}")


@case("fp8", "fp8", torch.float32)
@case("fp8_powers", "fp8_powers", torch.float8_e8m0fnu)
def fp8(case_name, scale_type):
    """Blocks of 24 x 32: rows are no multiple of them, so one scale is of fewer."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    made, state, weights, block = model(torch.bfloat16), {}, {}, (16, 32)
    for name, linear in linears(made):
        blocks = linear.weight.unflatten(1, (-1, block[1])).unflatten(0, (-1, block[0]))
        scale = (blocks.abs().amax((1, 3)) / 448).to(scale_type)
        numbers = (blocks / scale.float()[:, None, :, None]).reshape(linear.weight.shape).to(torch.float8_e4m3fn)
        state |= {f"{name}.weight": numbers, f"{name}.weight_scale_inv": scale}
        weights[f"{name}.weight"] = Fp8Dequantize(None)._dequantize_one(numbers, scale, torch.bfloat16)
    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(block)}
    by = "Fp8Dequantize of transformers"
    write(case_name, made, state, weights, config, by, {"torch_dtype": "bfloat16"})


@case("fp8_rows", "fp8_rows", "fbgemm_fp8", 1)
@case("fp8_one", "fp8_one", "modelopt", None)
def fp8_scales(case_name, method, dim):
    """No scale of theirs runs without a GPU: the definition, number times scale."""
    made, state, weights = model(), {}, {}
    for name, linear in linears(made):
        scale = (linear.weight.abs().amax(dim, keepdim=True) if dim else linear.weight.abs().amax()) / 448
        numbers = (linear.weight / scale).to(torch.float8_e4m3fn)
        state |= {f"{name}.weight": numbers, f"{name}.weight_scale": scale, f"{name}.input_scale": torch.tensor(0.5)}
        weights[f"{name}.weight"] = (numbers.float() * scale).half()
    config = {"quant_method": method} | ({"quant_algo": "FP8"} if method == "modelopt" else {})
    write(case_name, made, state, weights, config, "torch's conversion of float8_e4m3fn, times scale by the formats' definition")


@case("compressed", "compressed", "int", 4, "group", True)
@case("compressed_zeros", "compressed_zeros", "int", 4, "group", False)
@case("compressed_3", "compressed_3", "int", 3, "channel", True)
@case("compressed_8", "compressed_8", "int", 8, "channel", True, activations=True)
@case("compressed_fp8", "compressed_fp8", "float", 8, "channel", True, activations=True)
def compressed(case_name, kind, bits, strategy, symmetric, activations=False):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams
    made, state, weights = model(torch.bfloat16), {}, {}
    group = 32 if strategy == "group" else None
    arguments = QuantizationArgs(num_bits=bits, type=kind, strategy=strategy, symmetric=symmetric, group_size=group)
    inputs = QuantizationArgs(num_bits=8, type=kind, strategy="token", symmetric=True, dynamic=True) if activations else None
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments, input_activations=inputs)
    form = {("int", True): "int-quantized", ("float", True): "float-quantized"}.get((kind, activations), "pack-quantized")
    compressor = BaseCompressor.get_value_from_registry(form)
    for name, linear in linears(made):
        groups = linear.weight.bfloat16().unflatten(1, (-1, group or linear.in_features))
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
        given = {"weight": linear.weight.bfloat16(), "weight_scale": scale, "weight_zero_point": zero}
        stored = compressor.compress(given, scheme)
        state |= {f"{name}.{key}": value for key, value in stored.items()}
        exact = {**stored, "weight_scale": stored["weight_scale"].float()}
        weight = compressor.decompress(exact, scheme)["weight"]
        weights[f"{name}.weight"] = weight.bfloat16() if kind == "float" else weight.float()
    config = {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed", "ignore": ["lm_head"],
              "config_groups": {"group_0": json.loads(scheme.model_dump_json())}}
    by = f"{form} of compressed-tensors {importlib.metadata.version('compressed-tensors')}"
    write(case_name, made, state, weights, config, by, {"torch_dtype": "bfloat16"})


@case("bitsandbytes_8")
def bitsandbytes_8():
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant
    made, state, weights = model(), {}, {}
    for name, linear in linears(made):
        numbers, scale, _ = int8_vectorwise_quant(linear.weight.half())
        state |= {f"{name}.weight": numbers, f"{name}.SCB": scale.float(), f"{name}.weight_format": torch.tensor(0, dtype=torch.uint8)}
        weights[f"{name}.weight"] = int8_vectorwise_dequant(numbers, scale.float())
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
    by = f"int8_vectorwise_quant and _dequant of bitsandbytes {importlib.metadata.version('bitsandbytes')}"
    write("bitsandbytes_8", made, state, weights, config, by, rounds=True)


@case("nf4", "nf4", "nf4", False)
@case("nf4_nested", "nf4_nested", "nf4", True)
@case("fp4", "fp4", "fp4", False)
def four(case_name, kind, nested):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    made, state, weights = model(), {}, {}
    for name, linear in linears(made):
        packed, quantized = quantize_4bit(linear.weight.half(), quant_type=kind, compress_statistics=nested, blocksize=64)
        state |= {f"{name}.weight": packed} | {f"{name}.weight.{key}": value for key, value in quantized.as_dict(packed=True).items()}
        weights[f"{name}.weight"] = dequantize_4bit(packed, quantized)
    config = {"quant_method": "bitsandbytes", "load_in_8bit": False, "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    by = f"quantize_4bit and dequantize_4bit of bitsandbytes {importlib.metadata.version('bitsandbytes')}"
    write(case_name, made, state, weights, config, by)


@case("hqq", "hqq", 4)
@case("hqq_2", "hqq_2", 2)
@case("hqq_8", "hqq_8", 8)
def hqq(case_name, bits):
    bare("hqq"), bare("hqq.core")
    quantize = importlib.import_module("hqq.core.quantize")
    made, state, weights = model(), {}, {}
    for name, linear in linears(made):
        codes, meta = quantize.Quantizer.quantize(linear.weight, nbits=bits, group_size=32, axis=1, optimize=False, device="cpu",
                                                  compute_dtype=torch.float32)
        settings = {key: torch.tensor(meta[key]) for key in ("nbits", "group_size", "axis", "view_as_float")}
        state |= {f"{name}.{key}": value for key, value in settings.items()}
        meta["scale"], meta["zero"] = meta["scale"].half(), meta["zero"].half()
        state |= {f"{name}.W_q": codes, f"{name}.shape": torch.tensor(tuple(meta["shape"])), f"{name}.scale": meta["scale"],
                  f"{name}.zero": meta["zero"]}
        exact = {**meta, "scale": meta["scale"].float(), "zero": meta["zero"].float(), "compute_dtype": torch.float32}
        weights[f"{name}.weight"] = quantize.Quantizer.dequantize(codes, exact)
    config = {"quant_method": "hqq", "skip_modules": ["lm_head"],
              "quant_config": {"weight_quant_params": {"nbits": bits, "group_size": 32, "axis": 1, "view_as_float": False}}}
    write(case_name, made, state, weights, config, "Quantizer of hqq 0.2.8", rounds=True)


@case("torchao_8", "torchao_8", "int8", None)
@case("torchao_4", "torchao_4", "int4", 32)
@case("torchao_fp8", "torchao_fp8", "fp8", None)
def torchao(case_name, kind, group):
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Float8WeightOnlyConfig, IntxWeightOnlyConfig, PerAxis, PerGroup, quantize_
    made, state, weights = model(torch.bfloat16), {}, {}
    for name, linear in linears(made):
        granularity = PerGroup(group) if group else PerAxis(0)
        settings = {"int8": lambda: IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=granularity),
                    "int4": lambda: IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=granularity),
                    "fp8": Float8WeightOnlyConfig}[kind]()
        copied = copy.deepcopy(torch.nn.Sequential(linear)).bfloat16()
        quantize_(copied, settings)
        tensors, _ = flatten_tensor_state_dict({f"{name}.weight": copied[0].weight})
        state |= tensors
        weight = copied[0].weight
        if hasattr(weight, "zero_point"):
            weight.scale, weight.dtype_, weights[f"{name}.weight"] = weight.scale.float(), torch.float32, None
            codes = weight.qdata.float().unflatten(1, (weight.scale.shape[1], -1)) - weight.zero_point.float()[:, :, None]
            weights[f"{name}.weight"] = (codes * weight.scale[:, :, None]).flatten(1)
            difference = (weights[f"{name}.weight"] - copied[0].weight.dequantize().float()).abs().max()
            assert difference < 0.01, difference
        else:
            weights[f"{name}.weight"] = weight.dequantize()
    config = {"quant_method": "torchao", "quant_type": {"default": {"_type": type(settings).__name__}}}
    by = f"{type(settings).__name__} of torchao {importlib.metadata.version('torchao')}"
    if kind != "fp8":
        by += ", dequantized in f32 by its definition, which it does in bfloat16"
    write(case_name, made, state, weights, config, by, {"torch_dtype": "bfloat16"})


@case("mlx_mxfp4", "mxfp4", 32)
@case("mlx_mxfp8", "mxfp8", 32)
@case("mlx_nvfp4", "nvfp4", 16)
def mlx_mode(mode, group):
    import mlx.core as mx
    import numpy
    made, state, weights = model(torch.bfloat16), {}, {}
    for name, linear in linears(made):
        codes, scales = mx.quantize(mx.array(linear.weight.numpy()).astype(mx.bfloat16), mode=mode)
        state[f"{name}.weight"] = torch.from_numpy(numpy.array(codes).copy())
        state[f"{name}.scales"] = torch.from_numpy(numpy.array(scales).copy())
        weight = mx.dequantize(codes, scales, mode=mode, dtype=mx.bfloat16).astype(mx.float32)
        weights[f"{name}.weight"] = torch.from_numpy(numpy.array(weight).copy())
    config = {"group_size": group, "bits": 8 if mode == "mxfp8" else 4, "mode": mode, "lm_head": False, "model.embed_tokens": False}
    by = f"mx.quantize and mx.dequantize of mlx {importlib.metadata.version('mlx')}"
    write(f"mlx_{mode}", made, state, weights, config, by, {"torch_dtype": "bfloat16", "quantization": config})


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        CASES[wanted]()
