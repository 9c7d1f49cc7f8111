"""Golden ids and texts of tokenizers that are not stored in tokenizer.json: small ones trained here, one folder each, and what the
library that the format belongs to makes of texts with them.

bpe, gemma, unigram, rules: sentencepiece. gpt2, qwen2: transformers. qwen, kimi, llama3: tiktoken. tekken, tekken_old: mistral-common.

    pip install transformers sentencepiece tiktoken mistral-common
    python scripts/golden/tokenizer_formats.py      writes crates/planish-generate/tests/golden/formats/
"""

import base64
import importlib.metadata
import io
import json
import random
import shutil
from pathlib import Path

import sentencepiece
import tiktoken
import tiktoken._educational
import transformers
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TARGET = Path(__file__).parents[2] / "crates/planish-generate/tests/golden/formats"
SEED = 20
SPACE = "\u2581"

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and it's said that they'll do so again.",
    "A group of numbers shares one scale and one bias; the rest is a matter of packing bits.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Language models read tokens, and tokens are pieces of words: 0 1 2 3 10 20 100 2024 12345.",
    "def add(one, other):\n        return one + other\n",
    "你好世界 今天天气很好 东京大学",
    "Привет, мир! Как дела?",
    "aaaa aaaaaaaa ababab ======== ----- ...... \t\t\t",
]

HARD = [
    "Hello world",
    " leading and trailing ",
    "  two  spaces\n\nand lines\t",
    "\n",
    " ",
    "   ",
    "",
    "a",
    "Zwölf große Boxkämpfer",
    "你好,世界 東京 English混合中文 😀 👩‍👩‍👧 é é",
    "1234567890 3.14 1,000,000",
    "it's THEY'LL I'd we’ve",
    "ﬁne ﬀ Ⅳ ① ㎏ ｆｕｌｌ half\u00a0space\u3000wide",
    "\u0000\u0001\u001f\u007f\u0085\u200b\ufeff",
    "مرحبا بالعالم שלום ไทย हिन्दी 한국어 \u1100\u1161",
    "\r\n\r\n  x\r\n",
    "def f(x):\n    return x  # done\n\n\n",
    "====== ------ aaaaaaaaaaaaa abababababab",
    "tab\tand\u2581lower block\u2581\u2581",
    "<0x41> <unk > [INST ] <|endoftext",
    "emoji 🏳️‍🌈 and flags 🇩🇪🇫🇷",
    "a" * 70 + " " * 33 + "b",
    "C'est l'été à la plage; ça va?",
    "x\u0301y\u0308 \u00c5 \u212b",
]


def texts(special):
    chosen = random.Random(SEED)
    letters = list("aab  \n\t'.,=-01eéßдП你世Aaz" + SPACE)
    noise = ["".join(chosen.choice(letters) for _ in range(chosen.randrange(1, 40))) for _ in range(40)]
    words = " ".join(CORPUS).split(" ")
    noise += [" ".join(chosen.choice(words) for _ in range(chosen.randrange(1, 9))) for _ in range(20)]
    between = [f"{special}hi", f"a{special} b{special}{special}", f" {special}", f"{special}"]
    return HARD + noise, between


def case(text, ids, decoded):
    return {"text": text, "ids": list(ids), "decoded": decoded}


def write(name, files):
    folder = TARGET / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        content = content if isinstance(content, bytes | str) else json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        content = content.encode() if isinstance(content, str) else content
        (folder / file).write_bytes(content)
    return folder


def train_sentencepiece(**options):
    model = io.BytesIO()
    lines = CORPUS * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, num_threads=1, minloglevel=2, character_coverage=1.0, **options
    )
    return model.getvalue()


def with_sentencepiece(name, model, config, special):
    """The model's own library, which knows no added tokens: texts with them come from transformers."""
    folder = write(name, {"tokenizer.model": model, "tokenizer_config.json": config})
    peer = sentencepiece.SentencePieceProcessor(model_proto=model)
    plain, between = texts(special)
    # Of pieces with equal sums of scores either library takes another; SentencePiece shows what is unknown as a sign of its own.
    plain = [text for text in plain if name != "rules" or "aaaaaaaaaaaaa abab" not in text]
    shown = lambda ids: None if peer.unk_id() in ids else peer.decode(ids)
    cases = [case(t, i := peer.encode(t), shown(i)) for t in plain]
    other = transformers.AutoTokenizer.from_pretrained(folder)
    # A space in front of a text that begins with one is where the two libraries differ.
    between = [text for text in between if not text.startswith(" ") and not (config.get("legacy") and " " in text)]
    cases += [case(t, i := other.encode(t, add_special_tokens=False), other.decode(i, skip_special_tokens=True)) for t in between]
    return {"vocabulary_size": peer.get_piece_size(), "cases": cases, "first": peer.bos_id(), "last": peer.eos_id()}


