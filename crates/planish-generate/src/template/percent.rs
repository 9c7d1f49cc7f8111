//! Python's `'%s and %s' % (a, b)`. The engine's `%` is for numbers, so that in the source of a template a text literal before `%` and
//! what follows become a call of the filter [`FILTER`].

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, State};

use super::tags::{self, after_brackets, after_text, after_word};

/// `text|percent(values)`.
pub(super) const FILTER: &str = "percent";

/// As Python's operator: a tuple gives a value for each place, a mapping values by name, anything else is the only value.
pub(super) fn percent(state: &mut State, text: &Value, values: &Value) -> Result<Value, Error> {
    let mut arguments = vec![text.clone()];
    match values.kind() {
        _ if values.is_tuple() => arguments.extend(values.try_iter()?),
        ValueKind::Map if text.as_str().is_some_and(|text| text.contains("%(")) => {
            let pairs = values
                .try_iter()?
                .map(|key| Ok((key.to_string(), values.get_item(&key)?)));
            let pairs = pairs.collect::<Result<Vec<(String, Value)>, Error>>()?;
            arguments.push(Kwargs::from_iter(pairs).into());
        }
        _ => arguments.push(values.clone()),
    }
    state.apply_filter("format", &arguments)
}

/// The source with such operators as filters.
pub(super) fn rewrite(source: &str) -> String {
    let bytes = source.as_bytes();
    let (mut written, mut copied) = (String::new(), 0);
    for inside in tags::insides(source) {
        let (tag, mut at) = (&bytes[..inside.end], inside.start);
        while at < tag.len() {
            if !matches!(tag[at], b'\'' | b'"') {
                at += 1;
                continue;
            }
            at = after_text(tag, at);
            let operator = skip_space(tag, at);
            if tag.get(operator) != Some(&b'%') {
                continue;
            }
            let start = skip_space(tag, operator + 1);
            let Some(end) = after_operand(tag, start) else {
                continue;
            };
            written.push_str(&source[copied..at]);
            written.push_str(&format!("|{FILTER}({})", rewrite_inside(&source[start..end])));
            (copied, at) = (end, end);
        }
    }
    written.push_str(&source[copied..]);
    written
}

/// The same for an operand, which stands in a tag.
fn rewrite_inside(operand: &str) -> String {
    if !operand.contains('%') {
        return operand.to_owned();
    }
    let whole = rewrite(&format!("{{{{{operand}}}}}"));
    let inner = whole.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    inner.unwrap_or(operand).to_owned()
}

fn skip_space(bytes: &[u8], from: usize) -> usize {
    let space = bytes[from..]
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count();
    from + space
}

/// The place after an operand: a value, its attributes, items, calls and filters.
fn after_operand(bytes: &[u8], from: usize) -> Option<usize> {
    let start = match bytes.get(from)? {
        b'-' | b'+' => skip_space(bytes, from + 1),
        _ => from,
    };
    let mut end = match bytes.get(start)? {
        b'(' | b'[' | b'{' => after_brackets(bytes, start)?,
        b'\'' | b'"' => after_text(bytes, start),
        byte if byte.is_ascii_digit() => {
            let whole = after_word(bytes, start);
            match bytes.get(whole) {
                Some(b'.') => after_word(bytes, whole + 1),
                _ => whole,
            }
        }
        _ => Some(after_word(bytes, start)).filter(|&end| end > start)?,
    };
    loop {
        let next = skip_space(bytes, end);
        end = match bytes.get(next) {
            Some(b'.' | b'|') => {
                let name = skip_space(bytes, next + 1);
                Some(after_word(bytes, name)).filter(|&end| end > name)?
            }
            Some(b'[' | b'(') => after_brackets(bytes, next)?,
            _ => return Some(end),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn operators_after_literals_become_filters() {
        for (source, expected) in [
            ("{{ 'a%s' % x }}", "{{ 'a%s'|percent(x) }}"),
            ("{{ 'a%s'%x.y[0]|upper ~ 1 }}", "{{ 'a%s'|percent(x.y[0]|upper) ~ 1 }}"),
            ("{{ '%s-%d' % ('x', 3) }}", "{{ '%s-%d'|percent(('x', 3)) }}"),
            (
                "{% set a = \"%s\" % f(1, ')') %}",
                "{% set a = \"%s\"|percent(f(1, ')')) %}",
            ),
            ("{{ '%s' % ('%s' % 1) }}", "{{ '%s'|percent(('%s'|percent(1))) }}"),
            ("{%- if 'a' %}x{% endif %}", "{%- if 'a' %}x{% endif %}"),
            ("{{ 7 % 3 }}{# '%s' % x #}'%s' % x", "{{ 7 % 3 }}{# '%s' % x #}'%s' % x"),
            (
                "{% raw %}{{ '%s' % x }}{% endraw %}{{ '%s' % 1.5 }}",
                "{% raw %}{{ '%s' % x }}{% endraw %}{{ '%s'|percent(1.5) }}",
            ),
            ("{{ '", "{{ '"),
            ("{{ '%s' % ", "{{ '%s' % "),
            ("{{ 'é' % é }}", "{{ 'é'|percent(é) }}"),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }
}
