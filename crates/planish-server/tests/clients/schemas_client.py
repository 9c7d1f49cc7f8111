"""Answers that a schema asks for, by a validator that others wrote: Python's jsonschema."""

import json
import pathlib

import jsonschema

from checks import PROMPT, same
from openai_client import client

SCHEMAS = json.loads((pathlib.Path(__file__).parents[1] / "schemas.json").read_text())
# jsonschema knows some formats only where other packages are there.
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


def ask(server, schema, seed, **more):
    form = {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": schema}}
    kind = {"model": "story", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 400, "temperature": 1, "seed": seed}
    return client(server).chat.completions.create(**kind, response_format=form, **more)


def check_answers_are_valid_whole_and_streamed(server, _):
    same(len(SCHEMAS), 22)
    assert {"date", "time"} <= set(FORMATS.checkers)
    for index, schema in enumerate(SCHEMAS):
        validator = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
        whole = ask(server, schema, index).choices[0]
        same(whole.finish_reason, "stop", schema)
        validator.validate(json.loads(whole.message.content))
        chunks = [chunk.choices[0] for chunk in ask(server, schema, index + 100, stream=True) if chunk.choices]
        same(chunks[-1].finish_reason, "stop", schema)
        streamed = "".join(chunk.delta.content or "" for chunk in chunks)
        validator.validate(json.loads(streamed))


def check_the_validator_refuses(server, _):
    # What would pass anything shows nothing.
    for index, wrong in {0: {"name": "Tom"}, 5: 18, 7: "AB-123", 9: "2024-13-01", 18: {"when": "25:00:00Z", "many": []}, 21: "a"}.items():
        validator = jsonschema.Draft202012Validator(SCHEMAS[index], format_checker=FORMATS)
        assert not validator.is_valid(wrong), (SCHEMAS[index], wrong)
