//! Grammars of calls in the markup of a family, in llguidance's dialect of Lark: what follows them is read as calls.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Family, Shape, Tags, Tool, ToolChoice};
use crate::constraint::spaced;
use crate::{Constraint, Tokenizer};

/// What answers with tools are made to be; `None` where they are free.
pub fn constraint(
    tokenizer: &Tokenizer,
    family: &Family,
    tools: &[Tool],
    (choice, parallel): (&ToolChoice, bool),
    answer: Option<&Constraint>,
) -> Option<Constraint> {
    let called = |tool: &&Tool| match choice {
        ToolChoice::Named(name) => tool.name == *name,
        _ => true,
    };
    let tools: Vec<&Tool> = tools.iter().filter(called).collect();
    let mut lark = Lark {
        tokenizer,
        text: String::new(),
    };
    // Text may go on to a mark that it cannot hold, not to one that is text.
    let first = [family.before, family.open].into_iter().find(|mark| !mark.is_empty());
    let marked = first.is_some_and(|mark| matches!(tokenizer.marks_in(mark).first(), Some(Ok(_))));
    let start = match (choice, answer) {
        (ToolChoice::None, _) => return None,
        (ToolChoice::Required | ToolChoice::Named(_), _) => "calls".to_owned(),
        (ToolChoice::Auto, Some(answer)) => {
            lark.answer(answer)?;
            "answer | calls".to_owned()
        }
        (ToolChoice::Auto, None) if marked && family.shape != Shape::Channels => {
            lark.text.push_str("TEXT: /(?s:.+)/\n");
            "TEXT? calls?".to_owned()
        }
        (ToolChoice::Auto, None) => return None,
    };
    let several = parallel && choice_allows_several(choice);
    lark.calls(family, &tools, several);
    Some(Constraint::Grammar(format!("start: {start}\n{}", lark.text)))
}

/// Who names a tool wants one call.
fn choice_allows_several(choice: &ToolChoice) -> bool {
    !matches!(choice, ToolChoice::Named(_))
}

struct Lark<'a> {
    tokenizer: &'a Tokenizer,
    text: String,
}

/// A text as Lark has it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A schema in place of a rule.
fn schema(schema: &Value) -> String {
    format!("%json {}", spaced(schema.clone()))
}

