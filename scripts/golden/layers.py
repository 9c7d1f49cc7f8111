"""Which layers transformers ("metal") and mlx-lm quantize, for tiny random models of many architectures.

Writes crates/planish-quantize/tests/golden/layers/<group>.json; the models stand in layer_models.py. For each: its config.json;
`tensors`, the names and shapes in its checkpoint; `metal`, those that `MetalConfig` packs; `mlx`, every parameter of the model
that mlx-lm quantized with its shape, and bits and group of the packed ones. Made with transformers 5.23.0 and mlx-lm 0.32.2;
run: python scripts/golden/layers.py [GROUP ..]
"""

import importlib
import json
import pathlib
import struct
import sys
import tempfile

import mlx.core as mx
import mlx_lm
import safetensors.torch
import torch
import transformers
from mlx.utils import tree_flatten
from transformers import AutoConfig, MetalConfig
from transformers.integrations.metal_quantization import MetalLinear, replace_with_metal_linear
from transformers.quantizers.base import HfQuantizer

from layer_models import MODELS, SMALL

GROUP = 32
TARGET = pathlib.Path(__file__).parents[2] / "crates/planish-quantize/tests/golden/layers"


def header(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        for name, value in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                tensors[name] = value["shape"]
    return dict(sorted(tensors.items()))


def configuration(case):
    base = SMALL if case.base is None else case.base
    settings = {key: value for key, value in {**base, **case.settings}.items() if value is not None}
    return AutoConfig.for_model(case.kind, **settings)


def build(auto, config):
    kind = getattr(transformers, auto)
    return kind.from_config(config) if auto.startswith("Auto") else kind(config)


def packed_by_metal(auto, config, folder):
    """The checkpoint's names of the layers that transformers packs: those are filled with ones, all else with zeros."""
    model = build(auto, config)
    skipped = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    with torch.device("meta"):
        packed = build(auto, config)
    replace_with_metal_linear(packed, skipped, MetalConfig(bits=4, group_size=GROUP), pre_quantized=True)
    chosen = {name for name, module in packed.named_modules() if isinstance(module, MetalLinear)}
    with torch.no_grad():
        for parameter in list(model.parameters()) + list(model.buffers()):
            parameter.zero_()
        for name, module in model.named_modules():
            if name in chosen:
                module.weight.fill_(1)
    model.save_pretrained(folder)
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= safetensors.torch.load_file(path)
    return sorted(name for name, tensor in tensors.items() if tensor.dim() > 1 and bool((tensor == 1).all())), sorted(skipped)


def packed_by_mlx(folder, case):
    """Every parameter that mlx-lm would write: shape, and for packed ones bits and group; None where it has no such model."""
    if case.mlx_fresh:
        module = importlib.import_module(f"mlx_lm.models.{case.kind}")
        config = json.loads((folder / "config.json").read_text()) | case.mlx
        return packed_model(module.Model(module.ModelArgs.from_dict(config)), config)
    try:
        model, config = mlx_lm.utils.load_model(folder, model_config=case.mlx)
    except (ValueError, TypeError, FileNotFoundError, KeyError, AttributeError) as error:
        print("  mlx-lm:", type(error).__name__, str(error).splitlines()[0][:200])
        return None
    return packed_model(model, config)


def packed_model(model, config):
    shapes = {name: list(value.shape) for name, value in tree_flatten(model.parameters())}
    _, config = mlx_lm.utils.quantize_model(model, config, GROUP, 4)
    packed = {name.removesuffix(".scales") for name, _ in tree_flatten(model.parameters()) if name.endswith(".scales")}
    result = {}
    for name, shape in sorted(shapes.items()):
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in packed:
            packing = config["quantization"].get(module, config["quantization"])
            result[name] = [shape, packing["bits"], packing["group_size"]]
        else:
            result[name] = [shape]
    return result


def row_of_mlx(case):
    module = importlib.import_module(f"mlx_lm.models.{case.kind}")
    model = module.Model(module.ModelArgs.from_dict(case.settings))
    tensors = {name: list(value.shape) for name, value in tree_flatten(model.parameters())}
    return dict(label=case.label or case.kind, config=case.settings, tensors=dict(sorted(tensors.items())), skipped=None,
                metal=None, mlx=packed_model(model, dict(case.settings)))


def row(case):
    label = case.label or case.kind
    print(label, flush=True)
    if case.mlx_only:
        return row_of_mlx(case)
    config = configuration(case)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        metal, skipped = packed_by_metal(case.auto, config, folder)
        return dict(label=label, config=json.loads((folder / "config.json").read_text()), tensors=header(folder),
                    skipped=skipped, metal=metal, mlx=packed_by_mlx(folder, case))


def main():
    mx.random.seed(0)
    versions = {"transformers": transformers.__version__, "mlx-lm": mlx_lm.__version__}
    TARGET.mkdir(parents=True, exist_ok=True)
    for group in sys.argv[1:] or MODELS:
        lines = ",\n".join(json.dumps(row(case)) for case in MODELS[group])
        text = f'{{"versions": {json.dumps(versions)}, "group": {GROUP}, "models": [\n{lines}\n]}}\n'
        (TARGET / f"{group}.json").write_text(text)


main()
