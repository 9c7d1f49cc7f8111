//! Sessions, conversations, logits and evaluation of the tiny model and the demo model, against the plainer ways to the same.

use std::ops::ControlFlow;
use std::path::Path;

use planish::{
    AutoModelForCausalLM, AutoTokenizer, CausalLM, Error, EvaluationOptions, Finish, GenerationConfig, ManyStep,
    Request, Step, TextStep, evaluate_all,
};

fn tiny() -> CausalLM {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny");
    AutoModelForCausalLM::from_pretrained(folder.to_str().unwrap())
        .exact(true)
        .load()
        .unwrap()
}

fn greedy(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        do_sample: Some(false),
        eos_token_id: Some(vec![]),
        ..GenerationConfig::default()
    }
}

#[test]
fn sessions_share_a_model_and_remember_their_own_prefix() {
    let model = tiny();
    let config = greedy(6);
    let (mut one, mut other) = (model.session(), model.session());
    let silent = &mut |_: Step<'_>| ControlFlow::Continue(());
    let prompts: [&[u32]; 2] = [&[5, 6, 7, 8], &[9, 10, 11]];
    let first = one.generate(prompts[0], &config, silent).unwrap();
    let second = other.generate(prompts[1], &config, silent).unwrap();
    assert_eq!((first.reused_tokens, second.reused_tokens), (0, 0));
    // A second turn begins as the first one and its answer did; the other session between them changed nothing.
    let turn = [prompts[0], &first.tokens, &[20, 21]].concat();
    let again = one.generate(&turn, &config, silent).unwrap();
    assert_eq!(again.reused_tokens, prompts[0].len() + first.tokens.len() - 1);
    let afresh = model.generate(&turn, &config).unwrap();
    assert_eq!(again.tokens, afresh[turn.len()..]);
    one.reset();
    assert_eq!(one.generate(&turn, &config, silent).unwrap().reused_tokens, 0);
}

#[test]
fn a_session_may_be_forked_and_cut_back() {
    let model = tiny();
    let config = greedy(6);
    let silent = &mut |_: Step<'_>| ControlFlow::Continue(());
    let mut session = model.session();
    session.generate(&[5, 6, 7, 8], &config, silent).unwrap();
    let remembered = session.tokens().to_vec();
    let mut fork = session.fork().unwrap();
    assert_eq!((fork.tokens(), session.truncate(3)), (&remembered[..], 3));
    let turn = [&remembered[..], &[20]].concat();
    for (session, reused) in [(&mut fork, remembered.len()), (&mut session, 3)] {
        let found = session.generate(&turn, &config, silent).unwrap();
        assert_eq!(found.reused_tokens, reused);
        assert_eq!(found.tokens, model.generate(&turn, &config).unwrap()[turn.len()..]);
    }
}

#[test]
fn many_requests_are_answered_as_each_alone() {
    let model = tiny();
    let request = |index: u32| Request {
        prompt: (5..7 + index).collect(),
        config: GenerationConfig {
            do_sample: Some(index % 2 == 1),
            seed: Some(u64::from(index)),
            ..greedy(3 + index as usize)
        },
    };
    let requests: Vec<Request> = (0..7).map(request).collect();
    for parallel in [1, 3, 16] {
        let (mut tokens, mut finished) = (vec![Vec::new(); 7], Vec::new());
        let answers = model.generate_many(&requests, parallel, &mut |index, step| {
            match step {
                ManyStep::Step(Step::Token(token)) => tokens[index].push(token),
                ManyStep::Step(Step::Prefill { .. } | Step::Logprobs(_)) => {}
                ManyStep::Failed(error) => panic!("{error}"),
                ManyStep::Answer(answer) => {
                    assert_eq!(answer.tokens, tokens[index]);
                    finished.push(index);
                }
            }
            ControlFlow::Continue(())
        });
        for (request, answer) in requests.iter().zip(answers.unwrap()) {
            let alone = model.generate(&request.prompt, &request.config).unwrap();
            assert_eq!(answer.unwrap().tokens, alone[request.prompt.len()..]);
        }
        finished.sort_unstable();
        assert_eq!(finished, [0, 1, 2, 3, 4, 5, 6]);
    }
    // Who breaks off ends them all; the last did not begin.
    let mut on_step = |_, _: ManyStep<'_>| ControlFlow::Break(());
    let answers = model.generate_many(&requests, 3, &mut on_step).unwrap();
    let finishes: Vec<Option<Finish>> = answers
        .iter()
        .map(|answer| answer.as_ref().map(|it| it.finish))
        .collect();
    assert_eq!(finishes[..3], [Some(Finish::Interrupted); 3]);
    assert_eq!(finishes[3..], [None; 4]);
    let bad = Request {
        prompt: Vec::new(),
        ..requests[0].clone()
    };
    let mut untouched = |_, _: ManyStep<'_>| panic!("nothing runs");
    assert!(
        model
            .generate_many(&[requests[0].clone(), bad], 2, &mut untouched)
            .is_err()
    );
}

