//! `planish chat`: a conversation of many turns, typed or piped in. The model remembers what both said.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use planish::{CausalLM, ChatSession, Finish, GenerationConfig, Session};

use super::answer::{MAX_TIME_IS_OVER, statistics, stream};
use super::chat_input::{Input, Line};
use super::interrupt;
use super::run_flags::{RunFlags, load_with};
use super::sampling_flags::{SamplingFlags, new_tokens};
use super::template_flags::TemplateFlags;
use crate::SUCCESS;
use crate::hints::describe;

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
    pub model: Option<OsString>,
    /// Maximum number of tokens of one answer [default: from generation_config.json, else 2048]
    #[arg(short = 'n', long, visible_alias = "max-tokens", value_name = "N", value_parser = new_tokens)]
    pub max_new_tokens: Option<usize>,
    /// A message that tells the model how to behave [default: none]
    #[arg(long, visible_alias = "system-prompt", value_name = "TEXT")]
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
    /// What the chat template is told.
    #[command(flatten)]
    pub template: TemplateFlags,
}

/// Tokens of an answer at most, where nobody says otherwise.
const NEW_TOKENS: usize = 2048;

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let options = arguments.run.load_options()?;
    let template = arguments.template.template()?;
    let source = arguments.run.open(arguments.model.as_deref())?;
    let model = load_with(&source, options, template)?;
    let suggested = || model.suggested_max_new_tokens(0).unwrap_or(NEW_TOKENS);
    let config = arguments
        .sampling
        .config(arguments.max_new_tokens.unwrap_or_else(suggested));
    let plan = model.plan(&config)?;
    arguments.sampling.print_idle(&plan);
    let config = GenerationConfig {
        seed: Some(plan.sampling.seed),
        ..config
    };
    let tells_stories = arguments.model.is_none();
    // Any other model without a template is refused before anything is typed.
    let partner = match tells_stories {
        true => Partner::Storyteller(model.session()),
        false => {
            let mut chat = model.chat()?;
            chat.set_variables(arguments.template.variables());
            Partner::Chat(chat)
        }
    };
    let mut conversation = Conversation {
        model,
        partner,
        config,
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
            Line::End => return Ok(SUCCESS),
            Line::Text(text) if text.trim().is_empty() => {}
            Line::Text(text) => {
                if conversation.take(&text)?.is_leave() {
                    return Ok(SUCCESS);
                }
                if interrupt::must_end() {
                    return Ok(interrupt::exit_code());
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

/// Who answers.
enum Partner {
    Chat(ChatSession),
    /// The demo model has no template: each message is a text to continue.
    Storyteller(Session),
}

struct Conversation {
    model: CausalLM,
    partner: Partner,
    config: GenerationConfig,
    verbose: bool,
}

impl Conversation {
    /// Forgets all but the system message.
    fn restart(&mut self, system: Option<&str>) {
        match &mut self.partner {
            Partner::Chat(chat) => chat.reset(system),
            Partner::Storyteller(session) => session.reset(),
        }
    }

    fn system(&self) -> Option<String> {
        match &self.partner {
            Partner::Chat(chat) => chat.system().map(str::to_owned),
            Partner::Storyteller(_) => None,
        }
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
                let system = self.system();
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
        let mut stdout = io::stdout().lock();
        let (model, config) = (&self.model, &self.config);
        let partner = &mut self.partner;
        let told = stream(&mut stdout, |on_step| match partner {
            Partner::Chat(chat) => chat.generate(text, config, on_step),
            Partner::Storyteller(session) => {
                let tokens = model.tokenizer()?.encode(text)?;
                session.continue_text(&tokens, config, on_step)
            }
        });
        match told {
            Ok(told) => {
                writeln!(stdout)?;
                let context = self.model.architecture().context;
                match told.answer.finish {
                    Finish::Interrupted => eprintln!("(stopped)"),
                    Finish::MaxNewTokens if self.verbose || io::stderr().is_terminal() => {
                        eprintln!("(stopped after {} tokens)", self.config.max_new_tokens)
                    }
                    Finish::MaxNewTokens => {}
                    Finish::ContextFull => eprintln!("(the context of {context} tokens is full: /reset begins anew)"),
                    Finish::MaxTime => eprintln!("({MAX_TIME_IS_OVER})"),
                    Finish::EndToken | Finish::StopString => {}
                }
                if self.verbose {
                    eprintln!("{}", statistics(&told.answer));
                }
            }
            Err(error) if error.downcast_ref::<io::Error>().is_some() => return Err(error),
            Err(error) => eprintln!("error: {}", describe(&error)),
        }
        // Each answer draws anew, but one seed fixes the whole conversation.
        self.config.seed = self.config.seed.map(|seed| seed.wrapping_add(1));
        Ok(())
    }
}
