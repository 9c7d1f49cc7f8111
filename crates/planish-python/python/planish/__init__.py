"""Quantize, convert and run Hugging Face models in 2- to 8-bit affine quantization."""

from planish._planish import __version__, load_tokenizer, Tokenizer
from planish.errors import HubError, PlanishError, UnsupportedError

__all__ = [
    "HubError",
    "PlanishError",
    "Tokenizer",
    "UnsupportedError",
    "__version__",
    "load_tokenizer",
]
