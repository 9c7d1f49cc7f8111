"""transformers with weights that stay packed, on any CPU: `import planish.transformers`, and the rest as ever.

`from_pretrained` then loads metal checkpoints, folders of mlx-lm and GGUF files packed, and packs others with `MetalConfig`. On a
machine with MPS transformers keeps its own way. `disable()` gives transformers back, `PLANISH_TRANSFORMERS=0` forbids `enable()`.
"""

import os
import warnings

__all__ = ["disable", "enable", "enabled"]

_before: dict | None = None


def enabled() -> bool:
    """Whether transformers loads packed weights by planish."""
    return _before is not None


def enable(*, exact: bool = False) -> bool:
    """Lets transformers load packed weights by planish, and says whether it does so now.

    exact: products in f32 throughout, for models that are loaded from now on and before; else inputs are rounded.
    """
    global _before
    if os.environ.get("PLANISH_TRANSFORMERS") == "0":
        return False
    try:
        import torch
        import transformers
        from transformers.quantizers import auto

        if torch.backends.mps.is_available():
            return False
        from planish.transformers import kernels, quantizers

        hooked = {"metal": quantizers.MetalQuantizer, "gguf": quantizers.GgufQuantizer}
        kernels.exact = exact
        if _before is None:
            before = {name: auto.AUTO_QUANTIZER_MAPPING[name] for name in hooked}
            supports = auto.AutoHfQuantizer.supports_quant_method
            auto.AUTO_QUANTIZER_MAPPING.update(hooked, mlx=quantizers.MlxQuantizer)
            auto.AUTO_QUANTIZATION_CONFIG_MAPPING["mlx"] = quantizers.MlxConfig
            auto.AutoHfQuantizer.supports_quant_method = staticmethod(_naming_mlx(supports))
            _before = {"quantizers": before, "supports": supports}
    except (ImportError, AttributeError, KeyError) as error:
        warnings.warn(_unknown(error), stacklevel=2)
        return False
    return True


def disable():
    """Gives transformers its own way of loading back. Models that are loaded stay as they are."""
    global _before
    if _before is None:
        return
    from transformers.quantizers import auto

    auto.AUTO_QUANTIZER_MAPPING.update(_before["quantizers"])
    auto.AUTO_QUANTIZER_MAPPING.pop("mlx", None)
    auto.AUTO_QUANTIZATION_CONFIG_MAPPING.pop("mlx", None)
    auto.AutoHfQuantizer.supports_quant_method = staticmethod(_before["supports"])
    _before = None


def _naming_mlx(supports):
    """mlx-lm writes a configuration without `quant_method`, which is the first thing that transformers asks of it."""

    def supports_quant_method(config):
        if isinstance(config, dict) and config.get("quant_method") is None and {"group_size", "bits"} <= set(config):
            config["quant_method"] = "mlx"
        return supports(config)

    return supports_quant_method


def _unknown(error: Exception) -> str:
    from importlib.metadata import PackageNotFoundError, version

    from planish import __version__

    def installed(name):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"no {name}"

    return (
        f"planish {__version__} does not know its way into {installed('transformers')} with {installed('torch')}; weights are loaded as "
        f"without planish ({error})"
    )


enable()
