"""Importance matrices that llama.cpp's llama-imatrix makes of small models, in both forms of its files.

Writes crates/planish/tests/golden/imatrix/<case>.gguf, .dat and .json (the tokens of the text, and the size of a chunk). The models
are those of gguf_families.py with a tokenizer of single characters. The test lets planish listen to its own products over the same
tokens and compares.

Needs gguf, numpy, safetensors, torch, and llama-imatrix of llama.cpp.
Run: python scripts/golden/imatrix.py PATH/TO/llama-imatrix
"""

import json
import pathlib
import random
import subprocess
import sys
import tempfile

import gguf
import gguf_families

OUT = gguf_families.HERE / "crates/planish/tests/golden/imatrix"
CASES = ["llama_tied", "qwen2_moe_all_layers", "mixtral_no_window"]
CHUNK, CHUNKS, FIRST_CHARACTER = 32, 4, 35
write_metadata = gguf_families.write_metadata


def write_with_tokenizer(w, config, architecture):
    size = config["vocab_size"]
    w.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>"] + [chr(FIRST_CHARACTER + index) for index in range(3, size)]
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * size)
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    w.add_token_types(kinds + [gguf.TokenType.NORMAL] * (size - 3))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(False)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(False)
    return write_metadata(w, config, architecture)


def main():
    program = sys.argv[1]
    gguf_families.write_metadata = write_with_tokenizer
    OUT.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            gguf_families.OUT = pathlib.Path(scratch)
            gguf_families.write(case, *gguf_families.CASES[case])
            size = json.loads((gguf_families.SOURCE / case / "plain/config.json").read_text())["vocab_size"]
            draw = random.Random(1)
            tokens = [draw.randrange(3, size) for _ in range(CHUNK * CHUNKS)]
            text = pathlib.Path(scratch) / "letters.txt"
            text.write_text("".join(chr(FIRST_CHARACTER + token) for token in tokens))
            for form in ("gguf", "dat"):
                command = [program, "-m", f"{scratch}/{case}.gguf", "-f", text.name, "-o", OUT / f"{case}.{form}"]
                command += ["-c", CHUNK, "-b", CHUNK, "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--output-format", form]
                subprocess.run([str(part) for part in command], check=True, cwd=scratch)
            (OUT / f"{case}.json").write_text(json.dumps({"tokens": tokens, "chunk": CHUNK}) + "\n")


if __name__ == "__main__":
    main()
