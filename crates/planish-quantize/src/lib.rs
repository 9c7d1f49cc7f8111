//! Which layers are quantized, how their codes are chosen, and whole-checkpoint conversion.
