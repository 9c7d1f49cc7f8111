"""Golden chat texts: what transformers' apply_chat_template makes of the templates in chat_templates/.

The templates were written for this test; each uses the features of a family of published ones (ChatML, Llama 2 and 3,
Mistral, Gemma, Qwen, DeepSeek, Hermes, gpt-oss, Zephyr, Granite, GLM, Phi, EXAONE). FAMILIES says which. EXPRESSIONS are small pieces of Jinja where engines differ.

    python scripts/golden/templates.py      writes crates/planish-generate/tests/golden/templates.json
"""

import json
from pathlib import Path

import jinja2
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "crates/planish-generate/tests/golden/templates.json"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content=None, **more):
    return {"role": "assistant", "content": content, **more}


def call(name, arguments, id="abcdefghi"):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "Answer briefly, <b>\"politely\"</b> & in Zürich's ways. 你好"}
PLAIN = [user("What's 2 < 3?\n  Tell me. "), assistant(" It's true — «да». \n"), user("Why?")]
WITH_SYSTEM = [SYSTEM, *PLAIN]
ANSWERED = [user("Hi"), assistant("Hello!")]
THINKING = [
    user("Add 1 and 2."),
    assistant("<think>\nOne, two.\n</think>\n\n3"),
    user("And 3?"),
    assistant("6", reasoning_content="\nThree more.\n"),
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a <city> & its surroundings, in \"plain\" words. Ünïcode.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": " Name of the city "},
                    "days": {"type": "array", "items": {"type": "integer"}, "description": "Days"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Unit"},
                    "options": {
                        "type": "object",
                        "properties": {"deep": {"type": ["string", "null"], "description": "x"}},
                        "description": "More",
                    },
                },
                "required": ["city"],
            },
            "return": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}},
            "return": {"type": "boolean"},
        },
    },
]
TOOL_CHAT = [
    SYSTEM,
    user("Weather in Zürich?"),
    assistant(tool_calls=[call("get_weather", {"city": "Zürich", "days": [1, 2], "ratio": 0.5, "deep": None, "yes": True})]),
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": '{"temperature": 21.5}'},
    assistant("It is 21.5 °C."),
    user("Thanks. The time?"),
]
TWO_RESULTS = [
    user("Weather and time?"),
    assistant("Looking.", tool_calls=[call("get_weather", {"city": "Bern"}), call("now", {}, "123456789")]),
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "rain"},
    {"role": "tool", "tool_call_id": "123456789", "content": "noon"},
]
PARTS = [
    {"role": "system", "content": [{"type": "text", "text": "Look."}]},
    user([{"type": "image"}, {"type": "text", "text": " What is this? "}]),
    assistant([{"type": "text", "text": "A cat."}]),
    user("Sure?"),
]
DOCUMENTS = [{"title": "Cats", "text": "Cats\nsleep."}, {"text": "Dogs <bark>."}]

