"""The `openai` client: chat completions, completions, responses, errors."""

import json

import openai
import pydantic

from checks import PROMPT, refuses, same

MESSAGES = [{"role": "system", "content": "Tell stories."}, {"role": "user", "content": PROMPT}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Bern", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["town", "days"],
            "additionalProperties": False,
        },
    },
}


def client(server, **more):
    return openai.OpenAI(base_url=f"{server.url}/v1", **{"api_key": "none", "max_retries": 0, **more})


def ask(server, **more):
    return client(server).chat.completions.create(**{"model": "story", "messages": MESSAGES, "max_tokens": 24, "temperature": 0, **more})


def said(answer):
    return answer.choices[0].message.content


def check_chat_whole_and_in_pieces(server, _):
    answer = ask(server)
    assert said(answer) and answer.model == "story" and answer._request_id.startswith("req-")
    same(answer.choices[0].finish_reason, "length")
    same(answer.usage.completion_tokens, 24)
    same(answer.usage.total_tokens, answer.usage.prompt_tokens + 24)
    chunks = list(ask(server, stream=True, stream_options={"include_usage": True}))
    same("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), said(answer))
    same([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "length")
    same((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 24))
    assert all(chunk.usage is None for chunk in chunks[:-1]) and len({chunk.id for chunk in chunks}) == 1
    # The prompt is remembered now.
    assert 0 < chunks[-1].usage.prompt_tokens_details.cached_tokens < answer.usage.prompt_tokens


def check_lengths_and_stops(server, _):
    whole = said(ask(server, max_tokens=40))
    same(ask(server, max_tokens=None, max_completion_tokens=3).usage.completion_tokens, 3)
    # Across words, and so across tokens.
    stop = whole[len(whole) // 3 : len(whole) // 3 + 12]
    expected = whole[: whole.index(stop)]
    stopped = ask(server, max_tokens=40, stop=["never there", stop])
    same((said(stopped), stopped.choices[0].finish_reason), (expected, "stop"))
    chunks = ask(server, max_tokens=40, stop=stop, stream=True)
    same("".join(chunk.choices[0].delta.content or "" for chunk in chunks), expected)


def check_choices_of_words(server, _):
    greedy = said(ask(server))
    for more in ({"top_p": 0.0001}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1.0}}):
        same(said(ask(server, temperature=1, seed=5, **more)), greedy, more)
    whole = {"temperature": 1.5, "extra_body": {"ignore_eos": True}}
    drawn = [said(ask(server, seed=seed, **whole)) for seed in (7, 7, 8)]
    assert drawn[0] == drawn[1] != drawn[2], drawn
    several = ask(server, seed=7, n=3, **whole)
    same([choice.index for choice in several.choices], [0, 1, 2])
    same((said(several), several.choices[1].message.content), (drawn[0], drawn[2]))
    same(several.usage.completion_tokens, 72)
    assert said(ask(server, extra_body={"repetition_penalty": 2.0}, max_tokens=60)) != said(ask(server, max_tokens=60))
    for more in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        assert said(ask(server, max_tokens=60, **more)) != said(ask(server, max_tokens=60)), more


def check_logit_bias(server, _):
    token = client(server).post("/tokenize", body={"prompt": " dog"}, cast_to=object)["tokens"][-1]
    forced = ask(server, logit_bias={str(token): 100}, max_tokens=4)
    same(said(forced).strip(), "dog dog dog dog")
    first = ask(server, max_tokens=1, logprobs=True).choices[0].logprobs.content[0].token
    usual = client(server).post("/tokenize", body={"prompt": first}, cast_to=object)["tokens"][-1]
    assert said(ask(server, max_tokens=1, logit_bias={str(usual): -100})) != first


def check_logprobs(server, _):
    answer = ask(server, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    same(len(content), 24)
    same("".join(one.token for one in content), said(answer))
    for one in content:
        tops = [top.logprob for top in one.top_logprobs]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True) and one.logprob == tops[0] <= 0, one
        same(bytes(one.bytes).decode(errors="replace"), one.token)
    chunks = list(ask(server, logprobs=True, top_logprobs=3, stream=True))
    streamed = [one for chunk in chunks if chunk.choices and chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    same([one.token for one in streamed], [one.token for one in content])


def check_completions(server, _):
    complete = client(server).completions.create
    one = complete(model="story", prompt=PROMPT, max_tokens=8, temperature=0)
    tokens = client(server).post("/tokenize", body={"prompt": PROMPT}, cast_to=object)["tokens"]
    several = complete(model="story", prompt=[PROMPT, "The cat"], max_tokens=8, temperature=0)
    same(several.choices[0].text, one.choices[0].text)
    same([choice.index for choice in several.choices], [0, 1])
    same(complete(model="story", prompt=tokens, max_tokens=8, temperature=0).choices[0].text, one.choices[0].text)
    chunks = complete(model="story", prompt=PROMPT, max_tokens=8, temperature=0, stream=True)
    same("".join(chunk.choices[0].text for chunk in chunks), one.choices[0].text)
    told = complete(model="story", prompt=PROMPT, max_tokens=8, temperature=0, logprobs=2).choices[0].logprobs
    same("".join(told.tokens), one.choices[0].text)
    assert len(told.token_logprobs) == 8 and all(len(top) in (2, 3) for top in told.top_logprobs)
    for more in ({"suffix": "the end"}, {"best_of": 3}):
        refuses(openai.BadRequestError, lambda: complete(model="story", prompt=PROMPT, **more), *more)


def check_structured_answers(server, _):
    class Animal(pydantic.BaseModel):
        kind: str = pydantic.Field(pattern="^(dog|cat)$")
        legs: int = pydantic.Field(ge=2, le=4)
        friends: list[bool] = pydantic.Field(min_length=1, max_length=2)

    for stream in (False, True):
        kind = {"model": "story", "messages": MESSAGES, "max_tokens": 200, "temperature": 1, "seed": 3, "response_format": Animal}
        if stream:
            with client(server).chat.completions.stream(**kind) as events:
                parsed = events.get_final_completion().choices[0].message.parsed
        else:
            parsed = client(server).chat.completions.parse(**kind).choices[0].message.parsed
        assert parsed.kind in ("dog", "cat") and 2 <= parsed.legs <= 4, parsed
    # The story model tells no end of it.
    assert said(ask(server, response_format={"type": "json_object"})).lstrip().startswith("{")


def check_an_agent_goes_round(server, _):
    """A call, its result, an answer; whole and in pieces."""
    # The story model would call for ever.
    kind = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 120}
    message = ask(server, **kind).choices[0].message
    call = message.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "weather" and arguments["town"] in ("Bern", "Rome") and 1 <= arguments["days"] <= 9, call
    same(ask(server, **kind).choices[0].finish_reason, "tool_calls")
    chunks = [chunk.choices[0] for chunk in ask(server, stream=True, **kind) if chunk.choices]
    pieces = [piece for chunk in chunks for piece in chunk.delta.tool_calls or []]
    same("".join(piece.function.arguments or "" for piece in pieces if piece.index == 0), call.function.arguments)
    same((pieces[0].function.name, chunks[-1].finish_reason), ("weather", "tool_calls"))
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    told = ask(server, messages=[*MESSAGES, message.to_dict(), result], tools=[TOOL], tool_choice="none")
    assert said(told) and not told.choices[0].message.tool_calls
    named = {"type": "function", "function": {"name": "weather"}}
    same(ask(server, **{**kind, "tool_choice": named}).choices[0].message.tool_calls[0].function.name, "weather")


def check_what_is_not_done_is_named(server, _):
    for param, more in {
        "store": {"store": True},
        "audio": {"audio": {"voice": "alloy", "format": "wav"}},
        "modalities": {"modalities": ["audio"]},
        "prediction": {"prediction": {"type": "content", "content": "A"}},
        "web_search_options": {"web_search_options": {}},
        "temperature": {"temperature": 3},
        "n": {"n": 0},
        "stop": {"stop": ["a"] * 99},
        "top_logprobs": {"logprobs": True, "top_logprobs": 99},
        "messages[0].content[0]": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]},
    }.items():
        error = refuses(openai.BadRequestError, lambda: ask(server, **more), param.split("[")[0])
        same(error.param, param)
    unknown = client(server).chat.completions.with_raw_response.create(
        model="story", messages=MESSAGES, max_tokens=1, extra_body={"mirostat": 2})
    same(unknown.headers["x-planish-ignored"], "mirostat")


