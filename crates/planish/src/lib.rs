//! Quantize, convert and run Hugging Face models in 2- to 8-bit affine quantization.