# template, conversation, further arguments
CASES = [
    ("chatml", PLAIN, {}),
    ("chatml", WITH_SYSTEM, {}),
    ("chatml", ANSWERED, {"add_generation_prompt": False}),
    ("inst", PLAIN, {}),
    ("inst", WITH_SYSTEM, {}),
    ("inst", [user("a"), user("b")], {}),
    ("header_tools", PLAIN, {"date_string": "01 Jan 2025"}),
    ("header_tools", TOOL_CHAT, {"date_string": "01 Jan 2025", "tools": TOOLS}),
    ("header_tools", TOOL_CHAT, {"date_string": "01 Jan 2025", "tools": TOOLS, "tools_in_user_message": False}),
    ("header_tools", TWO_RESULTS, {"date_string": "01 Jan 2025", "tools": TOOLS}),
    ("bracket_tools", PLAIN, {}),
    ("bracket_tools", WITH_SYSTEM, {}),
    ("bracket_tools", TOOL_CHAT, {"tools": TOOLS}),
    ("bracket_tools", TWO_RESULTS, {"tools": TOOLS}),
    ("bracket_tools", [user("a"), {"role": "judge", "content": "b"}], {}),
    ("turns", PLAIN, {}),
    ("turns", WITH_SYSTEM, {}),
    ("parts", PARTS, {}),
    ("parts", WITH_SYSTEM, {}),
    ("parts", [user(5)], {}),
    ("chatml_tools", PLAIN, {}),
    ("chatml_tools", TOOL_CHAT, {"tools": TOOLS}),
    ("chatml_tools", TWO_RESULTS, {"tools": TOOLS}),
    ("thinking", THINKING, {}),
    ("thinking", THINKING[:3], {"enable_thinking": False}),
    ("thinking", THINKING[:3] + [{"role": "assistant", "content": "6", "thinking": "t"}], {"add_generation_prompt": False}),
    ("flags", WITH_SYSTEM, {}),
    ("flags", TOOL_CHAT, {}),
    ("flags", TWO_RESULTS[:1] + [assistant(tool_calls=TWO_RESULTS[1]["tool_calls"])] + TWO_RESULTS[2:], {}),
    ("python_signature", TOOL_CHAT, {"tools": TOOLS}),
    ("python_signature", TWO_RESULTS, {"tools": TOOLS}),
    ("typescript", TOOL_CHAT, {"tools": TOOLS, "reasoning_effort": "high"}),
    ("typescript", ANSWERED, {"add_generation_prompt": False}),
    ("typescript", [{"role": "tool", "content": "?"}], {}),
    ("generation", WITH_SYSTEM, {}),
    ("generation", [{"role": "judge", "content": "x"}, *ANSWERED], {}),
    ("documents", PLAIN, {"documents": DOCUMENTS, "date": "today"}),
    ("documents", WITH_SYSTEM, {"documents": DOCUMENTS, "tools": TOOLS, "controls": {"length": "short", "<k>": 1.0}}),
    ("documents", PLAIN, {"controls": {"citations": True}, "add_generation_prompt": True}),
]

CASES += [
    (name, messages, {key: value for key, value in {"tools": TOOLS, **arguments}.items() if value is not None})
    for name, messages, arguments in [
        ("glm", TOOL_CHAT, {}), ("glm", TWO_RESULTS, {}), ("glm", WITH_SYSTEM, {"tools": None}),
        ("phi", TOOL_CHAT, {}), ("phi", TWO_RESULTS, {}), ("phi", WITH_SYSTEM, {"tools": None, "add_generation_prompt": False}),
        ("exaone", TOOL_CHAT, {}), ("exaone", TWO_RESULTS, {}), ("exaone", WITH_SYSTEM, {"enable_thinking": True}),
        ("python_signature", [SYSTEM, *TWO_RESULTS], {}), ("typescript", [SYSTEM, *TOOL_CHAT[1:]], {}),
        ("documents", TOOL_CHAT[:2], {}), ("documents", [SYSTEM, *TWO_RESULTS], {}), ("chatml", [SYSTEM, *TWO_RESULTS], {}),
        ("thinking", [SYSTEM, *TWO_RESULTS], {}), ("generation", [SYSTEM, *TWO_RESULTS], {}), ("chatml_tools", [SYSTEM, *TWO_RESULTS], {}),
    ]
]
# Families whose published templates have the roles, tokens and constructs of a template here.
FAMILIES = {
    "Llama 2, Mistral 7B": "inst", "Llama 3": "header_tools", "Mistral, Ministral": "bracket_tools", "Gemma 1 and 2": "turns",
    "Gemma 3": "parts", "SmolLM, OLMo": "chatml", "Qwen 2": "chatml_tools", "Qwen 3, SmolLM 3": "thinking", "DeepSeek": "flags",
    "Hermes": "python_signature", "gpt-oss": "typescript", "Zephyr, StableLM": "generation", "Granite, Command R": "documents",
    "GLM 4": "glm", "Phi 3 and 4": "phi", "EXAONE 4": "exaone",
}

