"""Text: against the program, and each way against the others."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import planish
import pytest

PROMPT = "Once upon a time there was a little dog"
PROMPTS = [PROMPT, "The cat", "One day, a girl named Lily", "Tom and Sam were in the garden"]


def program(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "planish", "generate", "--json", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_greedy_text_is_the_programs(story):
    model, tokenizer = story
    expected = program("--prompt", PROMPT, "-n", "40", "--temperature", "0")
    assert planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=40) == expected["text"]
    answer = model.generate(tokenizer.encode(PROMPT), do_sample=False, max_new_tokens=40)
    assert answer == tokenizer.encode(PROMPT) + expected["tokens"]


def test_sampled_text_is_the_programs(story):
    expected = program("--prompt", PROMPT, "-n", "30", "--temperature", "0.8", "--top-p", "0.9", "--seed", "7")
    found = planish.generate(*story, PROMPT, max_tokens=30, temperature=0.8, top_p=0.9, seed=7)
    assert found == expected["text"]


def test_pieces_make_up_the_answer(story):
    model, tokenizer = story
    pieces = list(planish.stream_generate(model, tokenizer, PROMPT, temperature=0, max_tokens=24))
    assert "".join(piece.text for piece in pieces) == planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=24)
    tokens = [piece.token for piece in pieces[:-1]]
    ids = tokenizer.encode(PROMPT)
    assert ids + tokens == model.generate(ids, do_sample=False, max_new_tokens=24)
    assert [piece.generation_tokens for piece in pieces[:-1]] == list(range(1, len(tokens) + 1))
    last = pieces[-1]
    assert (last.token, last.finish_reason, last.prompt_tokens) == (None, "length", len(ids))
    assert last.generation_tps > 0 and last.prompt_tps > 0 and last.peak_memory > 0.005
    assert all(piece.finish_reason is None and piece.index == 0 for piece in pieces[:-1])


def test_log_probabilities_are_those_of_the_logits(exact):
    np = pytest.importorskip("numpy")
    model, tokenizer = exact
    ids = tokenizer.encode(PROMPT)
    pieces = list(planish.stream_generate(model, tokenizer, ids, max_tokens=10, temperature=1.0, seed=5, logprobs=3))[:-1]
    logits = np.asarray(model.logits(ids + [piece.token for piece in pieces])).astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)
    for step, piece in enumerate(pieces):
        row = expected[len(ids) - 1 + step]
        assert abs(piece.logprob - row[piece.token]) < 1e-4
        best = np.argsort(-row, kind="stable")[:3]
        assert [token for token, _ in piece.top_logprobs] == best.tolist()
        assert np.abs([value for _, value in piece.top_logprobs] - row[best]).max() < 1e-4


def test_stop_strings_and_end_tokens(story):
    model, tokenizer = story
    whole = planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=40)
    word = whole.split()[4]
    cut = planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=40, stop=word)
    assert cut == whole[: whole.index(word)]
    last = list(planish.stream_generate(model, tokenizer, PROMPT, temperature=0, max_tokens=40, stop=[word]))[-1]
    assert last.finish_reason == "stop"
    tokens = model.generate(tokenizer.encode(PROMPT), do_sample=False, max_new_tokens=8)[len(tokenizer.encode(PROMPT)) :]
    assert model.generate(tokenizer.encode(PROMPT), do_sample=False, max_new_tokens=8, eos_token_id=tokens[3])[-1] == tokens[2]


def test_a_batch_gives_what_each_gives_alone(story):
    model, tokenizer = story
    found = planish.batch_generate(model, tokenizer, PROMPTS, temperature=0, max_tokens=20)
    assert found.texts == [planish.generate(model, tokenizer, prompt, temperature=0, max_tokens=20) for prompt in PROMPTS]
    assert [len(tokens) for tokens in found.tokens] == [20] * 4 and found.finish_reasons == ["length"] * 4
    assert planish.batch_generate(model, tokenizer, [], temperature=0, max_tokens=20).texts == []


def test_transformers_words(story):
    model, tokenizer = story
    inputs = tokenizer(PROMPT)
    one = model.generate(**inputs.to("cpu"), max_new_tokens=6, do_sample=False)
    assert tokenizer.decode(one) == PROMPT + planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=6)
    # Two rows, the second padded on the left, as transformers pads.
    second = tokenizer.encode("The cat")
    rows = [inputs.input_ids, [0] * (len(inputs.input_ids) - len(second)) + second]
    mask = [[1] * len(inputs.input_ids), [0] * (len(inputs.input_ids) - len(second)) + [1] * len(second)]
    both = model.generate(rows, attention_mask=mask, do_sample=False, max_new_tokens=6)
    assert both == [one, model.generate(second, do_sample=False, max_new_tokens=6)]

    class Streamer:
        told, ended = [], False

        def put(self, value):
            self.told += value

        def end(self):
            self.ended = True

    streamer = Streamer()
    assert model.generate(inputs.input_ids, do_sample=False, max_new_tokens=6, streamer=streamer) == one
    assert streamer.told == one and streamer.ended


def test_logits_processors(story):
    np = pytest.importorskip("numpy")
    model, tokenizer = story
    plain = planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=12)
    seen = []

    def look(ids, logits):
        seen.append(list(ids))

    assert planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=12, logits_processor=look) == plain
    assert seen[0] == tokenizer.encode(PROMPT) and len(seen) == 12
    banned = tokenizer.encode(PROMPT + plain)[len(seen[0]) + 1]

    def ban_in_place(ids, logits):
        np.asarray(logits)[banned] = -np.inf

    def ban_in_a_copy(ids, logits):
        changed = np.array(logits)
        changed[banned] = -np.inf
        return changed

    answers = [
        planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=12, logits_processor=processor)
        for processor in (ban_in_place, ban_in_a_copy)
    ]
    assert answers[0] == answers[1] != plain

    def fail(ids, logits):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=12, logits_processor=fail)
    with pytest.raises(TypeError, match="float32"):
        planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=12, logits_processor=lambda ids, logits: "no")


def test_forms(story):
    found = planish.generate(*story, "A number: ", temperature=0, max_tokens=20, regex="[0-9]{3}")
    assert len(found) == 3 and found.isdigit()
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    assert json.loads(planish.generate(*story, "Say: ", max_tokens=40, json_schema=schema))["a"] in (1, 2)


def test_sessions_go_on(story):
    model, tokenizer = story
    session = model.session()
    first = session.generate(PROMPT, temperature=0, max_tokens=10)
    pieces = list(session.stream(" The dog", temperature=0, max_tokens=10))
    whole = tokenizer.encode(PROMPT) + tokenizer.encode(first, add_special_tokens=False)
    assert session.tokens[: len(whole)] == whole
    assert pieces[-1].cached_tokens >= len(whole) - 1, "what was computed is not computed again"
    alone = model.generate(whole + tokenizer.encode(" The dog", add_special_tokens=False), do_sample=False, max_new_tokens=10)
    assert session.tokens == alone
    session.clear()
    assert session.tokens == [] and session.generate(PROMPT, temperature=0, max_tokens=10) == first


def test_closing_an_iterator_ends_the_answer(story):
    model, tokenizer = story
    pieces = planish.stream_generate(model, tokenizer, PROMPT, temperature=0, max_tokens=100_000, eos_token_id=[])
    assert next(pieces).token is not None
    pieces.close()
    begun = time.monotonic()
    planish.generate(model, tokenizer, "The cat", temperature=0, max_tokens=2)
    assert time.monotonic() - begun < 5
    with pytest.raises(StopIteration):
        next(pieces)


def test_threads_and_tasks_answer_side_by_side(story):
    model, tokenizer = story
    expected = [planish.generate(model, tokenizer, prompt, temperature=0, max_tokens=16) for prompt in PROMPTS]
    found = [None] * len(PROMPTS)

    def answer(index):
        found[index] = planish.generate(model, tokenizer, PROMPTS[index], temperature=0, max_tokens=16)

    threads = [threading.Thread(target=answer, args=(index,)) for index in range(len(PROMPTS))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == expected

    async def stream(prompt):
        return "".join([piece.text async for piece in planish.astream_generate(model, tokenizer, prompt, temperature=0, max_tokens=16)])

    async def everything():
        return await asyncio.gather(*map(stream, PROMPTS))

    assert asyncio.run(everything()) == expected


def test_a_cancelled_task_ends_its_answer(story):
    model, tokenizer = story

    async def endless():
        async for _ in planish.astream_generate(model, tokenizer, PROMPT, temperature=0, max_tokens=100_000, eos_token_id=[]):
            pass

    async def cancel():
        task = asyncio.create_task(endless())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            return [piece async for piece in planish.astream_generate(model, tokenizer, "The cat", temperature=0, max_tokens=2)]

    assert len(asyncio.run(cancel())) == 3


INTERRUPTED = """
import sys, time, planish
model, tokenizer = planish.load()
prompt = {prompt}
print("ready", flush=True)
begun = time.monotonic()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
LONG = "tokenizer.encode('Once upon a time there was a dog. ' * 60)[: model.context - 8]"


