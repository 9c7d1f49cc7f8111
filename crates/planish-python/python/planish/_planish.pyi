"""What the package is made of. `planish` itself is the front door."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

__version__: str

_Progress = Callable[[int, int, str], Any] | None

class Array:
    """float32 values of one or two dimensions. numpy and memoryview take it by the buffer protocol, torch and others by DLPack, both
    without a copy."""

    shape: tuple[int, ...]
    dtype: str
    def tolist(self) -> list: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __dlpack__(self, **options: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class Detokenizer:
    """Tokens to text as they come."""

    def add(self, token: int) -> str:
        """The text that is certain with this token."""

    def finish(self) -> str:
        """The rest of the text; then a new one begins."""

class GenerationResponse:
    """A piece of an answer: what one token adds to it, or, without a token, how it ended."""

    index: int
    text: str
    reasoning: str
    token: int | None
    logprob: float | None
    top_logprobs: list[tuple[int, float]] | None
    prompt_tokens: int
    cached_tokens: int
    prompt_tps: float
    generation_tokens: int
    generation_tps: float
    peak_memory: float
    finish_reason: str | None

class MetalConfig:
    """How to quantize in transformers' `metal` dialect: its `MetalConfig`."""

    quant_method: str
    bits: int
    group_size: int
    modules_to_not_convert: list[str] | None
    dequantize: bool
    def __init__(
        self,
        bits: int = 4,
        group_size: int = 64,
        modules_to_not_convert: list[str] | None = None,
        dequantize: bool = False,
    ) -> None: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json_string(self) -> str: ...
    @staticmethod
    def from_dict(config_dict: dict[str, Any]) -> MetalConfig: ...

class Model:
    """A loaded model and its engine; `planish.Model` wraps it."""

    vocab_size: int
    context: int
    device: str
    threads: int
    notices: list[str]
    def stream(
        self,
        prompts: Sequence[tuple[Any, bool]],
        options: dict[str, Any],
        *,
        quiet: bool = False,
        rings: bool = False,
        logits_processor: Callable[[list[int], Array], Any] | None = None,
    ) -> Stream: ...
    def logits(self, ids: Any, *, last: bool = False) -> Array: ...
    def likelihoods(self, pairs: Sequence[tuple[Any, Any]], progress: _Progress = None) -> list[tuple[float, bool]]: ...
    def evaluate(
        self, text: str, reference: Model | None, context: int, progress: _Progress
    ) -> dict[str, Any]: ...
    def memory(self) -> dict[str, int | None]: ...

class Stream:
    """Answers that are on their way."""

    def next(self) -> list[GenerationResponse] | None: ...
    def next_now(self) -> list[GenerationResponse] | None: ...
    def fileno(self) -> int | None: ...
    def close(self) -> None: ...

class Tokenizer:
    """A tokenizer and its chat template; `planish.Tokenizer` wraps it."""

    vocab_size: int
    has_chat_template: bool
    chat_template: str | None
    eos_token: str | None
    eos_token_id: int | None
    bos_token: str | None
    bos_token_id: int | None
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...
    def decode(self, ids: Any, *, skip_special_tokens: bool = True) -> str: ...
    def conversation(
        self, messages: list[dict], tools: list[dict] | None, options: tuple[bool, bool], variables: dict[str, Any]
    ) -> list[int] | str: ...
    def detokenizer(self, context: Sequence[int] = ()) -> Detokenizer: ...
    def convert_tokens_to_ids(self, token: str) -> int | None: ...