# Rendered with `value` (below) and the special tokens as variables.
VALUE = {
    "text": "Grüße & <tags> 'single' \"double\"\n\ttab \\ slash \u2028 \x7f 😀",
    "numbers": [0, -1, 2.0, 0.1, 1e-5, 1e16, 1.5e300, 123456789012345678, True, None],
    "nested": {"b": [], "a": {}, "c": [[1], {"x": "y"}]},
    "words": "  one two  three ",
    "empty": "",
    "names": ["x", "y", "z"],
    "items": {"keys": 1, "values": 2},
}
EXPRESSIONS = [
    "{% for x in none %}{{ x }}{% endfor %}",
    "{% for x in none if x %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in value.missing %}{{ x }}{% else %}none{% endfor %}",
    "{%- for key, item in value.nested.items() -%}{{ key }}={{ loop.last }};{%- endfor -%}",
    "{% for x in [1, 2] if x > 1 %}{{ x }}{{ loop.length }}{% endfor %}{% for x in 'ab', 'c' %}{{ x }}{% endfor %}",
    "{% for x in (value.names if value.names else none) %}{{ x }}{{ loop.last }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "{{ value.names | map('upper') | tojson }}",
    "{{ value.names | select | tojson }}",
    "{{ value.names | map('upper') | list | tojson }}",
    "{{ value.numbers | batch(2) | tojson }}",
    "{% for row in value.names | batch(2) %}{{ row | join('+') }};{% endfor %}{{ value.names | slice(2) | list }}",
    "{% if [] | select %}yes{% else %}no{% endif %}{% if [] | select | list %}yes{% else %}no{% endif %}",
    "{{ value.names | map('upper') | first }} {{ value.names | map('length') | sum }} {{ value.names | map('upper') | join(',') }}",
    "{{ value.names | map('length') | sort | list }} {{ value.names | map('length') | max }} {{ 'x' in (value.names | map('lower')) }}",
    "{% for x in value.names | reject('equalto', 'x') %}{{ loop.index }}/{{ loop.length }} {{ x }}{{ loop.nextitem }};{% endfor %}",
    "{{ value.names | map('upper') is sequence }}|{{ value.names | map('upper') is iterable }}",
    "{{ 'one two three four' | truncate(length=9) }}|{{ 'one two three four' | truncate(7, killwords=True, end='~', leeway=0) }}",
    "{{ 'one two three' | wordwrap(width=8, wrapstring='/') }}|{{ 'a' | indent(width=2, first=True) }}|{{ [3, 1] | sort(reverse=true) }}",
    "{{ value.names | selectattr('x', 'defined') | list }}{{ [{'x': 1}, {}] | rejectattr('x', 'defined') | list }}",
    "{{ value.text | tojson }}",
    "{{ value.text | tojson(ensure_ascii=True) }}",
    "{{ value.numbers | tojson }}",
    "{{ value.nested | tojson }}",
    "{{ value.nested | tojson(indent=2) }}",
    "{{ value.nested | tojson(indent=2, sort_keys=True) }}",
    "{{ value.nested | tojson(separators=(',', ':')) }}",
    "{{ value.nested | tojson(indent=1, separators=(' ,', '=')) }}",
    "{{ value.numbers[:4] }}|{{ value.nested }}|{{ value.names }}",
    "{{ value.numbers[4] }} {{ value.numbers[5] }} {{ value.numbers[6] }} {{ value.numbers[2] }} {{ 0.1 + 0.2 }}",
    "{{ true }} {{ false }} {{ none }} {{ 1.0 }} {{ 1e16 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 }}",
    "{{ true ~ 1 ~ 2.5 ~ none ~ value.names }}",
    "{{ value.words.strip() }}|{{ value.words.lstrip() }}|{{ value.words.rstrip() }}|{{ value.words | trim }}",
    "{{ value.words.split() }}|{{ value.words.split(' ') }}|{{ 'a,b,c'.split(',', 1) }}|{{ 'a,b,c'.rsplit(',', 1) }}",
    "{{ 'abc'.startswith('a') }} {{ 'abc'.endswith(('b', 'c')) }} {{ 'abc'.find('z') }} {{ 'aXbX'.replace('X', '-') }}",
    "{{ 'ab'.upper() }} {{ 'AB'.lower() }} {{ 'ab cd'.title() }} {{ 'ab'.capitalize() }} {{ 'abcabc'.count('b') }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.json'.removesuffix('.json') }} {{ 'a=b=c'.partition('=') }}",
    "{{ '--a--'.strip('-') }} {{ 'xxay'.lstrip('x') }} {{ ', '.join(value.names) }} {{ 'line1\nline2'.splitlines() }}",
    "{{ '%s is %d' | format('x', 3) }} {{ '{} {}'.format(1, 'a') }} {{ '%05.1f' | format(2.345) }}",
    "{{ value.text is string }} {{ value.names is sequence }} {{ value.text is sequence }} {{ value.nested is sequence }}",
    "{{ value.nested is mapping }} {{ value.names is iterable }} {{ 5 is iterable }} {{ none is iterable }} {{ value.text is iterable }}",
    "{{ value.missing is defined }} {{ value.missing }} {{ value['missing'] is none }} {{ none is none }} {{ 1 is number }}",
    "{{ true is boolean }} {{ 1 is boolean }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is true }} {{ 1 is true }}",
    "{{ value.get('empty', 'd') }} {{ value.get('nope', 'd') }} {{ value.get('nope') }} {{ 'text' in value }} {{ 'q' not in value }}",
    "{{ value.nested.keys() | list }} {{ value.nested.values() | list }} {{ value['items'].items() | list }}",
    "{% for k, v in value.nested | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in value.nested %}{{ k }},{% endfor %} {{ value.nested | length }} {{ value.names | first }} {{ value.names | last }}",
    "{{ value.names[-1] }} {{ value.names[1:] }} {{ value.names[:-1] }} {{ value.names[::-1] }} {{ value.words[2:5] }}",
    "{{ value.names | map('upper') | list }} {{ value.names | reject('equalto', 'y') | list }} {{ value.names | join('/') }}",
    "{{ [1, 2] + [3] }} {{ 'a' * 3 }} {{ [0] * 2 }} {{ (1, 2) }} {{ (1,) }} {{ {'a': 'b', 1: none} }}",
    "{{ value.empty or 'default' }} {{ value.empty and 1 }} {{ not value.empty }} {{ 'x' if value.empty }} {{ value.empty | default('d', true) }}",
    "{{ range(3) | list }} {{ range(1, 6, 2) | list }} {{ dict(a=1, b='x') }} {{ namespace(a=1).a }}",
    "{%- for i in range(6) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{{ loop.index }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }} {% endfor %}",
    "{% set ns = namespace(n=0) %}{% for x in value.names %}{% set ns.n = ns.n + loop.index %}{% set y = x %}{% endfor %}{{ ns.n }}{{ y }}",
    "{% set block %}  a\n b{% endset %}[{{ block }}]{% filter upper %}x{{ 1 }}{% endfilter %}",
    "{% macro m(a, b='B', c=none) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m('x', 2) }}",
    "{% macro outer() %}<{{ caller() }}>{% endmacro %}{% call outer() %}inner{% endcall %}",
    "  {% if true %}\n  kept\n  {% endif %}\n  {%- if true %}  x{% endif -%}   \n  y {# note #}\n z\n",
    "{% raw %}{{ raw }}{% endraw %}{{ '{{' }}",
    "{% generation %}\n a {% set inside = 1 %}{% endgeneration %}\n{{ inside is defined }}",
    "{%- generation -%} b {%- endgeneration -%} c",
    "{{ value.numbers | select('number') | list | length }} {{ value.names | selectattr('x', 'undefined') | list }}",
    "{{ [3, 1, 2] | sort }} {{ [3, 1, 2] | max }} {{ [1, 2] | sum }} {{ ['b', 'A'] | sort }} {{ [1, 1, 2] | unique | list }}",
    "{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}",
    "{{ '3' | int + 1 }} {{ 'x' | int }} {{ 2.7 | int }} {{ '1.5' | float }} {{ 2.5 | round }} {{ -3 | abs }} {{ 5 | string + 'x' }}",
    "{{ bos_token }}{{ eos_token }}{{ cls_token }}{{ undefined_thing }}",
    "{{ undefined_thing.attribute }}",
    "{{ none.attribute is defined }}",
    "{{ 'a' + 1 }}",
    "{{ strftime_now('%Y') | length }} {{ strftime_now('%d %b %Y') | length }} {{ strftime_now('%Y-%m-%d %H:%M:%S')[4:5] }}",
    "{{ raise_exception('no: ' ~ value.names[0]) }}",
    "{{ 'x' | safe }} {{ '<' | escape }} {{ '<a>' | e }}",
    "{{ 1 if value.names | length > 2 else 0 }} {{ 1 < 2 < 3 }} {{ 'a' == \"a\" }} {{ 1 == 1.0 }} {{ 'b' > 'a' }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% with c = 3 %}{{ c }}{% endwith %}{{ c is defined }}",
    "{% for x in [] %}x{% else %}none{% endfor %}{% for a in [1, 2] if a > 1 %}{{ a }}{{ loop.length }}{% endfor %}",
    "{{ ['a', 'b', 'c'].index('b') }} {{ [1, 2, 1].count(1) }} {{ loop is defined }} {{ 'é' | length }} {{ 'ß'.upper() }}",
    "{{ {'a': 1} | items | list }} {{ [{'k': 1}, {'k': 2}] | map(attribute='k') | list }} {{ [[1, 2], [3]] | map('length') | list }}",
    "{{ {'a': {'b': 1}}.a.b }} {{ [{'r': 'u', 'n': 1}, {'r': 'v', 'n': 2}] | selectattr('r', '==', 'v') | map(attribute='n') | first }}",
]


