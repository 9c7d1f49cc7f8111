#!/usr/bin/env python3
"""Writes seeds/: the golden files of the crates as inputs of the fuzz targets, small (data is left out: the targets make it up)."""

import json
import shutil
import struct
from pathlib import Path

HERE = Path(__file__).parent
CRATES = HERE.parent / "crates"
SEEDS = HERE / "seeds"
# The smallest golden models of a family, where there are several; those that differ in what is read.
MODELS = [
    "apertus/plain", "cohere2_biases/plain", "deepseek_v2/plain", "deepseek_v3_halves/plain", "ernie4_5_moe/plain",
    "falcon_alibi/plain", "falcon_h1_biases/plain", "gemma2_caps/plain", "gemma3/plain", "gpt2/metal", "gpt_neox/plain",
    "gpt_oss/plain", "granitemoehybrid/plain", "hunyuan_v1_dense_dynamic/plain", "internlm2/plain", "lfm2/plain",
    "llama_tied/metal", "llama_yarn/plain", "llama_llama3_biases/plain", "minicpm_longrope/plain", "mixtral/metal",
    "opt_norm_after/plain", "phi3/plain", "qwen2_moe/plain", "qwen3/metal", "qwen3_next/plain", "stablelm_parallel/plain",
]  # fmt: skip
GGUF = ["cohere", "gemma2_by_head", "gpt2", "llama_tied", "mixtral_no_window", "phi3_long_factors", "qwen3_moe"]


def seed(target: str, name: str, data: bytes) -> None:
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name.replace("/", "-")).write_bytes(data)


def files(**contents: object) -> bytes:
    """Names with `__` for `.`; what is no text is JSON."""
    parts = []
    for name, content in contents.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        parts.append(f"@@@ {name.replace('__', '.')}\n{text}")
    return "\n".join(parts).encode()


def header(path: Path) -> str:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = json.loads(data[8 : 8 + length])
    return json.dumps(tensors, separators=(",", ":"))


def folder(path: Path) -> bytes:
    config = json.loads((path / "config.json").read_text())
    config.pop("transformers_version", None)
    return files(config__json=config, model__safetensors=header(path / "model.safetensors"))


