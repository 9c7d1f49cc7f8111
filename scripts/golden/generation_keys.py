"""Golden choices under the keys of generation_config that depend on what was said: what transformers' logits processors leave of
fixed logits after a prompt and some tokens of an answer. And the names of all keys.

    python scripts/golden/generation_keys.py      writes crates/planish-generate/tests/golden/generation_keys.json
"""

import json
from pathlib import Path

import numpy
import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

TARGET = Path(__file__).parents[2] / "crates/planish-generate/tests/golden/generation_keys.json"
SEED = 14
VOCABULARY = 40
SEQUENCES = [
    ([5, 6, 7, 5, 6], []),
    ([5, 6, 7, 5, 6], [8]),
    ([5, 6, 7, 5, 6], [8, 9, 5]),
    ([5, 6, 7, 5, 6], [7, 5, 6, 7, 5, 6, 8]),
    ([3], []),
    ([3], [3]),
    ([3, 4], [1, 2, 3, 4, 1, 2]),
]
BIASES = [[[4], 2.5], [[7], -3.0], [[5, 6], 1.5], [[5, 6, 7], 4.0], [[6, 8], -20.0], [[6, 8], 1.0], [[3, 4, 1, 2, 30], 9.0]]
CONFIGS = [
    {"sequence_bias": BIASES},
    {"sequence_bias": BIASES, "repetition_penalty": 1.7},
    {"sequence_bias": [[[3, 9], 30.0]]},
    {"encoder_repetition_penalty": 1.4},
    {"encoder_repetition_penalty": 0.6, "repetition_penalty": 1.3},
    {"encoder_no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 3, "no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 1},
    {"forced_bos_token_id": 17},
    {"forced_eos_token_id": 2, "max_new_tokens": 4},
    {"forced_eos_token_id": 2, "max_new_tokens": 8},
    {"renormalize_logits": True, "top_p": 0.8},
    {"bad_words_ids": [[5, 6, 7], [9], [8, 9]], "sequence_bias": BIASES},
    {"min_new_tokens": 2, "eos_token_id": [2, 12], "sequence_bias": [[[2], 50.0]]},
    {"suppress_tokens": [4, 5], "begin_suppress_tokens": [8], "sequence_bias": BIASES},
    {"forced_bos_token_id": 17, "begin_suppress_tokens": [8, 17]},
    {"forced_eos_token_id": [2, 30, 9], "max_new_tokens": 4},
    {"typical_p": 0.3},
    {"typical_p": 0.9, "temperature": 0.5, "top_k": 20, "repetition_penalty": 1.5},
    {"typical_p": 0.001},
    {"typical_p": 1.0},
    {"epsilon_cutoff": 0.02},
    {"epsilon_cutoff": 0.9, "top_p": 0.9},
    {"epsilon_cutoff": 1.0, "eta_cutoff": 0.0},
    {"eta_cutoff": 0.05},
    {"eta_cutoff": 0.3, "temperature": 3.0, "suppress_tokens": [4, 5]},
    {"top_h": 0.4},
    {"top_h": 0.9, "top_k": 9, "temperature": 1.7, "bad_words_ids": [[9], [8, 9]]},
    {"top_h": 1.0},
    {"top_h": 0.01},
    {"top_h": 0.8, "top_k": 12, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9, "epsilon_cutoff": 0.03, "eta_cutoff": 0.04},
    {"exponential_decay_length_penalty": [0, 1.5], "eos_token_id": 2},
    {"exponential_decay_length_penalty": [2, 1.2], "eos_token_id": [2, 12, 30], "temperature": 0.8, "top_k": 25},
    {"exponential_decay_length_penalty": [1, 0.7], "eos_token_id": [2, 12], "sequence_bias": [[[2], 3.0]]},
    {"exponential_decay_length_penalty": [0, 1.4], "eos_token_id": [2, 12], "min_new_tokens": 3, "typical_p": 0.95},
]


def main():
    logits = numpy.random.default_rng(SEED).normal(0, 2, VOCABULARY).astype(numpy.float32)
    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes))
    cases = []
    for prompt, answer in SEQUENCES:
        for options in CONFIGS:
            config = GenerationConfig(do_sample=True, **{"top_k": 0, "max_new_tokens": 100, **options})
            config.max_length = len(prompt) + config.max_new_tokens
            model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device="cpu")
            processors = model._get_logits_processor(
                generation_config=config, input_ids_seq_length=len(prompt), encoder_input_ids=torch.tensor([prompt]), device="cpu"
            )
            scores = processors(torch.tensor([prompt + answer]), torch.from_numpy(logits.copy())[None])
            probabilities = torch.softmax(scores[0].double(), -1).numpy()
            kept = numpy.flatnonzero(probabilities > 1e-12)
            cases.append({
                "prompt": prompt, "answer": answer, "options": options,
                "tokens": kept.tolist(), "probabilities": [float(probabilities[token]) for token in kept],
            })
    golden = {
        "made_by": "scripts/golden/generation_keys.py",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": numpy.__version__},
        "seed": SEED,
        "keys": sorted(key for key in GenerationConfig().to_dict() if not key.startswith("_")),
        "logits": [float(logit) for logit in logits],
        "cases": cases,
    }
    TARGET.write_text(json.dumps(golden) + "\n")
    print(f"{TARGET}: {len(cases)} cases")


if __name__ == "__main__":
    main()
