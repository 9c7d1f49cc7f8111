//! One layer: which of its weights are packed together, by which inputs, and what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use planish_checkpoint::{Checkpoint, Entry};
use planish_format::{FloatType, PackedMatrix, Packing};
use planish_model::{BlockSpec, Heard, LayerRunner, LoadedLayer, Origin, StackPlace};
use planish_quantize::{Basis, Calibrator, InputMoments, PartCodes, Recipe, calibrate_part};

use crate::Error;

use super::outcome::Outcome;
use super::streams::Streams;

/// Packing and type of scales.
pub type PackAs = (Packing, FloatType);

/// Bytes of sums of products that are held at a time, unless those of one input take more.
const ROOM: usize = 1 << 30;
/// Rows that an input must have had, as a part of its columns: fewer tell too little.
const LEAST_ROWS: f64 = 0.25;

/// What packing a layer needs to know.
pub struct LayerJob<'a> {
    pub checkpoint: &'a Checkpoint,
    pub recipe: &'a Recipe,
    pub clamp: bool,
    pub runner: &'a LayerRunner<'a>,
    pub calibrator: &'a dyn Calibrator,
    pub packed: &'a HashMap<String, PackAs>,
    pub stop: &'a dyn Fn() -> Result<(), Error>,
}

/// A layer that is packed.
#[derive(Default)]
pub struct PackedLayer {
    pub calibrated: Vec<(String, PackedMatrix)>,
    pub outcomes: Vec<Outcome>,
}

/// Weights that have the same inputs, and what is known of these.
struct Shared {
    origins: BTreeSet<Origin>,
    moments: Box<dyn InputMoments>,
}

/// What the weights of a plain layer are multiplied by, and what it gives, of the first pieces.
#[derive(Default)]
struct Known {
    heard: Vec<Vec<Heard>>,
    outputs: Vec<Vec<f32>>,
}

impl Known {
    /// Names that are packed together, in the order in which the layer computes. Experts differ in their numbers only.
    fn stages(&self) -> Vec<BTreeSet<String>> {
        let mut stages: Vec<BTreeSet<String>> = Vec::new();
        for Heard { origins, .. } in self.heard.iter().flatten() {
            let names: BTreeSet<String> = origins.iter().map(|origin| anywhere(&origin.entry)).collect();
            match stages.iter_mut().find(|stage| !stage.is_disjoint(&names)) {
                Some(stage) => stage.extend(names),
                None => stages.push(names),
            }
        }
        stages
    }

    /// Gives back the inputs of weights that are not asked for again.
    fn forget(&mut self, batch: &BTreeSet<Origin>) {
        for heard in &mut self.heard {
            heard.retain(|heard| !heard.origins.iter().any(|origin| batch.contains(origin)));
        }
    }
}

/// Codes of an entry while they come together.
type Parts = BTreeMap<String, Vec<Option<PartCodes>>>;