@pytest.mark.parametrize(
    "prompt, call",
    [
        ("'Once'", "planish.generate(model, tokenizer, prompt, max_tokens=10**6, eos_token_id=[], stop=['@@@@']); time.sleep(60)"),
        (LONG, "[planish.generate(model, tokenizer, prompt[i:], temperature=0, max_tokens=1) for i in range(10**6)]"),
        (LONG, "[model.logits(prompt[i % 9:]) for i in range(10**6)]"),
    ],
    ids=["answer", "prompt", "logits"],
)
def test_ctrl_c_stops_within_half_a_second(prompt, call):
    code = INTERRUPTED.format(prompt=prompt, call=call)
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "ready\n"
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert running.stdout.readline() == "interrupted\n"
    waited = time.monotonic() - begun
    # Half a second on a machine that does nothing else.
    assert waited < 0.5 + 0.25 * max(os.getloadavg()[0] - 2, 0), waited
    running.wait(timeout=30)


def test_the_interpreter_is_free_meanwhile(story):
    model, tokenizer = story
    turns, ended = 0, threading.Event()

    def answer():
        planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=60, eos_token_id=[])
        ended.set()

    thread = threading.Thread(target=answer)
    thread.start()
    while not ended.wait(0.001):
        turns += 1
    thread.join()
    assert turns >= 5


