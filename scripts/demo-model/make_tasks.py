"""Multiple-choice questions that the story model can be asked: which sentence comes next?

Reads models/demo/held-out.txt, stories that the model was not trained on, and writes models/demo/tasks.jsonl. A question is the
beginning of a story; its choices are the sentence that follows and three that follow at about the same place in other stories, with
their heroes' names replaced by those of this story, so that names alone do not tell. At most one question for a story. Of 40 such
sentences the three stay that models/demo-float finds likeliest, and of all questions the hardest, by the right choice's lead over
the best wrong one. Everything is drawn from seed 0. Needs torch, transformers; run: python make_tasks.py [COUNT]
"""

import json
import pathlib
import random
import re
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = pathlib.Path(__file__).parents[2] / "models/demo"
CONTEXT_SENTENCES = range(3, 9)
CHOICES = 4
CANDIDATES = 40
LENGTHS = (25, 110)  # characters of a choice
COMMON = {"The", "One", "Once", "They", "She", "He", "It", "But", "Then", "When", "And", "On", "In", "At", "Every", "After", "I",
          "Day", "Help", "Yes", "No", "Oh", "What", "How", "Where", "Why", "Who", "Please", "Thank", "Let", "You", "We", "My", "Mom",
          "Dad", "There", "So", "Soon", "Suddenly", "That", "This", "All", "As", "Now", "From", "Inside", "Look", "Do", "Not", "Is",
          "Can", "Poor", "Mr", "Mrs", "His", "Her", "Their", "Your", "Of", "For", "With", "Hello", "Hi", "Good", "Be", "Are", "Maybe",
          "Just", "If", "To", "Some", "A", "An", "Everyone", "Both", "Before", "While", "Even", "Just", "Come", "Wow", "Wait", "Sorry"}


def stories():
    text = (MODEL / "held-out.txt").read_text()
    for story in re.split(r"<\|end\|>(?:<\|begin\|>)?", text)[:-1]:  # the last is cut
        yield story.removeprefix("<|begin|>").strip()


def sentences(story):
    """With what separates them, so that joined they are the story again."""
    return re.findall(r".+?[.!?]\"?(?:\s+|$)", story, re.S)


def names(story):
    """Words that always begin with a capital letter, most frequent first."""
    words = re.findall(r"\b[A-Z][a-z]+\b", story)
    found = {word for word in words if word not in COMMON and not re.search(rf"\b{word.lower()}\b", story)}
    return sorted(found, key=lambda word: (-words.count(word), words.index(word)))


def renamed(sentence, own, other):
    for mine, theirs in zip(own, other):
        sentence = re.sub(rf"\b{theirs}\b", mine, sentence)
    return sentence


@torch.no_grad()
def log_likelihoods(model, tokenizer, context, choices):
    """Of each choice after the context."""
    first = len(tokenizer(context)["input_ids"])
    rows = [tokenizer(f"{context} {choice}")["input_ids"] for choice in choices]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    logs = model(padded).logits[:, first - 1 :].log_softmax(-1)
    return [sum(logs[index, place - first, row[place]].item() for place in range(first, len(row)))
            for index, row in enumerate(rows)]


def candidates(told, order, index, place, draw):
    """The sentence that follows, and others."""
    parts, own = told[index]
    right = parts[place].strip()
    if not LENGTHS[0] <= len(right) <= LENGTHS[1] or right.count('"') % 2:
        return right, []
    others = []
    for other in draw.sample(order, len(order)):
        if other == index or len(told[other][0]) <= place:
            continue
        wrong = renamed(told[other][0][place].strip(), own, told[other][1])
        strange = [word for word in re.findall(r"\b[A-Z][a-z]+\b", wrong) if word not in COMMON and word not in own]
        alike = 0.7 <= len(wrong) / len(right) <= 1.4 and wrong.count('"') % 2 == 0
        if alike and not strange and wrong != right and wrong not in others:
            others.append(wrong)
    return right, others[:CANDIDATES]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    draw = random.Random(0)
    folder = MODEL.parent / "demo-float"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    told = [(sentences(story), names(story)) for story in stories()]
    order = list(range(len(told)))
    draw.shuffle(order)
    questions = []
    for index in order:
        parts, own = told[index]
        place = draw.choice(CONTEXT_SENTENCES)
        if len(parts) <= place or not own:
            continue
        right, others = candidates(told, order, index, place, draw)
        if len(others) < CHOICES - 1:
            continue
        context = "".join(parts[:place]).rstrip()
        scores = log_likelihoods(model, tokenizer, context, [right, *others])
        ranked = sorted(zip(scores[1:], others), reverse=True)[: CHOICES - 1]
        choices = [wrong for _, wrong in ranked]
        answer = draw.randrange(CHOICES)
        choices.insert(answer, right)
        questions.append((scores[0] - ranked[0][0], dict(context=context, choices=choices, answer=answer)))
    questions.sort(key=lambda question: question[0])
    chosen = questions[:count]
    assert len(chosen) == count, f"only {len(chosen)} questions"
    print(f"{len(questions)} questions; the model is right in {sum(lead > 0 for lead, _ in chosen)} of {count}")
    draw.shuffle(chosen)
    lines = [json.dumps(question, ensure_ascii=False) for _, question in chosen]
    (MODEL / "tasks.jsonl").write_text("\n".join(lines) + "\n")


main()
