//! Python's `'%s and %s' % (a, b)`. The engine's `%` is for numbers, so that in the source of a template a text literal before `%` and
//! what follows become a call of the filter [`FILTER`].

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, State};

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
    let (mut written, mut copied, mut at) = (String::new(), 0, 0);
    let mut tag: Option<&[u8]> = None; // how the tag ends that this place is in
    let mut raw = false;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match tag {
            None if rest.starts_with(b"{#") => at = find(bytes, at, b"#}"),
            None if rest.starts_with(b"{%") => {
                let word: &[u8] = rest[2..].trim_ascii_start();
                let word = word.strip_prefix(b"-").unwrap_or(word).trim_ascii_start();
                raw = word.starts_with(b"raw") || (raw && !word.starts_with(b"endraw"));
                match raw {
                    true => at += 2,
                    false => (tag, at) = (Some(&b"%}"[..]), at + 2),
                }
            }
            None if rest.starts_with(b"{{") && !raw => (tag, at) = (Some(&b"}}"[..]), at + 2),
            None => at += 1,
            Some(end) if rest.starts_with(end) => (tag, at) = (None, at + 2),
            Some(_) if matches!(rest[0], b'\'' | b'"') => {
                at = after_text(bytes, at);
                let operator = skip_space(bytes, at);
                let is_operator = bytes.get(operator) == Some(&b'%') && !matches!(bytes.get(operator + 1), Some(b'}'));
                if !is_operator {
                    continue;
                }
                let start = skip_space(bytes, operator + 1);
                let Some(end) = after_operand(bytes, start) else {
                    continue;
                };
                written.push_str(&source[copied..at]);
                written.push_str(&format!("|{FILTER}({})", rewrite_inside(&source[start..end])));
                (copied, at) = (end, end);
            }
            Some(_) => at += 1,
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

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let found = bytes[from..].windows(what.len()).position(|window| window == what);
    found.map_or(bytes.len(), |at| from + at + what.len())
}

fn skip_space(bytes: &[u8], from: usize) -> usize {
    let space = bytes[from..]
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count();
    from + space
}

/// The place after the text literal that begins at `from`.
fn after_text(bytes: &[u8], from: usize) -> usize {
    let quote = bytes[from];
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The place after the brackets that open at `from`.
fn after_brackets(bytes: &[u8], from: usize) -> Option<usize> {
    let (mut depth, mut at) = (0usize, from);
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => {
                at = after_text(bytes, at);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn after_word(bytes: &[u8], from: usize) -> usize {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80;
    from + bytes[from..].iter().take_while(is_part).count()
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
