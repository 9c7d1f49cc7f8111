//! A session that has seen something before answers as a new one: with a cache that is cut back, and with one that cannot be.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use planish_checkpoint::Checkpoint;
use planish_generate::{
    Answer, Batch, Cutoffs, Finish, GenerationPlan, Growth, Reading, Restrictions, Sampling, Session, Step,
};
use planish_model::{LoadOptions, Model};

/// A tiny checkpoint of planish-model's tests.
fn load(case: &str) -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../planish-model/tests/golden");
    let options = LoadOptions {
        threads: Some(1),
        exact: true,
        ..LoadOptions::default()
    };
    Model::load(&Checkpoint::open(&folder.join(case).join("plain")).unwrap(), &options).unwrap()
}

fn answer(session: &mut Session, model: &mut Model, prompt: &[u32]) -> Answer {
    let plan = GenerationPlan {
        max_new_tokens: 8,
        sampling: Sampling {
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            cutoffs: Cutoffs::default(),
        },
        restrictions: Restrictions::default(),
        eos_token_id: Vec::new(),
        stop_strings: Vec::new(),
        max_time: None,
        logprobs: None,
        reading: Reading::default(),
        by_logits: false,
        grammar: None,
    };
    session
        .generate(model, prompt, &plan, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

/// Answers to prompts one after another in one session equal those of new sessions; returns the tokens reused for each.
fn reused(case: &str, prompts: &[&[u32]]) -> Vec<usize> {
    let mut model = load(case);
    let mut session = Session::new(&model);
    let answers = prompts.iter().map(|prompt| {
        let found = answer(&mut session, &mut model, prompt);
        let expected = answer(&mut Session::new(&model), &mut model, prompt);
        assert_eq!(found.tokens, expected.tokens, "{case} after other prompts");
        found.reused_tokens
    });
    answers.collect()
}

#[test]
fn what_prompts_share_is_reused_where_the_cache_goes_back() {
    let prompts: [&[u32]; 4] = [&[5, 9, 2, 40], &[5, 9, 2, 41, 7], &[5, 9, 2, 41, 7], &[8]];
    assert_eq!(reused("llama_tied", &prompts), [0, 3, 4, 0]);
    for case in ["lfm2", "granitemoehybrid", "falcon_h1"] {
        assert_eq!(reused(case, &prompts), [0; 4], "{case}");
    }
}

#[test]
fn a_conversation_that_goes_on_is_reused_whole() {
    for case in ["llama_tied", "lfm2", "granitemoehybrid", "falcon_h1"] {
        let mut model = load(case);
        let mut session = Session::new(&model);
        let mut conversation = vec![5, 9, 2, 40];
        let first = answer(&mut session, &mut model, &conversation);
        conversation.extend(&first.tokens);
        conversation.push(11);
        let found = answer(&mut session, &mut model, &conversation);
        let expected = answer(&mut Session::new(&model), &mut model, &conversation);
        assert_eq!(found.tokens, expected.tokens, "{case}");
        // All but the answer's last token, which was never an input, and the new one.
        assert_eq!(found.reused_tokens, conversation.len() - 2, "{case}");
    }
}

/// Prompt and plan of every session: lengths and ends differ, some draw, some are penalized.
fn tasks(vocabulary: u32, count: usize, longest: usize) -> Vec<(Vec<u32>, GenerationPlan)> {
    let task = |index: usize| {
        let length = 1 + index * longest / count;
        let token = |position: usize| ((position * position + 7 * position + 13 * index) as u32) % vocabulary;
        let prompt = (0..length).map(token).collect();
        let drawn = index % 3 == 1;
        let plan = GenerationPlan {
            max_new_tokens: 3 + index * 5 % 17,
            sampling: Sampling {
                do_sample: drawn,
                temperature: 1.2,
                top_k: 20 * (index % 2),
                top_p: 0.95,
                min_p: 0.01,
                repetition_penalty: if index % 4 == 2 { 1.3 } else { 1.0 },
                presence_penalty: 0.0,
                frequency_penalty: 0.0,
                seed: index as u64,
                cutoffs: Cutoffs {
                    typical_p: (index % 8 == 5).then_some(0.8),
                    top_h: (index % 8 == 7).then_some(0.6),
                    ..Cutoffs::default()
                },
            },
            restrictions: Restrictions {
                suppressed: if index % 4 == 3 { vec![1, 2, 3] } else { Vec::new() },
                repeat_none_of: if index % 5 == 3 { 2 } else { 0 },
                least_tokens: index % 3,
                end_growth: (index % 6 == 4).then_some(Growth { after: 2, factor: 1.3 }),
                ..Restrictions::default()
            },
            eos_token_id: vec![index as u32 % vocabulary],
            stop_strings: Vec::new(),
            max_time: None,
            logprobs: None,
            reading: Reading::default(),
            by_logits: false,
            grammar: None,
        };
        (prompt, plan)
    };
    (0..count).map(task).collect()
}

fn alone(model: &mut Model, (prompt, plan): &(Vec<u32>, GenerationPlan)) -> Answer {
    let mut session = Session::new(model);
    session
        .generate(model, prompt, plan, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

/// What an answer is, without its times.
fn text(answer: &Answer) -> (&[u32], Finish, usize, usize) {
    (
        &answer.tokens,
        answer.finish,
        answer.prompt_tokens,
        answer.reused_tokens,
    )
}

/// Each session of a batch, which joins after so many passes, answers as it does alone.
fn compare(model: &mut Model, tasks: &[(Vec<u32>, GenerationPlan)], passes_between: usize) {
    let expected: Vec<Answer> = tasks.iter().map(|task| alone(model, task)).collect();
    let mut batch = Batch::default();
    let mut waiting = tasks.iter().enumerate();
    let mut tasks_of = HashMap::new();
    let mut reported: Vec<Vec<u32>> = vec![Vec::new(); tasks.len()];
    let mut found = vec![None; tasks.len()];
    let mut passes = 0;
    while found.contains(&None) {
        if passes % passes_between.max(1) == 0 {
            let joining = waiting.by_ref().take(if passes_between == 0 { tasks.len() } else { 1 });
            for (index, (prompt, plan)) in joining {
                let mut session = Session::new(model);
                session.begin(model, prompt, plan).unwrap();
                tasks_of.insert(batch.add(session), index);
            }
        }
        passes += 1;
        let mut on_step = |member, step: Step<'_>| {
            if let Step::Token(token) = step {
                reported[tasks_of[&member]].push(token);
            }
            ControlFlow::Continue(())
        };
        batch.step(model, &mut on_step).unwrap();
        while let Some((member, mut session)) = batch.take_finished() {
            found[tasks_of[&member]] = Some(session.take_answer().unwrap());
        }
    }
    assert!(batch.is_empty());
    for (index, expected) in expected.iter().enumerate() {
        let found = found[index].as_ref().unwrap();
        assert_eq!(text(found), text(expected), "session {index}");
        assert_eq!(reported[index], expected.tokens, "session {index}");
    }
}

#[test]
fn many_sessions_answer_as_each_alone() {
    for case in [
        "llama_tied",
        "gemma3_text",
        "lfm2",
        "granitemoehybrid",
        "falcon_h1",
        "qwen3_next",
        "mixtral",
    ] {
        let mut model = load(case);
        let vocabulary = model.architecture().vocabulary as u32;
        for passes_between in [0, 1, 3] {
            compare(&mut model, &tasks(vocabulary, 16, 40), passes_between);
        }
    }
}

/// Prompts of several pieces beside answers, weights that are packed, activations that are rounded.
#[test]
fn many_sessions_tell_the_stories_that_each_tells_alone() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let mut model = Model::load(&Checkpoint::open(&folder).unwrap(), &LoadOptions::default()).unwrap();
    let vocabulary = model.architecture().vocabulary as u32;
    let context = model.architecture().context;
    compare(&mut model, &tasks(vocabulary, 16, 60), 2);
    compare(&mut model, &tasks(vocabulary, 3, context.min(1500)), 0);
}

#[test]
fn a_session_that_is_stopped_leaves_the_others_as_they_are() {
    let mut model = load("llama_tied");
    let tasks = tasks(model.architecture().vocabulary as u32, 6, 20);
    let expected: Vec<Answer> = tasks.iter().map(|task| alone(&mut model, task)).collect();
    let mut sessions: Vec<Session> = tasks.iter().map(|_| Session::new(&model)).collect();
    let mut batch = Batch::default();
    let mut members = Vec::new();
    for (session, (prompt, plan)) in sessions.iter_mut().zip(&tasks) {
        session.begin(&model, prompt, plan).unwrap();
        members.push(batch.add(session));
    }
    // One leaves between passes, the receiver of another breaks off at its second token.
    batch.step(&mut model, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let gone = batch.remove(members[3]).unwrap();
    assert_eq!(gone.take_answer().unwrap().finish, Finish::Interrupted);
    assert!(batch.remove(members[3]).is_none());
    let mut tokens = 0;
    let mut on_step = |member, _: Step<'_>| {
        tokens += usize::from(member == members[5]);
        match member == members[5] && tokens == 2 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    batch.run(&mut model, &mut on_step).unwrap();
    drop(batch);
    for (index, (session, expected)) in sessions.iter_mut().zip(&expected).enumerate() {
        match index {
            3 => continue,
            5 => assert_eq!(session.take_answer().unwrap().finish, Finish::Interrupted),
            _ => assert_eq!(text(&session.take_answer().unwrap()), text(expected)),
        }
        // What it remembers is what it said.
        assert!(session.tokens().starts_with(&tasks[index].0));
    }
}

#[test]
fn a_fork_goes_on_by_itself_and_a_cut_forgets() {
    for case in ["llama_tied", "lfm2", "falcon_h1"] {
        let mut model = load(case);
        let mut session = Session::new(&model);
        let conversation = [5, 9, 2, 40];
        let first = answer(&mut session, &mut model, &conversation);
        let remembered = session.tokens().to_vec();
        let mut fork = session.fork(&mut model).unwrap();
        assert_eq!(fork.tokens(), remembered);
        let whole = [&conversation[..], &first.tokens].concat();
        for (token, session) in [(11, &mut fork), (12, &mut session)] {
            let prompt = [&whole[..], &[token]].concat();
            let found = answer(session, &mut model, &prompt);
            let expected = answer(&mut Session::new(&model), &mut model, &prompt);
            assert_eq!(found.tokens, expected.tokens, "{case}, then {token}");
            assert_eq!(found.reused_tokens, remembered.len(), "{case}");
        }
        let kept = if case == "llama_tied" { 3 } else { 0 };
        assert_eq!(fork.truncate(3), kept, "{case}");
        assert_eq!(fork.tokens(), &conversation[..kept]);
    }
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let mut model = load("llama_tied");
    let mut session = Session::with_capacity(&model, 7);
    let mut plan = tasks(8, 1, 1).remove(0).1;
    (plan.max_new_tokens, plan.eos_token_id) = (20, Vec::new());
    let mut on_step = |_: Step<'_>| ControlFlow::Continue(());
    let found = session.generate(&mut model, &[1, 2, 3], &plan, &mut on_step).unwrap();
    // The last token is chosen after the seventh position.
    assert_eq!((found.tokens.len(), found.finish), (5, Finish::ContextFull));
    plan.max_new_tokens = 0;
    let found = session.generate(&mut model, &[1, 2, 3], &plan, &mut on_step).unwrap();
    assert_eq!((found.tokens.len(), found.finish), (0, Finish::MaxNewTokens));
    // The first token comes, however little time there is.
    (plan.max_new_tokens, plan.max_time) = (20, Some(Duration::ZERO));
    let found = session.generate(&mut model, &[1, 2, 3], &plan, &mut on_step).unwrap();
    assert_eq!((found.tokens.len(), found.finish), (1, Finish::MaxTime));
    plan.max_time = Some(Duration::MAX);
    let found = session.generate(&mut model, &[1, 2, 3], &plan, &mut on_step).unwrap();
    assert_eq!(found.finish, Finish::ContextFull);
    assert!(session.generate(&mut model, &[1; 8], &plan, &mut on_step).is_err());
}
