//! What Jinja does with iterators and the engine does not: a loop over `None` fails, and what filters leave of a list is no list but a
//! generator, which is true though empty, and has no JSON form.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, Value, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::tags;

/// Passes on what a loop goes over.
const FILTER: &str = "iterated";
/// The engine's filters that are generators in Jinja, under other names.
const GENERATORS: [(&str, &str); 7] = [
    ("map", "list_of_map"),
    ("select", "list_of_select"),
    ("selectattr", "list_of_selectattr"),
    ("reject", "list_of_reject"),
    ("rejectattr", "list_of_rejectattr"),
    ("batch", "list_of_batch"),
    ("slice", "list_of_slice"),
];

pub(super) fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter(FILTER, iterated);
    environment.add_filter("list_of_map", filters::map);
    environment.add_filter("list_of_select", filters::select);
    environment.add_filter("list_of_selectattr", filters::selectattr);
    environment.add_filter("list_of_reject", filters::reject);
    environment.add_filter("list_of_rejectattr", filters::rejectattr);
    environment.add_filter("list_of_batch", filters::batch);
    environment.add_filter("list_of_slice", filters::slice);
    for (name, list) in GENERATORS {
        environment.add_filter(name, move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            let items = state.apply_filter(list, &arguments.into_values())?;
            let items = items.try_iter()?.collect();
            Ok::<_, Error>(Value::from_object(Generator { items }))
        });
    }
}

fn iterated(value: Value) -> Result<Value, Error> {
    match value.is_none() {
        true => Err(Error::new(ErrorKind::InvalidOperation, "None is not iterable")),
        false => Ok(value),
    }
}

/// Items that come one after the other. Unlike Python's it may be gone through twice.
#[derive(Debug)]
pub(super) struct Generator {
    items: Vec<Value>,
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}

/// The source with what loops go over passed through the filter.
pub(super) fn rewrite(source: &str) -> String {
    let (mut written, mut copied) = (String::new(), 0);
    for inside in tags::insides(source) {
        let tag = &source.as_bytes()[..inside.end];
        let Some((start, end)) = iterable(tag, inside.start) else {
            continue;
        };
        written.push_str(&source[copied..start]);
        written.push_str(&format!(" ({})|{FILTER} ", source[start..end].trim()));
        copied = end;
    }
    written.push_str(&source[copied..]);
    written
}

/// Where that stands in a tag, if it is of a loop: between `in` and `if`, `recursive` or the end.
fn iterable(tag: &[u8], inside: usize) -> Option<(usize, usize)> {
    let word = tag.len() - tags::after_sign(&tag[inside..]).len();
    let after = tags::after_word(tag, word);
    if &tag[word..after] != b"for" {
        return None;
    }
    let (mut at, mut start) = (after, None);
    while at < tag.len() {
        let next = tags::after_word(tag, at);
        at = match (tag[at], &tag[at..next]) {
            (b'\'' | b'"', _) => tags::after_text(tag, at),
            (b'(' | b'[' | b'{', _) => tags::after_brackets(tag, at)?,
            (_, b"in") if start.is_none() => {
                start = Some(next);
                next
            }
            (_, b"if" | b"recursive") => return Some((start?, at)),
            (_, b"") => at + 1,
            _ => next,
        };
    }
    let sign = usize::from(matches!(tag.last(), Some(b'-' | b'+')));
    start
        .map(|start| (start, tag.len() - sign))
        .filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn what_loops_go_over_is_passed_through_the_filter() {
        for (source, expected) in [
            (
                "{% for x in y %}{{ x in y }}",
                "{% for x in (y)|iterated %}{{ x in y }}",
            ),
            (
                "{%- for x, y in z.items() -%}",
                "{%- for x, y in (z.items())|iterated -%}",
            ),
            (
                "{% for (a, b) in f('if', [1 if c else 2]) if a %}",
                "{% for (a, b) in (f('if', [1 if c else 2]))|iterated if a %}",
            ),
            ("{%for x in 1, 2 recursive%}", "{%for x in (1, 2)|iterated recursive%}"),
            ("{% for x in y", "{% for x in (y)|iterated "),
            (
                "{% for x %}{% format in y %}{# for x in y #}",
                "{% for x %}{% format in y %}{# for x in y #}",
            ),
            ("{% for x in %}", "{% for x in ()|iterated %}"),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }
}