impl Lark<'_> {
    fn rule(&mut self, name: &str, parts: &str) {
        let _ = writeln!(self.text, "{name}: {parts}");
    }

    /// A mark: its tokens, and the text between them.
    fn mark(&self, mark: &str) -> String {
        let pieces = self.tokenizer.marks_in(mark).into_iter().map(|piece| match piece {
            Ok(token) => format!("<[{token}]>"),
            Err(text) => quoted(text),
        });
        pieces.collect::<Vec<_>>().join(" ")
    }

    fn answer(&mut self, answer: &Constraint) -> Option<()> {
        let answer = match answer {
            Constraint::JsonObject => schema(&json!({"type": "object"})),
            Constraint::JsonSchema(of) => schema(of),
            // Both speak of the whole answer.
            Constraint::Regex(_) | Constraint::Grammar(_) => return None,
        };
        self.rule("answer", &answer);
        Some(())
    }

    fn calls(&mut self, family: &Family, tools: &[&Tool], several: bool) {
        let names: Vec<String> = (0..tools.len()).map(|index| format!("call{index}")).collect();
        let one = names.join(" | ");
        match family.shape {
            Shape::List(_) => {
                let more = if several { "(\", \" one)*" } else { "" };
                let parts = format!(
                    "{} \"[\" one {more} \"]\" {}",
                    self.mark(family.open),
                    self.mark(family.close)
                );
                self.rule("calls", &parts);
                self.rule("one", &one);
            }
            Shape::Python => {
                let more = if several { "(\", \" one)*" } else { "" };
                let parts = format!(
                    "{} \"[\" one {more} \"]\" {}",
                    self.mark(family.open),
                    self.mark(family.close)
                );
                self.rule("calls", &parts);
                self.rule("one", &one);
            }
            _ => {
                let between = self.mark(family.between);
                let more = if several {
                    format!("({between} whole)*")
                } else {
                    String::new()
                };
                let parts = format!("{} whole {more} {}", self.mark(family.before), self.mark(family.after));
                self.rule("calls", &parts);
                let parts = format!("{} one {}", self.mark(family.open), self.mark(family.close));
                self.rule("whole", &parts);
                self.rule("one", &one);
            }
        }
        for (name, tool) in names.iter().zip(tools) {
            self.call(name, family, tool);
        }
    }

    fn call(&mut self, rule: &str, family: &Family, tool: &Tool) {
        let arguments = format!("{rule}args");
        let parts = match family.shape {
            Shape::Object(key) | Shape::List(key) => {
                let begin = format!("{{\"name\": {}, \"{key}\": ", quoted(&tool.name));
                format!("{} {arguments} \"}}\"", quoted(&begin))
            }
            Shape::Named { before, separator, end } => {
                let begin = format!("{before}{}{separator}", tool.name);
                format!("{} {arguments} {}", self.mark(&begin), self.mark(end))
            }
            Shape::Channels => {
                // Thoughts may come before, in a channel of their own.
                let thought = "<|channel|>analysis<|message|>";
                let thought = format!(
                    "({} THOUGHT {})?",
                    self.mark(thought),
                    self.mark("<|end|><|start|>assistant")
                );
                if !self.text.contains("THOUGHT:") {
                    self.rule("THOUGHT", "/(?s:.*)/");
                }
                let header = format!(
                    "<|channel|>commentary to=functions.{} <|constrain|>json<|message|>",
                    tool.name
                );
                format!("{thought} {} {arguments}", self.mark(&header))
            }
            Shape::Tags(marks) => return self.tagged(rule, tool, &marks),
            Shape::Python => return self.listed(rule, tool, ["(", "=", ", ", ")"], None),
            Shape::Braces(quote) => return self.listed(rule, tool, ["{", ":", ",", "}"], Some(quote)),
        };
        self.rule(rule, &parts);
        self.rule(&arguments, &schema(&tool.parameters));
    }

    /// The arguments of a tool: name, schema, and whether it is needed.
    fn each_argument(tool: &Tool) -> Vec<(String, Value, bool)> {
        let required = |name: &str| {
            let required = tool.parameters["required"].as_array();
            required.is_some_and(|required| required.iter().any(|needed| needed == name))
        };
        let properties = tool.parameters["properties"].as_object();
        let properties = properties.into_iter().flatten();
        properties
            .map(|(name, schema)| {
                let mut schema = schema.clone();
                // What the whole defines, its parts may refer to.
                for key in ["$defs", "definitions"] {
                    if let (Some(fields), Some(defined)) = (schema.as_object_mut(), tool.parameters.get(key)) {
                        fields.entry(key).or_insert_with(|| defined.clone());
                    }
                }
                (name.clone(), schema, required(name))
            })
            .collect()
    }

    /// A rule for any text up to this mark, and the mark.
    fn text_before(&mut self, rule: &str, mark: &str) {
        let tokens = self.mark(mark);
        match tokens.starts_with('<') {
            // No text holds a token.
            true => self.rule(rule, &format!("/(?s:.*)/ {tokens}")),
            // What ends a text is the first mark.
            false => self.rule(&format!("{rule}[suffix={}]", quoted(mark)), "/(?s:.*)/"),
        }
    }

    /// Texts stand as they are up to the mark after them, all else as JSON.
    fn tagged(&mut self, rule: &str, tool: &Tool, marks: &Tags) {
        let mut parts = self.mark(&format!("{}{}{}", marks.name.0, tool.name, marks.name.1));
        for (index, (name, of, needed)) in Lark::each_argument(tool).into_iter().enumerate() {
            let value = format!("{rule}v{index}");
            let before = format!("{}{name}{}{}", marks.key.0, marks.key.1, marks.value.0);
            match words_of(&of) {
                Some(None) => self.text_before(&value, marks.value.1),
                Some(Some(words)) => self.rule(&value, &format!("({words}) {}", self.mark(marks.value.1))),
                None => {
                    self.rule(&format!("{value}j"), &schema(&of));
                    self.rule(&value, &format!("{value}j {}", self.mark(marks.value.1)));
                }
            }
            let part = format!("{} {value}", self.mark(&before));
            let _ = write!(parts, " {}", optional(&part, needed));
        }
        let parts = format!("{parts} {}", self.mark(marks.end));
        self.rule(rule, &parts);
    }

    /// `name` and its arguments between these marks, in their order.
    fn listed(&mut self, rule: &str, tool: &Tool, marks: [&str; 4], quote: Option<&str>) {
        let [open, equals, comma, close] = marks;
        let begin = match quote {
            Some(_) => format!("call:{}{open}", tool.name),
            None => format!("{}{open}", tool.name),
        };
        let arguments = Lark::each_argument(tool);
        // Which come is told by rules of what may follow: one after the first argument, one before it.
        let mut after = quoted(close);
        let mut first = quoted(close);
        for (index, (name, of, needed)) in arguments.iter().enumerate().rev() {
            let value = format!("{rule}v{index}");
            match (quote, words_of(of)) {
                (Some(quote), Some(None)) => {
                    let text = format!("{value}t");
                    self.text_before(&text, quote);
                    self.rule(&value, &format!("{} {text}", self.mark(quote)));
                }
                (Some(quote), Some(Some(words))) => {
                    let mark = self.mark(quote);
                    self.rule(&value, &format!("{mark} ({words}) {mark}"));
                }
                (None, _) if of["type"] == "boolean" => self.rule(&value, "\"True\" | \"False\""),
                _ => self.rule(&value, &schema(of)),
            }
            let (next_after, next_first) = (format!("{rule}a{index}"), format!("{rule}f{index}"));
            let here = format!("{} {value} {after}", quoted(&format!("{name}{equals}")));
            let skip = |rest: &str| if *needed { String::new() } else { format!(" | {rest}") };
            self.rule(&next_after, &format!("{} {here}{}", quoted(comma), skip(&after)));
            self.rule(&next_first, &format!("{here}{}", skip(&first)));
            (after, first) = (next_after, next_first);
        }
        let parts = format!("{} {first}", quoted(&begin));
        self.rule(rule, &parts);
    }
}

/// Of a schema of texts, the texts that there may be: any, or one of these. `None` for all else.
fn words_of(schema: &Value) -> Option<Option<String>> {
    if schema["type"] != "string" {
        return None;
    }
    let words = schema["enum"].as_array();
    Some(words.map(|words| {
        let words = words.iter().filter_map(Value::as_str).map(quoted);
        words.collect::<Vec<_>>().join(" | ")
    }))
}

fn optional(part: &str, needed: bool) -> String {
    match needed {
        true => part.to_owned(),
        false => format!("({part})?"),
    }
}
