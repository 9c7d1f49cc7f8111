//! The Jinja environment of transformers: its whitespace rules, functions, filters and tags.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::{held, iteration, json, limits, percent, python};

/// Marks an error that the template raised itself.
pub(super) const REFUSAL: &str = "raise_exception: ";

/// An environment without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    let whitespace = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(whitespace.expect("the standard delimiters do not clash"));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(python::method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment.add_filter(percent::FILTER, percent::percent);
    environment.add_filter(held::FILTER, held::held);
    iteration::add_filters(&mut environment);
    for name in ["e", "escape"] {
        environment.add_filter(name, python::escape);
    }
    environment.add_filter("urlencode", python::percent_encoded);
    environment.add_filter("truncate", python::truncate);
    environment.add_filter("random", python::random);
    environment.add_filter("wordcount", minijinja_contrib::filters::wordcount);
    environment.add_filter("wordwrap", python::wordwrap);
    environment.add_filter("striptags", minijinja_contrib::filters::striptags);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    environment.add_function("cycler", |items: Rest<Value>| {
        minijinja_contrib::globals::cycler(items.0)
    });
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_filter("int", python::int);
    environment.add_filter("float", python::float);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("callable", is_callable);
    environment.set_formatter(write_value);
    environment
}

/// Refuses the messages in the template's own words.
fn raise_exception(message: Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
}

/// The local date and time by a C `strftime` format.
fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).map_err(|error| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now({format:?}): {error}"),
        )
    })
}

/// Python's `json.dumps`: nothing is escaped for HTML, and other scripts stay readable.
fn to_json(state: &State, value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<String, Error> {
    let style = json::Style {
        ensure_ascii: ensure_ascii.or(options.get("ensure_ascii")?).unwrap_or(false),
        indent: options
            .get::<Option<Value>>("indent")?
            .filter(|indent| !indent.is_none()),
        separators: options
            .get::<Option<Value>>("separators")?
            .map(|pair| separators(&pair))
            .transpose()?,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json::dumps(value, &style, limits::bytes_left(state))
}

/// The pair (between items, between key and value).
fn separators(pair: &Value) -> Result<(String, String), Error> {
    let texts: Vec<String> = pair
        .try_iter()?
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect();
    let error = || Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts");
    let [item, key] = <[String; 2]>::try_from(texts).map_err(|_| error())?;
    Ok((item, key))
}

/// What has a length and can be indexed: in Python texts and mappings too.
fn is_sequence(value: &Value) -> bool {
    value.is_undefined() || matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
}

/// What a loop may go over; in Python `None` is not.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Functions and macros, and what is not defined, as in Jinja.
fn is_callable(value: &Value) -> bool {
    value.is_undefined() || value.kind() == ValueKind::Plain
}

/// `{{ value }}`: floats as Python writes them, all else as it comes.
fn write_value(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        let number = f64::try_from(value.clone())?;
        return output.write_str(&python::float_text(number)).map_err(Error::from);
    }
    minijinja::escape_formatter(output, state, value)
}

/// `{% generation %}`, which marks the assistant's words for training, as a block without effect.
pub(super) fn plain_blocks(source: &str) -> String {
    static TAG: LazyLock<regex::Regex> = LazyLock::new(|| {
        regex::Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("the pattern is valid")
    });
    TAG.replace_all(source, |tag: &regex::Captures| {
        let end = tag.get(2).map_or("", |end| end.as_str());
        format!("{{%{} {end}with {}%}}", &tag[1], &tag[3])
    })
    .into_owned()
}
