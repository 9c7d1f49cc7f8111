//! Likelihoods of continuations, against the logits that the model gives for each text alone.

use std::ops::ControlFlow;

use planish::{AutoModelForCausalLM, ErrorKind};

#[test]
fn likelihoods_are_those_of_the_logits() -> Result<(), planish::Error> {
    let model = AutoModelForCausalLM::demo().exact(true).load()?;
    let tokens = |text: &str| model.tokenizer().unwrap().encode(text).unwrap();
    // Without the token that begins a text.
    let continuation = |text: &str| tokens(text)[1..].to_vec();
    let context = tokens("Once upon a time there was a little");
    let mut pairs: Vec<(Vec<u32>, Vec<u32>)> = [" girl", " girl who lived in a house", " zebra", ""]
        .map(|text| (context.clone(), continuation(text)))
        .to_vec();
    pairs.push((context[..2].to_vec(), context[2..].to_vec()));
    pairs.push((tokens("The dog"), continuation(" ran")));
    // What the model writes without sampling, which its generation_config.json asks for, is greedy.
    let config = planish::GenerationConfig {
        max_new_tokens: 6,
        do_sample: Some(false),
        ..Default::default()
    };
    let answer = model.generate(&context, &config)?;
    pairs.push((context.clone(), answer[context.len()..].to_vec()));

    let mut counts = Vec::new();
    let found = model.likelihoods(&pairs, &mut |done| {
        counts.push(done);
        ControlFlow::Continue(())
    })?;
    assert_eq!(counts, (1..=pairs.len()).collect::<Vec<_>>());
    for ((context, continuation), found) in pairs.iter().zip(&found) {
        let found = found.unwrap();
        let text = [context.as_slice(), continuation].concat();
        let (mut sum, mut greedy) = (0.0, true);
        model.logits_from(&text, context.len() - 1, &mut |index, logits| {
            if let Some(&next) = text.get(index + 1) {
                let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                sum += f64::from(logits[next as usize]) - total.ln();
                greedy &= logits.iter().all(|&logit| logit <= logits[next as usize]);
            }
        })?;
        assert!(
            (found.log_likelihood - sum).abs() < 1e-3,
            "{found:?}, {sum} by the logits of {text:?}"
        );
        assert_eq!(found.is_greedy, greedy, "{text:?}");
    }
    assert!(found[6].unwrap().is_greedy && !found[2].unwrap().is_greedy);
    assert_eq!(found[3].unwrap().log_likelihood, 0.0);

    let stopped = model.likelihoods(&pairs, &mut |_| ControlFlow::Break(()))?;
    assert_eq!(stopped.iter().flatten().count(), 1);
    let empty = model.likelihoods(&[(Vec::new(), context.clone())], &mut |_| ControlFlow::Continue(()));
    assert_eq!(empty.unwrap_err().kind(), ErrorKind::Value);
    let unknown = model.likelihoods(&[(context, vec![u32::MAX])], &mut |_| ControlFlow::Continue(()));
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::Value);
    Ok(())
}
