"""Golden continuations of the demo model: what transformers' generate() writes greedily with models/demo, in float32.

    python scripts/golden/demo.py
        writes crates/planish-cli/tests/golden/demo.json; run it again whenever models/demo changes
"""

import hashlib
import json
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/demo"
TARGET = ROOT / "crates/planish-cli/tests/golden/demo.json"

# The usual prompt, and the first 60 words of stories not learned from: what follows these is nearly fixed.
STORIES = 8
WORDS = 60
TOKENS = 60
# A token counts only if it leads the second best by this much (logits).
LEAD = 0.05


def main():
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, device_map="cpu")
    # Unpacked weights come as bfloat16 whatever is asked for; what follows is computed in float32.
    model = model.float()
    cases = []
    stories = (MODEL / "held-out.txt").read_text().split("<|end|><|begin|>")[:STORIES]
    for prompt in ["Once upon a time"] + [" ".join(story.split(" ")[:WORDS]) for story in stories]:
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)["input_ids"]
        output = model.generate(
            ids, max_new_tokens=TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        leads = [(best[0] - best[1]).item() for best in (logits[0].topk(2).values for logits in output.logits)]
        # Up to where rounding could decide between two tokens.
        sure = next((step for step, lead in enumerate(leads) if lead < LEAD), len(leads))
        print(f"{prompt!r}: {sure} tokens; smallest leads", sorted(round(lead, 3) for lead in leads)[:5])
        tokens = output.sequences[0, ids.shape[1] :].tolist()[:sure]
        cases.append({"prompt": prompt, "tokens": tokens, "text": tokenizer.decode(tokens)})
    golden = {
        "made_by": "scripts/golden/demo.py",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "model_sha256": hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest(),
        "cases": cases,
    }
    TARGET.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
