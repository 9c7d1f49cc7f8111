//! `rope_theta` and `rope_scaling` of config.json from a GGUF file.
//!
//! linear and yarn scaling are metadata. llama3 scaling is a tensor of factors by which llama.cpp divides the frequencies;
//! its parameters are found again from the factors. With w = wavelength, O = original context, L and H the low and high
//! frequency factors, F = factor: 1 where w < O/H, F where w > O/L, else 1 / ((1 - s) / F + s) with s = (O/w - L) / (H - L).

use serde_json::{Value, json};

use super::config::{Keys, Sizes};
use super::fault::Fault;

/// Two entries of config.json.
pub(super) struct Rope {
    pub theta: f64,
    pub scaling: Value,
}

/// How well rebuilt factors must fit the stored ones, which are f32.
const TOLERANCE: f64 = 1e-4;

pub(super) fn rebuild(keys: &Keys, sizes: &Sizes, factors: Option<&[f32]>) -> Result<Rope, Fault> {
    let theta = keys.float("rope.freq_base")?.unwrap_or(10000.0);
    let scaling = match factors {
        Some(factors) => from_factors(factors, theta, sizes.head_dim)?,
        None => from_metadata(keys)?,
    };
    Ok(Rope { theta, scaling })
}

fn from_metadata(keys: &Keys) -> Result<Value, Fault> {
    let kind_key = keys.key("rope.scaling.type");
    let factor = keys.float("rope.scaling.factor")?;
    // Files of 2023 have one number, which means linear.
    if let (None, Some(factor)) = (factor, keys.float("rope.scale_linear")?) {
        return Ok(linear(factor));
    }
    let original = keys.metadata.count(&keys.key("rope.scaling.original_context_length"))?;
    match keys.metadata.text(&kind_key)? {
        None | Some("none") => Ok(Value::Null),
        Some("linear") => Ok(linear(keys.metadata.need(&keys.key("rope.scaling.factor"), factor)?)),
        Some("yarn") => {
            let factor = keys.metadata.need(&keys.key("rope.scaling.factor"), factor)?;
            let mut scaling = json!({ "rope_type": "yarn", "factor": factor });
            let optional = [
                (
                    "original_max_position_embeddings",
                    original.map(|original| json!(original)),
                ),
                (
                    "attention_factor",
                    match keys.float("rope.scaling.yarn_attn_factor")? {
                        Some(factor) => Some(json!(factor)),
                        None => keys.float("rope.scaling.attn_factor")?.map(|value| json!(value)),
                    },
                ),
                (
                    "beta_fast",
                    keys.float("rope.scaling.yarn_beta_fast")?.map(|value| json!(value)),
                ),
                (
                    "beta_slow",
                    keys.float("rope.scaling.yarn_beta_slow")?.map(|value| json!(value)),
                ),
            ];
            // A tenth of it; files have one number for both, and models the same in both.
            if let Some(multiplier) = keys.float("rope.scaling.yarn_log_multiplier")? {
                let scale = f64::from((multiplier * 10.0) as f32 * 1e6).round() / 1e6;
                scaling["mscale"] = json!(scale);
                scaling["mscale_all_dim"] = json!(scale);
            }
            for (name, value) in optional {
                if let Some(value) = value {
                    scaling[name] = value;
                }
            }
            Ok(scaling)
        }
        Some(other) => Err(Fault::unsupported(format!(
            "metadata key `{kind_key}`: the scaling `{other}` is not read; those that are: none, linear, yarn, and llama3 as a tensor"
        ))),
    }
}

fn linear(factor: f64) -> Value {
    if factor == 1.0 {
        Value::Null
    } else {
        json!({ "rope_type": "linear", "factor": factor })
    }
}

/// The four parameters of llama3 scaling.
#[derive(Clone, Copy, Debug)]
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    /// What a frequency of this wavelength (positions per turn) is divided by.
    fn divisor(&self, wavelength: f64) -> f64 {
        if wavelength < self.original / self.high {
            1.0
        } else if wavelength > self.original / self.low {
            self.factor
        } else {
            let share = (self.original / wavelength - self.low) / (self.high - self.low);
            1.0 / ((1.0 - share) / self.factor + share)
        }
    }

    /// Largest relative difference from stored factors.
    fn misfit(&self, wavelengths: &[f64], factors: &[f32]) -> f64 {
        let difference =
            |(&wavelength, &factor): (&f64, &f32)| (self.divisor(wavelength) / f64::from(factor) - 1.0).abs();
        wavelengths.iter().zip(factors).map(difference).fold(0.0, f64::max)
    }
}

