//! Which instruction set the kernels use: found at run time, never assumed from build flags.
//!
//! An [`Isa`] value exists only for what this CPU can execute; that is what makes calling a kernel through one sound.

use std::sync::OnceLock;

/// Environment variable that forces an instruction set by [name](Isa::name), for tests and bug reports.
pub(crate) const ISA_VARIABLE: &str = "FULCRUM_KERNEL_ISA";

/// An instruction set that this CPU has and the kernels know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Isa(Kind);

/// The instruction sets by name, to branch on. A kind proves nothing about this CPU; an [`Isa`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// How weights of a format lie in memory for the dot product instruction at hand; part of the packed layout's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Interleave {
    /// Weight rows of a group.
    pub(crate) group: usize,
    /// Consecutive weights of one row that stand together: what one lane of the dot product multiplies.
    pub(crate) step: usize,
    /// Whether bytes are stored as they are, or with the sign bit flipped for instructions that take unsigned × signed.
    pub(crate) signed: bool,
    /// Activation rows that one dot product instruction takes.
    pub(crate) row_unit: usize,
}

impl Isa {
    /// The best instruction set of this CPU, or what [`ISA_VARIABLE`] names if this CPU has it. Looked up once.
    pub(crate) fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let supported = Self::supported();
            let best = supported.last().copied().unwrap_or(Self(Kind::Portable));
            let Ok(name) = std::env::var(ISA_VARIABLE) else { return best };
            supported.iter().copied().find(|isa| isa.name() == name).unwrap_or_else(|| {
                log::warn!("{ISA_VARIABLE}={name}: this CPU offers {supported:?}; using {}", best.name());
                best
            })
        })
    }

    /// Every instruction set that this CPU has, slowest first; the portable one is always there.
    pub(crate) fn supported() -> Vec<Self> {
        let mut found = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            if avx2 {
                found.push(Self(Kind::Avx2));
            }
            if avx2 && has!("avxvnni") {
                found.push(Self(Kind::Avx2Vnni));
            }
            if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                found.push(Self(Kind::Avx512));
            }
        }
        found
    }

    /// Which one it is.
    pub(crate) const fn kind(self) -> Kind {
        self.0
    }

    /// The name that [`ISA_VARIABLE`] takes.
    pub(crate) const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2Vnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// The layout that this instruction set's kernels read.
    pub(crate) const fn interleave(self) -> Interleave {
        match self.0 {
            Kind::Portable => Interleave { group: 16, step: 4, signed: false, row_unit: 1 },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx2Vnni | Kind::Avx512 => Interleave { group: 16, step: 4, signed: false, row_unit: 1 },
        }
    }
}
