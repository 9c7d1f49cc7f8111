"""lm-evaluation-harness on planish: `python -m planish.lm_eval --model planish --model_args pretrained=MODEL --tasks ...`.

The arguments are those of `lm_eval`; `import planish.lm_eval` makes `planish` known to `lm_eval.simple_evaluate` as well. Beginnings that
contexts share (few-shot examples, the question before its answers) are computed once.
"""

import sys

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from planish import generation
from planish.model import load


@register_model("planish")
class PlanishLM(TemplateLM):
    """A folder, a GGUF file or a Hub model by planish. Options beyond the harness's are those of `planish.load`."""

    def __init__(
        self, pretrained=None, *, max_length=None, max_gen_toks=256, enable_thinking=None, batch_size=1, max_batch_size=None,
        device=None, **options,
    ):  # fmt: skip
        super().__init__()
        # The harness hands its own default for the device on; `cuda:0` and the like are planish's `cuda`.
        device = "auto" if device is None else device.split(":")[0]
        self.model, self.tokenizer = load(pretrained, device=device, progress=False, **options)
        if self.tokenizer is None:
            raise ValueError(f"{pretrained}: the harness needs a tokenizer")
        self.max_length = min(int(max_length or self.model.context), self.model.context)
        self.max_gen_toks = int(max_gen_toks)
        # The engine puts requests together by itself, as many as memory allows.
        self.batch_size = batch_size
        self._name = "planish" if pretrained is None else str(pretrained)
        self._variables = {} if enable_thinking is None else {"enable_thinking": enable_thinking}

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        return self._name.replace("/", "__")

    def tok_encode(self, string, add_special_tokens=None, **kwargs) -> list[int]:
        if add_special_tokens is None:
            begin = self.tokenizer.bos_token
            add_special_tokens = not (begin and string.startswith(begin))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, chat_history, add_generation_prompt=True) -> str:
        if not add_generation_prompt:
            raise NotImplementedError("planish does not go on with an assistant's message that was begun (gen_prefix)")
        return self.tokenizer.apply_chat_template(
            chat_history, add_generation_prompt=True, tokenize=False, **self._variables
        )

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **kwargs):
        pairs = []
        for _, context, continuation in requests:
            whole = (context + continuation)[-(self.max_length + 1) :]
            scored = min(len(continuation), len(whole) - 1)
            pairs.append((whole[:-scored], whole[-scored:]))
        found = self.model.loglikelihoods(pairs, progress=False if disable_tqdm else None)
        for (strings, _, _), answer in zip(requests, found):
            if strings is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answer)
        return found

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        windows, owners = [], []
        for index, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            rolling = get_rolling_token_windows(
                token_list=tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            for context, continuation in map(make_disjoint_window, rolling):
                windows.append((None, context, continuation))
                owners.append(index)
        sums = [0.0] * len(requests)
        for owner, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm)):
            sums[owner] += logprob
        for request, total in zip(requests, sums):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests, disable_tqdm=False):
        alike = {}
        for index, request in enumerate(requests):
            alike.setdefault(repr(request.args[1]), []).append(index)
        texts = [""] * len(requests)
        for indices in alike.values():
            options = normalize_gen_kwargs(requests[indices[0]].args[1], self.max_gen_toks)
            until = handle_stop_sequences(options.pop("until", None), eos=self.tokenizer.eos_token)
            room = self.max_length - options["max_gen_toks"]
            if room <= 0:
                raise ValueError(f"max_gen_toks: expected less than the context of {self.max_length} tokens, found {options['max_gen_toks']}")
            options["max_tokens"] = options.pop("max_gen_toks")
            if not options.get("do_sample"):
                options = {"max_tokens": options["max_tokens"], "do_sample": False}
            prompts = [(self.tok_encode(requests[index].args[0])[-room:], True) for index in indices]
            answers = generation.collected(self.model, prompts, {**options, "stop": [stop for stop in until if stop]})
            for index, answer in zip(indices, answers):
                text = answer.text
                for stop in filter(None, until):
                    text = text.split(stop)[0]
                texts[index] = text
                self.cache_hook.add_partial("generate_until", requests[index].args, text)
        return texts


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    if any(argument in ("hf", "--model=hf") for argument in sys.argv):
        import planish.transformers  # noqa: F401
    sys.exit(cli_evaluate())
