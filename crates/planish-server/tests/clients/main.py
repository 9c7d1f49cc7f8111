"""The clients that people use, against `planish serve` with the story model: python main.py PROGRAM [--agents] [--model MODEL]

With --agents the commands `claude` and `codex` must be there. With --model those that are Python's run against that model, which is served
under the same name, with its own chat template.
"""

import argparse

import anthropic_client
import documents
import openai_client
import schemas_client
from checks import run
from server import Server

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("--agents", action="store_true")
parser.add_argument("--model")
arguments = parser.parse_args()
program, model = arguments.program, arguments.model
named = ("--model-name", "story")
with Server(program, *named, model=model) as server, Server(program, *named, "--api-key", "secret", model=model) as locked:
    failed = [name for module in (openai_client, anthropic_client, schemas_client) for name in run(module, server, locked)]
if not model:
    failed += documents.run(program, arguments.agents)
if failed:
    raise SystemExit(f"{len(failed)} failed: {', '.join(failed)}")
