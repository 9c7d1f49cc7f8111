"""The engine from Python beside `planish bench`, run by run in turns; rates are medians.

    python scripts/bench_python.py [MODEL] [--threads 2] [--rounds 5]

Both come out of the installed wheel. A prefill is the time until the first token of a new prompt is there, a decode the time from asking
to the last token behind a prompt of one, as a program of Python sees them.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time

import planish


def by_the_program(model, threads, prompt, tokens):
    command = [sys.executable, "-m", "planish", "bench", *model, "--json", "--repeat", "1", "--device", "cpu"]
    command += ["--threads", str(threads), "-p", str(prompt), "-n", str(tokens)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["prefill_tokens_per_s"], found["decode_tokens_per_s"]


def by_python(model, prompt, tokens):
    options = {"temperature": 0, "eos_token_id": []}
    ids = [random.randrange(3, model.vocab_size) for _ in range(prompt)]
    begun = time.perf_counter()
    model.generate(ids, do_sample=False, max_new_tokens=1, eos_token_id=[])
    prefill = prompt / (time.perf_counter() - begun)
    begun, count = time.perf_counter(), 0
    for piece in planish.stream_generate(model, None, ids[:1], max_tokens=tokens, **options):
        count += piece.token is not None
    return prefill, count / (time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*", help="a folder or a .gguf file; the story model where none is named")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    model, _ = planish.load(*chosen.model, device="cpu", threads=chosen.threads)
    by_python(model, chosen.prompt, chosen.tokens)
    rounds = []
    for _ in range(chosen.rounds):
        theirs = by_the_program(chosen.model, chosen.threads, chosen.prompt, chosen.tokens)
        rounds.append((theirs, by_python(model, chosen.prompt, chosen.tokens)))
    print(f"{chosen.model or 'story model'}, {chosen.threads} threads, load {os.getloadavg()[0]:.1f}")
    for index, what in enumerate(["prefill", "decode"]):
        program = statistics.median(theirs[index] for theirs, _ in rounds)
        python = statistics.median(ours[index] for _, ours in rounds)
        ratio = statistics.median(ours[index] / theirs[index] for theirs, ours in rounds)
        print(f"{what}: program {program:.1f}, Python {python:.1f} tokens/s, ratio of a round {ratio:.3f}")


if __name__ == "__main__":
    main()