def sentencepiece_kinds():
    common = {"vocab_size": 420, "pad_id": -1}
    bytes_too = {**common, "byte_fallback": True, "split_digits": True}
    no_rules = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    bpe = train_sentencepiece(model_type="bpe", **bytes_too, **no_rules)
    yield "bpe", with_sentencepiece("bpe", bpe, {"tokenizer_class": "LlamaTokenizer", "legacy": True}, "<s>")
    yield "bpe_first", with_sentencepiece(
        "bpe_first", bpe, {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_eos_token": True}, "<s>"
    )
    gemma = train_sentencepiece(
        model_type="bpe", **{**bytes_too, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}, **no_rules, add_dummy_prefix=False,
        allow_whitespace_only_pieces=True, control_symbols=["<mask>"],
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", SPACE * 2, SPACE * 3, SPACE * 4, "<h1>"],
    )
    yield "gemma", with_sentencepiece("gemma", gemma, {"tokenizer_class": "GemmaTokenizer"}, "<mask>")
    user = train_sentencepiece(model_type="bpe", **bytes_too, **no_rules, user_defined_symbols=["<user>", "fox", SPACE * 2])
    yield "user_defined", with_sentencepiece("user_defined", user, {"tokenizer_class": "LlamaTokenizer"}, "<s>")
    unigram = train_sentencepiece(model_type="unigram", **bytes_too, **no_rules, hard_vocab_limit=False)
    yield "unigram", with_sentencepiece("unigram", unigram, {"tokenizer_class": "LlamaTokenizer"}, "<s>")
    rules = Path("/tmp/planish-rules.tsv")
    pairs = [("ﬁ", "fi"), ("ﬀ", "ff"), ("①", "1"), ("\t", " "), ("\u00a0", " "), ("\u3000", " "), ("ß", "ss"), ("\u200b", "")]
    points = lambda text: " ".join(f"{ord(letter):04X}" for letter in text)
    rules.write_text("".join(f"{points(before)}\t{points(after)}\n" for before, after in pairs))
    ruled = train_sentencepiece(model_type="unigram", **{**common, "vocab_size": 180},
                                hard_vocab_limit=False, normalization_rule_tsv=str(rules))
    yield "rules", with_sentencepiece("rules", ruled, {"tokenizer_class": "LlamaTokenizer"}, "<s>")


def with_transformers(name, files):
    folder = write(name, files)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    plain, between = texts("<|endoftext|>")
    cases = [case(t, i := peer(t)["input_ids"], peer.decode(i, skip_special_tokens=True)) for t in plain + between]
    return {"vocabulary_size": len(peer), "cases": cases}


def vocabulary_and_merges():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    inner.train_from_iterator(CORPUS * 20, trainer)
    model = json.loads(inner.to_str())["model"]
    vocabulary = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    merges = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in model["merges"])
    files = {"vocab.json": json.dumps(vocabulary, ensure_ascii=False), "merges.txt": merges}
    gpt2 = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    yield "gpt2", with_transformers("gpt2", {**files, "tokenizer_config.json": gpt2})
    # As Qwen 2: the end of text has no place in vocab.json, and the tokens after it have ids of their own, one left out.
    files["vocab.json"] = json.dumps(model["vocab"], ensure_ascii=False)
    first = len(model["vocab"])
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    names = {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>", 3: "<tool>"}
    qwen2 = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "added_tokens_decoder": {
            str(first + at): {"content": text, **flags, "special": at < 3} for at, text in names.items()
        },
    }
    yield "qwen2", with_transformers("qwen2", {**files, "tokenizer_config.json": qwen2})


QWEN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
KIMI = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])
TEKKEN = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
])