def test_errors_name_what_is_wrong(story):
    model, tokenizer = story
    with pytest.raises(ValueError, match="prompt is empty"):
        model.generate([])
    with pytest.raises(ValueError, match="token 4294967295"):
        model.generate([2**32 - 1])
    with pytest.raises(TypeError, match="prompt: expected a list of token ids"):
        model.generate([-1])
    with pytest.raises(TypeError, match="input_ids: expected token ids, found dict"):
        model.generate({"role": "user"})
    with pytest.raises(TypeError, match="there is no option temprature"):
        planish.generate(model, tokenizer, PROMPT, temprature=1)
    with pytest.raises(TypeError, match="temperature: expected a number, found str"):
        planish.generate(model, tokenizer, PROMPT, temperature="hot")
    with pytest.raises(ValueError, match="temperature is -1"):
        planish.generate(model, tokenizer, PROMPT, temperature=-1)
    with pytest.raises(ValueError, match="form of the answer"):
        planish.generate(model, tokenizer, PROMPT, regex="(")
    with pytest.raises(TypeError, match="tokenizer"):
        planish.generate(model, None, PROMPT)


def test_a_fork_says_what_to_do(story):
    model, tokenizer = story
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            planish.generate(model, tokenizer, PROMPT, temperature=0, max_tokens=2)
            text = "no error"
        except RuntimeError as error:
            text = str(error)
        os.write(writing, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "forked" in os.read(reading, 1000).decode()
