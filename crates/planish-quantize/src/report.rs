//! What a conversion did, for people.

/// What was done.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many weights (tensors) are packed in the output.
    pub packed: usize,
    /// Layers that one would expect to be packed and that are not, with the reason.
    pub plain: Vec<(String, String)>,
    /// Packed weights whose codes were searched for without inputs, though the method asks for these: nothing or too little went into
    /// them. Names that differ in a number stand together, `experts.{0, 3-5}.w1`.
    pub unseen: Vec<String>,
    /// What else the user should know.
    pub notes: Vec<String>,
    /// Bytes of all tensors of the source.
    pub source_bytes: u64,
    /// Bytes of all tensors of the output.
    pub output_bytes: u64,
    /// Numbers in all tensors, each weight counted once.
    pub weights: u64,
}

impl Report {
    /// Bits of the output for each weight, scales and plain tensors included.
    pub fn bits_per_weight(&self) -> f64 {
        self.output_bytes as f64 * 8.0 / (self.weights as f64).max(1.0)
    }
}
