//! What the user says, line by line: edited and remembered on a terminal, or read from a pipe. Several lines can be one
//! message.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

const PROMPT: &str = "> ";
const CONTINUED: &str = ". ";
const QUOTES: &str = "\"\"\"";
const HISTORY_LINES: usize = 1000;

/// A message or command, or the end.
pub enum Line {
    /// What was said, of one or several lines.
    Text(String),
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// Where messages come from.
pub enum Input {
    /// A terminal.
    Editor(Box<Editor>),
    /// Anything else.
    Pipe(io::Lines<io::StdinLock<'static>>),
}

/// A line editor with a history that outlives the program.
pub struct Editor {
    editor: DefaultEditor,
    history: Option<PathBuf>,
}

impl Input {
    /// Standard input, as it is.
    pub fn new() -> anyhow::Result<Input> {
        if !io::stdin().is_terminal() {
            return Ok(Input::Pipe(io::stdin().lock().lines()));
        }
        let config = rustyline::Config::builder()
            .max_history_size(HISTORY_LINES)?
            .auto_add_history(false)
            .build();
        let mut editor = DefaultEditor::with_config(config).context("the terminal")?;
        let history = history_file();
        if let Some(file) = &history {
            // The first conversation has none.
            let _ = editor.load_history(file);
        }
        Ok(Input::Editor(Box::new(Editor { editor, history })))
    }

    /// Shown on a terminal only.
    pub fn greet(&self, text: &str) {
        if let Input::Editor(_) = self {
            eprintln!("{text}");
        }
    }

    /// The next message or command.
    pub fn read(&mut self) -> anyhow::Result<Line> {
        let Some(first) = self.line(PROMPT)? else {
            return Ok(Line::End);
        };
        let mut text = String::new();
        if let Some(opened) = first.trim_start().strip_prefix(QUOTES) {
            let mut line = opened.to_owned();
            loop {
                if let Some(closed) = line.trim_end().strip_suffix(QUOTES) {
                    text.push_str(closed);
                    break;
                }
                text.push_str(&line);
                text.push('\n');
                match self.line(CONTINUED)? {
                    Some(next) => line = next,
                    None => break,
                }
            }
            text = text.trim_matches('\n').to_owned();
        } else {
            let mut line = first;
            while let Some(begun) = line.strip_suffix('\\') {
                text.push_str(begun);
                text.push('\n');
                line = self.line(CONTINUED)?.unwrap_or_default();
            }
            text.push_str(&line);
        }
        self.remember(&text);
        Ok(Line::Text(text))
    }

    /// One line; `None` at the end.
    fn line(&mut self, prompt: &str) -> anyhow::Result<Option<String>> {
        match self {
            Input::Pipe(lines) => lines.next().transpose().context("standard input"),
            Input::Editor(editor) => loop {
                match editor.editor.readline(prompt) {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(ReadlineError::Interrupted) => eprintln!("(Ctrl-D or /exit leaves)"),
                    Err(error) => return Err(error).context("the terminal"),
                }
            },
        }
    }

    /// Keeps a message for the arrow keys, at once: the program may end in any way.
    fn remember(&mut self, text: &str) {
        let Input::Editor(editor) = self else { return };
        // A conversation goes on without its history.
        let _ = editor.editor.add_history_entry(text);
        if let Some(file) = &editor.history {
            let _ = editor.editor.append_history(file);
        }
    }
}

/// `chat_history` in the user's state folder, which is made if need be; `None` if there is no place for it.
fn history_file() -> Option<PathBuf> {
    let folder = state_folder()?.join("planish");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("chat_history"))
}

/// Where this platform keeps what programs remember between runs.
fn state_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if cfg!(windows) {
        return absolute("LOCALAPPDATA");
    }
    if cfg!(target_os = "macos") {
        return absolute("HOME").map(|home| home.join("Library/Application Support"));
    }
    absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
}
