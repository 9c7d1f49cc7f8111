# Trains the byte-level BPE tokenizer of the demo model on the stories and writes it in Hugging Face's files.
# Usage: make_tokenizer.py stories.jsonl OUT_DIR [--size 4096]
import argparse
import json
import pathlib
import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stories")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--size", type=int, default=4096)
    options = parser.parse_args()
    with open(options.stories) as file:
        lines = file.readlines()
    sample = [json.loads(line) for line in random.Random(0).sample(lines, min(len(lines), 100_000))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(sample, trainers.BpeTrainer(
        vocab_size=options.size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    options.folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.folder / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[2],
                "clean_up_tokenization_spaces": False, "model_max_length": 512}
    (options.folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    words = sum(len(text.split()) for text in sample[:2000])
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(sample[:2000]))
    print(f"{tokenizer.get_vocab_size()} tokens, {tokens / words:.3f} a word")


main()
