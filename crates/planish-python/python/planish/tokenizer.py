"""Text to tokens and back."""

import os

from planish import _planish
from planish.progress import Progress


class Tokenizer:
    """The tokenizer of a model and its chat template."""

    def __init__(self, core: _planish.Tokenizer):
        self._core = core

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with the special tokens that the model expects around it."""
        return self._core.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids, *, skip_special_tokens: bool = True) -> str:
        """The text of ids: a list, an array, or one id."""
        return self._core.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, sequences, *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each list of ids."""
        return [self.decode(ids, skip_special_tokens=skip_special_tokens) for ids in sequences]

    def apply_chat_template(
        self, messages: list[dict], tools=None, *, add_generation_prompt: bool = False, tokenize: bool = True, **variables
    ) -> list[int] | str:
        """A conversation as the model was trained on it, as ids or as text. Special tokens that stand in a message's text are text.
        `variables` are further ones of the template, such as `enable_thinking`."""
        return self._core.conversation(messages, tools, (add_generation_prompt, tokenize), variables)

    def detokenizer(self, context=()) -> _planish.Detokenizer:
        """Tokens to text as they come: `add(token)` returns what is certain, `finish()` the rest. The text goes on with that of
        `context`, if that is given."""
        return self._core.detokenizer(list(context))

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of the token that is spelled so."""
        return self._core.convert_tokens_to_ids(token)

    def __call__(self, text: str | list[str], *, add_special_tokens: bool = True, return_tensors: str | None = None) -> "Encoding":
        """`input_ids` and `attention_mask` of a text, as transformers gives them, or of several texts."""
        if return_tensors not in (None, "np"):
            raise ValueError(f"return_tensors is {return_tensors}, expected None or np: there are no tensors of torch here")
        texts = [text] if isinstance(text, str) else list(text)
        ids = [self.encode(text, add_special_tokens=add_special_tokens) for text in texts]
        mask = [[1] * len(row) for row in ids]
        if return_tensors == "np":
            import numpy

            if len({len(row) for row in ids}) > 1:
                raise ValueError("texts of different lengths make no array: leave return_tensors out")
            return Encoding(input_ids=numpy.array(ids), attention_mask=numpy.array(mask))
        if isinstance(text, str):
            ids, mask = ids[0], mask[0]
        return Encoding(input_ids=ids, attention_mask=mask)

    @property
    def vocab_size(self) -> int:
        """Tokens, special ones included."""
        return self._core.vocab_size

    def __len__(self) -> int:
        return self._core.vocab_size

    @property
    def chat_template(self) -> str | None:
        """The template's text, if there is one."""
        return self._core.chat_template

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text."""
        return self._core.eos_token

    @property
    def eos_token_id(self) -> int | None:
        """Its id."""
        return self._core.eos_token_id

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text."""
        return self._core.bos_token

    @property
    def bos_token_id(self) -> int | None:
        """Its id."""
        return self._core.bos_token_id


class Encoding(dict):
    """What a tokenizer returns when it is called."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device) -> "Encoding":
        """Itself: the engine takes ids wherever they are."""
        return self


def load_tokenizer(
    path_or_hf_repo: str | os.PathLike | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress=None,
) -> Tokenizer:
    """Reads the tokenizer of a folder, a `.gguf` file or a Hub model; of the model inside planish where none is named."""
    with Progress(progress) as told:
        return Tokenizer(_planish.tokenizer(path_or_hf_repo, revision, token, told))
