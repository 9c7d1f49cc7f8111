//! The operations language models are made of: formula, checks, reference and variants.
