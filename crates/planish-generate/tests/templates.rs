//! Chat templates against transformers' apply_chat_template (tests/golden/templates.json).

use planish_generate::{ChatTemplate, Error, Message, TemplateInput};
use serde_json::{Map, Value};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/templates.json")).unwrap()
}

fn special(golden: &Value) -> Vec<(String, String)> {
    let tokens = golden["special_tokens"].as_object().unwrap();
    tokens
        .iter()
        .map(|(role, text)| (role.clone(), text.as_str().unwrap().to_owned()))
        .collect()
}

fn template(source: &str, golden: &Value) -> Result<ChatTemplate, Error> {
    ChatTemplate::compile(vec![("default".to_owned(), source.to_owned())], special(golden))
}

fn messages(value: &Value) -> Vec<Message> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|fields| Message::from_fields(fields.as_object().unwrap().clone()))
        .collect()
}

fn input(arguments: &Map<String, Value>) -> TemplateInput {
    let mut variables = arguments.clone();
    let mut list = |key: &str| variables.remove(key).map(|list| list.as_array().unwrap().clone());
    let (tools, documents) = (list("tools"), list("documents"));
    let add_generation_prompt = variables.remove("add_generation_prompt").unwrap().as_bool().unwrap();
    TemplateInput {
        add_generation_prompt,
        tools,
        documents,
        variables,
    }
}

/// What differs, or nothing.
fn difference(case: &Value, result: Result<String, Error>) -> Option<String> {
    let expected = |key: &str| case.get(key).and_then(Value::as_str);
    match (result, expected("expected"), expected("refusal")) {
        (Ok(text), Some(expected), _) if text == expected => None,
        (Err(Error::Template(words)), _, Some(refusal)) if words == refusal => None,
        (Err(_), None, None) => None,
        (result, ..) => {
            let mut case = case.clone();
            if let Some(case) = case.as_object_mut() {
                case.retain(|key, _| ["source", "template", "expected", "refusal", "fails"].contains(&key.as_str()));
            }
            Some(format!("{case:#}\n   found {result:?}"))
        }
    }
}

#[test]
fn conversations_read_as_in_transformers() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 39);
    let render = |case: &Value| {
        let source = golden["templates"][case["template"].as_str().unwrap()]
            .as_str()
            .unwrap();
        template(source, &golden)?.render(
            &messages(&case["messages"]),
            &input(case["arguments"].as_object().unwrap()),
        )
    };
    let different: Vec<String> = cases.iter().filter_map(|case| difference(case, render(case))).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn expressions_mean_the_same_as_in_jinja() {
    let golden = golden();
    let cases = golden["expressions"].as_array().unwrap();
    assert!(cases.len() >= 57);
    let mut variables = Map::new();
    variables.insert("value".into(), golden["value"].clone());
    let input = TemplateInput {
        variables,
        ..TemplateInput::default()
    };
    let render = |case: &Value| {
        template(case["source"].as_str().unwrap(), &golden)?.render(&[Message::new("user", "x")], &input)
    };
    let different: Vec<String> = cases.iter().filter_map(|case| difference(case, render(case))).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn a_template_that_does_not_compile_is_named_with_its_line() {
    let error = template("fine\n{% if %}", &golden()).unwrap_err().to_string();
    assert!(error.starts_with("chat template: "), "{error}");
    assert!(error.contains("line 2") || error.contains(":2"), "{error}");
}

/// The families that the golden file names, and whether a rendered conversation of each has a system and a tool message.
#[test]
fn ten_families_read_system_and_tool_messages() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    let has = |template: &Value, role: &str| {
        let rendered = cases
            .iter()
            .filter(|case| case["template"] == *template && case["expected"].is_string());
        let mut messages = rendered.flat_map(|case| case["messages"].as_array().unwrap());
        messages.any(|message| message["role"] == role)
    };
    let families = golden["families"].as_object().unwrap();
    let both = families
        .values()
        .filter(|template| has(template, "system") && has(template, "tool"));
    assert!(both.count() >= 10 && families.len() >= 15);
}

fn render(source: &str) -> Result<String, String> {
    let template = ChatTemplate::compile(vec![("default".to_owned(), source.to_owned())], Vec::new());
    let messages = [Message::new("user", "hello")];
    template
        .and_then(|template| template.render(&messages, &TemplateInput::default()))
        .map_err(|error| error.to_string())
}

