"""Numbers: against transformers and numpy."""

import planish
import pytest

np = pytest.importorskip("numpy")

TEXT = "Once upon a time there was a little girl who had a red ball. She played with it in the park every day."


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def theirs(plain_folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(plain_folder, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(plain_folder)


def test_logits_are_those_of_transformers(exact, theirs):
    import torch

    model, tokenizer = exact
    ids = tokenizer.encode(TEXT)
    found = np.asarray(model.logits(ids))
    expected = theirs[0](torch.tensor([ids])).logits[0].detach().numpy()
    assert found.shape == expected.shape == (len(ids), model.vocab_size) and found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4
    last = np.asarray(model.logits(ids, last=True))
    assert last.shape == (model.vocab_size,) and np.abs(last - expected[-1]).max() < 1e-4


def test_greedy_tokens_are_those_of_transformers(exact, theirs):
    import torch

    model, tokenizer = exact
    ids = tokenizer.encode("One day, Tom")
    expected = theirs[0].generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False)[0].tolist()
    assert model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=30) == [expected]
    assert model.generate(np.array(ids), do_sample=False, max_new_tokens=30) == expected


def test_tokens_are_those_of_transformers(exact, theirs):
    tokenizer = exact[1]
    for text in [TEXT, "", " ", "  two  spaces\n\nand lines", "äöü 漢字 🙂 <|end|> x"]:
        ids = theirs[1](text)["input_ids"]
        assert tokenizer.encode(text) == ids == tokenizer(text).input_ids
        assert tokenizer.decode(ids) == theirs[1].decode(ids, skip_special_tokens=True)
        assert tokenizer.decode(ids, skip_special_tokens=False) == theirs[1].decode(ids)
        detokenizer = tokenizer.detokenizer()
        assert "".join([detokenizer.add(token) for token in ids] + [detokenizer.finish()]) == tokenizer.decode(ids)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (theirs[1].eos_token, theirs[1].eos_token_id)
    assert tokenizer.batch_decode([[1, 2], [3]]) == [tokenizer.decode([1, 2]), tokenizer.decode([3])]


def test_arrays_need_no_copy(story):
    model, tokenizer = story
    array = model.logits(tokenizer.encode("The cat"))
    rows = len(tokenizer.encode("The cat"))
    assert array.shape == (rows, model.vocab_size) and len(array) == rows and array.dtype == "float32"
    view = memoryview(array)
    assert (view.format, view.shape, view.nbytes) == ("f", array.shape, 4 * rows * model.vocab_size)
    one = np.asarray(array)
    other = np.from_dlpack(array)
    assert one.ctypes.data == np.asarray(array).ctypes.data == other.ctypes.data
    assert np.array_equal(one, other) and one.tolist() == array.tolist()
    assert array.__dlpack_device__() == (1, 0)
    torch = pytest.importorskip("torch")
    tensor = torch.from_dlpack(array)
    assert tensor.data_ptr() == one.ctypes.data
    kept = one[0, 0]
    del array, view, one, other
    assert tensor[0, 0].item() == kept, "the memory lives as long as somebody has it"
    # A capsule that nobody takes is given back.
    model.logits([1, 2]).__dlpack__()


def test_loglikelihood_is_that_of_the_logits(exact):
    model, tokenizer = exact
    context, rest = "Once upon a time", " there was a little girl"
    whole, first = tokenizer.encode(context + rest), len(tokenizer.encode(context))
    expected = log_softmax(np.asarray(model.logits(whole)))
    sum_of = sum(expected[index - 1, whole[index]] for index in range(first, len(whole)))
    for pair in [(context, rest), (whole[:first], whole[first:]), (np.array(whole[:first]), whole[first:])]:
        found, greedy = model.loglikelihood(*pair)
        assert abs(found - sum_of) < 1e-3
        assert greedy == all(expected[index - 1].argmax() == whole[index] for index in range(first, len(whole)))
    said = model.generate(whole, do_sample=False, max_new_tokens=5)
    assert model.loglikelihood(whole, said[len(whole) :])[1] is True
    told = []
    many = model.loglikelihoods([(whole[:first], whole[first:]), (whole[:2], [5]), (whole[:first], [7])], progress=lambda *a: told.append(a))
    assert abs(many[0][0] - sum_of) < 1e-3 and abs(many[1][0] - expected[1, 5]) < 1e-4
    assert abs(many[2][0] - expected[first - 1, 7]) < 1e-4
    assert told == [(index, 3, "continuations") for index in (1, 2, 3)]
    with pytest.raises(ValueError, match="empty"):
        model.loglikelihood([], [1])


def test_evaluation_is_that_of_the_logits(exact, story, root):
    text = (root / "models/demo/held-out.txt").read_text()[:6000]
    model, tokenizer = exact
    found = planish.evaluate(model, text=text, context=128, progress=False)
    ids = tokenizer.encode(text)
    begin = tokenizer.encode("")
    surprises = []
    for start in range(0, len(ids) - 127, 128):
        chunk = ids[start : start + 128]
        if begin and ids[0] == begin[0]:
            chunk = begin[:1] + chunk[1:]
        expected = log_softmax(np.asarray(model.logits(chunk)))
        surprises += [-expected[index, chunk[index + 1]] for index in range(64, 127)]
    assert found.scored_tokens == len(surprises)
    assert abs(found.perplexity / np.exp(np.mean(surprises)) - 1) < 1e-4
    assert found.kl is None
    beside = planish.evaluate(story[0], text=text, reference=model, context=128, progress=False)
    assert abs(beside.reference_perplexity / found.perplexity - 1) < 1e-9
    assert 0 < beside.kl < 0.2 and 0.7 < beside.top1 < 1 and beside.top1 <= beside.top5 <= 1
    with pytest.raises(AttributeError, match="does not change"):
        found.perplexity = 1


def test_what_a_model_is(story):
    model, tokenizer = story
    assert model.vocab_size == tokenizer.vocab_size == len(tokenizer)
    assert model.context >= 256 and model.device.startswith("cpu") and model.threads >= 1
    planish.generate(model, tokenizer, "Once", temperature=0, max_tokens=100, eos_token_id=[])
    memory = model.memory()
    assert memory["process_peak"] > 5e6 and memory["cache"] > 0 and memory["device_weights"] is None
    with pytest.raises(ValueError, match="context"):
        model.generate([1] * (model.context + 1))
    with pytest.raises(ValueError, match="vocabulary"):
        model.logits([2**31])
    with pytest.raises(ValueError, match="no token"):
        model.logits([])
