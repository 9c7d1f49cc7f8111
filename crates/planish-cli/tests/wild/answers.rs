//! What a checkpoint asks for (suggestions, templates, channels, first spaces) is done or told.

use serde_json::{Value, json};

use crate::support::Scratch;
use crate::support::scripted::{Scripted, letters};
use crate::{said, told, write};

#[test]
fn suggestions_of_the_checkpoint_are_obeyed() {
    let scratch = Scratch::new();
    for (suggestion, expected) in [
        (json!({}), "bcabca"),
        (json!({"suppress_tokens": [98]}), "</s>"),
        (json!({"begin_suppress_tokens": [98]}), ""),
        (json!({"bad_words_ids": [[99]]}), "b"),
        (json!({"bad_words_ids": [[98, 99]]}), "b"),
        (json!({"bad_words_ids": [[97, 99]]}), "bcabca"),
        (json!({"no_repeat_ngram_size": 3}), "bcab"),
        (json!({"no_repeat_ngram_size": 7}), "bcabca"),
        (json!({"max_new_tokens": 2}), "bcabca"),
        (json!({"stop_strings": ["ab", "zz"]}), "bc"),
        (json!({"stop_strings": "ca"}), "b"),
        (json!({"eos_token_id": 99}), "b"),
        (json!({"eos_token_id": [99, 97]}), "b"),
        (json!({"eos_token_id": -1}), "bcabca"),
        (json!({"top_k": -1}), "bcabca"),
        (json!({"max_time": 1e9, "do_sample": true, "top_h": 0.5}), "bcabca"),
        (
            json!({"do_sample": true, "typical_p": 0.2, "epsilon_cutoff": 0.4, "eta_cutoff": 0.4}),
            "bcabca",
        ),
        // The end is likelier after a bias, and grows from there.
        (
            json!({"eos_token_id": 120, "sequence_bias": [[[120], 1.0]], "exponential_decay_length_penalty": [3, 100.0]}),
            "bcab",
        ),
        (json!({"top_k": "many"}), "bcabca"),
    ] {
        let mut model = Scripted::circle();
        model.generation_config = suggestion.clone();
        model.write(&scratch, "m");
        let text = said(&scratch, "m", &[]);
        match expected {
            // Something else comes: which token is the first of equals.
            "" => assert!(!text.starts_with('b'), "{suggestion}: {text}"),
            "</s>" => assert!(!text.contains('b'), "{suggestion}: {text}"),
            "b" if suggestion.get("bad_words_ids").is_some() => {
                assert!(text.starts_with('b') && !text.contains("bc"), "{suggestion}: {text}");
            }
            "bcab" => assert!(
                text.starts_with("bcab") && !text.starts_with("bcabc"),
                "{suggestion}: {text}"
            ),
            expected => assert_eq!(text, expected, "{suggestion}"),
        }
    }
    // Where the user says nothing, the checkpoint says how long an answer may be.
    let mut model = Scripted::circle();
    model.generation_config = json!({"max_new_tokens": 2});
    model.write(&scratch, "m");
    assert_eq!(told(&scratch, &["generate", "m", "--raw", "--prompt", "x=a"]).0, "bc");
    // However little time there is, a token comes, and why no other does is told.
    model.generation_config = json!({"max_time": 0});
    model.write(&scratch, "m");
    let (text, notices) = told(&scratch, &["generate", "m", "--raw", "--prompt", "x=a"]);
    assert_eq!(text, "b");
    assert!(notices.contains("max_time"), "{notices}");
    // An end token does not come too early.
    let mut model = Scripted::circle().chain("d", &["e"], "</s>");
    model.generation_config = json!({"min_new_tokens": 4});
    model.write(&scratch, "m");
    let arguments = [
        "generate",
        "m",
        "--raw",
        "--prompt",
        "d",
        "--max-new-tokens",
        "8",
        "--json",
    ];
    let answer: Value = serde_json::from_str(&told(&scratch, &arguments).0).unwrap();
    assert!(answer["generated_tokens"].as_u64().unwrap() >= 4, "{answer}");
}

