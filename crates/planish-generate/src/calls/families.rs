//! How families of models write calls, as rows of data. A family is known by what its chat template holds.

/// How a family writes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// For reports.
    pub name: &'static str,
    /// Its templates hold all of these.
    pub signs: &'static [&'static str],
    /// Before all calls, where there is something.
    pub before: &'static str,
    /// Before a call, or a list of them. Where there is nothing, a call is the whole answer.
    pub open: &'static str,
    /// After it.
    pub close: &'static str,
    /// After all calls, where there is something.
    pub after: &'static str,
    /// Between calls.
    pub between: &'static str,
    /// What is between `open` and `close`.
    pub shape: Shape,
}

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"name": .., "arguments": {..}}`, the arguments under this key.
    Object(&'static str),
    /// A list of these.
    List(&'static str),
    /// The name between `before` and `separator`, arguments as JSON, then `end`.
    Named {
        /// Before the name.
        before: &'static str,
        /// Between name and arguments.
        separator: &'static str,
        /// After the arguments.
        end: &'static str,
    },
    /// Name, keys and values each between marks; values that are texts stand as they are.
    Tags(Tags),
    /// `[name(key=value), ..]`
    Python,
    /// `call:name{key:value}`, texts between these marks.
    Braces(&'static str),
    /// In channels of gpt-oss, which [`crate::AnswerText`] reads.
    Channels,
}

/// The marks of [`Shape::Tags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Around the name.
    pub name: (&'static str, &'static str),
    /// Around a key.
    pub key: (&'static str, &'static str),
    /// Around its value.
    pub value: (&'static str, &'static str),
    /// After the last value.
    pub end: &'static str,
}

const NOTHING: Family = Family {
    name: "",
    signs: &[],
    before: "",
    open: "",
    close: "",
    after: "",
    between: "",
    shape: Shape::Object("arguments"),
};

/// What a model without a markup of its own is made to write.
pub static PLAIN: Family = Family {
    name: "plain",
    between: "\n",
    ..NOTHING
};

/// The first whose signs are there is the family.
pub static FAMILIES: [Family; 14] = [
    Family {
        name: "gpt-oss",
        signs: &["<|channel|>commentary", "to=functions."],
        shape: Shape::Channels,
        ..NOTHING
    },
    Family {
        name: "qwen-coder",
        signs: &["<tool_call>", "<function=", "<parameter="],
        open: "<tool_call>\n",
        close: "\n</tool_call>",
        between: "\n",
        shape: Shape::Tags(Tags {
            name: ("<function=", ">\n"),
            key: ("<parameter=", ">\n"),
            value: ("", "\n</parameter>\n"),
            end: "</function>",
        }),
        ..NOTHING
    },
    Family {
        name: "glm",
        signs: &["<tool_call>", "<arg_key>", "<arg_value>"],
        open: "<tool_call>",
        close: "</tool_call>",
        between: "\n",
        shape: Shape::Tags(Tags {
            name: ("", "\n"),
            key: ("<arg_key>", "</arg_key>\n"),
            value: ("<arg_value>", "</arg_value>\n"),
            end: "",
        }),
        ..NOTHING
    },
    Family {
        name: "hermes",
        signs: &["<tool_call>", "</tool_call>"],
        open: "<tool_call>\n",
        close: "\n</tool_call>",
        between: "\n",
        ..NOTHING
    },
    Family {
        name: "granite",
        signs: &["<|tool_call|>"],
        open: "<|tool_call|>",
        shape: Shape::List("arguments"),
        ..NOTHING
    },
    Family {
        name: "mistral",
        signs: &["[TOOL_CALLS]", "[ARGS]"],
        open: "[TOOL_CALLS]",
        shape: Shape::Named {
            before: "",
            separator: "[ARGS]",
            end: "",
        },
        ..NOTHING
    },
    Family {
        name: "mistral-list",
        signs: &["[TOOL_CALLS]"],
        open: "[TOOL_CALLS]",
        shape: Shape::List("arguments"),
        ..NOTHING
    },
    Family {
        name: "deepseek-v3",
        signs: &["<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "```json"],
        before: "<｜tool▁calls▁begin｜>",
        open: "<｜tool▁call▁begin｜>",
        close: "<｜tool▁call▁end｜>",
        after: "<｜tool▁calls▁end｜>",
        between: "\n",
        shape: Shape::Named {
            before: "function<｜tool▁sep｜>",
            separator: "\n```json\n",
            end: "\n```",
        },
    },
    Family {
        name: "deepseek",
        signs: &["<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"],
        before: "<｜tool▁calls▁begin｜>",
        open: "<｜tool▁call▁begin｜>",
        close: "<｜tool▁call▁end｜>",
        after: "<｜tool▁calls▁end｜>",
        shape: Shape::Named {
            before: "",
            separator: "<｜tool▁sep｜>",
            end: "",
        },
        ..NOTHING
    },
    Family {
        name: "lfm2",
        signs: &["<|tool_call_start|>"],
        open: "<|tool_call_start|>",
        close: "<|tool_call_end|>",
        shape: Shape::Python,
        ..NOTHING
    },
    Family {
        name: "lfm2-list",
        signs: &["<|tool_list_start|>"],
        open: "<|tool_call_start|>",
        close: "<|tool_call_end|>",
        shape: Shape::Python,
        ..NOTHING
    },
    Family {
        name: "gemma",
        signs: &["<start_function_call>", "<escape>"],
        open: "<start_function_call>",
        close: "<end_function_call>",
        shape: Shape::Braces("<escape>"),
        ..NOTHING
    },
    Family {
        name: "gemma-4",
        signs: &["<|tool_call>", "<tool_call|>"],
        open: "<|tool_call>",
        close: "<tool_call|>",
        shape: Shape::Braces("<|\"|>"),
        ..NOTHING
    },
    Family {
        name: "llama-3",
        signs: &["\"parameters\"", "ipython"],
        between: "; ",
        shape: Shape::Object("parameters"),
        ..NOTHING
    },
];

impl Family {
    /// The family of a chat template, `None` where it knows no calls that are known here.
    pub fn of_template(template: &str) -> Option<&'static Family> {
        FAMILIES
            .iter()
            .find(|family| family.signs.iter().all(|sign| template.contains(sign)))
    }
}

impl Family {
    /// What stands around calls and their parts.
    pub(crate) fn marks(&self) -> Vec<&'static str> {
        let mut marks = vec![self.before, self.open, self.close, self.after];
        match self.shape {
            Shape::Named { before, separator, end } => marks.extend([before, separator, end, "[CALL_ID]"]),
            Shape::Tags(tags) => {
                let pairs = [tags.name, tags.key, tags.value];
                marks.extend(pairs.into_iter().flat_map(|(before, after)| [before, after]));
                marks.push(tags.end);
            }
            Shape::Braces(quote) => marks.push(quote),
            Shape::Object(_) if self.open.is_empty() => marks.push("<|python_tag|>"),
            Shape::Object(_) | Shape::List(_) | Shape::Python | Shape::Channels => {}
        }
        marks
    }
}