/// A template comes with a model: it may not take all time, memory or stack of whoever runs it.
#[test]
fn hostile_templates_end() {
    let doubling = |step: &str| {
        format!(
            "{{% set ns = namespace(x='aaaaaaaa') %}}{{% for i in range(60) %}}{step}{{% endfor %}}{{{{ ns.x|length }}}}"
        )
    };
    let nested = |use_it: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range(60000) %}}{{% set ns.x = [ns.x] %}}{{% endfor %}}{use_it}"
        )
    };
    let long = "{% set a = 'a' * 1000000 %}";
    let hostile = [
        nested("{{ ns.x|tojson }}"),
        nested("{{ ns.x }}"),
        nested("{{ ns.x|string|length }}"),
        nested("{{ ns.x == [1] }}{{ [ns.x, ns.x]|unique|list|length }}{{ ns.x in [ns.x] }}"),
        nested("{{ ns.x|pprint|length }}"),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(60_000), ")".repeat(60_000)),
        format!("{{{{ {}true }}}}", "not ".repeat(60_000)),
        format!("{{{{ x{} }}}}", ".y".repeat(60_000)),
        format!("{{{{ 1{} }}}}", "|abs".repeat(60_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 2".repeat(15_000)),
        format!("{}{}", "{% if true %}".repeat(10_000), "{% endif %}".repeat(10_000)),
        doubling("{% set ns.x = ns.x ~ ns.x %}"),
        doubling("{% set ns.x = ns.x + ns.x %}"),
        doubling("{% set ns.x = ns.x * 2 %}"),
        doubling("{% set ns.x = [ns.x, ns.x]|join %}"),
        doubling("{% set ns.x = ns.x|replace('a', 'aa') %}"),
        doubling("{% set ns.x = ns.x.replace('a', 'aa') %}"),
        doubling("{% set ns.x = ns.x.join(['a', 'b', ns.x]) %}"),
        doubling("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
        doubling("{% set ns.x = '%s%s'|format(ns.x, ns.x) %}"),
        doubling("{% set ns.x = '{0}{0}'.format(ns.x) %}"),
        doubling("{% set ns.x = [ns.x, ns.x] %}") + "{{ ns.x|tojson }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for i in range(100000000000) %}{% endfor %}".to_owned(),
        "{{ range(100000000000)|list }}".to_owned(),
        "{{ [1]|batch(10000000000, 1)|list }}".to_owned(),
        "{{ [1]|slice(10000000000, 1)|list }}".to_owned(),
        "{{ '%1000000000d'|format(1) }}".to_owned(),
        "{{ '%.1000000000f' % 1.5 }}".to_owned(),
        "{{ '{:>1000000000}'.format('a') }}".to_owned(),
        "{{ 'a'|indent(1000000000000) }}".to_owned(),
        "{{ 'a'|center(1000000000000) }}".to_owned(),
        "{{ 'a'.center(1000000000000) }}{{ 'a'.zfill(1000000000000) }}{{ 'a'.ljust(1000000000000) }}".to_owned(),
        "{{ 'a' * 1000000000000 }}".to_owned(),
        "{{ [1] * 1000000000000 }}".to_owned(),
        format!("{long}{{{{ a.replace('a', a) }}}}"),
        format!("{long}{{{{ a|replace('a', a) }}}}"),
        format!("{long}{{{{ a.join(a) }}}}"),
        format!("{long}{{{{ a|list|join(a) }}}}"),
        format!("{long}{{% for i in range(1000000) %}}{{{{ a.split('a')|length }}}}{{% endfor %}}"),
        format!("{long}{{% for i in range(1000000) %}}{{% if a.upper() == a.lower() %}}{{% endif %}}{{% endfor %}}"),
        format!(
            "{long}{{% for i in range(1000000) %}}{{% if a.endswith('b') or a.count('b') or a.find('b') > 0 %}}{{% endif %}}{{% endfor %}}"
        ),
        "{{ messages|tojson(indent='a' * 1000000) }}".to_owned()
            + &"{{ messages|tojson(indent='a' * 1000000) }}".repeat(50),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}".to_owned(),
        "{% for a in [1] %}{{ loop.cycle() }}{% endfor %}".to_owned(),
        "x".repeat(1 << 20),
    ];
    for source in hostile {
        let start = std::time::Instant::now();
        let rendered = render(&source);
        let shown: String = source.chars().take(150).collect();
        assert!(start.elapsed().as_secs() < 5, "{shown} took {:?}", start.elapsed());
        // Whatever ends by itself is fine; what does not is refused, in words about the template.
        match rendered {
            Ok(text) => assert!(text.len() < 1 << 26, "{shown} gave {} bytes", text.len()),
            Err(error) => assert!(error.starts_with("chat template: "), "{shown}: {error}"),
        }
    }
    let refused =
        render("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}").unwrap_err();
    assert!(refused.contains("computes too much"), "{refused}");
    let refused = render("{% for a in [1] %}{{ loop.cycle() }}{% endfor %}").unwrap_err();
    assert!(refused.contains("the template engine failed on it"), "{refused}");
}

