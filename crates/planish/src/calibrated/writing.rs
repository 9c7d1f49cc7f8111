//! The text: what the model writes, or what was given, in pieces, some of them held out.

use planish_quantize::Output;

use crate::convert::check_stop;
use crate::own_writing::{self, OwnText, SIDE_BY_SIDE};
use crate::{CalibrationText, Device, Error, Source};

use super::{CalibratedOptions, CalibratedProgress, HELD_OUT};

/// Pieces that there are at least where some are held out.
const LEAST: usize = 2 * HELD_OUT;

/// Pieces of tokens, and a word on them.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// What cards say.
    pub description: String,
    /// That the layers are packed by.
    pub pieces: Vec<Vec<u32>>,
    /// That judge.
    pub held_out: Vec<Vec<u32>>,
}

impl Text {
    /// Lets the model write, or takes what was given.
    pub fn of(
        source: &Source,
        options: &CalibratedOptions,
        output: &Output,
        on_calibration: &mut dyn FnMut(CalibratedProgress),
    ) -> Result<Text, Error> {
        match &options.text {
            CalibrationText::OwnWriting { seed, tokens, longest } => {
                let device = match options.device {
                    Device::Cuda => Device::Cuda,
                    _ => Device::Cpu,
                };
                let model = own_writing::model(source, (device, options.threads), None)?;
                let held_out = HELD_OUT * longest;
                let mut on_progress = |progress: crate::CalibrationProgress| {
                    on_calibration(CalibratedProgress::Writing(progress.done, progress.total));
                    check_stop(output)
                };
                let amount = (*seed, tokens + held_out, *longest);
                let texts = own_writing::write(&model, amount, SIDE_BY_SIDE, &mut on_progress)?;
                let texts: Vec<Vec<u32>> = texts.into_iter().map(OwnText::whole).collect();
                let count = texts.len() as u64;
                let description = format!("its own writing, seeds {seed} to {}", seed + count - 1);
                Ok(Text::cut(
                    joined(texts, *longest, model.tokenizer()?.has_chat_template()),
                    &description,
                ))
            }
            CalibrationText::Pieces { pieces, description } => Ok(Text::cut(pieces.clone(), description)),
        }
    }

    /// Holds the last pieces out, where there are enough.
    fn cut(mut pieces: Vec<Vec<u32>>, description: &str) -> Text {
        let held_out = match pieces.len() >= LEAST {
            true => pieces.split_off(pieces.len() - HELD_OUT),
            false => Vec::new(),
        };
        let tokens = |pieces: &[Vec<u32>]| pieces.iter().map(Vec::len).sum::<usize>();
        Text {
            description: match held_out.len() {
                0 => description.to_owned(),
                held => format!(
                    "{description} ({} tokens, {held} more pieces held out)",
                    tokens(&pieces)
                ),
            },
            pieces,
            held_out,
        }
    }
}

/// Texts one after another in pieces of `longest` tokens, as they stood in a long text; conversations stay apart.
fn joined(texts: Vec<Vec<u32>>, longest: usize, apart: bool) -> Vec<Vec<u32>> {
    if apart {
        return texts.into_iter().filter(|text| text.len() > 1).collect();
    }
    let all = texts.concat();
    match all.len() < longest {
        true => vec![all],
        false => all.chunks_exact(longest).map(<[u32]>::to_vec).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pieces_are_held_out_where_there_are_enough() {
        let pieces: Vec<Vec<u32>> = (0..4).map(|piece| vec![piece; 3]).collect();
        let text = Text::cut(pieces.clone(), "words");
        assert_eq!((&text.pieces[..], &text.held_out[..]), (&pieces[..2], &pieces[2..]));
        assert_eq!(text.description, "words (6 tokens, 2 more pieces held out)");
        let text = Text::cut(pieces[..3].to_vec(), "words");
        assert_eq!((text.pieces.len(), text.held_out.len()), (3, 0));
    }

    #[test]
    fn texts_are_joined_unless_they_are_conversations() {
        let texts = vec![vec![1, 2, 3], vec![4], vec![5, 6, 7]];
        assert_eq!(joined(texts.clone(), 2, false), [[1, 2], [3, 4], [5, 6]]);
        assert_eq!(joined(texts.clone(), 9, false), [vec![1, 2, 3, 4, 5, 6, 7]]);
        assert_eq!(joined(texts, 2, true), [vec![1, 2, 3], vec![5, 6, 7]]);
    }
}
