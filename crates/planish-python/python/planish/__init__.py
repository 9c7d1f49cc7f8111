"""Quantize, convert and run Hugging Face models in 2- to 8-bit affine quantization.

    import planish

    model, tokenizer = planish.load()
    print(planish.generate(model, tokenizer, "Once upon a time"))
"""

from planish._planish import Array, Detokenizer, GenerationResponse, MetalConfig, __version__
from planish.auto import AutoModelForCausalLM, AutoTokenizer
from planish.checkpoints import Inspection, Report, convert, dequantize, inspect, quantize
from planish.errors import HubError, PlanishError, UnsupportedError
from planish.generation import (
    BatchResponse,
    astream_generate,
    batch_generate,
    generate,
    stream_generate,
)
from planish.model import Evaluation, Model, Session, evaluate, load, serve
from planish.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "Array",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "BatchResponse",
    "Detokenizer",
    "Evaluation",
    "GenerationResponse",
    "HubError",
    "Inspection",
    "MetalConfig",
    "Model",
    "PlanishError",
    "Report",
    "Session",
    "Tokenizer",
    "UnsupportedError",
    "__version__",
    "astream_generate",
    "batch_generate",
    "convert",
    "dequantize",
    "evaluate",
    "generate",
    "inspect",
    "load",
    "load_tokenizer",
    "quantize",
    "serve",
    "stream_generate",
]
