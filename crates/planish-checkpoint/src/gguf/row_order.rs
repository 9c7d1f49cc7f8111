//! The order of the rows of query and key projections.
//!
//! Hugging Face rotates the two halves of a head against each other; llama.cpp's `llama` architecture rotates neighbours, so
//! its converter moves row `half * (head_dim / 2) + position` of a head to row `2 * position + half`.
//! Source: `permute` in <https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py>.

/// How the rows of a tensor lie in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RowOrder {
    AsStored,
    /// Neighbouring rows of each head belong together.
    Neighbours {
        head_dim: usize,
    },
    /// All query rows, then all key rows, then all value rows; at Hugging Face those of one head lie together.
    Apart {
        heads: usize,
        head_dim: usize,
    },
    /// From row `first` on, heads of `size` rows: the first that each of `keys` key heads has, then the second of each; at Hugging
    /// Face the `shared` heads of one key head lie together.
    Tiled {
        first: usize,
        keys: usize,
        shared: usize,
        size: usize,
    },
}

impl RowOrder {
    /// Where the file has the row that Hugging Face has at `row`.
    pub fn stored_row(self, row: usize) -> usize {
        match self {
            RowOrder::AsStored => row,
            RowOrder::Neighbours { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let (half, position) = (within / (head_dim / 2), within % (head_dim / 2));
                head * head_dim + 2 * position + half
            }
            RowOrder::Apart { heads, head_dim } => {
                let (head, part, within) = (row / (3 * head_dim), row / head_dim % 3, row % head_dim);
                (part * heads + head) * head_dim + within
            }
            RowOrder::Tiled { first, .. } if row < first => row,
            RowOrder::Tiled {
                first,
                keys,
                shared,
                size,
            } => {
                let (head, within) = ((row - first) / size, (row - first) % size);
                first + (head % shared * keys + head / shared) * size + within
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_heads_of_six_rows() {
        let order = RowOrder::Neighbours { head_dim: 6 };
        let stored: Vec<usize> = (0..12).map(|row| order.stored_row(row)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn heads_that_share_one_lie_apart() {
        let order = RowOrder::Tiled {
            first: 1,
            keys: 2,
            shared: 2,
            size: 2,
        };
        let stored: Vec<usize> = (0..9).map(|row| order.stored_row(row)).collect();
        assert_eq!(stored, [0, 1, 2, 5, 6, 3, 4, 7, 8]);
    }

    #[test]
    fn query_key_and_value_of_two_heads() {
        let order = RowOrder::Apart { heads: 2, head_dim: 2 };
        let stored: Vec<usize> = (0..12).map(|row| order.stored_row(row)).collect();
        assert_eq!(stored, [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
    }
}
