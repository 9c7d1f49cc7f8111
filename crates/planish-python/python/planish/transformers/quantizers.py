"""transformers' quantizers with planish's modules: metal checkpoints, MLX folders, GGUF files."""

import os
import re
from pathlib import Path

import torch
from planish._planish import PackedCheckpoint, quantize_weight
from planish.errors import UnsupportedError
from planish.transformers import cuda, kernels
from planish.transformers.modules import Packed, PackedEmbedding, PackedLinear, TiedHead, fold_all
from torch import nn
from transformers.core_model_loading import ConversionOps, WeightRenaming
from transformers.integrations.metal_quantization import MetalDequantize, _affine_dequantize_tensor
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizer_gguf import GgufHfQuantizer
from transformers.quantizers.quantizer_metal import MetalHfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name, should_convert_module
from transformers.utils import logging
from transformers.utils.quantization_config import QuantizationConfigMixin

logger = logging.get_logger(__name__)


def places(device_map) -> set[str]:
    """The kinds of devices that a map names."""
    if device_map is None:
        return {"cpu"}
    if isinstance(device_map, str) and device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        return {"cuda" if torch.cuda.is_available() else "cpu"}
    named = device_map.values() if isinstance(device_map, dict) else [device_map]
    return {str(place) if place == "disk" else torch.device(place).type for place in named}


def strangers(device_map) -> set[str]:
    """The kinds of devices that packed weights cannot follow: all but the CPU alone and CUDA devices alone."""
    kinds = places(device_map)
    if kinds == {"cpu"} or kinds == {"cuda"} and cuda.is_there():
        return set()
    return kinds - {"cpu"}


def refuse_strangers(device_map, what: str):
    """Refuses maps with such devices."""
    others = strangers(device_map)
    if others:
        raise ValueError(
            f"planish computes {what} on the CPU alone or on CUDA devices alone, found {', '.join(sorted(others))} in "
            f"device_map={device_map!r}{'' if cuda.is_there() else ' (this PyTorch finds no device of NVIDIA)'}; pass device_map='cpu'"
        )


class PackedQuantizer:
    """What the three have in common."""

    dtype = None

    def update_dtype(self, dtype):
        self.dtype = dtype
        return dtype

    def get_new_dtype(self, converter, param, dtype):
        # Scales and biases stay as they are stored.
        if any(name.endswith((".scales", ".qbiases")) for name in converter.target_patterns):
            return None
        return super().get_new_dtype(converter, param, dtype)

    def _process_model_after_weight_loading(self, model, **kwargs):
        fold_all(model)
        return model

    def _dequantize(self, model, dtype=None):
        for name, module in list(model.named_modules()):
            if isinstance(module, PackedLinear):
                plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
                plain.bias = module.bias
            elif isinstance(module, PackedEmbedding):
                plain = nn.Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx, device="meta")
            elif isinstance(module, TiedHead):
                plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
                model.set_submodule(name, plain)
                continue
            else:
                continue
            plain.weight = nn.Parameter(module.dequantized(dtype), requires_grad=False)
            model.set_submodule(name, plain)
        if model.config.get_text_config().tie_word_embeddings:
            model.tie_weights()
        return model

    @property
    def is_trainable(self) -> bool:
        """Gradients go through packed layers, to adapters; the weights themselves stay as they are."""
        return True

    @property
    def is_compileable(self) -> bool:
        return True


class MetalQuantizer(PackedQuantizer, MetalHfQuantizer):
    """Metal checkpoints, and packing while loading, on the CPU and CUDA. What is for another device goes transformers' way."""

    def validate_environment(self, *args, **kwargs):
        if self.quantization_config.dequantize:
            return
        device_map = kwargs.get("device_map")
        others = strangers(device_map)
        if others and self.pre_quantized and "disk" not in others:
            logger.warning_once(
                "planish computes packed weights on the CPU alone or on CUDA devices alone; for "
                f"{', '.join(sorted(others))} they are dequantized as transformers does it."
            )
            self.quantization_config.dequantize = True
        else:
            refuse_strangers(device_map, "packed weights" if self.pre_quantized else "weights that are packed while they are loaded")

    def update_device_map(self, device_map):
        return device_map

    def param_needs_quantization(self, model, param_name: str, **kwargs) -> bool:
        module, name = get_module_from_name(model, param_name)
        return isinstance(module, PackedLinear) and name == "weight" and not self.pre_quantized

    def _process_model_before_weight_loading(self, model, **kwargs):
        config = self.quantization_config
        if config.dequantize:
            return
        self.modules_to_not_convert = self.get_modules_to_not_convert(
            model, config.modules_to_not_convert, model._keep_in_fp32_modules
        )
        linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        linear = [(name, module) for name, module in linear if should_convert_module(name, self.modules_to_not_convert)]
        for name, module in linear:
            if module.in_features % config.group_size or module.in_features * config.bits % 32:
                logger.warning_once(f"{name} and others stay plain: their rows do not hold whole groups of {config.group_size} weights")
                continue
            packed = PackedLinear(
                module.in_features,
                module.out_features,
                module.bias is not None,
                bits=config.bits,
                group_size=config.group_size,
                scale_type=self.dtype or torch.bfloat16,
                plain=None if self.pre_quantized else self.dtype,
            )
            model.set_submodule(name, packed)
        if not linear:
            logger.warning("no linear layer of this model is packed: none is left by modules_to_not_convert")

    def get_quantize_ops(self):
        return Quantize(self)

    def get_load_operations(self):
        return {"dequantize": Dequantize}

    def get_weight_conversions(self):
        # Of transformers 5.17; later ones ask for `get_load_operations`.
        conversions = super().get_weight_conversions()
        for conversion in conversions:
            conversion.operations = [Dequantize(self)]
        return conversions


