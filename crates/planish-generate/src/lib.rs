//! Tokens in, tokens out: tokenizer, chat templates, sampling, stop rules.
