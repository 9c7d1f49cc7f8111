//! Turns of a conversation in OpenAI's form, put together from what other forms say.

use serde_json::{Value, json};

/// Between texts of one turn that were parts of their own.
pub(crate) const BETWEEN: &str = "\n\n";

/// Adds a turn; turns of the same side in a row are one, as chat templates want them.
pub(crate) fn push(turns: &mut Vec<Value>, role: &str, text: &str) {
    if let Some(last) = turns.last_mut()
        && last["role"] == role
        && let Some(Value::String(before)) = last.get_mut("content")
    {
        before.push_str(BETWEEN);
        before.push_str(text);
        return;
    }
    turns.push(json!({"role": role, "content": text}));
}