impl LayerJob<'_> {
    /// Packs the next layer and takes the streams through it. `step` is told of weights that are packed.
    pub fn run(&self, streams: &mut Streams, step: &mut dyn FnMut(u64)) -> Result<PackedLayer, Error> {
        let layer = streams.layer;
        let mut plain = self.runner.load(layer, &HashMap::new())?;
        let named: BTreeSet<Origin> = plain
            .origins()
            .into_iter()
            .filter(|origin| self.is_packed(origin))
            .cloned()
            .collect();
        let twice = used_twice(self.runner, layer);
        let wanted = |origin: &Origin| named.contains(origin) && !twice.iter().any(|name| is_same(&origin.entry, name));
        let (mut calibrated, mut searched) = (HashMap::new(), HashMap::new());
        let mut outcomes = Vec::new();
        let mut known = self.know(&mut plain, streams, &wanted)?;
        for stage in known.stages() {
            let of_stage: BTreeSet<&Origin> = named
                .iter()
                .filter(|origin| stage.contains(&anywhere(&origin.entry)) && wanted(origin))
                .collect();
            let mut parts = Parts::new();
            let mut now = match calibrated.is_empty() {
                true => None,
                false => Some(self.runner.load(layer, &calibrated)?),
            };
            for batch in self.batches(&of_stage) {
                let shared = self.listen((&mut plain, &known), now.as_mut(), streams, &batch)?;
                known.forget(&batch);
                self.pack(shared, &mut parts)?;
            }
            for (entry, parts) in parts {
                let (found, without, outcome) = self.assemble(&entry, parts)?;
                step(outcome.weights);
                calibrated.insert(entry.clone(), found);
                searched.insert(entry, without);
                outcomes.push(outcome);
            }
        }
        // Those of which nothing was heard.
        let entries: BTreeSet<&str> = named.iter().map(|origin| origin.entry.as_str()).collect();
        for entry in entries {
            if !calibrated.contains_key(entry) {
                let (found, without, outcome) = self.assemble(entry, vec![None])?;
                step(outcome.weights);
                calibrated.insert(entry.to_owned(), found);
                searched.insert(entry.to_owned(), without);
                outcomes.push(outcome);
            }
        }
        let [mut now, mut without] = [
            self.runner.load(layer, &calibrated)?,
            self.runner.load(layer, &searched)?,
        ];
        streams.advance(self.runner, known.outputs, [&mut plain, &mut now, &mut without])?;
        let mut calibrated: Vec<_> = calibrated.into_iter().collect();
        calibrated.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(PackedLayer { calibrated, outcomes })
    }

    fn is_packed(&self, origin: &Origin) -> bool {
        let packed = self.packed.contains_key(&origin.entry);
        let rows = self
            .checkpoint
            .entry(&origin.entry)
            .map_or(0, |entry| entry.rows_cols().0);
        packed && rows > 0 && rows.is_multiple_of(origin.parts)
    }

    /// Runs the plain layer over the first piece and, if their inputs have room, over all others.
    fn know(
        &self,
        plain: &mut LoadedLayer,
        streams: &Streams,
        wanted: &dyn Fn(&Origin) -> bool,
    ) -> Result<Known, Error> {
        let mut known = Known::default();
        let bytes = |heard: &[Heard]| heard.iter().map(|heard| size_of_val(&heard.rows[..])).sum::<usize>();
        let pieces = &streams.plain[..streams.pieces()];
        for (piece, hidden) in pieces.iter().enumerate() {
            (self.stop)()?;
            if piece == 1 {
                let all: usize = pieces.iter().map(Vec::len).sum();
                if bytes(&known.heard[0]) as f64 * all as f64 / pieces[0].len() as f64 > ROOM as f64 {
                    break;
                }
            }
            let (output, heard) = self.runner.run(plain, hidden, wanted)?;
            known.heard.push(merged(heard));
            known.outputs.push(output);
        }
        Ok(known)
    }

    /// Origins whose sums of products have room side by side. What may share inputs stays together.
    fn batches(&self, origins: &BTreeSet<&Origin>) -> Vec<BTreeSet<Origin>> {
        let mut apart: BTreeMap<(Vec<String>, usize), BTreeSet<Origin>> = BTreeMap::new();
        for origin in origins {
            apart.entry(place(origin)).or_default().insert((*origin).clone());
        }
        let mut batches: Vec<(usize, BTreeSet<Origin>)> = Vec::new();
        for origins in apart.into_values() {
            let cols = |origin: &Origin| {
                self.checkpoint
                    .entry(&origin.entry)
                    .map_or(0, |entry| entry.rows_cols().1)
            };
            let most = origins.iter().map(cols).max().unwrap_or(0);
            let bytes = 2 * size_of::<f32>() * most * most;
            match batches.last_mut().filter(|(taken, _)| taken + bytes <= ROOM) {
                Some((taken, batch)) => {
                    *taken += bytes;
                    batch.extend(origins);
                }
                None => batches.push((bytes, origins)),
            }
        }
        batches.into_iter().map(|(_, batch)| batch).collect()
    }

    /// Runs all pieces through the layer as it was and as it is now (`None`: no weight of it is packed yet).
    fn listen(
        &self,
        (plain, known): (&mut LoadedLayer, &Known),
        mut now: Option<&mut LoadedLayer>,
        streams: &Streams,
        batch: &BTreeSet<Origin>,
    ) -> Result<Vec<Shared>, Error> {
        let mut all: Vec<Shared> = Vec::new();
        let hidden = self.runner.architecture().hidden;
        let wanted = |origin: &Origin| batch.contains(origin);
        for piece in 0..streams.pieces() {
            (self.stop)()?;
            let tokens = streams.plain[piece].len() / hidden;
            let run;
            let original = match known.heard.get(piece) {
                Some(heard) => heard,
                None => {
                    run = merged(self.runner.hear(plain, &streams.plain[piece], &wanted)?);
                    &run
                }
            };
            let layer = now.as_deref_mut().unwrap_or(&mut *plain);
            let found = merged(self.runner.hear(layer, &streams.calibrated[piece], &wanted)?);
            for Heard { origins, cols, rows } in &found {
                let same = |other: &&Heard| other.origins.contains(&origins[0]);
                // Tokens that experts choose differ; of everything else the rows are the same ones.
                let whole = |heard: &&Heard| heard.rows.len() == tokens * cols && rows.len() == tokens * cols;
                let before = original.iter().find(same).filter(whole).map(|heard| &heard.rows[..]);
                let known = all
                    .iter()
                    .position(|shared| origins.iter().any(|origin| shared.origins.contains(origin)));
                let index = match known {
                    Some(index) => index,
                    None => {
                        all.push(Shared {
                            origins: BTreeSet::new(),
                            moments: self.calibrator.moments(*cols)?,
                        });
                        all.len() - 1
                    }
                };
                all[index].origins.extend(origins.iter().cloned());
                all[index].moments.add(rows, before)?;
            }
        }
        Ok(all)
    }

    /// Packs the parts of entries by what goes into them.
    fn pack(&self, all: Vec<Shared>, parts: &mut Parts) -> Result<(), Error> {
        for Shared { origins, moments } in all {
            let enough = moments.rows() as f64 >= LEAST_ROWS * moments.cols() as f64;
            let group = |origin: &Origin| self.packed[&origin.entry].0.group();
            let mut groups: Vec<usize> = origins.iter().map(group).collect();
            groups.sort_unstable();
            groups.dedup();
            let mut left = Some(moments);
            for (index, size) in groups.iter().enumerate() {
                let own = match (&left, index + 1 == groups.len()) {
                    (Some(moments), false) => Some(moments.copy()?),
                    _ => left.take(),
                };
                let basis = match own.filter(|_| enough) {
                    Some(own) => own.basis(*size)?,
                    None => None,
                };
                for origin in origins.iter().filter(|origin| group(origin) == *size) {
                    (self.stop)()?;
                    let codes = self.part(&origin.entry, (origin.part, origin.parts), basis.as_deref())?;
                    let all = parts
                        .entry(origin.entry.clone())
                        .or_insert_with(|| vec![None; origin.parts]);
                    all[origin.part] = Some(codes);
                }
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> &Entry {
        self.checkpoint.entry(name).expect("an entry that is packed")
    }

    fn part(&self, entry: &str, part: (usize, usize), basis: Option<&dyn Basis>) -> Result<PartCodes, Error> {
        let pack_as = self.packed[entry];
        let recipe = (self.recipe, self.clamp);
        Ok(calibrate_part(
            self.checkpoint,
            self.entry(entry),
            part,
            pack_as,
            recipe,
            basis,
        )?)
    }

    /// All rows of an entry: as chosen, and as searched for.
    fn assemble(
        &self,
        entry: &str,
        parts: Vec<Option<PartCodes>>,
    ) -> Result<(PackedMatrix, PackedMatrix, Outcome), Error> {
        let count = parts.len();
        let mut outcome = Outcome {
            entry: entry.to_owned(),
            weights: self.entry(entry).element_count(),
            searched: 0.0,
            chosen: 0.0,
            parts: count,
            unseen: BTreeSet::new(),
        };
        let (mut found, mut without) = (Vec::new(), Vec::new());
        for (index, part) in parts.into_iter().enumerate() {
            let PartCodes { searched, calibrated } = match part {
                Some(part) => part,
                None => self.part(entry, (index, count), None)?,
            };
            match calibrated {
                Some(calibrated) => {
                    outcome.searched += calibrated.searched_error;
                    outcome.chosen += calibrated.error;
                    found.push(calibrated.packed);
                }
                None => {
                    outcome.unseen.insert(index);
                    found.push(searched.clone());
                }
            }
            without.push(searched);
        }
        Ok((stacked(found), stacked(without), outcome))
    }
}

/// Rows of one matrix after those of another.
fn stacked(mut parts: Vec<PackedMatrix>) -> PackedMatrix {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let joined = |part: fn(&PackedMatrix) -> &Bytes| -> Bytes {
        parts.iter().flat_map(|matrix| part(matrix).iter().copied()).collect()
    };
    let [codes, scales, biases] = [
        joined(|matrix| &matrix.codes),
        joined(|matrix| &matrix.scales),
        joined(|matrix| &matrix.biases),
    ];
    let mut shape = parts[0].shape();
    shape.rows = parts.iter().map(|part| part.rows).sum();
    PackedMatrix::new(shape, codes, scales, biases).expect("as many rows as the parts have")
}

/// What was heard in several passes as one; what only happens to be the same is taken apart: weights of different experts or heads.
fn merged(heard: Vec<Heard>) -> Vec<Heard> {
    let mut merged: Vec<Heard> = Vec::new();
    for Heard { origins, cols, rows } in heard {
        let mut apart: BTreeMap<(Vec<String>, usize), Vec<Origin>> = BTreeMap::new();
        for origin in origins {
            apart.entry(place(&origin)).or_default().push(origin);
        }
        for origins in apart.into_values() {
            match merged
                .iter_mut()
                .find(|other| other.origins == origins && other.cols == cols)
            {
                Some(other) => other.rows.extend_from_slice(&rows),
                None => merged.push(Heard {
                    origins,
                    cols,
                    rows: rows.clone(),
                }),
            }
        }
    }
    merged
}

/// Numbers in the path of an entry, and the part: which layer, which expert, which head.
fn place(origin: &Origin) -> (Vec<String>, usize) {
    let numbers = origin.entry.split('.').filter(|part| is_number(part));
    (numbers.map(str::to_owned).collect(), origin.part)
}

/// The name with a star for every number in its path.
fn anywhere(entry: &str) -> String {
    let parts: Vec<&str> = entry
        .split('.')
        .map(|part| if is_number(part) { "*" } else { part })
        .collect();
    parts.join(".")
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Modules some of whose rows are multiplied by other inputs than those that are heard: latent attention's matrix for keys and
/// values, the keys of which go to the queries.
fn used_twice(runner: &LayerRunner<'_>, layer: usize) -> Vec<String> {
    let steps = &runner.architecture().layers[layer].steps;
    let blocks = steps.iter().flat_map(|step| &step.branches).map(|branch| &branch.block);
    let stacks = blocks.filter_map(|block| match block {
        BlockSpec::LatentAttention(spec) => Some(&spec.value),
        _ => None,
    });
    let names = stacks.flat_map(|stack| &stack.places).filter_map(|place| match place {
        StackPlace::Fused(fused) | StackPlace::Joined(fused) => Some(fused.name.clone()),
        _ => None,
    });
    names.collect()
}

/// Whether an entry is a module's, the beginning of whose name may be another in the checkpoint.
fn is_same(entry: &str, module: &str) -> bool {
    let from_layers = module.find("layers.").map_or(module, |at| &module[at..]);
    entry.strip_suffix(".weight").unwrap_or(entry).ends_with(from_layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(entry: &str, part: usize) -> Origin {
        Origin {
            entry: entry.to_owned(),
            part,
            parts: 4,
        }
    }

    fn heard(origins: &[Origin], rows: &[f32]) -> Heard {
        Heard {
            origins: origins.to_vec(),
            cols: 2,
            rows: rows.to_vec(),
        }
    }

    #[test]
    fn passes_come_together_and_experts_apart() {
        let [query, key] = [origin("layers.0.q.weight", 0), origin("layers.0.k.weight", 0)];
        let [first, second] = [origin("layers.0.experts.up", 0), origin("layers.0.experts.up", 1)];
        let both = [query.clone(), key.clone()];
        let found = merged(vec![
            heard(&both, &[1.0, 2.0]),
            heard(&[first.clone(), second.clone()], &[3.0, 4.0]),
            heard(&both, &[5.0, 6.0]),
            heard(std::slice::from_ref(&second), &[7.0, 8.0]),
        ]);
        let listed: Vec<(&[Origin], &[f32])> = found
            .iter()
            .map(|heard| (&heard.origins[..], &heard.rows[..]))
            .collect();
        assert_eq!(
            listed,
            [
                (&both[..], &[1.0, 2.0, 5.0, 6.0][..]),
                (&[first][..], &[3.0, 4.0]),
                (&[second][..], &[3.0, 4.0, 7.0, 8.0]),
            ]
        );
    }

    #[test]
    fn names_are_compared_without_numbers_and_beginnings() {
        assert_eq!(
            anywhere("layers.10.experts.3.w1.weight"),
            "layers.*.experts.*.w1.weight"
        );
        assert_eq!(
            place(&origin("layers.10.experts.3.w1.weight", 2)),
            (vec!["10".into(), "3".into()], 2)
        );
        assert!(is_same(
            "language_model.layers.1.self_attn.kv_b_proj.weight",
            "model.layers.1.self_attn.kv_b_proj"
        ));
        assert!(!is_same(
            "model.layers.11.self_attn.kv_b_proj.weight",
            "model.layers.1.self_attn.kv_b_proj"
        ));
    }
}
