# Lets the teacher fill the open sentences of many outlines on a GPU. A fixed number of slots; each holds one story at its
# own position, takes fixed tokens from its script, samples in the gaps, and starts the next script when one is done, so
# that every step is the same captured graph and none waits for the CPU.
# Usage: generate.py --teacher A.safetensors B.safetensors --tokenizer tokenizer.json --out gaps.jsonl --seconds 200
# Writes a line a story: [number, [sentence endings in order]]; assemble.py draws the same outlines again by number.
import argparse
import json
import random
import re
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from tokenizers import Tokenizer

import kernels
from outlines import draw, read_outlines
from teacher import Teacher

GAP, END = -1, -2  # items of a script that are no tokens: the teacher samples here; the story is over


def script_of(encoder, request, units):
    """Token ids of the request and the story, GAP where the teacher writes, END last."""
    text, script = f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n", []
    for unit in units:
        text += unit.before + unit.text
        if unit.open:
            script += encoder.encode(text, add_special_tokens=False).ids + [GAP]
            text = unit.close
    if text:
        script += encoder.encode(text, add_special_tokens=False).ids
    return script + [END]


def scripts_of(job):
    seed, numbers, tokenizer_path = job
    encoder, outlines = Tokenizer.from_file(tokenizer_path), read_outlines()
    scripts = []
    for number in numbers:
        request, _, units = draw(outlines, random.Random(f"{seed}:{number}"))
        scripts.append(script_of(encoder, request, units))
    return scripts


def draw_scripts(options):
    share = options.stories // options.workers
    jobs = [(options.seed, range(worker * share, (worker + 1) * share), options.tokenizer) for worker in range(options.workers)]
    with ProcessPoolExecutor(options.workers) as pool:
        return [script for part in pool.map(scripts_of, jobs) for script in part]


def token_tables(tokenizer_path, device):
    """(allowed, ends a sentence), each (vocabulary) u8: plain English text only, no line breaks, digits or markup."""
    decoder = Tokenizer.from_file(tokenizer_path)
    texts = [decoder.decode([i]) for i in range(decoder.get_vocab_size())]
    allowed = [bool(re.fullmatch(r" ?[A-Za-z]+|['’][a-z]+|,|;? and|[.!?]", t)) for t in texts]
    return (torch.tensor(allowed, dtype=torch.uint8, device=device),
            torch.tensor([bool(re.search(r"[.!?]", t)) for t in texts], dtype=torch.bool, device=device))


class Writer:
    """State of all slots on the device, and the step that advances them."""

    def __init__(self, options, scripts):
        self.options, device, count, slots = options, options.device, len(scripts), options.slots
        self.teacher = Teacher(options.teacher, slots, options.length, device)
        width = max(map(len, scripts))
        self.scripts = torch.tensor([s + [END] * (width - len(s)) for s in scripts] + [[0] + [END] * (width - 1)],
                                    dtype=torch.int32).to(device)
        self.allowed, self.boundary = token_tables(options.tokenizer, device)
        self.texts = torch.full((count + 1, options.length), GAP, dtype=torch.int32, device=device)
        whole = dict(dtype=torch.int64, device=device)
        self.story = torch.arange(slots, device=device)
        self.tokens = self.scripts[self.story, 0].long()
        self.pointers = torch.ones(slots, **whole)
        self.gap_lengths = torch.zeros(slots, **whole)
        self.positions = torch.zeros(slots, **whole)
        self.sampled = torch.zeros(slots, **whole)
        self.next_story = torch.tensor(slots, device=device)
        self.steps = torch.tensor([options.seed * 1_000_000], dtype=torch.int32, device=device)

    def step(self):
        logits = self.teacher.step(self.tokens, self.positions)
        kernels.sample(logits, self.allowed, self.sampled, self.steps, self.options.temperature, self.options.min_p)
        self.steps += 1
        item = self.scripts[self.story, self.pointers].long()
        gap = item == GAP
        token = torch.where(gap, self.sampled, item)
        following = self.positions + 1
        self.texts[self.story, following] = torch.where(gap | (token == END), token, GAP).int()
        over = gap & (self.boundary[self.sampled] | (self.gap_lengths >= self.options.gap_tokens))
        ended = (token == END) | (following == self.options.length - 1)
        fresh = (self.next_story + ended.cumsum(0) - 1).clamp(max=self.scripts.shape[0] - 1)
        self.next_story += ended.sum()
        self.story.copy_(torch.where(ended, fresh, self.story))
        self.gap_lengths.copy_(torch.where(gap & ~over & ~ended, self.gap_lengths + 1, 0))
        self.pointers.copy_(torch.where(ended, 1, self.pointers + (~gap | over)))
        self.positions.copy_(torch.where(ended, 0, following))
        self.tokens.copy_(torch.where(ended, self.scripts[self.story, 0], token))

    def capture(self):
        if self.options.device == "cpu":
            return self.step
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay


def write(options, scripts):
    """(stories + 1, length): the sampled tokens where they stood, GAP where the script's stood, END when a story is done."""
    writer = Writer(options, scripts)
    advance = writer.capture()
    begun, steps = time.time(), 0
    while time.time() - begun < options.seconds and int(writer.next_story) < len(scripts) and steps < options.steps:
        for _ in range(min(100, options.steps)):
            advance()
        steps += min(100, options.steps)
        if steps % 1000 == 0:
            started = int(writer.next_story)
            print(f"{steps} steps, {started} stories begun, {steps * options.slots / (time.time() - begun):.0f} tokens/s", flush=True)
    return writer.texts.cpu().numpy()


def gaps_of(job):
    first, rows, tokenizer_path = job
    decoder = Tokenizer.from_file(tokenizer_path)
    stories = []
    for number, row in enumerate(rows, first):
        gaps, current = [], []
        for token in row[:(row == END).argmax() + 1].tolist():  # nothing when the story was not finished
            if token >= 0:
                current.append(token)
            elif current:
                gaps.append(decoder.decode(current))
                current = []
        if gaps:
            stories.append((number, gaps))
    return stories


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", nargs=2, required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--stories", type=int, default=400_000)
    parser.add_argument("--slots", type=int, default=4096)
    parser.add_argument("--length", type=int, default=512, help="tokens of request and story at most")
    parser.add_argument("--gap-tokens", type=int, default=24)
    parser.add_argument("--temperature", type=float, default=0.75)
    parser.add_argument("--min-p", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    begun = time.time()
    scripts = draw_scripts(options)
    print(f"{len(scripts)} outlines in {time.time() - begun:.0f} s", flush=True)
    with torch.no_grad():
        texts = write(options, scripts)
    begun, share = time.time(), -(-len(scripts) // options.workers)
    jobs = [(first, texts[first:min(first + share, len(scripts))], options.tokenizer) for first in range(0, len(scripts), share)]
    with ProcessPoolExecutor(options.workers) as pool, open(options.out, "w") as file:
        for part in pool.map(gaps_of, jobs):
            file.writelines(json.dumps(story) + "\n" for story in part)
    print(f"decoded in {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
