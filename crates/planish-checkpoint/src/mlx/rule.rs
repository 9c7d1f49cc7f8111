//! What a rule of the table makes of one tensor of Hugging Face: names, shapes and views of the tensors of MLX. Read backwards,
//! by [`View::inverse`], the same views join them again.

use serde_json::{Map, Value};

use super::table::{How, Rule};
use crate::View;
use crate::tensor::rows_cols;

/// The name of a tensor taken apart at the path of a rule.
pub(crate) struct Fit<'a> {
    /// Ends in a dot, or is empty.
    before: &'a str,
    /// `.weight`, `.bias` or nothing.
    pub suffix: &'a str,
}

impl<'a> Fit<'a> {
    pub fn new(name: &'a str, path: &str) -> Option<Fit<'a>> {
        let (module, suffix) = [".weight", ".bias"]
            .iter()
            .find_map(|suffix| Some((name.strip_suffix(suffix)?, &name[name.len() - suffix.len()..])))
            .unwrap_or((name, ""));
        let before = module.strip_suffix(path)?;
        (before.is_empty() || before.ends_with('.')).then_some(Fit { before, suffix })
    }

    pub fn named(&self, path: &str) -> String {
        format!("{}{path}{}", self.before, self.suffix)
    }
}

/// A tensor of MLX, or one expert's share of a stack.
pub(crate) struct Share {
    pub shape: Vec<usize>,
    pub view: View,
}

impl Share {
    pub fn whole(shape: &[usize]) -> Share {
        Share {
            shape: shape.to_vec(),
            view: View::whole(rows_cols(shape).0),
        }
    }
}

impl Rule {
    /// Whether the rule is for models of this config.json.
    pub fn applies(&self, config: &Map<String, Value>) -> bool {
        let experts = config.get("num_local_experts").and_then(Value::as_u64);
        !self.without_experts || experts.unwrap_or(0) == 0
    }

    /// The name in MLX of the tensor at `path`, one of `self.to`.
    pub fn name(&self, fit: &Fit, path: &str) -> String {
        match self.how {
            How::InTurn => format!("{}{path}", fit.before),
            How::Name | How::Halves | How::Transposed if fit.suffix.is_empty() => format!("{}.weight", fit.named(path)),
            _ => fit.named(path),
        }
    }

    /// Whether the rule is for a tensor of this name and shape. `head_rows` are the rows of keys and of values in a head.
    ///
    /// # Errors
    /// In words: rows or columns that cannot be shared out.
    pub fn takes(&self, name: &str, shape: &[usize], head_rows: [usize; 2]) -> Result<bool, String> {
        let (rows, cols) = rows_cols(shape);
        let count = self.to.len();
        match self.how {
            How::Stack(_) => Ok(false),
            How::Name | How::Copy | How::AddOne | How::InTurn => Ok(true),
            How::Convolution => Ok(name.ends_with(".weight") && shape.len() == 3),
            How::Halves => match shape {
                [.., rows, _] if rows.is_multiple_of(2) => Ok(true),
                _ => Err(format!(
                    "`{name}`: expected an even number of rows, found shape {shape:?}"
                )),
            },
            How::Transposed if name.ends_with(".bias") || shape.len() < 2 => Ok(false),
            How::Transposed if cols.is_multiple_of(count) => Ok(true),
            How::Transposed => Err(format!("`{name}`: {cols} columns are not those of {count} tensors")),
            How::KeysAndValues => match head_rows.iter().sum() {
                0 => Err(0),
                head_rows if !rows.is_multiple_of(head_rows) => Err(head_rows),
                _ => Ok(true),
            }
            .map_err(|head_rows| {
                format!("`{name}` has {rows} rows, not a multiple of qk_nope_head_dim + v_head_dim = {head_rows}")
            }),
        }
    }

    /// What each of the tensors at `self.to` takes of one of this shape, which the rule takes.
    pub fn shares(&self, shape: &[usize], head_rows: [usize; 2]) -> Vec<Share> {
        (0..self.to.len())
            .map(|index| self.share(index, shape, head_rows))
            .collect()
    }

    fn share(&self, index: usize, shape: &[usize], head_rows: [usize; 2]) -> Share {
        let (rows, cols) = rows_cols(shape);
        let whole = View::whole(rows);
        let count = self.to.len();
        let with_last = |last: &[usize]| [&shape[..shape.len() - last.len()], last].concat();
        // Rows of one expert, or of the one matrix.
        let matrix_rows = shape.iter().rev().nth(1).copied().unwrap_or(1);
        let (shape, view) = match self.how {
            How::Stack(_) | How::Name | How::Copy => (shape.to_vec(), whole),
            How::AddOne => (shape.to_vec(), View { add: 1.0, ..whole }),
            How::Convolution => (vec![shape[0], shape[2], shape[1]], whole),
            How::Halves => {
                let half = matrix_rows / 2;
                let view = View::of_blocks(matrix_rows, index * half..(index + 1) * half);
                (with_last(&[half, cols]), view)
            }
            How::Transposed => {
                let view = View {
                    first_col: index,
                    col_step: count,
                    ..View::transpose(matrix_rows)
                };
                (with_last(&[cols / count, matrix_rows]), view)
            }
            How::InTurn => {
                let view = View {
                    first_col: index,
                    col_step: count,
                    ..whole
                };
                (with_last(&[cols / count]), view)
            }
            How::KeysAndValues => {
                let [key_rows, value_rows] = head_rows;
                let all_rows = key_rows + value_rows;
                let heads = rows / all_rows;
                match index {
                    0 => {
                        let view = View {
                            transposed: true,
                            ..View::of_blocks(all_rows, 0..key_rows)
                        };
                        (vec![heads, cols, key_rows], view)
                    }
                    _ => {
                        let view = View::of_blocks(all_rows, key_rows..all_rows);
                        (vec![heads, value_rows, cols], view)
                    }
                }
            }
        };
        Share { shape, view }
    }

    /// The shape of the tensor whose shares have these shapes, and its rows of keys and of values in a head. `None` where
    /// the shares cannot be joined.
    pub fn joined(&self, shares: &[&[usize]]) -> Option<(Vec<usize>, [usize; 2])> {
        let shape = match (self.how, shares) {
            (How::Name | How::AddOne, [shape]) => shape.to_vec(),
            (How::Convolution, [[channels, width, 1]]) => vec![*channels, 1, *width],
            (How::Transposed, [[rows, cols]]) => vec![*cols, *rows],
            (How::Halves, [[leading @ .., rows, cols], _]) => [leading, &[2 * rows, *cols]].concat(),
            (How::KeysAndValues, [[heads, rank, key_rows], [_, value_rows, _]]) => {
                return Some((vec![heads * (key_rows + value_rows), *rank], [*key_rows, *value_rows]));
            }
            _ => return None,
        };
        Some((shape, [0, 0]))
    }
}