class PackedLayout:
    """Shape of a packed weight whose bytes lie in tensors of PyTorch; used by `planish.transformers`."""

    bytes: int

    def interleaves(self, parts: Sequence[int], threads: int) -> bool:
        """Whether this machine multiplies faster with 16 rows side by side."""

    def interleave(self, parts: Sequence[int], into: int) -> None:
        """Writes codes, scales and biases interleaved into one tensor of `bytes` bytes."""

    def deinterleave(self, parts: Sequence[int], into: Sequence[int]) -> None:
        """Writes codes, scales and biases out of one tensor."""

    def linear(
        self,
        parts: Sequence[int],
        input: int,
        input_type: str,
        m: int,
        output: int,
        bias: int,
        bias_type: str,
        exact: bool,
        threads: int,
    ) -> None:
        """Products of m rows with the weight; the bias is at no address where there is none."""

    def backward(self, parts: Sequence[int], input: int, input_type: str, m: int, output: int, threads: int) -> None:
        """Products of m rows of a gradient with the weight from the other side."""

    def rows(self, parts: Sequence[int], ids: int, count: int, output: int, output_type: str, threads: int) -> None:
        """The rows that 64-bit ids name."""

class PackedCheckpoint:
    """A GGUF file or a folder whose weights are read one by one; used by `planish.transformers`."""

    def names(self) -> list[str]:
        """Names of the weights, in the file's order."""

    def rearranged(self) -> list[str]:
        """Names of those that mlx-lm stores otherwise than Hugging Face."""

    def describe(self, name: str) -> tuple[list[int], str, tuple[int, int] | None]:
        """Shape, type of values or scales, and (bits, group) of a packed weight."""

    def read(self, name: str, into: Sequence[int]) -> None:
        """Writes a weight's bytes, or those of its codes, scales and biases, to addresses."""

_Place = tuple[int, int]  # number of a GPU, and PyTorch's stream on it

def cuda_bytes(layout: PackedLayout) -> int | None:
    """Bytes of a weight in the order of CUDA's tensor cores; none where products read it as it is stored."""

def cuda_linear(
    layout: PackedLayout,
    place: _Place,
    parts: Sequence[int],
    input: int,
    input_type: str,
    m: int,
    output: int,
    bias: int,
    scratch: int,
) -> None:
    """Starts the products of m rows; the bias, of float32, and the scratch memory are at no address where there is none."""

def cuda_repack(layout: PackedLayout, place: _Place, parts: Sequence[int], into: int) -> None:
    """Starts to write codes, scales and biases in that order into one tensor."""

def cuda_restore(layout: PackedLayout, place: _Place, packed: int, into: Sequence[int]) -> None:
    """Starts to write codes, scales and biases out of one tensor."""

def cuda_rows(
    layout: PackedLayout, place: _Place, parts: Sequence[int], ids: int, count: int, output: int, output_type: str
) -> None:
    """Starts to write the rows that 32-bit ids name, or all where they are at no address."""

def cuda_scratch(layout: PackedLayout, device: int, tiled: bool, input_type: str, m: int, added: bool) -> int:
    """Bytes that a product needs beside its operands."""

def advise_huge(address: int, count: int) -> None:
    """Asks the system for huge pages under memory that was not written yet."""

def quantize_weight(
    weight: int, weight_type: str, shape: tuple[int, int], bits: int, group_size: int, into: Sequence[int]
) -> None:
    """Writes codes, scales and biases of plain weights, chosen as transformers chooses them."""

def use_openmp(address: int) -> None:
    """Runs products of PyTorch's tensors on the threads of OpenMP, by the address of `GOMP_parallel`."""
def convert(files: dict[str, Any], to: str) -> dict[str, Any]: ...
def dequantize(files: dict[str, Any], dtype: str | None) -> dict[str, Any]: ...
def inspect(
    src: str | PathLike[str] | None, group_size: int, revision: str | None, token: str | None, progress: _Progress
) -> str: ...
def load(path: str | PathLike[str] | None, arguments: dict[str, Any]) -> tuple[Model, Tokenizer | None]: ...
def main(arguments: list[str]) -> int: ...
def quantize(files: dict[str, Any], packed: dict[str, Any]) -> dict[str, Any]: ...
def serve(model: Model, arguments: dict[str, Any]) -> None: ...
def tokenizer(
    path: str | PathLike[str] | None, revision: str | None, token: str | None, progress: _Progress
) -> Tokenizer: ...