def gguf_header(path: Path, more: int = 0) -> bytes:
    """A GGUF file up to its data, and so many bytes of that."""
    data = path.read_bytes()
    at = 8
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize(form)
        return value

    def text() -> bytes:
        nonlocal at
        length = number("Q")
        at += length
        return data[at - length : at]

    def value(kind: int) -> None:
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            inner, count = number("I"), number("Q")
            for _ in range(count):
                value(inner)
        else:
            at += sizes[kind]

    tensors, keys = number("Q"), number("Q")
    for _ in range(keys):
        text()
        value(number("I"))
    for _ in range(tensors):
        text()
        for _ in range(number("I")):
            number("Q")
        number("I"), number("Q")
    key = data.find(b"general.alignment", 0, at)
    alignment = struct.unpack_from("<I", data, key + 21)[0] if key >= 0 else 32
    return data[: (at + alignment - 1) // alignment * alignment + more]


def weights() -> None:
    checkpoints = CRATES / "planish-checkpoint/tests/golden"
    models = CRATES / "planish-model/tests"
    for dialect in ["metal", "mlx"]:
        seed("safetensors" if dialect == "metal" else "mlx", "golden", folder(checkpoints / dialect))
    for name in ["llama_linear_odd/plain", "gpt2/plain"]:
        seed("safetensors", name, folder(models / "golden" / name))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    seed("safetensors", "one", files(
        config__json=config,
        model__safetensors={"model.norm.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                            "x": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]}},
        tokenizer__json="{}", notes__txt="x"))  # fmt: skip
    text = json.dumps({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    raw = struct.pack("<Q", len(text)) + text + bytes(8)
    seed("safetensors", "raw", files(config__json=config) + b"\n@@@ model.safetensors\n" + raw)
    tensor = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
    seed("index", "two", files(
        config__json=config,
        model__safetensors__index__json={"metadata": {}, "weight_map": {"a": "x.safetensors", "b": "y.safetensors"}},
        x__safetensors={"a": tensor}, y__safetensors={"b": tensor}))  # fmt: skip
    names = [f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2)]
    seed("index", "stale", files(
        config__json=config, model__safetensors__index__json={"weight_map": {"a": "gone.safetensors", "b": names[1]}},
        **{names[0]: {"a": tensor}, names[1]: {"b": tensor | {"data_offsets": [8, 16]}, "a": tensor}}))  # fmt: skip
    seed("index", "numbered", files(config__json=config, **{names[0]: {"a": tensor}, names[1]: {"b": tensor}}))
    for path in sorted((models / "golden_mlx").iterdir()):
        if path.name in ["gpt2", "mixtral", "qwen3_next", "gpt_oss", "granitemoe"]:
            seed("mlx", path.name, folder(path))
    seed("mxfp4", "gpt_oss", folder(models / "golden_mxfp4/gpt_oss"))
    seed("model", "gpt_oss_mxfp4", folder(models / "golden_mxfp4/gpt_oss"))
    for name in MODELS:
        seed("model", name, folder(models / "golden" / name))
    for name in ["mixtral", "qwen3_next"]:
        seed("model", f"{name}_mlx", folder(models / "golden_mlx" / name))
    for name in ["qwen3", "types", "sentencepiece"]:
        # The first tensor of this one holds factors that are checked.
        more = 32 if name == "sentencepiece" else 0
        seed("gguf", name, gguf_header(checkpoints / f"gguf/{name}.gguf", more))
    for name in GGUF:
        seed("model_gguf", name, gguf_header(models / f"golden_gguf/{name}.gguf"))
        if name in ["gpt2", "mixtral_no_window"]:
            seed("gguf", name, gguf_header(models / f"golden_gguf/{name}.gguf"))
    older = struct.pack("<i", 2)
    for name, columns in [(b"blk.0.attn_q.weight", 48), (b"blk.0.ffn_down.weight", 80)]:
        older += struct.pack("<i", len(name)) + name + struct.pack("<ii", 3, columns) + struct.pack("<f", 2.5) * columns
    seed("imatrix", "older", older + struct.pack("<ii", 5, 6) + b"wiki.x")
    for kind in ["gguf", "dat"]:
        seed("imatrix", kind, (CRATES / f"planish/tests/golden/imatrix/llama_tied.{kind}").read_bytes())


def tokenizers() -> None:
    golden = CRATES / "planish-generate/tests/golden/tokenizers"
    text = " Once upon\n a  tïme <s>x</s> \U0001f600 12"
    for name in ["byte_level", "metaspace"]:
        contents = {file.name.replace(".", "__"): json.loads(file.read_text()) for file in (golden / name).iterdir()}
        seed("tokenizer", name, files(**contents, text=text))
    parts = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": None, "post_processor": None, "decoder": None}  # fmt: skip
    token = {"id": 3, "content": "<s>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False, "special": True}
    words = {"a": 0, "b": 1, "[UNK]": 2, "<s>": 3, "##b": 4, "\u2581a": 5, "<0x61>": 6}
    variants = {
        "wordpiece": {
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": words},
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}},
        },
        "unigram": {
            "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581a", -1.5], ["b", -2.0], ["\u2581", -3.0]], "byte_fallback": False},
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "Prepend", "prepend": "\u2581"}, {"type": "Strip", "strip_left": True, "strip_right": True}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        },
        "wordlevel": {
            "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": words},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\s+|\\p{L}+(?=x)|(?i:'s)"}, "behavior": "Isolated", "invert": False},
                {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "WhitespaceSplit"}, {"type": "UnicodeScripts"}]},
        },
        "bpe": {
            "model": {"type": "BPE", "dropout": None, "unk_token": "[UNK]", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                "byte_fallback": True, "ignore_merges": True, "vocab": {**words, "ab": 7}, "merges": [["a", "b"]]},
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True}]},
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": 2, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        },
    }  # fmt: skip
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": True}, "added_tokens_decoder": {"3": token},
              "extra_special_tokens": {"image": "<i>"}, "chat_template": "{{ messages[0].content }}"}  # fmt: skip
    for name, variant in variants.items():
        contents = {**parts, "added_tokens": [token], **variant}
        special = {"special_tokens_map__json": {"unk_token": "[UNK]", "additional_special_tokens": ["<x>"]}}
        seed("tokenizer", name, files(tokenizer__json=contents, tokenizer_config__json=config, **special, text="ab <s> a  b é"))


def formats() -> None:
    text = "\n@@@ text\n Once upon  a t\u00efme <s>x</s> \U0001f600 12".encode()
    for folder in sorted((CRATES / "planish-generate/tests/golden/formats").iterdir()):
        parts = []
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            data = file.read_bytes()
            if file.name == "tekken.json":
                # The bytes alone.
                tekken = json.loads(data)
                tekken["vocab"] = tekken["vocab"][:264]
                special = tekken["config"]["default_num_special_tokens"]
                tekken["config"]["default_vocab_size"] = special + 264
                data = json.dumps(tekken, separators=(",", ":")).encode()
            parts.append(f"@@@ {file.name}\n".encode() + data)
        if parts:
            seed("tokenizer_formats", folder.name, b"\n".join(parts) + text)