def ranks(pattern, size=400):
    # A pattern of the library `regex`, which does not know \p{Han} in intersections: Kimi's ranks are trained with Llama 3's.
    return tiktoken._educational.bpe_train("\n".join(CORPUS * 3), size, pattern, visualise=None)


def tiktoken_file(table):
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in table.items())


def with_tiktoken(table, pattern, special, end, prefix=()):
    import unicodedata

    peer = tiktoken.Encoding("small", pat_str=pattern, mergeable_ranks=table, special_tokens=special)
    plain, between = texts(end)
    form = (lambda text: unicodedata.normalize("NFC", text)) if pattern is QWEN else (lambda text: text)
    ids = lambda text: [*prefix, *peer.encode(form(text), allowed_special="all")]
    known = set(special.values())
    shown = lambda found: peer.decode([token for token in found if token not in known])
    return {"vocabulary_size": peer.n_vocab, "cases": [case(t, i := ids(t), shown(i)) for t in plain + between]}


def tiktoken_kinds():
    table = ranks(QWEN)
    first = len(table)
    write("qwen", {"qwen.tiktoken": tiktoken_file(table), "tokenizer_config.json": {"tokenizer_class": "QWenTokenizer"}})
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{at}|>" for at in range(205))]
    yield "qwen", with_tiktoken(table, QWEN, {name: first + at for at, name in enumerate(names)}, "<|im_end|>")
    table = ranks(LLAMA3)
    first = len(table)
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    given = {first: "[BOS]", first + 1: "[EOS]", first + 2: "<|im_end|>", first + 5: "<|im_user|>"}
    config = {
        "tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]", "eos_token": "[EOS]",
        "added_tokens_decoder": {str(id): {"content": text, **flags} for id, text in given.items()},
    }
    write("kimi", {"tiktoken.model": tiktoken_file(table), "tokenizer_config.json": config})
    special = {given.get(id, f"<|reserved_token_{id}|>"): id for id in range(first, first + 256)}
    yield "kimi", with_tiktoken(table, KIMI, special, "<|im_end|>")
    write("llama3", {"tokenizer.model": tiktoken_file(table), "config.json": {"model_type": "llama"}})
    names = [
        "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
        "<|python_tag|>", *(f"<|reserved_special_token_{at}|>" for at in range(2, 247)),
    ]
    special = {name: first + at for at, name in enumerate(names)}
    yield "llama3", with_tiktoken(table, LLAMA3, special, "<|eot_id|>", prefix=[first])


def tekken_kinds():
    table = ranks(TEKKEN)
    entry = lambda token, rank: {
        "rank": rank, "token_bytes": base64.b64encode(token).decode(),
        "token_str": token.decode() if token.isascii() else None,
    }
    vocabulary = [entry(token, rank) for token, rank in table.items()]
    given = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"]
    special = [{"rank": at, "token_str": text, "is_control": True} for at, text in enumerate(given)]
    # As on the Hub, the table is longer than what the model uses.
    config = {
        "pattern": TEKKEN, "num_vocab_tokens": len(table), "default_vocab_size": 20 + len(table) - 7,
        "default_num_special_tokens": 20, "version": "v11",
    }
    for name, content in {
        "tekken": {"config": config, "vocab": vocabulary, "special_tokens": special},
        "tekken_old": {"config": {**config, "version": "v3"}, "vocab": vocabulary},
    }.items():
        folder = write(name, {"tekken.json": json.dumps(content, ensure_ascii=False)})
        peer = Tekkenizer.from_file(folder / "tekken.json")
        plain, _ = texts("")
        shown = lambda ids: peer.decode(ids, special_token_policy=SpecialTokenPolicy.IGNORE)
        cases = [case(t, i := peer.encode(t, bos=True, eos=False), shown(i)) for t in plain]
        yield name, {"vocabulary_size": peer.n_words, "cases": cases, "inst": peer.get_special_token("[INST]")}


def main():
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    golden = dict(sentencepiece_kinds())
    golden |= dict(vocabulary_and_merges()) | dict(tiktoken_kinds()) | dict(tekken_kinds())
    packages = ["transformers", "tokenizers", "sentencepiece", "tiktoken", "mistral-common"]
    result = {
        "made_by": "scripts/golden/tokenizer_formats.py",
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "seed": SEED,
        **golden,
    }
    (TARGET / "golden.json").write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(TARGET)


if __name__ == "__main__":
    main()
