//! The engine: many clients on one model get the answers that they get alone, whatever memory there is and whoever leaves.

mod states;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use planish::{
    AutoModelForCausalLM, CausalLM, Client, Device, Engine, EngineEvent, EngineOptions, EngineRequest, Error, Finish,
    GenerationConfig, Refusal, Request, TextAnswer,
};

fn model() -> &'static CausalLM {
    static MODEL: OnceLock<CausalLM> = OnceLock::new();
    MODEL.get_or_init(|| AutoModelForCausalLM::demo().exact(true).load().unwrap())
}

/// As it is by default.
fn rounded() -> &'static CausalLM {
    static MODEL: OnceLock<CausalLM> = OnceLock::new();
    MODEL.get_or_init(|| AutoModelForCausalLM::demo().device(Device::Cpu).load().unwrap())
}

/// What a client heard.
#[derive(Debug, PartialEq)]
enum Heard {
    Begun(usize, usize),
    Text(String),
    Finished(TextAnswer),
    Failed(String),
}

/// Passes everything on; breaks off after so many pieces of text.
struct Listener {
    heard: Sender<Heard>,
    pieces: usize,
    gone: Arc<AtomicBool>,
    tokens: Vec<u32>,
}

impl Client for Listener {
    fn on_event(&mut self, event: EngineEvent<'_>) -> ControlFlow<()> {
        let heard = match event {
            EngineEvent::Begun {
                prompt_tokens,
                cached_tokens,
            } => Heard::Begun(prompt_tokens, cached_tokens),
            EngineEvent::Logprobs(_) => return ControlFlow::Continue(()),
            EngineEvent::Text(text) => Heard::Text(text.to_owned()),
            EngineEvent::Reasoning(text) | EngineEvent::Call(text) | EngineEvent::Arguments(text) => {
                panic!("no such part here: {text}")
            }
            EngineEvent::Token(token) => {
                self.tokens.push(token);
                return ControlFlow::Continue(());
            }
            EngineEvent::Finished(answer) => {
                assert_eq!(answer.answer.tokens, self.tokens, "each token is told");
                Heard::Finished(answer.clone())
            }
            EngineEvent::Failed(error) => Heard::Failed(error.to_string()),
        };
        let is_text = matches!(heard, Heard::Text(_));
        // A test that failed listens no more.
        let _ = self.heard.send(heard);
        self.pieces -= usize::from(is_text);
        match self.pieces {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

fn config(max_new_tokens: usize, seed: Option<u64>) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        temperature: Some(if seed.is_some() { 0.9 } else { 0.0 }),
        seed,
        ..GenerationConfig::default()
    }
}

fn prompt(text: &str) -> Vec<u32> {
    model().tokenizer().unwrap().encode(text).unwrap()
}

fn listener(pieces: usize) -> (Listener, Receiver<Heard>, Arc<AtomicBool>) {
    let (heard, receiver) = channel();
    let gone = Arc::new(AtomicBool::new(false));
    let client = Listener {
        heard,
        pieces,
        gone: Arc::clone(&gone),
        tokens: Vec::new(),
    };
    (client, receiver, gone)
}

fn request(prompt: &[u32], config: &GenerationConfig) -> (EngineRequest, Receiver<Heard>) {
    let (client, receiver, _) = listener(usize::MAX);
    let request = Request {
        prompt: prompt.to_vec(),
        config: config.clone(),
    };
    let request = EngineRequest {
        request,
        continues: true,
        client: Box::new(client),
    };
    (request, receiver)
}

/// The answer, after pieces of text that make up its own.
fn answer(heard: &Receiver<Heard>) -> (TextAnswer, usize) {
    let (mut text, mut cached) = (String::new(), None);
    for heard in heard {
        match heard {
            Heard::Begun(_, tokens) => cached = Some(tokens),
            Heard::Text(piece) => text.push_str(&piece),
            Heard::Finished(answer) => {
                assert_eq!(answer.text, text);
                return (answer, cached.unwrap());
            }
            Heard::Failed(error) => panic!("{error}"),
        }
    }
    panic!("nothing more is told")
}

const OPENINGS: [&str; 6] = [
    "Once upon a time",
    "Once upon a time there was a dog",
    "The cat",
    "One day, a little girl named Lily",
    "Tom and Sam were",
    "In a forest far away",
];

/// The answer that a session of its own gives.
fn alone(model: &CausalLM, prompt: &[u32], config: &GenerationConfig) -> TextAnswer {
    let silent = &mut |_: planish::TextStep<'_>| ControlFlow::Continue(());
    model.session().continue_text(prompt, config, silent).unwrap()
}

#[test]
fn clients_get_the_answers_that_they_get_alone() {
    clients_get_their_own_answers(model());
}

#[test]
fn clients_get_the_answers_that_they_get_alone_from_rounded_products() {
    clients_get_their_own_answers(rounded());
}

/// Prompts come in pieces as they come, and answers pause and are computed once more: nothing of it changes a bit.
#[test]
fn answers_are_the_same_bits_however_prompts_are_cut() {
    for model in [model(), rounded()] {
        let likely = GenerationConfig {
            logprobs: Some(3),
            eos_token_id: Some(Vec::new()),
            ..config(24, None)
        };
        let shared = prompt(&"Once upon a time there was a little dog who liked to run. ".repeat(8));
        let asked: Vec<Vec<u32>> = (0..16)
            .map(|index| {
                let own = prompt(&format!(
                    "{} {}",
                    OPENINGS[index % 6],
                    "and then they saw a bird ".repeat(3 * index)
                ));
                let shared = &shared[..shared.len() * (index % 4) / 4];
                let both = [shared, &own].concat();
                both[..both.len().min(450)].to_vec()
            })
            .collect();
        let lengths: Vec<usize> = asked.iter().map(Vec::len).collect();
        assert!(
            lengths.iter().any(|length| *length <= 16) && lengths.iter().any(|length| *length > 300),
            "{lengths:?}"
        );
        let alone: Vec<TextAnswer> = asked.iter().map(|prompt| alone(model, prompt, &likely)).collect();
        let position = position_bytes(model);
        for blocks in [1000, 14] {
            let options = EngineOptions {
                cache_bytes: Some(blocks * 64 * position),
                longest_wait: Duration::from_micros(1),
                ..EngineOptions::default()
            };
            let engine = Engine::start(model, options);
            let (requests, receivers): (Vec<_>, Vec<_>) = asked.iter().map(|prompt| request(prompt, &likely)).unzip();
            engine.submit(requests).unwrap();
            let mut cached = 0;
            for (receiver, alone) in receivers.iter().zip(&alone) {
                let (answer, found) = answer(receiver);
                cached += found;
                assert_eq!(answer.answer.tokens, alone.answer.tokens);
                let bits = |answer: &TextAnswer| -> Vec<u32> {
                    let logprobs = answer.answer.logprobs.iter();
                    let likeliest =
                        logprobs.flat_map(|token| token.likeliest.iter().map(|(_, logprob)| logprob.to_bits()));
                    likeliest.collect()
                };
                assert_eq!(bits(&answer).len(), 72);
                assert_eq!(bits(&answer), bits(alone), "{} blocks", blocks);
            }
            assert!(cached > 0);
        }
    }
}

fn clients_get_their_own_answers(model: &CausalLM) {
    let stop = GenerationConfig {
        stop_strings: Some(vec![" the".to_owned()]),
        ..config(40, None)
    };
    let endless = |config| GenerationConfig {
        eos_token_id: Some(Vec::new()),
        ..config
    };
    // These two begin together, and want more than four blocks before they end.
    let mut asked: Vec<_> = OPENINGS[4..]
        .iter()
        .map(|opening| (prompt(opening), endless(config(180, None))))
        .collect();
    for (index, opening) in OPENINGS.into_iter().enumerate() {
        let long = prompt(&format!("{opening} {}", "and then ".repeat(20 * index)));
        asked.push((long.clone(), endless(config(60 + 24 * index, None))));
        let drawn = GenerationConfig {
            typical_p: (index % 2 == 1).then_some(0.7),
            ..config(100, Some(index as u64))
        };
        asked.push((long, endless(drawn)));
        asked.push((prompt(opening), stop.clone()));
    }
    let alone: Vec<TextAnswer> = asked
        .iter()
        .map(|(prompt, config)| alone(model, prompt, config))
        .collect();
    assert!(alone.iter().any(|answer| answer.answer.finish == Finish::StopString));
    for (blocks, pauses) in [(1000, false), (4, true)] {
        let options = EngineOptions {
            cache_bytes: Some(blocks * 64 * position_bytes(model)),
            longest_wait: Duration::from_micros(1),
            ..EngineOptions::default()
        };
        let engine = Engine::start(model, options);
        let (requests, receivers): (Vec<_>, Vec<_>) =
            asked.iter().map(|(prompt, config)| request(prompt, config)).unzip();
        engine.submit(requests).unwrap();
        for (receiver, alone) in receivers.iter().zip(&alone) {
            let (answer, _) = answer(receiver);
            assert_eq!(answer.answer.tokens, alone.answer.tokens);
            assert_eq!((&answer.text, answer.answer.finish), (&alone.text, alone.answer.finish));
        }
        let status = wait_until_idle(&engine);
        assert_eq!(status.pauses > 0, pauses, "{status:?}");
        assert!(status.cache_bytes <= status.cache_limit, "{status:?}");
        let generated: usize = alone.iter().map(|answer| answer.answer.tokens.len()).sum();
        assert!(status.generated_tokens >= generated as u64);
    }
}

/// Of the demo model: keys and values of every layer.
fn position_bytes(model: &CausalLM) -> u64 {
    let before = Engine::start(model, EngineOptions::default());
    let (request, receiver) = request(&prompt(OPENINGS[3]), &config(20, None));
    before.submit(vec![request]).unwrap();
    let (answer, _) = answer(&receiver);
    let status = wait_until_idle(&before);
    // The last token of an answer is not computed.
    let positions = answer.answer.prompt_tokens + answer.answer.tokens.len() - 1;
    assert_eq!(status.cache_bytes % positions as u64, 0, "{status:?}");
    status.cache_bytes / positions as u64
}

fn wait_until_idle(engine: &Engine) -> planish::EngineStatus {
    let start = Instant::now();
    loop {
        let status = engine.status();
        if status.running + status.waiting == 0 {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{status:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_reading_of_a_prompt_serves_all_its_answers() {
    let engine = Engine::start(model(), EngineOptions::default());
    let long = prompt(&"Once upon a time there was a little dog who liked to run. ".repeat(12));
    let (requests, receivers): (Vec<_>, Vec<_>) = (0..4).map(|seed| request(&long, &config(12, Some(seed)))).unzip();
    engine.submit(requests).unwrap();
    let answers: Vec<_> = receivers.iter().map(answer).collect();
    let cached: Vec<usize> = answers.iter().map(|(_, cached)| *cached).collect();
    assert_eq!(cached, [0, long.len() - 1, long.len() - 1, long.len() - 1]);
    // A turn goes on with the first answer; its last token was not computed.
    let first = &answers[0].0.answer.tokens;
    let turn = [&long[..], first, &prompt(" And")].concat();
    let (next, receiver) = request(&turn, &config(5, None));
    engine.submit(vec![next]).unwrap();
    let (after, cached) = answer(&receiver);
    assert_eq!(cached, long.len() + first.len() - 1);
    assert_eq!(
        after.answer.tokens,
        alone(model(), &turn, &config(5, None)).answer.tokens
    );
    let status = wait_until_idle(&engine);
    assert_eq!(status.prompt_tokens as usize, 4 * long.len() + turn.len());
    assert_eq!(status.cached_tokens as usize, 3 * (long.len() - 1) + cached);
}

#[test]
fn clients_may_leave_and_engines_may_stop() {
    let options = EngineOptions {
        answers: Some(2),
        queue: 3,
        ..EngineOptions::default()
    };
    let engine = Engine::start(model(), options);
    let endless = GenerationConfig {
        eos_token_id: Some(vec![]),
        ..config(100_000, Some(1))
    };
    let start = prompt(OPENINGS[0]);
    let submit = |pieces: usize| {
        let (client, receiver, gone) = listener(pieces);
        let request = EngineRequest {
            request: Request {
                prompt: start.clone(),
                config: endless.clone(),
            },
            continues: true,
            client: Box::new(client),
        };
        (engine.submit(vec![request]), receiver, gone)
    };
    // One breaks off at its third piece, one is gone after its first; both free their places.
    let (_, brief, _) = submit(3);
    let (_, leaving, gone) = submit(usize::MAX);
    assert!(leaving.iter().any(|heard| matches!(heard, Heard::Text(_))));
    gone.store(true, Ordering::Relaxed);
    let heard: Vec<Heard> = brief.iter().collect();
    let texts = heard.iter().filter(|heard| matches!(heard, Heard::Text(_)));
    assert_eq!((heard.len(), texts.count()), (4, 3), "{heard:?}");
    assert!(leaving.iter().all(|heard| matches!(heard, Heard::Text(_))));
    // Two run, three wait, the next is refused.
    let running = [submit(usize::MAX), submit(usize::MAX)];
    for (result, receiver, _) in &running {
        assert!(result.is_ok() && matches!(receiver.recv(), Ok(Heard::Begun(..))));
    }
    let waiting = [(); 3].map(|()| submit(usize::MAX));
    assert!(waiting.iter().all(|(result, ..)| result.is_ok()));
    let (result, ..) = submit(usize::MAX);
    assert!(matches!(result, Err(Refusal::Busy { waiting: 3 })), "{result:?}");
    let start = Instant::now();
    while engine.status().running < 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", engine.status());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(engine.status().waiting, 3);
    // What waits and leaves makes room.
    waiting[0].2.store(true, Ordering::Relaxed);
    let start = Instant::now();
    while engine.status().waiting == 3 {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    engine.close();
    assert!(matches!(submit(usize::MAX).0, Err(Refusal::Closed)));
    engine.stop();
    for (_, receiver, _) in running.iter().chain(&waiting[1..]) {
        let last = receiver.iter().last();
        let Some(Heard::Finished(answer)) = last else {
            panic!("not told: {last:?}");
        };
        assert_eq!(answer.answer.finish, Finish::Interrupted);
    }
    assert_eq!(waiting[0].1.iter().count(), 0);
}

#[test]
fn what_cannot_be_answered_is_refused_at_once() {
    let engine = Engine::start(model(), EngineOptions::default());
    let refuse = |prompt: &[u32], config: &GenerationConfig| {
        let (good, receiver) = request(&[1, 2], &self::config(1, None));
        let (bad, _) = request(prompt, config);
        let Err(Refusal::Request(error)) = engine.submit(vec![good, bad]) else {
            panic!("taken")
        };
        // All or none.
        assert_eq!(receiver.iter().count(), 0);
        error
    };
    let error = refuse(&[], &config(1, None));
    assert!(
        matches!(error, Error::Generate(planish::GenerateError::EmptyPrompt)),
        "{error}"
    );
    let error = refuse(&[u32::MAX], &config(1, None));
    assert!(error.to_string().contains("4294967295"), "{error}");
    let wrong = GenerationConfig {
        top_p: Some(2.0),
        ..config(1, None)
    };
    assert!(refuse(&[1], &wrong).to_string().contains("top_p"));
    assert_eq!(engine.status().passes, 0);
}

#[test]
fn logits_may_be_weighed() -> Result<(), Error> {
    let model = model();
    let asked = prompt(OPENINGS[0]);
    for seed in [None, Some(3)] {
        let config = config(24, seed);
        let alone = model
            .session()
            .continue_text(&asked, &config, &mut |_| ControlFlow::Continue(()))?;
        // Looked at and left as they are, they give the same answer.
        let (one, heard) = request(&asked, &config);
        let mut seen = Vec::new();
        model.answer_weighed(one, &mut |ids, logits| {
            assert_eq!(logits.len(), model.architecture().vocabulary);
            seen.push(ids.len());
            ControlFlow::Continue(())
        })?;
        let (told, _) = answer(&heard);
        assert_eq!(
            (told.answer.tokens, told.text),
            (alone.answer.tokens.clone(), alone.text)
        );
        assert_eq!(seen[..3], [asked.len(), asked.len() + 1, asked.len() + 2]);

        // A token that is made impossible does not come.
        let banned = alone.answer.tokens[1] as usize;
        let (one, heard) = request(&asked, &config);
        model.answer_weighed(one, &mut |_, logits| {
            logits[banned] = f32::NEG_INFINITY;
            ControlFlow::Continue(())
        })?;
        let (told, _) = answer(&heard);
        assert!(!told.answer.tokens.contains(&(banned as u32)), "{told:?}");
        if seed.is_none() {
            assert_eq!(told.answer.tokens[0], alone.answer.tokens[0]);
        }
    }
    let (one, heard) = request(&asked, &config(24, None));
    let mut left = 3;
    model.answer_weighed(one, &mut |_, _| {
        left -= 1;
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    let (told, _) = answer(&heard);
    assert_eq!((told.answer.finish, told.answer.tokens.len()), (Finish::Interrupted, 2));
    let (empty, _) = request(&[], &config(24, None));
    assert!(
        model
            .answer_weighed(empty, &mut |_, _| ControlFlow::Continue(()))
            .is_err()
    );
    Ok(())
}
