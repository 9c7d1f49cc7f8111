"""The `anthropic` client: messages, tokens, models, errors."""

import anthropic

from checks import PROMPT, refuses, same

MESSAGES = [{"role": "user", "content": PROMPT}]
TOOL = {
    "name": "weather",
    "description": "The weather of a town.",
    "input_schema": {
        "type": "object",
        "properties": {"town": {"enum": ["Bern", "Rome"]}},
        "required": ["town"],
        "additionalProperties": False,
    },
}


def client(server, **more):
    return anthropic.Anthropic(base_url=server.url, **{"api_key": "none", "max_retries": 0, **more})


def kind(**more):
    # The client has no argument for these fields any more; the API has them.
    body = {"temperature": 0, **{name: more.pop(name) for name in ("temperature", "top_k", "top_p") if name in more}}
    return {"model": "story", "max_tokens": 24, "messages": MESSAGES, **more, "extra_body": {**body, **more.get("extra_body", {})}}


def ask(server, **more):
    return client(server).messages.create(**kind(**more))


def check_messages_whole_and_in_events(server, _):
    system = [{"type": "text", "text": "Tell stories to a child.", "cache_control": {"type": "ephemeral"}}]
    more = {"system": system, "metadata": {"user_id": "me"}}
    counted = client(server).messages.count_tokens(model="story", messages=MESSAGES, system=system).input_tokens
    whole = ask(server, **more)
    assert whole.content[0].text and whole._request_id.startswith("req-")
    same((whole.stop_reason, whole.usage.output_tokens, whole.role), ("max_tokens", 24, "assistant"))
    same(whole.usage.input_tokens + whole.usage.cache_read_input_tokens, counted)
    with client(server).messages.stream(**kind(**more)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    same((text, final.content[0].text), (whole.content[0].text, whole.content[0].text))
    same(final.usage.input_tokens + final.usage.cache_read_input_tokens, counted)
    assert final.usage.cache_read_input_tokens > 0
    events = list(ask(server, stream=True, **more))
    same(events[0].message.usage.input_tokens + events[0].message.usage.cache_read_input_tokens, counted, "the first event tells it")


def check_choices_of_words_and_stops(server, _):
    greedy = ask(server).content[0].text
    same(ask(server, temperature=1, top_k=1).content[0].text, greedy)
    same(ask(server, temperature=1, top_p=0.0001).content[0].text, greedy)
    stop = greedy[8:18]
    stopped = ask(server, stop_sequences=["never there", stop])
    same((stopped.stop_reason, stopped.stop_sequence), ("stop_sequence", stop))
    same("".join(block.text for block in stopped.content), greedy[: greedy.index(stop)])


def check_conversations_and_thinking(server, _):
    before = [*MESSAGES, {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "text", "text": "there was a cat."}]}]
    assert ask(server, messages=[*before, {"role": "user", "content": [{"type": "text", "text": "Go on."}]}]).content
    for thinking in ({"type": "disabled"}, {"type": "adaptive"}):
        assert ask(server, thinking=thinking).content


def check_an_agent_goes_round(server, _):
    more = {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "max_tokens": 120}
    called = ask(server, **more)
    call = next(block for block in called.content if block.type == "tool_use")
    same((called.stop_reason, call.name), ("tool_use", "weather"))
    assert call.input["town"] in ("Bern", "Rome")
    with client(server).messages.stream(**kind(**more)) as stream:
        final = stream.get_final_message()
    same([block.input for block in final.content if block.type == "tool_use"], [call.input])
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Sunny."}]}
    turns = [*MESSAGES, {"role": "assistant", "content": [block.to_dict() for block in called.content]}, {"role": "user", "content": [result]}]
    told = ask(server, messages=turns, tools=[TOOL], tool_choice={"type": "none"})
    same(told.content[0].type, "text")
    counted = client(server).messages.count_tokens(model="story", messages=turns, tools=[TOOL], tool_choice={"type": "none"}).input_tokens
    same(told.usage.input_tokens + told.usage.cache_read_input_tokens, counted)


def check_structured_answers(server, _):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    answer = ask(server, max_tokens=100, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert '"a"' in answer.content[0].text, answer


def check_what_is_not_done_is_named(server, _):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    for word, more in {
        "temperature": {"temperature": -1},
        "container": {"container": "c"},
        "mcp_servers": {"extra_body": {"mcp_servers": [{}]}},
        "web_search": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "messages[0].content[0]": {"messages": [{"role": "user", "content": [image]}]},
        "messages[1]": {"messages": [*MESSAGES, {"role": "assistant", "content": "It"}]},
    }.items():
        refuses(anthropic.BadRequestError, lambda: ask(server, **more), word)


def check_errors_are_the_clients_own(server, locked):
    error = refuses(anthropic.NotFoundError, lambda: ask(server, model="other"), "other")
    same((error.body["type"], error.body["error"]["type"]), ("error", "not_found_error"))
    refuses(anthropic.BadRequestError, lambda: ask(server, messages=[{"role": "user", "content": "word " * 9000}]), "tokens")
    refuses(anthropic.AuthenticationError, lambda: ask(locked), "API key")
    assert client(locked, api_key="secret").messages.create(**kind()).content


def check_models(server, _):
    same([card.id for card in client(server).models.list()], ["story"])
    same(client(server).models.retrieve("story").type, "model")