#[test]
fn threads_may_use_clones_at_once() {
    let model = tiny();
    let expected = model.generate(&[5, 6, 7], &greedy(8)).unwrap();
    std::thread::scope(|scope| {
        let run = |_| {
            let model = model.clone();
            scope.spawn(move || model.generate(&[5, 6, 7], &greedy(8)).unwrap())
        };
        for thread in [0, 1, 2].map(run) {
            assert_eq!(thread.join().unwrap(), expected);
        }
    });
}

#[test]
fn text_comes_in_steps_that_add_up() {
    let model = tiny();
    let tokenizer = model.tokenizer().unwrap();
    let prompt = tokenizer.encode("Hello world").unwrap();
    let (mut text, mut steps) = (String::new(), 0);
    let told = model
        .session()
        .generate_text(&prompt, &greedy(20), &mut |step| {
            if let TextStep::Text(news) = step {
                steps += 1;
                text.push_str(news);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(told.text, text);
    assert_eq!(told.text, tokenizer.decode(&told.answer.tokens).unwrap());
    assert!(steps >= 20, "{steps}");
    let broken = model
        .session()
        .generate_text(&prompt, &greedy(20), &mut |_| ControlFlow::Break(()))
        .unwrap();
    assert_eq!(broken.answer.finish, Finish::Interrupted);
    assert_eq!(broken.answer.tokens.len(), 1);
}

#[test]
fn a_conversation_computes_what_is_new_and_forgets_what_was_refused() {
    let model = tiny();
    let mut chat = model.chat().unwrap();
    chat.reset(Some("Be brief."));
    let silent = &mut |_: TextStep<'_>| ControlFlow::Continue(());
    let first = chat.generate("Hello world", &greedy(8), silent).unwrap();
    assert_eq!(first.answer.reused_tokens, 0);
    let roles = |chat: &planish::ChatSession| -> Vec<String> {
        let messages = chat.messages().iter();
        messages.map(|message| message.role().to_owned()).collect()
    };
    assert_eq!(roles(&chat), ["system", "user", "assistant"]);
    assert_eq!(chat.messages()[2].content(), Some(first.text.as_str()));
    let refused = chat.generate("x".repeat(4000), &greedy(8), silent).unwrap_err();
    assert!(
        refused.to_string().contains("the model's context holds 512"),
        "{refused}"
    );
    assert_eq!(roles(&chat), ["system", "user", "assistant"]);
    let second = chat.generate("And then?", &greedy(8), silent).unwrap();
    assert!(second.answer.reused_tokens > 0);
    let tokens = model.tokenizer().unwrap().apply_chat_template(&chat.messages()[..4]);
    let afresh = model.generate(&tokens.unwrap(), &greedy(8)).unwrap();
    assert!(afresh.ends_with(&second.answer.tokens));
    chat.reset(None);
    assert!(chat.messages().is_empty() && chat.system().is_none());
}

#[cfg(feature = "demo-model")]
#[test]
fn a_model_without_a_template_refuses_conversations() {
    let model = AutoModelForCausalLM::demo().load().unwrap();
    assert!(matches!(model.chat().err().unwrap(), Error::NoChatTemplate));
    let message = planish::Message::new("user", "Hello");
    let refused = AutoTokenizer::demo().unwrap().apply_chat_template(&[message]);
    let refused = refused.unwrap_err().to_string();
    assert!(!refused.contains('`') && !refused.contains("--"), "{refused}");
}

#[test]
fn logits_lead_to_the_greedy_tokens() {
    let model = tiny();
    let generated = model.generate(&[5, 6, 7], &greedy(5)).unwrap();
    let largest = |logits: &[f32]| {
        (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap()
    };
    let mut found = Vec::new();
    model
        .logits_from(&generated[..7], 2, &mut |index, logits| {
            found.push((index, largest(logits) as u32))
        })
        .unwrap();
    let expected: Vec<(usize, u32)> = (2..7).map(|index| (index, generated[index + 1])).collect();
    assert_eq!(found, expected);
    assert_eq!(largest(&model.logits(&generated[..7]).unwrap()) as u32, generated[7]);
    let refused = model.logits(&[]).unwrap_err().to_string();
    assert_eq!(refused, "no token to compute");
}

/// Perplexity is the exponential of the mean of -ln p, with p from the logits; a model does not diverge from itself.
#[test]
fn evaluation_is_what_its_definition_says() {
    let model = tiny();
    let chunks = vec![vec![5, 6, 7, 8, 9, 10], vec![20, 21, 22, 23]];
    for (from_start, one_by_one) in [(false, false), (false, true), (true, false)] {
        let options = EvaluationOptions {
            reference: Some(&model),
            from_start,
            one_by_one,
        };
        let mut seen = Vec::new();
        let found = model
            .evaluate(&chunks, &options, &mut |progress| {
                seen.push((progress.done, progress.total))
            })
            .unwrap();
        assert_eq!(seen, [(1, 2), (2, 2)]);
        let (mut nats, mut count) = (0.0, 0);
        for chunk in &chunks {
            let first = if from_start { 0 } else { chunk.len() / 2 };
            for index in first..chunk.len() - 1 {
                let logits = model.logits(&chunk[..=index]).unwrap();
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                nats += sum.ln() - f64::from(logits[chunk[index + 1] as usize]);
                count += 1;
            }
        }
        assert_eq!(found.scored_tokens, count);
        let perplexity = (nats / count as f64).exp();
        assert!(
            (found.perplexity / perplexity - 1.0).abs() < 1e-5,
            "{} {perplexity}",
            found.perplexity
        );
        let beside = found.comparison.unwrap();
        assert!(
            beside.mean_kl_divergence.abs() < 1e-6 && beside.top1_agreement == 1.0,
            "{beside:?}"
        );
        assert!(beside.largest < 1e-5 && beside.top5_agreement == 1.0, "{beside:?}");
        let both = evaluate_all(&[&model, &model], &chunks, &options, &mut |_| {}).unwrap();
        assert_eq!(both, [found, found]);
    }
}

#[test]
fn chunks_are_whole_and_begin_alike() {
    let model = tiny();
    let tokenizer = model.tokenizer().unwrap();
    let text = "Hello world, and then more of the same. ".repeat(8);
    let tokens = tokenizer.encode(&text).unwrap();
    let chunks = tokenizer.chunks(&text, 16).unwrap();
    assert_eq!(chunks.len(), tokens.len() / 16);
    assert!(chunks.iter().all(|chunk| chunk.len() == 16));
    assert_eq!(chunks[0], tokens[..16]);
    let short = tokenizer.chunks("Hello", 512).unwrap_err();
    assert!(matches!(short, Error::ShortText { chunk: 512, .. }), "{short}");
}