class Quantize(ConversionOps):
    """A plain weight to codes, scales and biases."""

    def __init__(self, hf_quantizer):
        self.hf_quantizer = hf_quantizer

    def convert(self, input_dict, **kwargs):
        key, weight = next(iter(input_dict.items()))
        weight = weight[0] if isinstance(weight, list) else weight
        device, weight = weight.device, weight.cpu().contiguous()
        config = self.hf_quantizer.quantization_config
        (rows, cols), groups = weight.shape, weight.shape[1] // config.group_size
        codes = torch.empty((rows, kernels.words(cols, config.bits)), dtype=torch.uint32)
        scales, biases = (torch.empty((rows, groups), dtype=weight.dtype) for _ in range(2))
        try:
            quantize_weight(
                weight.data_ptr(),
                kernels.TYPES.get(weight.dtype, str(weight.dtype)),
                (rows, cols),
                config.bits,
                config.group_size,
                [codes.data_ptr(), scales.data_ptr(), biases.data_ptr()],
            )
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        module = key.rpartition(".")[0]
        packed = {key: codes, f"{module}.scales": scales, f"{module}.qbiases": biases}
        return {name: part.to(device) for name, part in packed.items()}


class Dequantize(MetalDequantize):
    """As transformers does it, in the type that was asked for and not in that of the scales."""

    def convert(self, input_dict, full_layer_name=None, model=None, **kwargs):
        config, dtype = self.hf_quantizer.quantization_config, self.hf_quantizer.dtype
        for pattern, other in model._get_dtype_plan(dtype).items():
            if re.search(pattern.replace("*", ".*"), full_layer_name):
                dtype = other
        result = {}
        input_dict = {key.removesuffix("$"): weights for key, weights in input_dict.items()}
        for key, weights in input_dict.items():
            prefix = key.removesuffix("weight")
            if key.endswith(("scales", "qbiases")):
                continue
            if prefix + "scales" not in input_dict:
                result[key] = [weight.to(dtype) for weight in weights]
                continue
            parts = zip(weights, input_dict[prefix + "scales"], input_dict[prefix + "qbiases"])
            result[key] = [
                _affine_dequantize_tensor(codes, scales, biases, config.group_size, config.bits).to(dtype)
                for codes, scales, biases in parts
            ]
        if "weight" in result:
            return {full_layer_name: result["weight"][0]}
        return result


class MlxConfig(QuantizationConfigMixin):
    """`quantization_config` of a folder of mlx-lm: what each module has is read from its tensors."""

    def __init__(self, **kwargs):
        self.quant_method = "mlx"
        self.fields = {name: value for name, value in kwargs.items() if name != "quant_method"}
        mode = self.fields.get("mode", "affine")
        if mode != "affine":
            raise UnsupportedError(f"quantization_config.mode of an MLX folder: expected affine, found {mode}")

    def to_dict(self):
        return {"quant_method": self.quant_method, **self.fields}


class CheckpointQuantizer(PackedQuantizer):
    """Modules as the tensors of a checkpoint say: any width, and embeddings and heads too."""

    def replace(self, model, packed: dict[str, tuple[tuple[int, int], int, int, torch.dtype]], dtype, what: str):
        """Packs the named modules: (rows, cols), bits, group, type of scales of each."""
        for name, ((rows, cols), bits, group_size, scale_type) in packed.items():
            try:
                module = model.get_submodule(name)
            except AttributeError:
                raise UnsupportedError(
                    f"{what}: {name} is packed and no module of transformers' {type(model).__name__}; planish.load runs such models"
                ) from None
            kind = {"bits": bits, "group_size": group_size, "scale_type": scale_type}
            if isinstance(module, nn.Linear) and (module.out_features, module.in_features) == (rows, cols):
                made = PackedLinear(cols, rows, module.bias is not None, **kind)
            elif type(module) is nn.Embedding and (module.num_embeddings, module.embedding_dim) == (rows, cols):
                made = PackedEmbedding(module, dtype, **kind)
            else:
                raise UnsupportedError(
                    f"{what}: {name} is packed as {rows} x {cols}, which transformers' {type(module).__name__} cannot be; planish.load runs "
                    "such models"
                )
            model.set_submodule(name, made)
        self.tie(model, packed)

    @staticmethod
    def tie(model, packed):
        """Heads that share the table of a packed embedding."""
        for target, source in list(model.all_tied_weights_keys.items()):
            head, table = target.removesuffix(".weight"), source.removesuffix(".weight")
            if head in packed and table not in packed:
                head, table = table, head
            if table not in packed:
                continue
            if head not in packed:
                model.set_submodule(head, TiedHead(model.get_submodule(table)))
            del model.all_tied_weights_keys[target]


