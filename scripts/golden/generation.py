"""Golden answers: a tiny random Llama with a small tokenizer, and what transformers' generate() writes with it.

    python scripts/golden/tokenizers_and_chats.py && python scripts/golden/generation.py
        writes crates/planish/tests/golden/tiny/: a whole checkpoint and golden.json
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "crates/planish-generate/tests/golden/tokenizers/byte_level"
TARGET = ROOT / "crates/planish/tests/golden/tiny"

PROMPTS = ["Hello world", "The quick brown fox", "Zwölf Boxkämpfer 12 😀", "a"]


def checkpoint():
    torch.manual_seed(20261123)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        # Large weights: the likeliest token leads clearly, so that rounding does not decide.
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    # The second end token is one that the model comes to write, so that some answers end before their time.
    prompt = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    model.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_token_id)
    written = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, -1].item()
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, written]
    model.save_pretrained(TARGET)
    (TARGET / "model.safetensors").chmod(0o644)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(TOKENIZER / name, TARGET / name)


def answers():
    tokenizer = AutoTokenizer.from_pretrained(TARGET)
    model = AutoModelForCausalLM.from_pretrained(TARGET, dtype=torch.float32)
    ends = model.generation_config.eos_token_id
    cases = []
    for prompt in PROMPTS:
        for raw in [True, False]:
            for penalty in [1.0, 1.3]:
                if raw:
                    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
                else:
                    chat = [{"role": "user", "content": prompt}]
                    ids = tokenizer.apply_chat_template(
                        chat, add_generation_prompt=True, return_tensors="pt", return_dict=False
                    )
                output = model.generate(
                    ids, max_new_tokens=40, do_sample=False, repetition_penalty=penalty, pad_token_id=0
                )
                tokens = output[0, ids.shape[1] :].tolist()
                finish = "end_token" if tokens[-1] in ends else "max_new_tokens"
                if finish == "end_token":
                    tokens.pop()
                cases.append(
                    {
                        "prompt": prompt,
                        "raw": raw,
                        "repetition_penalty": penalty,
                        "prompt_tokens": ids.shape[1],
                        "tokens": tokens,
                        "text": tokenizer.decode(tokens, skip_special_tokens=True),
                        "finish": finish,
                    }
                )
    return cases


def main():
    shutil.rmtree(TARGET, ignore_errors=True)
    checkpoint()
    cases = answers()
    golden = {
        "made_by": "scripts/golden/generation.py",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "cases": cases,
    }
    (TARGET / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    print(TARGET, [(len(case["tokens"]), case["finish"]) for case in cases])


if __name__ == "__main__":
    main()
