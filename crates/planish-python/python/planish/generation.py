"""Text: whole, as it comes, for many prompts, in asyncio."""

import sys

from planish.records import Record


def is_messages(prompt) -> bool:
    """Whether it is a message or a list of them."""
    return isinstance(prompt, dict) or (isinstance(prompt, (list, tuple)) and bool(prompt) and isinstance(prompt[0], dict))


def flat(ids):
    """Token ids as a list: of a list, an array, or either with one row."""
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, (list, tuple)) and len(ids) == 1 and isinstance(ids[0], (list, tuple)):
        ids = ids[0]
    return ids


def prompt_ids(tokenizer, prompt, first: bool = True):
    """The ids of a prompt, and whether the answer goes on with its text."""
    if not isinstance(prompt, str) and not is_messages(prompt):
        return flat(prompt), False
    if tokenizer is None:
        raise TypeError("without a tokenizer a prompt is token ids")
    if isinstance(prompt, str):
        return tokenizer.encode(prompt, add_special_tokens=first), True
    messages = [prompt] if isinstance(prompt, dict) else list(prompt)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True), False


def pieces(model, prompts, options, *, logprobs: bool = True):
    """All pieces of the answers, as they come."""
    options = dict(options)
    processor = options.pop("logits_processor", None)
    if logprobs:
        options.setdefault("logprobs", 0)
    stream = model._core.stream(prompts, options, logits_processor=processor)
    return _pieces(stream)


def _pieces(stream):
    try:
        while (arrived := stream.next()) is not None:
            yield from arrived
    finally:
        stream.close()


class Answer:
    """One answer, whole."""

    def __init__(self):
        self.texts, self.tokens, self.last = [], [], None

    def add(self, piece):
        """Takes one piece."""
        self.texts.append(piece.text)
        if piece.token is not None:
            self.tokens.append(piece.token)
        self.last = piece

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


def collected(model, prompts, options) -> list[Answer]:
    """Whole answers. Nobody is woken for a token."""
    options = dict(options)
    processor = options.pop("logits_processor", None)
    stream = model._core.stream(prompts, options, quiet=True, logits_processor=processor)
    answers = [Answer() for _ in prompts]
    for piece in _pieces(stream):
        answers[piece.index].add(piece)
    return answers


def rows(input_ids, attention_mask):
    """Prompts out of what transformers' `generate` takes; tokens that the mask leaves out are padding."""
    if hasattr(input_ids, "tolist"):
        input_ids = input_ids.tolist()
    if not isinstance(input_ids, (list, tuple)):
        raise TypeError(f"input_ids: expected token ids, found {type(input_ids).__name__}")
    is_batch = len(input_ids) > 0 and isinstance(input_ids[0], (list, tuple))
    prompts = [list(row) for row in input_ids] if is_batch else [list(input_ids)]
    if attention_mask is None:
        return prompts, is_batch
    if hasattr(attention_mask, "tolist"):
        attention_mask = attention_mask.tolist()
    masks = attention_mask if is_batch else [attention_mask]
    if [len(mask) for mask in masks] != [len(row) for row in prompts]:
        raise ValueError("attention_mask and input_ids have different shapes")
    return [[token for token, kept in zip(row, mask) if kept] for row, mask in zip(prompts, masks)], is_batch


def streamed(model, ids, streamer, options, is_batch):
    """Tells a streamer of the prompt and of each token."""
    streamer.put(ids)
    tokens = list(ids)
    for piece in pieces(model, [(ids, False)], options, logprobs=False):
        if piece.token is not None:
            tokens.append(piece.token)
            streamer.put([piece.token])
    streamer.end()
    return [tokens] if is_batch else tokens


def generate(model, tokenizer, prompt, *, max_tokens: int = 256, verbose: bool = False, **options) -> str:
    """The answer to a text (which it continues), token ids, or messages (through the chat template).

    `options`: temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed, do_sample, stop,
    eos_token_id, logit_bias, json_schema, regex, grammar, logits_processor and others of transformers' generation config; a
    temperature above 0 samples. `logits_processor(ids, logits)` changes the array `logits` or returns another; it makes answers slow."""
    options["max_tokens"] = max_tokens
    if verbose:
        return _printed(stream_generate(model, tokenizer, prompt, **options))
    [answer] = collected(model, [prompt_ids(tokenizer, prompt)], options)
    return answer.text


def _printed(responses) -> str:
    texts, last = [], None
    for last in responses:
        texts.append(last.text)
        print(last.text, end="", flush=True)
    print()
    print(
        f"{last.prompt_tokens} tokens read at {last.prompt_tps:.1f} tokens/s; {last.generation_tokens} written at "
        f"{last.generation_tps:.1f} tokens/s; {last.peak_memory:.3f} GB at most",
        file=sys.stderr,
    )
    return "".join(texts)


def stream_generate(model, tokenizer, prompt, *, max_tokens: int = 256, **options):
    """The answer as it comes: an iterator of `GenerationResponse`, one for each token and a last one without a token, which has the
    `finish_reason`: stop, length, time or interrupted. Closed or dropped, the iterator ends the answer. `text` is what is certain now,
    often empty; `logprob` the logarithm of the token's probability; `top_logprobs` has the `logprobs=N` likeliest tokens."""
    options["max_tokens"] = max_tokens
    return pieces(model, [prompt_ids(tokenizer, prompt)], options)


async def astream_generate(model, tokenizer, prompt, *, max_tokens: int = 256, **options):
    """The same in asyncio: no thread waits, and a task that is cancelled ends its answer."""
    import asyncio

    options["max_tokens"] = max_tokens
    options.setdefault("logprobs", 0)
    processor = options.pop("logits_processor", None)
    stream = model._core.stream([prompt_ids(tokenizer, prompt)], options, rings=True, logits_processor=processor)
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(stream.fileno(), ready.set)
    try:
        while True:
            ready.clear()
            arrived = stream.next_now()
            if arrived is None:
                return
            for piece in arrived:
                yield piece
            if not arrived:
                await ready.wait()
    finally:
        loop.remove_reader(stream.fileno())
        stream.close()


class BatchResponse(Record):
    """`texts` of the answers in the order of the prompts, their `tokens`, and `finish_reasons`."""


def batch_generate(model, tokenizer, prompts, *, max_tokens: int = 256, **options) -> BatchResponse:
    """Answers prompts side by side, each as it is answered alone."""
    options["max_tokens"] = max_tokens
    answers = collected(model, [prompt_ids(tokenizer, prompt) for prompt in prompts], options)
    return BatchResponse(
        {
            "texts": [answer.text for answer in answers],
            "tokens": [answer.tokens for answer in answers],
            "finish_reasons": [answer.last.finish_reason for answer in answers],
        }
    )