def check_errors_are_the_clients_own(server, locked):
    refuses(openai.NotFoundError, lambda: ask(server, model="other"), "other")
    error = refuses(openai.BadRequestError, lambda: ask(server, messages=[{"role": "user", "content": "word " * 9000}]))
    same(error.code, "context_length_exceeded")
    refuses(openai.AuthenticationError, lambda: client(locked).models.list())
    same(client(locked, api_key="secret").models.list().data[0].id, "story")
    refuses(openai.NotFoundError, lambda: client(server).files.list())


def check_models(server, _):
    same([card.id for card in client(server).models.list()], ["story"])
    same(client(server).models.retrieve("story").id, "story")


def check_responses(server, _):
    create = client(server).responses.create
    kind = {"model": "story", "instructions": "Tell stories.", "input": PROMPT, "max_output_tokens": 24, "temperature": 0}
    whole = create(**kind)
    same((whole.output_text, whole.status, whole.incomplete_details.reason), (said(ask(server)), "incomplete", "max_output_tokens"))
    same((whole.usage.output_tokens, whole.usage.output_tokens_details.reasoning_tokens), (24, 0))
    with client(server).responses.stream(**kind) as events:
        # The client's own final response wants one that was completed.
        told = list(events)
    kinds = [event.type for event in told]
    same(told[-1].response.output_text, whole.output_text)
    same((kinds[0], kinds[-1]), ("response.created", "response.incomplete"))
    more = create(**{**kind, "input": [
        {"role": "user", "content": PROMPT}, *[item.to_dict() for item in whole.output], {"role": "user", "content": "Go on."}]})
    assert more.output_text
    tool = {"type": "function", **TOOL["function"]}
    forced = {**kind, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 120}
    called = create(**forced)
    call = next(item for item in called.output if item.type == "function_call")
    assert call.name == "weather" and json.loads(call.arguments)["town"] in ("Bern", "Rome")
    with client(server).responses.stream(**forced) as events:
        kinds = [event.type for event in events]
    assert "response.function_call_arguments.done" in kinds, kinds
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
    told = create(**{**kind, "tools": [tool], "tool_choice": "none", "input": [{"role": "user", "content": PROMPT}, call.to_dict(), result]})
    assert told.output_text
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    formed = create(**{**kind, "text": {"format": {"type": "json_schema", "name": "a", "strict": True, "schema": schema}}})
    assert isinstance(json.loads(formed.output_text)["a"], bool)
    for param, value in {"previous_response_id": "r", "background": True, "truncation": "auto"}.items():
        same(refuses(openai.BadRequestError, lambda: create(**kind, **{param: value}), param).param, param)
