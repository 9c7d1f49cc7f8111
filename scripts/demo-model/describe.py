# Fills the model card from the training result and writes the held-out text: describe.py STORIES.counts TRAINED_DIR PACKED_DIR
# held-out.txt: stories joined by the model's own markers, so that a reader of plain text sees what the model was trained on.
import json
import pathlib
import sys

HELD_OUT_BYTES = 100_000
HERE = pathlib.Path(__file__).parent


def main():
    counts, source, packed = map(pathlib.Path, sys.argv[1:4])
    result = json.loads((source / "result.json").read_text()) | json.loads(counts.read_text())
    held_out = json.loads((source / "held-out.json").read_text())
    p = {f"p_{bits}": value for bits, value in result["perplexity"].items()}
    changes = {f"d_{bits}": 100 * (p[f"p_{bits}"] / p["p_float"] - 1) for bits in (8, 4, 2)}
    facts = {key: f"{value:,}" if isinstance(value, int) and value > 9999 else value for key, value in result.items()}
    card = (HERE / "card.md").read_text().format(**facts, **p, **changes, held=f"{len(held_out):,}")
    (packed / "README.md").write_text(card)
    text = ""
    for story in held_out:
        if len(text) + len(story) > HELD_OUT_BYTES:
            break
        text += ("<|end|><|begin|>" if text else "") + story
    (packed / "held-out.txt").write_text(text)


main()
