"""The log-likelihoods that transformers computes for the choices of models/demo/tasks.jsonl, for the tests of planish.

Writes crates/planish/tests/golden/tasks.json: for every question the log-likelihood of each choice by models/demo-float in float32,
as lm-evaluation-harness scores them: context and choice, a blank between, are tokenized together, and the tokens after those of the
context count. Versions stand in the file. Needs torch, transformers; run: python scripts/golden/tasks.py
"""

import json
import pathlib

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).parents[2]
TARGET = ROOT / "crates/planish/tests/golden/tasks.json"


@torch.no_grad()
def log_likelihood(model, tokenizer, context, choice):
    whole = tokenizer(f"{context} {choice}")["input_ids"]
    first = len(tokenizer(context)["input_ids"])
    logits = model(torch.tensor([whole])).logits[0].double()
    logs = logits.log_softmax(-1)
    return sum(logs[index - 1, whole[index]].item() for index in range(first, len(whole)))


def main():
    folder = ROOT / "models/demo-float"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tasks = [json.loads(line) for line in (ROOT / "models/demo/tasks.jsonl").read_text().splitlines()]
    rows = []
    for task in tasks:
        scores = [log_likelihood(model, tokenizer, task["context"], choice) for choice in task["choices"]]
        rows.append([round(score, 5) for score in scores])
    versions = dict(transformers=transformers.__version__, torch=torch.__version__)
    lines = ",\n".join(json.dumps(row) for row in rows)
    TARGET.write_text(f'{{"versions": {json.dumps(versions)}, "log_likelihoods": [\n{lines}\n]}}\n')
    right = sum(max(range(len(row)), key=row.__getitem__) == task["answer"] for row, task in zip(rows, tasks))
    by_length = sum(max(range(len(row)), key=lambda i: row[i] / len(task["choices"][i])) == task["answer"]
                    for row, task in zip(rows, tasks))
    print(f"{right} of {len(tasks)} right, {by_length} by characters")


main()
