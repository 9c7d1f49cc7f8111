"""Golden ids and texts: two small tokenizers trained here, one of each kind that language models use, and what
transformers' AutoTokenizer makes of texts with them.

byte_level: GPT-2's kind (Llama 3, Qwen, SmolLM); metaspace: SentencePiece's kind with byte fallback (Llama 2, Mistral).

    python scripts/golden/tokenizers_and_chats.py      writes crates/planish-generate/tests/golden/tokenizers/
"""

import json
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TARGET = Path(__file__).parents[2] / "crates/planish-generate/tests/golden/tokenizers"

CORPUS = [
    "The quick brown fox jumps over the lazy dog. ",
    "A group of numbers shares one scale and one bias; the rest is a matter of packing bits.\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Language models read tokens, and tokens are pieces of words. 0 1 2 3 4 5 6 7 8 9",
] * 20

TEXTS = [
    "Hello world",
    " leading and trailing ",
    "two  spaces\n\nand lines\t",
    "Zwölf große Boxkämpfer",
    "你好,世界 😀 👩‍👩‍👧 é é",
    "<s>special</s> and <|im_start|>user\nhi<|im_end|>\n",
    "1234567890 3.14",
    "",
    "<|im_start|>  <|im_end|>a<extra> b<special>c",
]


def byte_level():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(CORPUS, trainer)
    inner.post_processor = processors.ByteLevel(trim_offsets=True)
    inner.enable_truncation(5)
    return inner, {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<special>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "add_bos_token": True,
        "chat_template": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    }


def metaspace():
    base = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    content = json.loads(trained.to_str())["model"]
    names = base + byte_tokens + sorted(content["vocab"], key=content["vocab"].get)
    vocabulary = {name: index for index, name in enumerate(names)}
    merges = [tuple(merge) for merge in content["merges"]]
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in base])
    inner.add_tokens([AddedToken("<extra>", normalized=False, special=False)])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return inner, {
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "rstrip": False, "normalized": False},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "clean_up_tokenization_spaces": False,
        "chat_template": [
            {"name": "tool_use", "template": "{{ bos_token }}TOOLS {{ tools | length }} {{ messages[0].content }}"},
            {"name": "default", "template": "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]{{ pad_token }}"},
        ],
    }


def golden(name, inner, config):
    folder = TARGET / name
    folder.mkdir(parents=True, exist_ok=True)
    inner.save(str(folder / "tokenizer.json"), pretty=False)
    config = {**config, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    cases = []
    for text in TEXTS:
        ids = peer(text)["input_ids"]
        cases.append(
            {
                "text": text,
                "ids": ids,
                "plain_ids": peer(text, add_special_tokens=False)["input_ids"],
                "decoded": peer.decode(ids, skip_special_tokens=True),
                "decoded_with_special_tokens": peer.decode(ids),
            }
        )
    messages = [{"role": "user", "content": "Hi <|im_end|> there"}]
    chat = peer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    tool_chat = peer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, tools=[{"a": 1}])
    return {
        "vocabulary_size": len(peer),
        "eos_id": peer.eos_token_id,
        "special_tokens": peer.special_tokens_map,
        "cases": cases,
        "messages": messages,
        "chat_ids": chat,
        "tool_chat_ids": tool_chat,
    }


def main():
    result = {
        "made_by": "scripts/golden/tokenizers_and_chats.py",
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "byte_level": golden("byte_level", *byte_level()),
        "metaspace": golden("metaspace", *metaspace()),
    }
    (TARGET / "golden.json").write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    print(TARGET)


if __name__ == "__main__":
    main()
