from collections.abc import Sequence
from os import PathLike

__version__: str

class Tokenizer:
    """The tokenizer of a model and its chat template."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids."""

def load_tokenizer(path_or_hf_repo: str | PathLike[str] | None = None, *, revision: str | None = None) -> Tokenizer:
    """Reads the tokenizer of a folder, a `.gguf` file or a Hub model; of the model inside planish where none is named."""

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

def advise_huge(address: int, count: int) -> None:
    """Asks the system for huge pages under memory that was not written yet."""

def quantize_weight(
    weight: int, weight_type: str, shape: tuple[int, int], bits: int, group_size: int, into: Sequence[int]
) -> None:
    """Writes codes, scales and biases of plain weights, chosen as transformers chooses them."""

def use_openmp(address: int) -> None:
    """Runs products of PyTorch's tensors on the threads of OpenMP, by the address of `GOMP_parallel`."""
