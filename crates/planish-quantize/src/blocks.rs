//! gpt-oss's experts for MLX: blocks of 4-bit floats that are moved as they are, since MLX's rule would choose other scales.

use planish_checkpoint::Checkpoint;

use crate::plan::{Fate, OutputTensor};

/// What follows the name of a stack in those of its parts: codes and scales.
pub(crate) const PARTS: [&str; 2] = ["_blocks", "_scales"];

/// Whether the checkpoint holds a tensor in such blocks, and the tensor can be made of whole rows of them.
pub(crate) fn holds(checkpoint: &Checkpoint, tensor: &OutputTensor) -> bool {
    let [part] = &tensor.parts[..] else { return false };
    let stack = &checkpoint.entries()[part.entry].name;
    let mut parts = PARTS.iter().map(|end| checkpoint.packed_part(&format!("{stack}{end}")));
    // What an adapter changes is no longer what is stored.
    part.view.transposed && !checkpoint.is_adapted() && parts.all(|part| part.is_some())
}

/// Marks tensors to be moved as blocks where the checkpoint holds blocks and `is_wanted` takes the tensor's fate.
pub(crate) fn keep(checkpoint: &Checkpoint, tensors: &mut [OutputTensor], is_wanted: impl Fn(Fate) -> bool) {
    for tensor in tensors {
        if is_wanted(tensor.fate) && holds(checkpoint, tensor) {
            tensor.fate = Fate::Blocks;
        }
    }
}