/// Comparing values that hold another many times over has no price in fuel: the clock ends it, and the template is not run again.
#[test]
fn endless_comparisons_end() {
    let source = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}\
                  {% endfor %}{{ ns.x == ns.y }}";
    let template = ChatTemplate::compile(vec![("default".to_owned(), source.to_owned())], Vec::new()).unwrap();
    for seconds in [10, 3] {
        let start = std::time::Instant::now();
        let error = template
            .render(&[Message::new("user", "x")], &TemplateInput::default())
            .unwrap_err();
        assert!(error.to_string().contains("computes too much"), "{error}");
        assert!(start.elapsed().as_secs() < seconds, "{:?}", start.elapsed());
    }
}

#[test]
fn namespaces_do_not_hold_themselves() {
    for source in [
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.x = [{'a': (1, ns)}] %}{{ ns ~ '' }}",
        "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.x, c = b, 1 %}{{ a == b }}",
        "{% set ns = namespace() %}{% set ns.x | default(ns, true) %}{% endset %}{{ ns }}",
    ] {
        let refused = render(source).unwrap_err();
        assert!(refused.contains("a namespace would hold itself"), "{source}: {refused}");
    }
    let nested = "{% set ns = namespace() %}{% set ns.x = namespace(y=1) %}{% set ns.x.y = [ns.x.y, 2] %}{% set ns.z, q = 3, 4 -%} {{ ns.x.y }}{{ ns.z }}{{ q }}";
    assert_eq!(render(nested).unwrap(), "[1, 2]34");
}

/// What a long conversation takes is paid for by its length.
#[test]
fn long_conversations_are_rendered() {
    let source =
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content|trim }}{{ m.content.split('x')[0]|length }}{% endfor %}";
    let template = ChatTemplate::compile(vec![("default".to_owned(), source.to_owned())], Vec::new()).unwrap();
    let messages: Vec<Message> = (0..2000).map(|_| Message::new("user", "word ".repeat(400))).collect();
    let text = template.render(&messages, &TemplateInput::default()).unwrap();
    assert!(text.len() > 4_000_000);
}

/// Idioms of Python and Jinja that templates of the Hub use; the right side is what transformers renders.
#[test]
fn python_idioms() {
    for (source, expected) in [
        ("{{ '%s-%d-%05.2f' % ('x', 3, 1.5) }}", "x-3-01.50"),
        ("{{ '%s' % 'x' }}|{{ '%s' % messages[0].role|upper }}", "x|USER"),
        ("{{ '%(a)s' % {'a': 1} }}", "1"),
        ("{{ 'abc'.index('b') }}|{{ 'abcb'.rindex('b') }}", "1|3"),
        (
            "{{ \"it's\".title() }}|{{ 'aB'.swapcase() }}|{{ 'tEST'.casefold() }}",
            "It'S|Ab|test",
        ),
        (
            "{{ '5'.zfill(3) }}|{{ '-5'.zfill(4) }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3) }}|{{ 'a'.center(4, '*') }}",
            "005|-005|a  |  a|*a**",
        ),
        ("{{ 'ab'.center(5, '*') }}|{{ 'a\\tb'.expandtabs(4) }}", "**ab*|a   b"),
        ("{{ [1,2].copy() }}|{{ {'a':1}.copy() }}", "[1, 2]|{'a': 1}"),
        ("{{ raise_exception is callable }}|{{ 1 is callable }}", "True|False"),
        ("{{ 'a<b>&\"'|e }}", "a&lt;b&gt;&amp;&#34;"),
        (
            "{{ 'abcdef'|truncate(3) }}|{{ 'abcdefghijk'|truncate(5, true, '..', 0) }}|{{ 'a b c'|wordcount }}",
            "abcdef|abc..|3",
        ),
        (
            "{{ 'a b'|urlencode }}|{{ 'abc'|wordwrap(2) }}|{{ '<b>x</b>'|striptags }}|{{ 123456|filesizeformat }}",
            "a%20b|ab\nc|x|123.5 kB",
        ),
        ("{% set j = joiner(',') %}{{ j() }}a{{ j() }}b", "a,b"),
        ("{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}", "ab"),
        ("{{ [1]|random }}", "1"),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
    assert!(
        render("{{ 'abc'.index('z') }}")
            .unwrap_err()
            .contains("substring not found")
    );
}
