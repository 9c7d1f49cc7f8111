//! SentencePiece's files (`tokenizer.model`): pieces with scores, and how text is normalized, as a message of protocol buffers.

use std::collections::{BTreeMap, HashMap};

use planish_checkpoint::merges_by_score;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{NormalizerWrapper, Precompiled};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, DecoderWrapper};

use super::protobuf::{Field, fields};
use super::{Draft, Model, SPACE, Settings};
use crate::Error;
use crate::files::OtherTokenizer;
use crate::foreign::guarded;

/// Classes whose rules are those of the file: whether the first token and the last stand around a text.
const CLASSES: [(&str, [bool; 2]); 10] = [
    ("LlamaTokenizer", [true, false]),
    ("CodeLlamaTokenizer", [true, false]),
    ("GemmaTokenizer", [true, false]),
    ("Phi3Tokenizer", [true, false]),
    ("YiTokenizer", [false, false]),
    ("BaichuanTokenizer", [false, false]),
    ("InternLMTokenizer", [true, false]),
    ("InternLM2Tokenizer", [true, false]),
    ("InternLM3Tokenizer", [true, false]),
    ("T5Tokenizer", [false, true]),
];

/// What a piece is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

struct Piece<'a> {
    text: &'a str,
    score: f32,
    kind: Kind,
}

/// The parts of the file that matter for encoding; each as the format has it where the file is silent.
struct Spec<'a> {
    pieces: Vec<Piece<'a>>,
    is_unigram: bool,
    byte_fallback: bool,
    /// Ids of the unknown, first, last and padding token; negative ones are none.
    roles: [i64; 4],
    rules: &'a [u8],
    space_before: bool,
    removes_spaces: bool,
}

const ROLES: [&str; 4] = ["unk_token", "bos_token", "eos_token", "pad_token"];

impl<'a> Spec<'a> {
    /// The parts, or what of the file is not read.
    fn parse(bytes: &'a [u8]) -> Result<Result<Spec<'a>, String>, String> {
        let mut spec = Spec {
            pieces: Vec::new(),
            is_unigram: true,
            byte_fallback: false,
            roles: [0, 1, 2, -1],
            rules: &[],
            space_before: true,
            removes_spaces: true,
        };
        let mut refused = None;
        let mut refuse = |what: String| refused = Some(what);
        for field in fields(bytes) {
            let Field { number, value } = field?;
            match number {
                1 => spec.pieces.push(Piece::parse(value.bytes()?)?),
                2 => {
                    for field in fields(value.bytes()?) {
                        let Field { number, value } = field?;
                        match number {
                            3 => match value.number()? {
                                1 => spec.is_unigram = true,
                                2 => spec.is_unigram = false,
                                other => refuse(format!("of model type {other}; those that are read: unigram, BPE")),
                            },
                            24 if value.number()? != 0 => refuse("with spaces at the ends of words".into()),
                            35 => spec.byte_fallback = value.number()? != 0,
                            // Negative numbers are 64 bits wide.
                            40..=43 => spec.roles[(number - 40) as usize] = value.number()? as i64,
                            _ => {}
                        }
                    }
                }
                3 => {
                    for field in fields(value.bytes()?) {
                        let Field { number, value } = field?;
                        match number {
                            2 => spec.rules = value.bytes()?,
                            3 => spec.space_before = value.number()? != 0,
                            4 => spec.removes_spaces = value.number()? != 0,
                            5 if value.number()? == 0 => refuse("with invisible spaces".into()),
                            _ => {}
                        }
                    }
                }
                5 => {
                    for field in fields(value.bytes()?) {
                        let Field { number, value } = field?;
                        if number == 2 && !value.bytes()?.is_empty() {
                            refuse("with rules for decoded text".into());
                        }
                    }
                }
                _ => {}
            }
        }
        if spec.pieces.iter().any(|piece| piece.kind == Kind::Unused) {
            refuse("with unused pieces".into());
        }
        if spec.pieces.is_empty() {
            return Err("no pieces".into());
        }
        Ok(match refused {
            Some(what) => Err(what),
            None => Ok(spec),
        })
    }

    /// The piece of a role.
    fn role(&self, role: usize) -> Option<&'a str> {
        let id = usize::try_from(self.roles[role]).ok()?;
        self.pieces.get(id).map(|piece| piece.text)
    }
}

impl<'a> Piece<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Piece<'a>, String> {
        let mut piece = Piece {
            text: "",
            score: 0.0,
            kind: Kind::Normal,
        };
        for field in fields(bytes) {
            let Field { number, value } = field?;
            match number {
                1 => piece.text = value.text()?,
                2 => piece.score = value.float()?,
                3 => {
                    piece.kind = match value.number()? {
                        1 => Kind::Normal,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        other => return Err(format!("a piece of type {other}")),
                    }
                }
                _ => {}
            }
        }
        match piece.text.is_empty() || piece.score.is_nan() {
            true => Err("a piece without text or score".into()),
            false => Ok(piece),
        }
    }
}