#[test]
fn what_is_not_obeyed_is_told_and_what_is_wrong_matters_only_where_it_counts() {
    let scratch = Scratch::new();
    let arguments = ["generate", "m", "--raw", "--prompt", "x=a", "--max-new-tokens", "3"];
    let mut model = Scripted::circle();
    model.generation_config = json!({"penalty_alpha": 0.6, "num_beams": 4, "dola_layers": null, "guidance_scale": 1.0});
    model.write(&scratch, "m");
    let (text, notices) = told(&scratch, &arguments);
    assert_eq!(text, "bca");
    assert_eq!(
        notices,
        "note: generation_config.json: num_beams is 4, which is not obeyed\n\
         note: generation_config.json: penalty_alpha is 0.6, which is not obeyed\n"
    );
    model.generation_config = json!({"top_k": "many", "do_sample": true});
    model.write(&scratch, "m");
    let message = scratch.fail(&arguments);
    assert_eq!(
        message,
        "error: generation_config.json: top_k is \"many\", expected a whole number"
    );
    for flags in [&["--top-k", "40", "--temperature", "0.01"][..], &["--temperature", "0"]] {
        assert_eq!(said(&scratch, "m", flags), "bcabca", "{flags:?}");
    }
    Scripted::circle().write(&scratch, "m");
    let (_, notices) = told(&scratch, &[&arguments[..], &["--top-p", "0.5", "--seed", "7"]].concat());
    assert_eq!(
        notices,
        "note: --top-p, --seed have no effect: tokens are drawn only with a --temperature above 0\n"
    );
    assert_eq!(said(&scratch, "m", &["--stop", "ca"]), "b");
    for (flag, expected) in [
        ("--seed", "from 0 to"),
        ("--top-k", "at least 0"),
        ("--max-new-tokens", "at least 0"),
        ("-n", "at least 0"),
        ("--threads", "invalid value '-1' for '--threads <N>'"),
        ("--bits", "invalid value '-1' for '--bits <BITS>'"),
    ] {
        let output = scratch.run(&["generate", "m", "--prompt", "x", flag, "-1"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr.contains(expected) && !stderr.contains("unexpected"), "{stderr}");
    }
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Answers Yes to anything; only the template says how a turn ends.
fn chat_model() -> Scripted {
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let path = ["Y", "e", "s", "<|im_end|>", "<|im_start|>", "u", "h", "m"];
    let mut model = Scripted::bytes(&[], &special).chain("\n", &path, "\n");
    model.tokenizer_config["eos_token"] = json!("<|endoftext|>");
    model
}

#[test]
fn templates_are_found_and_turns_end_where_they_say() {
    let scratch = Scratch::new();
    let ask = ["generate", "m", "--prompt", "hi", "--max-new-tokens", "9"];
    let mut model = chat_model();
    model.template = Some(CHATML.to_owned());
    model.write(&scratch, "m");
    assert_eq!(told(&scratch, &ask), ("Yes".to_owned(), String::new()));
    // chat_template.json, as text or as a list of named templates.
    std::fs::remove_file(scratch.path("m/chat_template.jinja")).unwrap();
    for template in [json!(CHATML), json!([{"name": "default", "template": CHATML}])] {
        write(
            &scratch.path("m/chat_template.json"),
            &json!({"chat_template": template}),
        );
        assert_eq!(told(&scratch, &ask), ("Yes".to_owned(), String::new()));
    }
    // None at all is told; one from a file will do.
    std::fs::remove_file(scratch.path("m/chat_template.json")).unwrap();
    let (_, notices) = told(&scratch, &ask);
    assert_eq!(
        notices,
        "note: the model has no chat template: it continues the text as it is (as with --raw)\n"
    );
    let (_, notices) = told(&scratch, &[&ask[..], &["--system", "be"]].concat());
    assert!(
        notices.contains("--system and --template-kwarg have no effect"),
        "{notices}"
    );
    std::fs::write(scratch.path("own.jinja"), CHATML).unwrap();
    let (text, _) = told(&scratch, &[&ask[..], &["--chat-template", "own.jinja"]].concat());
    assert_eq!(text, "Yes");
}

#[test]
fn templates_are_told_variables_and_a_system_message() {
    let scratch = Scratch::new();
    let mut model = chat_model();
    let words = "{{ raise_exception(messages|map(attribute='content')|join('+') ~ enable_thinking ~ x) }}";
    model.template = Some(words.to_owned());
    model.write(&scratch, "m");
    let arguments = [
        "generate",
        "m",
        "--prompt",
        "hi",
        "--system",
        "be",
        "--template-kwarg",
        "enable_thinking=false",
    ];
    let message = scratch.fail(&[&arguments[..], &["--template-kwarg", "x=1=2"]].concat());
    assert_eq!(message, "error: chat template: be+hiFalse1=2");
}

#[test]
fn channels_are_told_apart() {
    let scratch = Scratch::new();
    let special = [
        "<|start|>",
        "<|end|>",
        "<|message|>",
        "<|channel|>",
        "<|return|>",
        "<|message2|>",
        "<|channel2|>",
    ];
    let words = ["assistant", "analysis", "final", "Hmm.", "Paris."];
    let path = [
        "<|channel|>",
        "analysis",
        "<|message|>",
        "Hmm.",
        "<|end|>",
        "<|start|>",
        "assistant",
    ];
    let rest = ["<|channel2|>", "final", "<|message2|>", "Paris."];
    let mut model = Scripted::bytes(&words, &special).chain("t", &[&path[..], &rest].concat(), "<|return|>");
    model.tokenizer_config["eos_token"] = json!("<|return|>");
    model.template = Some(
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>\
         {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
            .to_owned(),
    );
    // The prompt ends with the letters of the word, not with the token.
    model.steps.push(("assistant".to_owned(), "<|channel2|>".to_owned()));
    model.write(&scratch, "m");
    let arguments = ["generate", "m", "--prompt", "hi", "--max-new-tokens", "24"];
    assert_eq!(told(&scratch, &arguments), ("Paris.".to_owned(), String::new()));
    let answer: Value = serde_json::from_str(&told(&scratch, &[&arguments[..], &["--json"]].concat()).0).unwrap();
    assert_eq!(
        (&answer["text"], &answer["reasoning"]),
        (&json!("Paris."), &json!("Hmm."))
    );
    std::fs::write(scratch.path("prompts"), "hi\nho\n").unwrap();
    let (text, _) = told(
        &scratch,
        &["generate", "m", "--prompts", "prompts", "--max-new-tokens", "24"],
    );
    assert_eq!(text, "=== prompts, line 1\nParis.\n=== prompts, line 2\nParis.");
}

/// What SentencePiece's decoder leaves out at the beginning of a text belongs to a continuation.
#[test]
fn continuations_keep_their_first_space() {
    let scratch = Scratch::new();
    let mut model = Scripted::bytes(&[], &["<s>", "</s>"]);
    let words = [
        "<unk>",
        "<s>",
        "</s>",
        "\u{2581}cat",
        "\u{2581}sat",
        "\u{2581}\u{2581}\u{2581}\u{2581}",
        "return",
        "\u{2581}1",
    ];
    let letters = "abcdefghijklmnopqrstuvwxyz\u{2581}";
    let all = words
        .iter()
        .map(|word| (*word).to_owned())
        .chain(letters.chars().map(String::from));
    let vocabulary: serde_json::Map<String, Value> = all.enumerate().map(|(id, word)| (word, json!(id))).collect();
    model.tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": (0..3).map(|id| json!({"id": id, "content": words[id], "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})).collect::<Vec<Value>>(),
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []},
    });
    model.tokenizer_config["eos_token"] = json!("</s>");
    let model = model.chain("e", &["\u{2581}cat", "\u{2581}sat"], "</s>");
    let model = model.chain(
        "f",
        &["\u{2581}\u{2581}\u{2581}\u{2581}", "return", "\u{2581}1"],
        "</s>",
    );
    model.write(&scratch, "m");
    for (prompt, expected) in [("the", " cat sat"), ("f", "    return 1")] {
        let (text, _) = told(
            &scratch,
            &["generate", "m", "--raw", "--prompt", prompt, "--max-new-tokens", "8"],
        );
        assert_eq!(text, expected, "{prompt}");
    }
}

#[test]
fn letters_of_bytes_are_no_text() {
    let scratch = Scratch::new();
    let mut model = Scripted::bytes(&["Hello", " there"], &["<s>", "</s>"]).chain("h", &["Hello", " there"], "</s>");
    model.tokenizer["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]});
    model.tokenizer_config["eos_token"] = json!("</s>");
    model.write(&scratch, "m");
    assert!(letters(" ") != " ");
    let (text, _) = told(
        &scratch,
        &["generate", "m", "--raw", "--prompt", "h", "--max-new-tokens", "8"],
    );
    assert_eq!(text, "Hello there");
}