fn from_factors(factors: &[f32], theta: f64, head_dim: usize) -> Result<Value, Fault> {
    let tensor = "tensor `rope_freqs.weight`";
    if factors.len() != head_dim / 2 {
        return Err(Fault::malformed(format!(
            "{tensor}: expected {} factors, found {}",
            head_dim / 2,
            factors.len()
        )));
    }
    if factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
        return Err(Fault::malformed(format!("{tensor}: expected positive factors")));
    }
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(Value::Null);
    }
    let wavelength = |pair: usize| std::f64::consts::TAU * theta.powf(2.0 * pair as f64 / head_dim as f64);
    let wavelengths: Vec<f64> = (0..factors.len()).map(wavelength).collect();
    let found = candidates(factors, &wavelengths).find(|llama3| llama3.misfit(&wavelengths, factors) < TOLERANCE);
    let Llama3 {
        factor,
        low,
        high,
        original,
    } = found.ok_or_else(|| Fault::unsupported(format!("{tensor}: its factors are not those of llama3 scaling")))?;
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original as u64,
    }))
}

/// The published parameters first, then the solution from the factors between 1 and F: s is linear in 1/w, so two of them
/// give O / (H - L) and -L / (H - L); only the ratio of O, L and H matters, and L is 1 by custom. One alone gives O when H is
/// the published 4.
fn candidates(factors: &[f32], wavelengths: &[f64]) -> impl Iterator<Item = Llama3> {
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let scaling = |high: f64, original: f64| Llama3 {
        factor,
        low: 1.0,
        high,
        original,
    };
    let between: Vec<(f64, f64)> = (wavelengths.iter().zip(factors))
        .map(|(wavelength, &stored)| {
            let share = (1.0 / f64::from(stored) - 1.0 / factor) / (1.0 - 1.0 / factor);
            (1.0 / wavelength, share)
        })
        .filter(|(_, share)| *share > 1e-3 && *share < 1.0 - 1e-3)
        .collect();
    let solved = match between[..] {
        [] => None,
        [(inverse, share)] => Some(scaling(4.0, ((1.0 + 3.0 * share) / inverse).round())),
        [first, .., last] => {
            let slope = (first.1 - last.1) / (first.0 - last.0);
            let offset = first.1 - slope * first.0;
            let high = 1.0 - 1.0 / offset;
            Some(scaling((high * 64.0).round() / 64.0, (-slope / offset).round()))
        }
    };
    std::iter::once(scaling(4.0, 8192.0)).chain(solved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors_of(llama3: &Llama3, theta: f64, head_dim: usize) -> Vec<f32> {
        let wavelength = |pair: usize| std::f64::consts::TAU * theta.powf(2.0 * pair as f64 / head_dim as f64);
        (0..head_dim / 2)
            .map(|pair| llama3.divisor(wavelength(pair)) as f32)
            .collect()
    }

    #[test]
    fn llama3_parameters_are_found_again() {
        // Factor, high, original, head_dim; the last has one factor between 1 and F.
        let cases = [
            (32.0, 4.0, 8192.0, 128),
            (8.0, 4.0, 8192.0, 64),
            (16.0, 2.0, 4096.0, 128),
            (4.0, 8.0, 2048.0, 128),
            (8.0, 4.0, 64.0, 32),
        ];
        for (factor, high, original, head_dim) in cases {
            let scaling = Llama3 {
                factor,
                low: 1.0,
                high,
                original,
            };
            let value = from_factors(&factors_of(&scaling, 500000.0, head_dim), 500000.0, head_dim).unwrap();
            let expected = json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": high,
                "original_max_position_embeddings": original as u64,
            });
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn other_factors_are_refused() {
        let factors: Vec<f32> = (0..64).map(|pair| 1.0 + pair as f32 / 10.0).collect();
        let fault = from_factors(&factors, 500000.0, 128).unwrap_err();
        assert!(matches!(fault, Fault::Unsupported(what) if what.contains("rope_freqs.weight")));
        assert!(from_factors(&factors[..63], 500000.0, 128).is_err());
    }
}
