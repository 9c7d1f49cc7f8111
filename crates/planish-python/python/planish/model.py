"""Models: loading, text and numbers of them, sessions."""

import os

from planish import _planish, generation
from planish.progress import Progress
from planish.records import Record
from planish.tokenizer import Tokenizer


class Model:
    """A loaded model. Threads and asyncio tasks may use it at once: their answers go on side by side."""

    def __init__(self, core: _planish.Model, tokenizer: Tokenizer | None):
        self._core = core
        self.tokenizer = tokenizer

    def generate(self, input_ids=None, *, attention_mask=None, max_new_tokens: int = 256, streamer=None, **options):
        """Continues token ids as transformers does: the answer begins with the prompt, an end token is not part of it. Of several
        prompts (a list of lists, an array of two dimensions) several lists come back. `streamer` has `put` and `end`."""
        if input_ids is None:
            raise TypeError("generate() needs input_ids")
        prompts, is_batch = generation.rows(input_ids, attention_mask)
        options["max_new_tokens"] = max_new_tokens
        if streamer is not None:
            if len(prompts) != 1:
                raise ValueError("streamer: expected one prompt")
            return generation.streamed(self, prompts[0], streamer, options, is_batch)
        answers = generation.collected(self, [(ids, False) for ids in prompts], options)
        found = [list(ids) + answer.tokens for ids, answer in zip(prompts, answers)]
        return found if is_batch else found[0]

    def logits(self, ids, *, last: bool = False) -> _planish.Array:
        """The logits after every token, (tokens, vocabulary), or after the last, (vocabulary). numpy takes the array without a copy
        (`numpy.asarray`), others by DLPack."""
        return self._core.logits(generation.flat(ids), last=last)

    def loglikelihood(self, context, continuation) -> tuple[float, bool]:
        """The logarithm of the probability of `continuation` after `context`, token ids or texts both, and whether it is what the model
        says by itself."""
        return self.loglikelihoods([(context, continuation)])[0]

    def loglikelihoods(self, pairs, *, progress=False) -> list[tuple[float, bool]]:
        """The same of many pairs; what contexts begin with is computed once."""
        with Progress(progress) as told:
            return self._core.likelihoods([self._pair(*pair) for pair in pairs], told)

    def _pair(self, context, continuation):
        if isinstance(context, str) and isinstance(continuation, str):
            if self.tokenizer is None:
                raise TypeError("the model has no tokenizer: give token ids")
            whole = self.tokenizer.encode(context + continuation)
            ids = self.tokenizer.encode(context)
            return ids, whole[len(ids) :]
        return generation.flat(context), generation.flat(continuation)

    def session(self) -> "Session":
        """A sequence of texts or a conversation, whose beginning is computed once."""
        return Session(self)

    @property
    def vocab_size(self) -> int:
        """Tokens that the model knows."""
        return self._core.vocab_size

    @property
    def context(self) -> int:
        """Tokens that it can look back on."""
        return self._core.context

    @property
    def device(self) -> str:
        """The device and its instruction set."""
        return self._core.device

    @property
    def threads(self) -> int:
        """Threads of the processor."""
        return self._core.threads

    @property
    def notices(self) -> list[str]:
        """What the user should know: why a GPU was not taken, wishes of the checkpoint that are not followed."""
        return self._core.notices

    def memory(self) -> dict:
        """Bytes: `cache` of what answers remember, `process_peak` of the process, and on a GPU `device_weights`,
        `device_workspace` and `device_sequences`."""
        return self._core.memory()

    def __repr__(self):
        return f"<planish.Model on {self.device}>"


