"""Sizes that the cases of several files share; no cases of its own."""

SMALL = dict(vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64)
ODD = dict(SMALL, vocab_size=83, hidden_size=40, intermediate_size=56)  # for groups of 8

# For configurations that nest the sizes of the text model: leaves those of models.py out.
NESTED = dict.fromkeys(SMALL)

CASES = {}
