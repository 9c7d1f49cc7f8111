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
