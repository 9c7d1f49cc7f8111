"""lm-evaluation-harness on planish, by its own requests: no data is fetched."""

import numpy as np
import planish
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from planish.lm_eval import PlanishLM


def requests(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=each, idx=index) for index, each in enumerate(arguments)]


def log_softmax(logits):
    logits = np.asarray(logits, dtype=np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def harness():
    return PlanishLM(exact=True, max_length=64)


def scored(model, context, continuation):
    """By the logits of the whole, on its own."""
    logprobs = log_softmax(model.logits(context + continuation))[len(context) - 1 : -1]
    greedy = bool((logprobs.argmax(-1) == continuation).all())
    return logprobs[range(len(continuation)), continuation].sum(), greedy


def test_it_is_registered():
    assert get_model("planish") is PlanishLM


def test_answers_to_a_shared_question(harness):
    context = "Once upon a time there was a little"
    pairs = [(context, " girl"), (context, " dog named Max"), (context, " girl"), ("", "The end."), ("Tom had a ", "red ball.")]
    found = harness.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    encode = harness.tok_encode
    for (before, after), (logprob, greedy) in zip(pairs, found):
        if before == "":
            ids = [harness.prefix_token_id], encode(after, add_special_tokens=False)
        else:
            blank = len(before) - len(before.rstrip())
            whole, begin = encode(before + after), encode(before[: len(before) - blank])
            ids = begin, whole[len(begin) :]
        expected = scored(harness.model, *ids)
        assert logprob == pytest.approx(expected[0], abs=1e-3) and greedy == expected[1]
    assert found[0] == found[2]


def test_what_is_too_long_loses_its_beginning(harness):
    words = "a dog and a cat went to the park and " * 20
    [(logprob, _)] = harness.loglikelihood(requests("loglikelihood", (words, "played")), disable_tqdm=True)
    ids, all_ids = harness.tok_encode(words.rstrip()), harness.tok_encode(words + "played")
    continuation = all_ids[len(ids) :]
    whole = all_ids[-(harness.max_length + 1) :]
    expected, _ = scored(harness.model, whole[: -len(continuation)], continuation)
    assert logprob == pytest.approx(expected, abs=1e-3)


def test_rolling_scores_every_token_once(harness):
    text = "Lily and Ben went to the park. They saw a big tree and a small bird. " * 5
    [found] = harness.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)), disable_tqdm=True)
    tokens = harness.tok_encode(text, add_special_tokens=False)
    assert len(tokens) > 64
    size, total = harness.max_length, 0.0
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        before = [harness.prefix_token_id] if start == 0 else tokens[start + len(part) - size - 1 : start]
        total += scored(harness.model, before, part)[0]
    assert found == pytest.approx(total, rel=1e-4)


def test_texts_until(harness):
    context = "Once upon a time there was a little"
    options = {"until": ["."], "max_gen_toks": 40, "do_sample": False}
    longer = {"until": ["\n\n"], "max_gen_toks": 12}
    first, second, third = harness.generate_until(
        requests("generate_until", (context, options), (context, longer), ("Tom had a", options)), disable_tqdm=True
    )
    whole = planish.generate(harness.model, harness.tokenizer, context, max_tokens=40, do_sample=False)
    assert first == whole.split(".")[0] and "." not in third and third
    assert whole.startswith(second) and second
    with pytest.raises(ValueError, match="max_gen_toks"):
        harness.generate_until(requests("generate_until", (context, {"max_gen_toks": 64})), disable_tqdm=True)


def test_the_harness_own_class_over_packed_layers(plain_folder, tmp_path, request):
    """`--model hf` after `import planish.transformers`, beside `--model planish`, on one folder."""
    import planish.transformers
    from lm_eval.models.huggingface import HFLM
    from planish.transformers.modules import Packed

    planish.quantize(plain_folder, tmp_path, bits=4, force=True, progress=False)
    assert planish.transformers.enable(exact=True)
    request.addfinalizer(planish.transformers.enable)
    theirs = HFLM(pretrained=str(tmp_path), device="cpu", dtype="float32", batch_size=2)
    assert sum(isinstance(module, Packed) for module in theirs.model.modules()) > 10
    ours = PlanishLM(str(tmp_path), exact=True)
    pairs = [("Once upon a time there was a little", " girl"), ("The cat sat on", " the mat."), ("Tom had a", " red ball.")]
    found = [each.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True) for each in (ours, theirs)]
    for (mine, greedy), (other, other_greedy) in zip(*found):
        assert mine == pytest.approx(other, abs=5e-3) and greedy == other_greedy
    until = {"until": ["."], "max_gen_toks": 24, "do_sample": False}
    texts = [each.generate_until(requests("generate_until", ("Tom had a", until)), disable_tqdm=True) for each in (ours, theirs)]
    assert texts[0] == texts[1]
