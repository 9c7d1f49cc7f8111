//! The instruction sets that there are kernels for: one list for every table of kernels, and one choice for the process.
//!
//! The best one that the machine has is chosen at the first use; `PLANISH_CPU=name` forces another. A row may use what it
//! needs and, where it asks the processor first, what its lines below call optional. Nothing else runs: `.ci/x86` shows it.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;

use std::env;
use std::fmt;
use std::sync::LazyLock;

/// An instruction set, best first. Later ones are parts of earlier ones on the same processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Tiles of bf16 beside AVX-512: Intel Sapphire Rapids (2023). Linux lets a process use them when it asks.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    /// AVX-512 with VBMI and VNNI, and BF16 and GFNI where they are: Intel Ice Lake (2019), AMD Zen 4 (2022).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// AVX-512 as it began: Intel Skylake-SP (2017). Products of packed weights are those of AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with AVX-VNNI: Intel Alder Lake (2021).
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2, FMA and F16C: Intel Haswell (2013), AMD Zen (2017).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with matrix products of bytes: Arm Neoverse V1 (2020), Apple M2 (2022).
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
    /// NEON with dot products of bytes: Arm Cortex-A76 (2018), Neoverse N1 (2019), Apple M1 (2020).
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
    /// What every 64-bit Arm processor has: Arm Cortex-A53 (2012).
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain Rust, as the compiler turns it into what every processor of the architecture has: SSE2 on x86-64.
    Scalar,
}

impl Isa {
    /// Every instruction set of this architecture, best first. The last one runs everywhere.
    pub const ALL: &'static [Isa] = &[
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Isa::Amx,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon,
        Isa::Scalar,
    ];

    /// What `PLANISH_CPU` and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => "neoni8mm",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => "neondotprod",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            Isa::Scalar => "scalar",
        }
    }

    /// Whether this machine has it. Asking for AMX asks the system for the permission to use it.
    pub fn is_supported(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => Isa::Avx512Vnni.is_supported() && is_x86_feature_detected!("avx512bf16") && amx::available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                Isa::Avx512.is_supported()
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.is_supported() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Isa::NeonDotprod.is_supported() && std::arch::is_aarch64_feature_detected!("i8mm"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            Isa::Scalar => true,
        }
    }

    /// Those that this machine has, best first.
    pub fn supported() -> impl Iterator<Item = Isa> {
        Isa::ALL.iter().copied().filter(|isa| isa.is_supported())
    }

    /// The best one that this machine has.
    pub fn best() -> Isa {
        Isa::supported().next().unwrap_or(Isa::Scalar)
    }

    /// The one of this name.
    ///
    /// # Errors
    /// If there is none of this name, or this machine does not have it.
    pub fn named(name: &str) -> Result<Isa, IsaError> {
        let named = Isa::ALL.iter().copied().find(|isa| isa.name() == name);
        named.filter(|isa| isa.is_supported()).ok_or_else(|| IsaError {
            name: name.to_owned(),
            known: named.is_some(),
            supported: Isa::supported().map(Isa::name).collect(),
        })
    }

    /// The one that this process runs: that which `PLANISH_CPU` names, or the best. The first call chooses.
    ///
    /// # Errors
    /// As [`Isa::named`].
    pub fn chosen() -> Result<Isa, IsaError> {
        static CHOSEN: LazyLock<Result<Isa, IsaError>> = LazyLock::new(|| match env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => Isa::named(&name.to_string_lossy()),
            _ => Ok(Isa::best()),
        });
        CHOSEN.clone()
    }
}

/// The variable that names the instruction set.
const VARIABLE: &str = "PLANISH_CPU";

/// An instruction set was asked for by a name that stands for none, or for one that this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    /// The name.
    pub name: String,
    /// Whether an instruction set of this architecture has that name.
    pub known: bool,
    /// The names that work on this machine, best first.
    pub supported: Vec<&'static str>,
}

impl fmt::Display for IsaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IsaError { name, known, supported } = self;
        let supported = supported.join(", ");
        match known {
            true => write!(
                formatter,
                "{VARIABLE}: this machine does not have {name:?}, it has {supported}"
            ),
            false => write!(
                formatter,
                "{VARIABLE}: no instruction set is named {name:?}, this machine has {supported}"
            ),
        }
    }
}

impl std::error::Error for IsaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_or_refused_with_the_list() {
        for &isa in Isa::ALL {
            let named = Isa::named(isa.name());
            match isa.is_supported() {
                true => assert_eq!(named, Ok(isa)),
                false => assert!(named.is_err_and(|error| error.known && error.to_string().contains("does not have"))),
            }
        }
        for unknown in ["sse9", "AVX2", "portable", " scalar", ""] {
            let error = Isa::named(unknown).expect_err("no such name");
            assert!(!error.known && error.supported.contains(&"scalar"));
            assert!(error.to_string().contains(&format!("{unknown:?}")) && error.to_string().contains("scalar"));
        }
    }

    #[test]
    fn the_best_is_the_first_and_the_last_runs_everywhere() {
        assert_eq!(Isa::supported().next(), Some(Isa::best()));
        assert_eq!(Isa::ALL.last(), Some(&Isa::Scalar));
        assert!(Isa::Scalar.is_supported());
    }
}
