"""docs/SERVING.md: every command of a client is run as it stands there. Agents get the story model with a longer context."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from server import Server

ROOT = pathlib.Path(__file__).parents[4]
WHERE = "http://127.0.0.1:8080"
# Commands that need more context than the story model has.
AGENTS = ("claude ", "codex ")


def blocks():
    """(heading, language, text) of what is run."""
    text = (ROOT / "docs/SERVING.md").read_text()
    for section in text.split("\n## ")[1:]:
        for language, block in re.findall(r"```(sh|python)\n(.*?)```", section, re.S):
            yield section.split("\n")[0], language, block


def long_model(folder):
    """The story model that believes in a longer context: what it says there is noise, but it says it."""
    shutil.copytree(ROOT / "models/demo", folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 1 << 17
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run_block(language, block, server, home):
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    environment = {**os.environ, "HOME": str(home), "CODEX_HOME": str(home), "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "64"}
    text = block.replace(WHERE, server.url)
    ended = subprocess.run([*command, text], cwd=home, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if ended.returncode != 0 or not ended.stdout.strip():
        raise AssertionError(f"{block}\nended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")


def run(program, agents):
    """Returns the names of the sections that failed. `agents` says whether theirs are run."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "home").mkdir()
        with Server(program, "--model-name", "local") as server, \
                Server(program, str(long_model(folder / "long")), "--model-name", "local") as patient:
            for heading, language, block in blocks():
                agent = any(name in block for name in AGENTS)
                if agent and not agents:
                    continue
                try:
                    run_block(language, block, patient if agent else server, folder / "home")
                    print(f"ok      SERVING.md, {heading}", flush=True)
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    print(f"{error}\nFAILED  SERVING.md, {heading}", flush=True)
                    failed.append(heading)
    return failed
