"""The clients that people use, against `planish serve` with the story model: python main.py PROGRAM [--agents]

With --agents the commands `claude` and `codex` must be there.
"""

import sys

import anthropic_client
import documents
import openai_client
import schemas_client
from checks import run
from server import Server

program, agents = sys.argv[1], "--agents" in sys.argv
named = ("--model-name", "story")
with Server(program, *named) as server, Server(program, *named, "--api-key", "secret") as locked:
    failed = [name for module in (openai_client, anthropic_client, schemas_client) for name in run(module, server, locked)]
failed += documents.run(program, agents)
if failed:
    raise SystemExit(f"{len(failed)} failed: {', '.join(failed)}")
