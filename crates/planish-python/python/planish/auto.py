"""transformers' names for loading, without torch."""

from planish.model import Model, load
from planish.tokenizer import Tokenizer, load_tokenizer

_DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "cuda", "cuda:0": "cuda", "mps": "metal", "metal": "metal"}


def _device(device_map) -> str:
    if device_map is None:
        return "auto"
    if isinstance(device_map, dict):
        places = set(map(str, device_map.values()))
        if len(places) != 1:
            raise ValueError(f"device_map is {device_map}, expected one device for the whole model")
        [device_map] = places
    device = _DEVICES.get(str(device_map))
    if device is None:
        raise ValueError(f"device_map is {device_map}, expected auto, cpu, cuda or mps")
    return device


class AutoModelForCausalLM:
    """Loads models as transformers' class of this name does."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *, device_map=None, dtype=None, quantization_config=None, **options) -> Model:
        """A model. `options` are those of `planish.load`. The engine computes in types of its own: `dtype` is None or "auto"."""
        if dtype not in (None, "auto"):
            raise ValueError(f"dtype is {dtype}, expected None or auto: exact=True computes in float32, bits=N packs while loading")
        model, _ = load(
            pretrained_model_name_or_path, device=_device(device_map), quantization_config=quantization_config, **options
        )
        return model


class AutoTokenizer:
    """Loads tokenizers as transformers' class of this name does."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **options) -> Tokenizer:
        """A tokenizer. `options` are those of `planish.load_tokenizer`."""
        return load_tokenizer(pretrained_model_name_or_path, **options)
