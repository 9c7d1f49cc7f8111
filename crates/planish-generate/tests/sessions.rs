//! A session that has seen something before answers as a new one: with a cache that is cut back, and with one that cannot be.

use std::ops::ControlFlow;
use std::path::PathBuf;

use planish_checkpoint::Checkpoint;
use planish_generate::{Answer, GenerationPlan, Sampling, Session};
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
            seed: 0,
        },
        eos_token_id: Vec::new(),
    };
    session
        .generate(model, prompt, &plan, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

/// Answers to prompts one after another in one session equal those of new sessions; returns the tokens reused for each.
fn reused(case: &str, prompts: &[&[u32]]) -> Vec<usize> {
    let mut model = load(case);
    let mut session = Session::new(&model).unwrap();
    let answers = prompts.iter().map(|prompt| {
        let found = answer(&mut session, &mut model, prompt);
        let expected = answer(&mut Session::new(&model).unwrap(), &mut model, prompt);
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
        let mut session = Session::new(&model).unwrap();
        let mut conversation = vec![5, 9, 2, 40];
        let first = answer(&mut session, &mut model, &conversation);
        conversation.extend(&first.tokens);
        conversation.push(11);
        let found = answer(&mut session, &mut model, &conversation);
        let expected = answer(&mut Session::new(&model).unwrap(), &mut model, &conversation);
        assert_eq!(found.tokens, expected.tokens, "{case}");
        // All but the answer's last token, which was never an input, and the new one.
        assert_eq!(found.reused_tokens, conversation.len() - 2, "{case}");
    }
}
