//! `planish chat`: a conversation of many turns, typed or piped in. The model remembers what both said.

use std::io::{self, Write};
use std::process::ExitCode;

use planish_generate::{Finish, GenerationPlan, Message};

use super::chat_input::{Input, Line};
use super::run_flags::RunFlags;
use super::sampling_flags::SamplingFlags;
use super::speaker::{Speaker, statistics};

const HELP: &str = "\
/reset         begin a new conversation
/system TEXT   begin a new conversation with this system message; without TEXT, with none
/help          this list
/exit          leave (or Ctrl-D)
Ctrl-C stops an answer. A line that ends with \\ goes on in the next one, and so does all from \"\"\" to \"\"\".";

/// Flags of `planish chat`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name) [default: the small demo model inside planish]
    pub model: Option<String>,
    /// Most tokens of one answer
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub max_new_tokens: usize,
    /// A message that tells the model how to behave
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Report rates on standard error after each answer
    #[arg(long)]
    pub verbose: bool,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: SamplingFlags,
    /// How the model is run.
    #[command(flatten)]
    pub run: RunFlags,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let speaker = Speaker::load(arguments.model.as_deref(), &arguments.run)?;
    let plan = arguments
        .sampling
        .config(arguments.max_new_tokens)
        .resolve(&speaker.defaults)?;
    let tells_stories = arguments.model.is_none();
    // Any other model without a template is refused before anything is typed.
    if let (false, None) = (tells_stories, &speaker.template) {
        speaker.chat_tokens(&[Message::new("user", "")])?;
    }
    let mut conversation = Conversation {
        speaker,
        plan,
        messages: Vec::new(),
        tells_stories,
        verbose: arguments.verbose,
    };
    conversation.restart(arguments.system.as_deref());
    let mut input = Input::new()?;
    input.greet(if tells_stories {
        "The demo model only continues stories. Type how one begins, such as Once upon a time; /help lists commands."
    } else {
        "Type a message; /help lists commands."
    });
    loop {
        match input.read()? {
            Line::End => return Ok(ExitCode::SUCCESS),
            Line::Text(text) if text.trim().is_empty() => {}
            Line::Text(text) => {
                if conversation.take(&text)?.is_leave() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
}

#[derive(PartialEq)]
enum Next {
    Stay,
    Leave,
}

impl Next {
    fn is_leave(&self) -> bool {
        *self == Next::Leave
    }
}

struct Conversation {
    speaker: Speaker,
    plan: GenerationPlan,
    messages: Vec<Message>,
    /// The demo model has no template: each message is a text to continue.
    tells_stories: bool,
    verbose: bool,
}

impl Conversation {
    /// Forgets all but the system message.
    fn restart(&mut self, system: Option<&str>) {
        self.messages.clear();
        self.messages.extend(system.map(|text| Message::new("system", text)));
        self.speaker.forget();
    }

    /// A command or a message.
    fn take(&mut self, text: &str) -> anyhow::Result<Next> {
        let Some(command) = text.strip_prefix('/') else {
            self.answer(text)?;
            return Ok(Next::Stay);
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "reset" => {
                let system = self.messages.first().filter(|message| message.role() == "system");
                let system = system.and_then(Message::content).map(str::to_owned);
                self.restart(system.as_deref());
                eprintln!("A new conversation.");
            }
            "system" => {
                self.restart(Some(rest).filter(|text| !text.is_empty()));
                let with = if rest.is_empty() { "without a" } else { "with this" };
                eprintln!("A new conversation {with} system message.");
            }
            "help" | "?" => eprintln!("{HELP}"),
            "exit" | "quit" | "bye" => return Ok(Next::Leave),
            _ => {
                eprintln!("There is no command /{name}; /help lists them. A space before the slash makes it a message.")
            }
        }
        Ok(Next::Stay)
    }

    /// Asks the model. What it refuses (a message that does not fit, a template that objects) is told, and forgotten.
    fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        self.messages.push(Message::new("user", text));
        let mut stdout = io::stdout().lock();
        let tokens = if self.tells_stories {
            self.speaker.tokenizer.encode(text).map_err(anyhow::Error::from)
        } else {
            self.speaker.chat_tokens(&self.messages)
        };
        match tokens.and_then(|tokens| self.speaker.speak(&tokens, &self.plan, &mut stdout)) {
            Ok(spoken) => {
                writeln!(stdout)?;
                let context = self.speaker.model.architecture().context;
                match spoken.answer.finish {
                    Finish::Interrupted => eprintln!("(stopped)"),
                    Finish::MaxNewTokens => eprintln!("(stopped after {} tokens)", self.plan.max_new_tokens),
                    Finish::ContextFull => eprintln!("(the context of {context} tokens is full: /reset begins anew)"),
                    Finish::EndToken => {}
                }
                if self.verbose {
                    eprintln!("{}", statistics(&spoken.answer));
                }
                self.messages.push(Message::new("assistant", spoken.text));
            }
            Err(error) if error.downcast_ref::<io::Error>().is_some() => return Err(error),
            Err(error) => {
                self.messages.pop();
                eprintln!("error: {error:#}");
            }
        }
        // Each answer draws anew, but one seed fixes the whole conversation.
        self.plan.sampling.seed = self.plan.sampling.seed.wrapping_add(1);
        Ok(())
    }
}
