"""What the documents say is so: every snippet of Python in them runs."""

import json
import re
import shutil
import subprocess
import sys

import planish
import pytest

# What stands for a model of the Hub that answers: the story model with a template.
TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}Once {% endif %}"


def snippets(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(root, plain_folder, tmp_path_factory):
    """A folder to work in, with the model and the text that the documents name."""
    folder = tmp_path_factory.mktemp("documents")
    model = folder / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    shutil.copytree(plain_folder, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    shutil.copy(root / "models" / "demo" / "held-out.txt", folder / "text.txt")
    text = (folder / "text.txt").read_text()
    (folder / "text.txt").write_text(text[:8000])
    return folder


@pytest.mark.parametrize("document", ["docs/PYTHON.md", "README.md"])
def test_every_snippet_runs(document, root, place):
    pytest.importorskip("numpy")
    found = snippets(root / document)
    assert found
    code = "\n".join(found)
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 80


def test_widths_are_measured(root, place):
    script = [sys.executable, root / "scripts" / "plot_widths.py", "HuggingFaceTB/SmolLM2-135M-Instruct", "text.txt"]
    done = subprocess.run([*script, "--widths", "2", "8"], cwd=place, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = [list(map(float, line.replace("%", "").split())) for line in done.stdout.splitlines()[1:3]]
    assert [row[0] for row in rows] == [2, 8] and rows[0][2] > 20 * rows[1][2] and rows[0][3] > rows[1][3]


def test_the_options_are_those_of_the_document(root, story):
    """Every option that the document lists is taken, and one that it does not list is not."""
    text = (root / "docs" / "PYTHON.md").read_text()
    listed = text.split("Options of all of them:")[1].split("What is left out")[0]
    names = re.findall(r"`([a-z_]+)`", listed)
    assert len(names) > 20
    for name in names:
        with pytest.raises((TypeError, ValueError)) as raised:
            planish.generate(*story, "Once", **{name: object()})
        assert "there is no option" not in str(raised.value), name