class MlxQuantizer(CheckpointQuantizer, HfQuantizer):
    """Folders of mlx-lm, packed on the CPU and CUDA."""

    def validate_environment(self, *args, device_map=None, **kwargs):
        if not self.pre_quantized:
            raise UnsupportedError("packing while loading goes by MetalConfig, not by a configuration of MLX")
        refuse_strangers(device_map, "MLX folders")

    def _process_model_before_weight_loading(self, model, checkpoint_files=None, **kwargs):
        folder = Path(checkpoint_files[0]).parent
        checkpoint = PackedCheckpoint(folder)
        rearranged = checkpoint.rearranged()
        if rearranged:
            raise UnsupportedError(f"{folder}: mlx-lm rearranged tensors of this model ({rearranged[0]}); planish.load runs it")
        self.replace(model, described(checkpoint), self.dtype, str(folder))

    def update_weight_conversions(self, weight_conversions, model=None):
        return [*weight_conversions, WeightRenaming(r"\.biases$", ".qbiases")]

    def is_serializable(self, safe_serialization=None) -> bool:
        logger.warning("a model of an MLX folder is not saved by transformers; `planish convert` writes it as metal, `dequantize()` makes it plain")
        return False


class GgufQuantizer(CheckpointQuantizer, GgufHfQuantizer):
    """GGUF files, packed on the CPU and CUDA; with `GgufConfig(dequantize=True)` as transformers does it."""

    checkpoint = None

    def validate_environment(self, *args, device_map=None, **kwargs):
        self.packs = not self.quantization_config.dequantize and not strangers(device_map)
        if not self.packs:
            super().validate_environment(*args, **kwargs)

    def read_header(self, gguf_file: str):
        if self.packs:
            self.checkpoint = PackedCheckpoint(gguf_file)
        else:
            super().read_header(gguf_file)

    def update_device_map(self, device_map):
        return device_map if self.packs else super().update_device_map(device_map)

    def update_dtype(self, dtype):
        if not self.packs:
            return super().update_dtype(dtype)
        self.dtype = dtype or torch.float32
        return self.dtype

    def _process_model_before_weight_loading(self, model, checkpoint_files=None, **kwargs):
        if not self.packs:
            return super()._process_model_before_weight_loading(model, checkpoint_files=checkpoint_files, **kwargs)
        self.file = os.fspath(checkpoint_files[0])
        self.replace(model, described(self.checkpoint), self.dtype, self.file)

    def get_state_dict(self, checkpoint_file: str, model):
        if not self.packs:
            return super().get_state_dict(checkpoint_file, model)
        state = {}
        for name in self.checkpoint.names():
            shape, dtype, packing = self.checkpoint.describe(name)
            if packing is None:
                parts = {name: torch.empty(shape, dtype=getattr(torch, dtype))}
            else:
                (*_, cols), (bits, group_size) = shape, packing
                rows = int(torch.Size(shape).numel() // cols)
                module = name.removesuffix(".weight")
                parts = {f"{module}.weight": torch.empty((rows, kernels.words(cols, bits)), dtype=torch.uint32)}
                for part in ("scales", "qbiases"):
                    parts[f"{module}.{part}"] = torch.empty((rows, cols // group_size), dtype=getattr(torch, dtype))
            self.checkpoint.read(name, [part.data_ptr() for part in parts.values()])
            state |= parts
        return state

    def update_weight_conversions(self, weight_conversions, model=None):
        if self.packs:
            return weight_conversions
        return super().update_weight_conversions(weight_conversions, *([] if model is None else [model]))

    def _process_model_after_weight_loading(self, model, **kwargs):
        if self.packs:
            return super()._process_model_after_weight_loading(model, **kwargs)
        return GgufHfQuantizer._process_model_after_weight_loading(self, model, **kwargs)

    @property
    def is_trainable(self) -> bool:
        return self.packs


def described(checkpoint: PackedCheckpoint) -> dict:
    """The packed modules of a checkpoint: (rows, cols), bits, group, type of scales."""
    packed = {}
    for name in checkpoint.names():
        shape, dtype, packing = checkpoint.describe(name)
        if packing is not None:
            if len(shape) != 2:
                raise UnsupportedError(f"{name}: a packed stack of {shape} is no module of transformers; planish.load runs such models")
            packed[name.removesuffix(".weight")] = (tuple(shape), *packing, getattr(torch, dtype))
    return packed
