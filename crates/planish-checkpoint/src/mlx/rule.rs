//! What a rule of the table makes of one tensor of Hugging Face: names, shapes and views of the tensors of MLX. Read backwards,
//! by [`View::inverse`], the same views join them again.

use super::table::{How, Rule};
use crate::View;
use crate::tensor::rows_cols;

/// The name of a tensor taken apart at the path of a rule.
pub(super) struct Fit<'a> {
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
pub(super) struct Share {
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
    /// The name in MLX of the tensor at `path`, one of `self.to`.
    pub fn name(&self, fit: &Fit, path: &str) -> String {
        match self.how {
            How::InTurn => format!("{}{path}", fit.before),
            How::Halves | How::Transposed if fit.suffix.is_empty() => format!("{}.weight", fit.named(path)),
            _ => fit.named(path),
        }
    }

    /// What the tensors at `self.to` take of the one called `name`, of this shape; `None` where the rule is not for it.
    /// `head_rows` are the rows of keys and of values in a head.
    ///
    /// # Errors
    /// In words: rows or columns that cannot be shared out.
    pub fn shares(&self, name: &str, shape: &[usize], head_rows: [usize; 2]) -> Result<Option<Vec<Share>>, String> {
        let (rows, cols) = rows_cols(shape);
        let whole = View::whole(rows);
        let count = self.to.len();
        // Rows of one expert, or of the one matrix.
        let matrix_rows = shape.iter().rev().nth(1).copied();
        let with_last_two = |last: [usize; 2]| [&shape[..shape.len() - 2], &last].concat();
        let each = |share: &dyn Fn(usize) -> Share| Ok(Some((0..count).map(share).collect()));
        match (self.how, matrix_rows) {
            (How::Stack(_), _) => Ok(None),
            (How::Name | How::Copy, _) => each(&|_| Share::whole(shape)),
            (How::AddOne, _) => each(&|_| Share {
                shape: shape.to_vec(),
                view: View {
                    add: 1.0,
                    ..whole.clone()
                },
            }),
            (How::Convolution, _) => match (shape, name.ends_with(".weight")) {
                (&[channels, one, width], true) => each(&|_| Share {
                    shape: vec![channels, width, one],
                    view: whole.clone(),
                }),
                _ => Ok(None),
            },
            (How::Halves, Some(block_rows)) if block_rows.is_multiple_of(2) => {
                let half = block_rows / 2;
                each(&|index| Share {
                    shape: with_last_two([half, cols]),
                    view: View {
                        block_rows,
                        rows: index * half..(index + 1) * half,
                        ..whole.clone()
                    },
                })
            }
            (How::Halves, _) => Err(format!(
                "`{name}`: expected an even number of rows, found shape {shape:?}"
            )),
            (How::Transposed, Some(_)) if !name.ends_with(".bias") && !cols.is_multiple_of(count) => {
                Err(format!("`{name}`: {cols} columns are not those of {count} tensors"))
            }
            (How::Transposed, Some(block_rows)) if !name.ends_with(".bias") => each(&|index| Share {
                shape: with_last_two([cols / count, block_rows]),
                view: View {
                    block_rows,
                    rows: 0..block_rows,
                    first_col: index,
                    col_step: count,
                    transposed: true,
                    ..whole
                },
            }),
            (How::Transposed, _) => Ok(None),
            (How::InTurn, _) => {
                let leading = shape.split_last().map_or(&[][..], |(_, leading)| leading);
                each(&|index| Share {
                    shape: [leading, &[cols / count]].concat(),
                    view: View {
                        first_col: index,
                        col_step: count,
                        ..whole.clone()
                    },
                })
            }
            (How::KeysAndValues, _) => {
                let block_rows: usize = head_rows.iter().sum();
                if block_rows == 0 || !rows.is_multiple_of(block_rows) {
                    return Err(format!(
                        "`{name}` has {rows} rows, not a multiple of qk_nope_head_dim + v_head_dim = {block_rows}"
                    ));
                }
                let (heads, [key_rows, value_rows]) = (rows / block_rows, head_rows);
                let share = |rows, shape, transposed| Share {
                    shape,
                    view: View {
                        block_rows,
                        rows,
                        transposed,
                        ..whole.clone()
                    },
                };
                Ok(Some(vec![
                    share(0..key_rows, vec![heads, cols, key_rows], true),
                    share(key_rows..block_rows, vec![heads, value_rows, cols], false),
                ]))
            }
        }
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