pub(super) fn read(file: &OtherTokenizer, settings: &Settings) -> Result<Draft, Error> {
    let name = &file.name;
    let spec = Spec::parse(&file.bytes).map_err(|what| Error::bad_file(name, format!("as SentencePiece's: {what}")))?;
    let mut spec = spec.map_err(|what| super::unsupported(name, what))?;
    let class = settings.class();
    let known = CLASSES.iter().find(|(known, _)| class == Some(known));
    let adds = match known {
        Some((_, adds)) => *adds,
        None if settings.has_no_own_class() => [true, false],
        None => return Err(settings.unsupported(name, &CLASSES.map(|(class, _)| class).join(", "))),
    };
    if settings.flag("add_prefix_space")? == Some(false) {
        spec.space_before = false;
    }
    // What Llama's class calls the legacy way: a space before each piece of text between special tokens.
    let every_piece = settings.flag("legacy")?.unwrap_or(class != Some("LlamaTokenizer"));
    let space_first = spec.space_before && !every_piece;
    let ids: HashMap<&str, usize> = spec
        .pieces
        .iter()
        .enumerate()
        .map(|(id, piece)| (piece.text, id))
        .collect();
    if ids.len() < spec.pieces.len() {
        return Err(Error::bad_file(name, "the same piece twice"));
    }
    let control = |(id, piece): (usize, &Piece)| {
        let added = || AddedToken::from(piece.text, true);
        (piece.kind == Kind::Control).then(|| (id as u32, added()))
    };
    let added: BTreeMap<u32, AddedToken> = spec.pieces.iter().enumerate().filter_map(control).collect();
    let roles = ROLES.iter().enumerate();
    Ok(Draft {
        file: name.clone(),
        model: model(&spec, &ids).map_err(|what| Error::bad_file(name, what))?,
        normalizers: normalizers(name, &spec, space_first)?,
        pre_tokenizers: whole_pieces(name, &spec)?,
        decoder: decoder(&spec),
        added,
        roles: roles
            .filter_map(|(role, &name)| Some((name, spec.role(role)?.to_owned())))
            .collect(),
        adds,
        space_first,
    })
}

fn model(spec: &Spec, ids: &HashMap<&str, usize>) -> Result<Model, String> {
    let unknown = spec.role(0).ok_or("it has no piece for what is unknown")?;
    if spec.is_unigram {
        let pieces = spec.pieces.iter();
        return Ok(Model::Unigram {
            pieces: pieces
                .map(|piece| (piece.text.to_owned(), f64::from(piece.score)))
                .collect(),
            unknown: ids[unknown],
            byte_fallback: spec.byte_fallback,
        });
    }
    let is_normal = |part: &str| ids.get(part).is_some_and(|&id| spec.pieces[id].kind == Kind::Normal);
    let normal = spec.pieces.iter().filter(|piece| piece.kind == Kind::Normal);
    let merges = merges_by_score(normal.map(|piece| (piece.text, piece.score)), is_normal)?;
    Ok(Model::Bpe {
        vocabulary: ids.iter().map(|(text, id)| ((*text).to_owned(), *id as u32)).collect(),
        merges: merges
            .into_iter()
            .map(|(left, right)| (left.to_owned(), right.to_owned()))
            .collect(),
        unknown: Some((unknown.to_owned(), spec.byte_fallback)),
        whole_first: spec.pieces.iter().any(|piece| piece.kind == Kind::UserDefined),
    })
}

/// In SentencePiece's order. Where only the text's first word gets a space, it is there already.
fn normalizers(file: &str, spec: &Spec, space_first: bool) -> Result<Vec<NormalizerWrapper>, Error> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if !spec.rules.is_empty() {
        let rules =
            guarded(|| Precompiled::from(spec.rules)).and_then(|rules| rules.map_err(|error| error.to_string()));
        let rules = rules.map_err(|what| Error::bad_file(file, format!("its normalization rules: {what}")))?;
        steps.push(rules.into());
    }
    let mut by = |pattern: String, content: &str| {
        let step =
            Replace::new(ReplacePattern::Regex(pattern), content).map_err(|error| Error::bad_file(file, error))?;
        steps.push(step.into());
        Ok::<_, Error>(())
    };
    if spec.removes_spaces {
        match space_first {
            true => {
                by(format!(r"\A{SPACE}[ {SPACE}]*\z"), "")?;
                by(format!(r"\A{SPACE} +"), &SPACE.to_string())?;
                by(format!(r"[ {SPACE}]+\z"), "")?;
            }
            false => by(format!(r"\A +|[ {SPACE}]+\z"), "")?,
        }
        by(" {2,}".into(), " ")?;
    }
    by(" ".into(), &SPACE.to_string())?;
    if spec.space_before && !space_first {
        steps.push(Prepend::new(SPACE.to_string()).into());
    }
    Ok(steps)
}

/// Pieces of the user's are never cut, nor joined with others. Text that looks like the name of a byte is none.
fn whole_pieces(file: &str, spec: &Spec) -> Result<Vec<PreTokenizerWrapper>, Error> {
    let own = spec.pieces.iter().filter(|piece| piece.kind == Kind::UserDefined);
    let mut own: Vec<String> = own.map(|piece| regex::escape(piece.text)).collect();
    own.sort_by_key(|text| std::cmp::Reverse(text.chars().count()));
    // Elsewhere pieces are made by merges only, and none leads to the name of a byte.
    if spec.byte_fallback && (spec.is_unigram || !own.is_empty()) {
        own.push("<(?=0x[0-9A-F]{2}>)".into());
    }
    if own.is_empty() {
        return Ok(Vec::new());
    }
    let pattern = SplitPattern::Regex(own.join("|"));
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
    let split = split.map_err(|error| Error::bad_file(file, format!("the pieces of the user: {error}")))?;
    Ok(vec![split.into()])
}

fn decoder(spec: &Spec) -> DecoderWrapper {
    let spaces = Replace::new(SPACE.to_string(), " ").map(DecoderWrapper::from);
    let mut steps: Vec<DecoderWrapper> = spaces.into_iter().collect();
    if spec.byte_fallback {
        steps.push(ByteFallback::new().into());
    }
    steps.push(Fuse::new().into());
    if spec.space_before {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Sequence::new(steps).into()
}
