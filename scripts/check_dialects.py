"""Files that other quantizers' own libraries write, used as a user would: a tiny Llama is quantized and saved by the library, then
unpacked, converted, packed anew and run by the program. One line for each: how far the weights are from those that the library
computes, and what became of each command.

    python scripts/check_dialects.py --planish target/release/planish [--work FOLDER]

Needs torch, transformers, torchao, bitsandbytes, compressed-tensors (those that are missing are said to be).
"""

import argparse
import copy
import pathlib
import shutil
import subprocess
import tempfile

import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

SEED = 7
STORY_MODEL = pathlib.Path(__file__).resolve().parent.parent / "models/demo-float"


def base():
    torch.manual_seed(SEED)
    sizes = dict(vocab_size=4096, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    return LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.1)).eval()


def bitsandbytes(plain):
    from bitsandbytes.functional import dequantize_4bit

    four = dict(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    cases = {"8 bits": dict(load_in_8bit=True), "nf4": dict(**four, bnb_4bit_quant_type="nf4"),
             "nf4, nested": dict(**four, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True), "fp4": dict(**four, bnb_4bit_quant_type="fp4")}

    def weight(layer):
        if hasattr(layer.weight, "quant_state"):
            return dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        state = layer.state_dict()
        return state["weight"].float() * state["SCB"].float()[:, None] / 127

    for name, settings in cases.items():
        yield name, quantized(plain, BitsAndBytesConfig(**settings), torch.float32), weight


def torchao(plain):
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerAxis, PerGroup

    cases = {"4 bits": IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
             "8 bits": IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)),
             "int8 weight only": Int8WeightOnlyConfig(), "float8 weight only": Float8WeightOnlyConfig()}
    for name, settings in cases.items():
        # Its weights are products in the model's type.
        yield name, quantized(plain, TorchAoConfig(settings), torch.bfloat16), lambda layer: layer.weight.dequantize()


def quantized(plain, settings, dtype):
    return AutoModelForCausalLM.from_pretrained(plain, dtype=dtype, quantization_config=settings, device_map="cpu")


def compressed_tensors(plain):
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, QuantizationStatus
    from compressed_tensors.quantization import apply_quantization_config, fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    group, channel = dict(strategy="group", group_size=32), dict(strategy="channel")
    cases = {
        "4 bits": ("pack-quantized", dict(num_bits=4, type="int", symmetric=True, **group)),
        "4 bits, zero points": ("pack-quantized", dict(num_bits=4, type="int", symmetric=False, **group)),
        "8 bits": ("pack-quantized", dict(num_bits=8, type="int", symmetric=True, **channel)),
        "8 bits, naive": ("int-quantized", dict(num_bits=8, type="int", symmetric=True, **channel)),
        "fp8": ("float-quantized", dict(num_bits=8, type="float", symmetric=True, **channel)),
        "fp8, naive": ("naive-quantized", dict(num_bits=8, type="float", symmetric=True, **channel)),
    }
    for name, (form, settings) in cases.items():
        model, arguments = copy.deepcopy(plain_model(plain)), QuantizationArgs(**settings)
        scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
        apply_quantization_config(model, QuantizationConfig(config_groups={"all": scheme}, ignore=["lm_head"], format=form))
        weights = {}
        for path, layer in model.named_modules():
            if hasattr(layer, "weight_scale"):
                rows = layer.weight.detach().reshape(layer.weight.shape[0], -1, settings.get("group_size", layer.weight.shape[1]))
                scale, zero = calculate_qparams(rows.amin(-1), rows.amax(-1), arguments)
                layer.weight_scale.data.copy_(scale.reshape(layer.weight_scale.shape))
                zero_point = getattr(layer, "weight_zero_point", None)
                if zero_point is not None:
                    zero_point.data.copy_(zero.reshape(zero_point.shape))
                weights[path] = fake_quantize(layer.weight.detach(), layer.weight_scale, zero_point, arguments)
                layer.quantization_status = QuantizationStatus.FROZEN
        compressor = ModelCompressor.from_pretrained_model(model, quantization_format=form)
        compressor.compress_model(model)
        model.update_config = compressor.update_config
        yield name, model, weights


def plain_model(folder):
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def check(planish, folder, model, weight):
    """Saves, and tries every command."""
    model.save_pretrained(folder)
    getattr(model, "update_config", lambda _: None)(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(STORY_MODEL / name, folder)
    commands = {
        "dequantize": ["dequantize", folder, "--dtype", "float32", "--out", f"{folder}-floats"],
        "to metal": ["convert", folder, "--to", "metal", "--out", f"{folder}-metal"],
        "to mlx": ["convert", folder, "--to", "mlx", "--out", f"{folder}-mlx"],
        "quantize": ["quantize", folder, "--bits", "8", "--group-size", "32", "--out", f"{folder}-quantized"],
        "run": ["generate", folder, "--prompt", "Once", "-n", "4"],
    }
    told = []
    for name, arguments in commands.items():
        result = subprocess.run([planish, *map(str, arguments)], capture_output=True, text=True)
        last = (result.stderr.strip().splitlines() or [""])[-1].replace(str(folder), "it")
        told.append(f"{name} ok" if result.returncode == 0 else f"{name} refused ({last})")
    if not told[0].endswith("ok"):
        return "; ".join(told)
    found = safetensors.torch.load_file(f"{folder}-floats/model.safetensors")
    worst = 0
    for path, layer in model.named_modules():
        if path.endswith("_proj"):
            expected = (weight[path] if isinstance(weight, dict) else weight(layer)).float()
            worst = max(worst, ((found[f"{path}.weight"] - expected).abs().max() / expected.abs().max()).item())
    return f"weights differ by {worst:.1e}; {'; '.join(told)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--planish", default="target/release/planish")
    parser.add_argument("--work", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or pathlib.Path(scratch)
        base().save_pretrained(work / "plain")
        for library in (bitsandbytes, torchao, compressed_tensors):
            try:
                for name, model, weight in library(work / "plain"):
                    folder = work / f"{library.__name__} {name}".replace(" ", "_").replace(",", "")
                    print(f"{library.__name__}, {name}: {check(arguments.planish, folder, model, weight)}", flush=True)
            except ImportError as error:
                print(f"{library.__name__}: not there ({error})")


if __name__ == "__main__":
    main()