class Session:
    """Turns that follow each other: each is a text, token ids or messages, and goes on with all before. What was computed stays with the
    model's engine as long as memory allows, so that a turn costs only what is new."""

    def __init__(self, model: Model):
        self.model = model
        self.tokens: list[int] = []
        self.messages: list[dict] = []

    def stream(self, prompt, **options):
        """An iterator of `GenerationResponse`. Ended early, the turn stays as far as it went."""
        if isinstance(prompt, (dict, list)) and generation.is_messages(prompt):
            self.messages += [prompt] if isinstance(prompt, dict) else prompt
            ids, continues = generation.prompt_ids(self.model.tokenizer, self.messages)
        else:
            new, continues = generation.prompt_ids(self.model.tokenizer, prompt, first=not self.tokens)
            ids = self.tokens + new
        return self._told(ids, continues, options)

    def _told(self, ids, continues, options):
        text, tokens = [], []
        pieces = generation.pieces(self.model, [(ids, continues)], options)
        try:
            for piece in pieces:
                text.append(piece.text)
                if piece.token is not None:
                    tokens.append(piece.token)
                yield piece
        finally:
            pieces.close()
            self.tokens = ids + tokens
            if self.messages:
                self.messages.append({"role": "assistant", "content": "".join(text)})

    def generate(self, prompt, **options) -> str:
        """The answer's text."""
        return "".join(piece.text for piece in self.stream(prompt, **options))

    def clear(self) -> None:
        """Begins anew."""
        self.tokens, self.messages = [], []


def load(
    path_or_hf_repo: str | os.PathLike | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    exact: bool = False,
    cache: str | None = None,
    quantization_config: _planish.MetalConfig | dict | None = None,
    bits: int | None = None,
    group_size: int = 64,
    dequantize: bool = False,
    revision: str | None = None,
    token: str | None = None,
    progress=None,
) -> tuple[Model, Tokenizer | None]:
    """Loads a folder, a `.gguf` file or a Hub model, and its tokenizer; without a name the small story model inside planish.

    `device` is auto, cpu, cuda or metal, `cache` the type of keys and values on the processor: float32, float16 or int8. `exact`
    computes in float32 throughout. `bits` (2, 3, 4, 5, 6 or 8) or `quantization_config` pack plain weights while they are loaded,
    `dequantize` unpacks packed ones. `revision` and `token` are for the Hub. `progress` is a bar on a terminal, `False`, or a callable
    of (done, total, what)."""
    if not isinstance(quantization_config, _planish.MetalConfig) and hasattr(quantization_config, "to_dict"):
        # transformers' class of this name, which leaves `dequantize` out of its dict.
        quantization_config = {**quantization_config.to_dict(), "dequantize": getattr(quantization_config, "dequantize", False)}
    if isinstance(quantization_config, dict):
        quantization_config = _planish.MetalConfig.from_dict(quantization_config)
    with Progress(progress) as told:
        arguments = {
            "device": device,
            "threads": threads,
            "exact": exact,
            "cache": cache,
            "quantization_config": quantization_config,
            "bits": bits,
            "group_size": group_size,
            "dequantize": dequantize,
            "revision": revision,
            "token": token,
            "progress": told,
        }
        core, tokenizer = _planish.load(path_or_hf_repo, arguments)
    tokenizer = None if tokenizer is None else Tokenizer(tokenizer)
    return Model(core, tokenizer), tokenizer


class Evaluation(Record):
    """How well a model predicts a text: `perplexity` and its `interval`, `scored_tokens`; beside a reference also
    `reference_perplexity`, `kl` (the mean divergence, in nats), `kl_interval`, `kl_percentile_99`, `top1` and `top5` (shares of
    positions at which the model's likeliest token is the reference's, or one of its five likeliest)."""


def evaluate(model: Model, *, text: str, reference: Model | None = None, context: int = 512, progress=None) -> Evaluation:
    """Scores the tokens of the second halves of chunks of `context` tokens."""
    with Progress(progress) as told:
        theirs = None if reference is None else reference._core
        return Evaluation(model._core.evaluate(text, theirs, context, told))


def serve(
    model: Model,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    model_name: str = "planish",
    api_key: str | None = None,
    open: bool = False,
    parallel: int | None = None,
    queue: int = 256,
    on_listen=None,
) -> None:
    """Answers clients of OpenAI's and Anthropic's APIs until Ctrl-C. `on_listen` gets the address as a URL."""
    arguments = {
        "host": host,
        "port": port,
        "model_name": model_name,
        "api_key": api_key,
        "open": open,
        "parallel": parallel,
        "queue": queue,
        "on_listen": on_listen,
    }
    _planish.serve(model._core, arguments)