def templates() -> None:
    golden = json.loads((CRATES / "planish-generate/tests/golden/templates.json").read_text())
    names = list(golden["templates"])
    for index, case in enumerate(golden["cases"]):
        arguments = case["arguments"]
        request = {"messages": case["messages"], "add_generation_prompt": arguments.pop("add_generation_prompt", False)}
        for key in ["tools", "documents"]:
            if key in arguments:
                request[key] = arguments.pop(key)
        request["chat_template_kwargs"] = arguments
        if len(json.dumps(request)) > 4000 or "expected" not in case:
            continue
        if index % 3 == 0:
            source = golden["templates"][case["template"]]
            seed("template", f"{case['template']}-{index}", files(chat_template__jinja=source, request=request))
        options = {"template": names.index(case["template"]), "temperature": 0.7, "top_p": 0.9, "stop": ["\n", "END"], "seed": index}
        if index % 2 == 0:
            seed("requests", f"{case['template']}-{index}", json.dumps(request | options, ensure_ascii=False).encode())
    for index in range(0, len(golden["expressions"]), 8):
        sources = [expression["source"] for expression in golden["expressions"][index : index + 8]]
        # The variable `value` of the golden expressions.
        request = {"messages": [], "chat_template_kwargs": {"value": golden["value"]}}
        seed("template", f"expressions-{index}", files(chat_template__jinja="\n".join(sources), request=request))
    macro = "{% macro f(x, n=2) %}{{ x * n }}{% endmacro %}{% set ns = namespace(a=[]) %}{% for m in messages %}{% set ns.a = ns.a + [m] %}" \
        "{{ loop.index0 ~ loop.last }}{% if loop.first %}{% continue %}{% endif %}{{ f(m.content[1:-1:2] | trim | upper) }}{% endfor %}" \
        "{{ '%05.2f %-8s' % (1.5, 'x') }}{{ ns.a | map(attribute='role') | join(', ') }}{{ 'abc'.replace('b', 'x').split('x') | tojson(indent=2) }}" \
        "{{ range(5) | batch(2) | list }}{{ strftime_now('%Y') }}{{ raise_exception('no') }}"  # fmt: skip
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}]
    seed("template", "macro", files(chat_template__jinja=macro, request={"messages": messages}))
    named = {"chat_template": [{"name": "default", "template": "{{ messages | length }}"}, {"name": "tool_use", "template": "{{ tools | tojson }}"}]}
    seed("template", "named", files(tokenizer_config__json=named, request={"messages": messages, "tools": []}))


def texts() -> None:
    config = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.1, "max_new_tokens": 8,
              "min_new_tokens": 2, "max_length": 20, "min_length": 1, "no_repeat_ngram_size": 2, "stop_strings": ["\n"], "suppress_tokens": [1, 2],
              "begin_suppress_tokens": [3], "bad_words_ids": [[1], [2, 3]], "eos_token_id": [2, 299], "sequence_bias": [[[3], -1.5], [[1, 2], 4.0]], "encoder_repetition_penalty": 1.2,
              "encoder_no_repeat_ngram_size": 2, "forced_bos_token_id": 5, "forced_eos_token_id": [2], "typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02,
              "top_h": 0.8, "exponential_decay_length_penalty": [1, 1.5], "max_time": 60, "num_beams": 4}  # fmt: skip
    seed("generation", "all", files(generation_config__json=config, config__json={"eos_token_id": 2}, asked={"template": 1, "tokenizer": True}))
    seed("generation", "none", files(generation_config__json={"eos_token_id": None, "top_k": -1}, asked={"temperature": 0.0}))
    asked = {key: value for key, value in config.items() if key != "num_beams"} | {"seed": 7, "stop": ["x"]}
    seed("generation", "asked", files(generation_config__json={}, asked=asked))
    commit = "0123456789abcdef0123456789abcdef01234567"
    names = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "tokenizer.json", "additional_chat_templates/tool_use.jinja", "original/params.json", "LICENSE"]  # fmt: skip
    listing = {"sha": commit, "siblings": [{"rfilename": name} for name in names]}
    headers = f'x-linked-etag: "{"ab" * 32}"\nx-linked-size: 1234\netag: W/"{commit}"\ncontent-length: 7'
    index = {"weight_map": {"a": names[1], "b": names[2]}}
    seed("hub", "shards", files(model="org/name", listing=listing, headers=headers, index=index))
    for name, model, siblings in [
        ("gguf", "https://huggingface.co/org/name/tree/main", ["README.md", "a/b.gguf"]),
        ("file", "org/name/a/b.gguf", ["a/b.gguf", "../x"]),
        ("single", "name", ["model.safetensors", "config.json"]),
    ]:
        listing = {"sha": commit, "siblings": [{"rfilename": file} for file in siblings]}
        seed("hub", name, files(model=model, listing=listing, headers="etag: x-1\ncontent-length: 1", index="{}"))


if __name__ == "__main__":
    shutil.rmtree(SEEDS, ignore_errors=True)
    weights()
    tokenizers()
    formats()
    templates()
    texts()
