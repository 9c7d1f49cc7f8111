"""Golden distributions: what transformers' logits processors leave of fixed logits, in the order generate() applies them.

    python scripts/golden/sampling.py      writes crates/planish-generate/tests/golden/sampling.json
"""

import json
from pathlib import Path

import numpy
import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

TARGET = Path(__file__).parents[2] / "crates/planish-generate/tests/golden/sampling.json"
VOCABULARY = 400
SEEN = [3, 7, 7, 50, 399, 120]

CONFIGS = [
    {},
    {"temperature": 0.6},
    {"temperature": 2.5, "top_k": 0},
    {"top_k": 1},
    {"top_k": 7, "temperature": 0.8},
    {"top_k": 0, "top_p": 0.9},
    {"top_k": 0, "top_p": 0.1},
    {"top_k": 0, "top_p": 0.0},
    {"top_k": 0, "top_p": 0.9999, "temperature": 3.0},
    {"top_k": 20, "top_p": 0.7},
    {"top_k": 0, "min_p": 0.05},
    {"top_k": 0, "min_p": 1.0},
    {"top_k": 30, "top_p": 0.95, "min_p": 0.02, "temperature": 1.3},
    {"repetition_penalty": 1.3, "top_k": 0},
    {"repetition_penalty": 0.7, "top_k": 12},
    {"repetition_penalty": 1.1, "temperature": 0.7, "top_k": 40, "top_p": 0.8, "min_p": 0.01},
]


def sources():
    """Normal logits; logits with ties; logits of a nearly certain model, some of them impossible."""
    random = numpy.random.default_rng(20261123)
    normal = random.normal(0, 3, VOCABULARY).astype(numpy.float32)
    ties = numpy.round(random.normal(0, 2, VOCABULARY)).astype(numpy.float32)
    certain = random.normal(-8, 2, VOCABULARY).astype(numpy.float32)
    certain[50] = 9.0
    certain[100:110] = -numpy.inf
    return {"normal": normal, "ties": ties, "certain": certain}


def tiny_model():
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    return LlamaForCausalLM(config)


def processed(model, logits, options):
    config = GenerationConfig(do_sample=True, **{"top_k": 50, **options})
    processors = model._get_logits_processor(generation_config=config, input_ids_seq_length=len(SEEN))
    scores = processors(torch.tensor([SEEN]), torch.from_numpy(logits.copy())[None])
    return torch.softmax(scores[0].double(), -1).numpy()


def main():
    model = tiny_model()
    cases = []
    for name, logits in sources().items():
        for options in CONFIGS:
            # Which of equal logits top-p drops depends on the sort: no rule to compare with.
            if name == "ties" and "top_p" in options:
                continue
            probabilities = processed(model, logits, options)
            kept = numpy.flatnonzero(probabilities)
            cases.append(
                {
                    "logits": name,
                    "options": options,
                    "tokens": kept.tolist(),
                    "probabilities": [float(probabilities[token]) for token in kept],
                }
            )
    golden = {
        "made_by": "scripts/golden/sampling.py",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": numpy.__version__},
        "seen": SEEN,
        # JSON has no infinity: null.
        "logits": {
            name: [float(x) if numpy.isfinite(x) else None for x in logits] for name, logits in sources().items()
        },
        "cases": cases,
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(golden) + "\n")
    print(f"{TARGET}: {len(cases)} cases")


if __name__ == "__main__":
    main()
