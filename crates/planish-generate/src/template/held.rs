//! A namespace that holds itself has no end: whoever prints or compares it goes on until the stack ends. Assigning to an attribute is the
//! only way to make one, so what is assigned is looked through.

use minijinja::value::Rest;
use minijinja::{Error, ErrorKind, State, Value};

use super::tags;

/// Passes on what is assigned to attributes of its arguments.
pub(super) const FILTER: &str = "held";

/// Values that are looked at for one unit of fuel.
const VALUES_OF_FUEL: u64 = 8;

pub(super) fn held(state: &State, value: Value, holders: Rest<Value>) -> Result<Value, Error> {
    let mut waiting = vec![value.clone()];
    let mut seen = 0;
    while let Some(next) = waiting.pop() {
        let Some(object) = next.as_object() else {
            continue;
        };
        seen += 1;
        if seen % VALUES_OF_FUEL == 0 {
            state.consume_fuel(1)?;
        }
        // Two that hold the same are taken for one: the engine tells no more.
        if object.type_name().ends_with("::Namespace") && holders.0.contains(&next) {
            return Err(Error::new(ErrorKind::InvalidOperation, "a namespace would hold itself"));
        }
        let is_map = next.kind() == minijinja::value::ValueKind::Map;
        for item in next.try_iter().into_iter().flatten() {
            seen += 1;
            if seen % VALUES_OF_FUEL == 0 {
                state.consume_fuel(1)?;
            }
            let item = if is_map { next.get_item(&item)? } else { item };
            if item.as_object().is_some() {
                waiting.push(item);
            }
        }
    }
    Ok(value)
}

/// The source with what is assigned to attributes passed through the filter.
pub(super) fn rewrite(source: &str) -> String {
    let (mut written, mut copied) = (String::new(), 0);
    for inside in tags::insides(source) {
        let Some(Assignment { holders, start, end }) = assignment(&source[..inside.end], inside.start) else {
            continue;
        };
        written.push_str(&source[copied..start]);
        let value = source[start..end].trim();
        written.push_str(&match value.strip_prefix('|') {
            // A block that is assigned goes through filters.
            Some(_) => format!("{value}|{FILTER}({holders}) "),
            None => format!(" ({value})|{FILTER}({holders}) "),
        });
        copied = end;
    }
    written.push_str(&source[copied..]);
    written
}

struct Assignment {
    /// Whose attributes are assigned, as arguments.
    holders: String,
    /// Where the value stands, or the filters of a block.
    start: usize,
    end: usize,
}

/// `set NAME.ATTRIBUTE = VALUE` and `set NAME.ATTRIBUTE | FILTERS`.
fn assignment(source: &str, inside: usize) -> Option<Assignment> {
    let tag = source.as_bytes();
    let word = tag.len() - tags::after_sign(&tag[inside..]).len();
    let after = tags::after_word(tag, word);
    if &tag[word..after] != b"set" {
        return None;
    }
    let mark = after + tag[after..].iter().position(|byte| matches!(byte, b'=' | b'|'))?;
    let holders: Vec<&str> = source[after..mark]
        .split([',', '(', ')'])
        .filter_map(|target| Some(target.rsplit_once('.')?.0.trim()))
        .collect();
    let start = if tag[mark] == b'=' { mark + 1 } else { mark };
    let end = tag.len() - usize::from(matches!(tag.last(), Some(b'-' | b'+')));
    (!holders.is_empty() && start < end).then(|| Assignment {
        holders: holders.join(", "),
        start,
        end,
    })
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn what_attributes_are_given_is_passed_through_the_filter() {
        for (source, expected) in [
            (
                "{% set ns.x = a if b else c %}",
                "{% set ns.x = (a if b else c)|held(ns) %}",
            ),
            ("{%- set ns.x=[1, '='] -%}", "{%- set ns.x= ([1, '='])|held(ns) -%}"),
            (
                "{% set a.b.c, (d, e . f) = 1, 2 %}",
                "{% set a.b.c, (d, e . f) = (1, 2)|held(a.b, e) %}",
            ),
            (
                "{% set ns.x | default(ns) %}{% endset %}",
                "{% set ns.x | default(ns)|held(ns) %}{% endset %}",
            ),
            (
                "{% set ns.x %}{% endset %}{% set x = a.b %}{% settle a.b = c %}{# set a.b = c #}{% set a.b =",
                "{% set ns.x %}{% endset %}{% set x = a.b %}{% settle a.b = c %}{# set a.b = c #}{% set a.b =",
            ),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }
}
