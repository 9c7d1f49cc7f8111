//! A linear layer and where it stands in the checkpoint.

use std::ops::Range;

/// A linear layer, (rows, cols).
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSpec {
    /// Module path.
    pub name: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Whether there is a bias; it is cut from the stored one as the rows are.
    pub bias: bool,
    /// The bias where it is not `{name}.bias`.
    pub bias_name: Option<String>,
    /// Which rows of the stored tensor these are.
    pub stored: Stored,
    /// Plain tensors stand as (cols, rows) in the file (`Conv1D`). Packed ones never do.
    pub transposed: bool,
}

/// Which rows of a stored tensor a layer is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// All of them.
    Whole,
    /// Some rows of a tensor that several layers share. One range is read in place, several are copied together.
    Rows {
        /// Rows of the tensor.
        total: usize,
        /// In the order that the layer has them; together as many as the layer's rows.
        ranges: Vec<Range<usize>>,
    },
}

impl LinearSpec {
    /// A layer of its own tensor, without a bias.
    pub fn new(name: impl Into<String>, rows: usize, cols: usize) -> LinearSpec {
        LinearSpec {
            name: name.into(),
            rows,
            cols,
            bias: false,
            bias_name: None,
            stored: Stored::Whole,
            transposed: false,
        }
    }

    /// The same with or without a bias.
    pub fn with_bias(self, bias: bool) -> LinearSpec {
        LinearSpec { bias, ..self }
    }

    /// These rows of this layer's tensor, in this order.
    pub fn cut(&self, ranges: Vec<Range<usize>>) -> LinearSpec {
        let rows = ranges.iter().map(|range| range.len()).sum();
        LinearSpec {
            rows,
            stored: Stored::Rows {
                total: self.stored_rows(),
                ranges,
            },
            ..self.clone()
        }
    }

    /// One run of rows of this layer's tensor.
    pub fn cut_run(&self, start: usize, rows: usize) -> LinearSpec {
        self.cut(std::iter::once(start..start + rows).collect())
    }

    /// The same rows of every head, for tensors (heads, rows of a head, cols): `part` of the `rows` of each.
    pub fn cut_heads(&self, heads: usize, rows: usize, part: Range<usize>) -> LinearSpec {
        self.cut(
            (0..heads)
                .map(|head| head * rows + part.start..head * rows + part.end)
                .collect(),
        )
    }

    /// Rows of the stored tensor.
    pub fn stored_rows(&self) -> usize {
        match self.stored {
            Stored::Whole => self.rows,
            Stored::Rows { total, .. } => total,
        }
    }
}
