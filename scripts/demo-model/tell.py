# Writes stories with the packed model through transformers, one a seed, to read them: tell.py MODEL_DIR OUT.md [--seeds 20]
import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--prompt", default="Once upon a time")
    options = parser.parse_args()
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, device_map="cpu", dtype=torch.float32)
    prompt = tokenizer(options.prompt, return_tensors="pt", return_token_type_ids=False)
    stories = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        tokens = model.generate(**prompt, do_sample=True, temperature=options.temperature, top_k=0, top_p=1.0, max_new_tokens=400)[0]
        ended = "" if tokens[-1] == model.config.eos_token_id else "\n\n(cut off)"
        stories.append(f"## Seed {seed}\n\n{tokenizer.decode(tokens, skip_special_tokens=True)}{ended}\n")
    with open(options.output, "w") as file:
        file.write("\n".join(stories))


main()