def tokenizer():
    inner = Tokenizer(WordLevel({token: index for index, token in enumerate(SPECIAL.values())}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **SPECIAL)


def rendered(apply):
    """The text, or the template's own refusal, or that it fails."""
    try:
        return {"expected": apply()}
    except jinja2.exceptions.TemplateError as error:
        refused = type(error) is jinja2.exceptions.TemplateError
        return {"refusal": str(error)} if refused else {"fails": f"{type(error).__name__}: {error}"}
    except (TypeError, ValueError) as error:
        return {"fails": f"{type(error).__name__}: {error}"}


def main():
    peer = tokenizer()
    templates = {path.stem: path.read_text() for path in sorted((HERE / "chat_templates").glob("*.jinja"))}
    cases = []
    for name, messages, arguments in CASES:
        arguments = {"add_generation_prompt": True, **arguments}
        result = rendered(
            lambda: peer.apply_chat_template(messages, chat_template=templates[name], tokenize=False, **arguments)
        )
        cases.append({"template": name, "messages": messages, "arguments": arguments, **result})
    expressions = []
    for source in EXPRESSIONS:
        arguments = {"add_generation_prompt": False, "value": VALUE}
        result = rendered(
            lambda: peer.apply_chat_template([user("x")], chat_template=source, tokenize=False, **arguments)
        )
        expressions.append({"source": source, **result})
    golden = {
        "made_by": "scripts/golden/templates.py",
        "versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
        "special_tokens": SPECIAL,
        "families": FAMILIES,
        "templates": templates,
        "cases": cases,
        "value": VALUE,
        "expressions": expressions,
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    failing = [case["fails"] for case in cases + expressions if "fails" in case]
    print(f"{TARGET}: {len(cases)} cases, {len(expressions)} expressions; failing as they should: {failing}")


if __name__ == "__main__":
    main()
