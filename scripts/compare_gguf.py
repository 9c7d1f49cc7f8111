"""Compares what planish makes of a GGUF file with what transformers' own GGUF loader makes of it.

`planish dequantize FILE --dtype float32` must give every tensor exactly, the same configuration (but for what only one of
them writes), the same chat template and the same token ids. transformers 5.23 leaves out the step of the `smollm` pre-tokenizer
that cuts digits apart, which shows on digits outside ASCII (llama.cpp cuts them, and so does planish): the default text has none.

Needs: gguf, torch, transformers. Run: python scripts/compare_gguf.py FILE.gguf [--planish PROGRAM] [--text FILE]
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

# transformers keeps the name of the file and its type there, and its default class has no such keys.
ONLY_ONE_SIDE = {"_model_name_or_path", "_name_or_path", "architectures", "quantization_config", "unk_token_id", "dtype"}
TEXT = """In 2024 there were 366 days; don't WE'LL   know?\n\n\tGrüße, Ελληνικά, русский, 日本語, 한국어, العربية, 🦊🚀.
<|im_start|>user\nhello<|im_end|>\n    def add(first, second):\r\n        return first + second  # 12345678.9e-10\n"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--planish", default="target/release/planish")
    parser.add_argument("--text", type=pathlib.Path)
    return parser.parse_args()


def compare_weights(theirs, ours):
    """Largest difference of any tensor; names must agree."""
    theirs, ours = theirs.state_dict(), ours.state_dict()
    assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
    worst = max((theirs[name] - ours[name]).abs().max().item() for name in theirs)
    print(f"{len(theirs)} tensors, largest difference {worst}")
    return worst == 0


def compare_configs(theirs, ours):
    """Floats are compared as f32, in which the file has them."""
    theirs, ours = theirs.to_dict(), ours.to_dict()
    as_stored = lambda value: torch.tensor(value).item() if isinstance(value, float) else value  # noqa: E731
    keys = (theirs.keys() | ours.keys()) - ONLY_ONE_SIDE
    differ = {key: (theirs.get(key), ours.get(key)) for key in keys if as_stored(theirs.get(key)) != as_stored(ours.get(key))}
    print(f"config: {differ or 'the same'}")
    return not differ


def compare_tokenizers(theirs, ours, text):
    theirs_ids, ours_ids = theirs.encode(text), ours.encode(text)
    same = theirs_ids == ours_ids
    print(f"tokens: {len(theirs_ids)} and {len(ours_ids)}, {'the same' if same else 'they differ'}")
    templates = theirs.chat_template == ours.chat_template
    print(f"chat template: {'the same' if templates else 'they differ'}")
    return same and templates


def main():
    options = arguments()
    text = options.text.read_text(encoding="utf-8") if options.text else TEXT
    source = {"pretrained_model_name_or_path": str(options.file.parent), "gguf_file": options.file.name}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch, "plain")
        command = [options.planish, "dequantize", options.file, "--out", folder, "--dtype", "float32"]
        subprocess.run(command, check=True)
        checks = [
            compare_weights(
                AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32),
                AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            ),
            compare_configs(AutoConfig.from_pretrained(**source), AutoConfig.from_pretrained(folder)),
            compare_tokenizers(AutoTokenizer.from_pretrained(**source), AutoTokenizer.from_pretrained(folder), text),
        ]
    sys.exit(0 if all(checks) else 1)


if __name__ == "__main__":
    main()
