"""Other ways to write the config.json of the golden checkpoints that mean the same to transformers' configuration classes.

Writes tests/golden/configs.json of planish-model, rows of a case, the keys to remove from its config.json and those to set:
first without every key that the class would fill in alike, then with the position encoding as older versions wrote it
(rope_theta and rope_scaling instead of rope_parameters), then without single keys that the class fills in otherwise: what it
fills in stands in `expect`. Each row was read by transformers and compared. Needs transformers.
"""

import copy
import json

import transformers
from transformers import CONFIG_MAPPING

from models import OUT

NOT_READ = ("architectures", "audio_config", "dtype", "model_type", "quantization_config", "transformers_version", "vision_config")
# Every config says them, and planish refuses those that do not.
SIZES = ("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# Names that GPT-NeoX had for two keys.
OLD_NAMES = {"gpt_neox": dict(rope_theta="rotary_emb_base", partial_rotary_factor="rotary_pct")}


def meaning(config):
    settings = {key: copy.deepcopy(value) for key, value in config.items() if key not in NOT_READ}
    found = CONFIG_MAPPING[config["model_type"]](**settings).to_dict()
    rope = found.get("rope_parameters") or {}
    # Both names of the type may stand there; the scalings without it do not read the length.
    rope.pop("type", None)
    return found


def changed(config, row):
    return {key: value for key, value in config.items() if key not in row["remove"]} | row["set"]


def same(config, row):
    try:
        found, expected = meaning(changed(config, row)), meaning(config)
    except Exception:  # the class refuses what is left
        return False
    for key in [*found, *expected]:
        if key not in row["set"] and found.get(key) != expected.get(key):
            return False
    return True


def without_defaults(config):
    row = dict(remove=[], set={})
    for key in config:
        longer = dict(row, remove=[*row["remove"], key])
        if key not in NOT_READ and same(config, longer):
            row = longer
    return row


def older(config):
    rope = dict(config.get("rope_parameters") or {})
    if "rope_type" not in rope:
        return None
    kind = rope.pop("rope_type")
    names = OLD_NAMES.get(config["model_type"], {})
    moved = {names.get(key, key): rope.pop(key) for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    scaling = None if kind == "default" else dict(rope, type=kind)
    row = dict(remove=["rope_parameters"], set=dict(moved, rope_scaling=scaling))
    return row if same(config, row) else None


def other_defaults(config):
    """Rows for keys whose default is another than the value of the checkpoint."""
    for key, value in config.items():
        try:
            found = meaning(changed(config, dict(remove=[key], set={})))[key]
            if key not in NOT_READ + SIZES and found != value and found == meaning(config | {key: found})[key]:
                json.dumps(found, allow_nan=False)
                yield dict(remove=[key], set={}, expect={key: found})
        except Exception:  # the class refuses what is left, has no such key, or fills in infinity
            continue


def main():
    transformers.logging.set_verbosity_error()
    rows = []
    for folder in sorted(path.parent for path in OUT.glob("*/plain/config.json")):
        config = json.loads((folder / "config.json").read_text())
        if config["model_type"] in CONFIG_MAPPING and "text_config" not in config:
            found = [row for row in (without_defaults(config), older(config), *other_defaults(config)) if row]
            rows += [dict(case=folder.parent.name, **row) for row in found]
    lines = ",\n".join(json.dumps(row) for row in rows)
    versions = json.dumps(dict(transformers=transformers.__version__))
    (OUT / "configs.json").write_text(f'{{"versions": {versions}, "rows": [\n{lines}\n]}}\n')
    print(len(rows), "rows")


main()
