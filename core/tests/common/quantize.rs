//! Plain quantisers: each block valid, none optimal. Layouts are those of ggml's blocks.

/// How the matrices of a test model are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "these are ggml's names")]
pub enum WeightType {
    F32,
    F16,
    Q8_0,
    Q4_0,
    Q4_K,
    Q6_K,
}

impl WeightType {
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Q8_0, Self::Q4_0, Self::Q4_K, Self::Q6_K];

    /// ggml's number of the type.
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q6_K => 14,
        }
    }

    /// The bytes of `values`, whose number is a multiple of the block length (32, or 256 for K-quants).
    pub fn quantize(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| f16(v)).collect(),
            Self::Q8_0 => blocks(values, 32, q8_0),
            Self::Q4_0 => blocks(values, 32, q4_0),
            Self::Q4_K => blocks(values, 256, q4_k),
            Self::Q6_K => blocks(values, 256, q6_k),
        }
    }
}

fn blocks(values: &[f32], len: usize, quantize: fn(&[f32], &mut Vec<u8>)) -> Vec<u8> {
    assert!(values.len().is_multiple_of(len), "rows are whole blocks of {len}");
    let mut out = Vec::new();
    values.chunks_exact(len).for_each(|block| quantize(block, &mut out));
    out
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, v| largest.max(v.abs()))
}

/// `value / scale` to the nearest integer within the range; 0 where the scale is 0.
fn level(value: f32, scale: f32, min: i32, max: i32) -> i32 {
    if scale == 0.0 { 0.clamp(min, max) } else { ((value / scale).round() as i32).clamp(min, max) }
}

fn q8_0(block: &[f32], out: &mut Vec<u8>) {
    let d = largest(block) / 127.0;
    out.extend(f16(d));
    out.extend(block.iter().map(|&v| level(v, d, -127, 127) as i8 as u8));
}

fn q4_0(block: &[f32], out: &mut Vec<u8>) {
    let d = largest(block) / 7.0;
    out.extend(f16(d));
    let q = |v: f32| (level(v, d, -8, 7) + 8) as u8;
    out.extend((0..16).map(|i| q(block[i]) | q(block[i + 16]) << 4));
}

fn q4_k(block: &[f32], out: &mut Vec<u8>) {
    let low = |group: &[f32]| group.iter().fold(0.0_f32, |low, &v| low.min(v));
    let high = |group: &[f32]| group.iter().fold(0.0_f32, |high, &v| high.max(v));
    let mins: Vec<f32> = block.chunks_exact(32).map(|group| -low(group)).collect();
    let scales: Vec<f32> = block.chunks_exact(32).map(|group| (high(group) - low(group)) / 15.0).collect();
    let (d, d_min) = (largest(&scales) / 63.0, largest(&mins) / 63.0);
    out.extend(f16(d));
    out.extend(f16(d_min));
    let six_bits = |value: f32, unit: f32| level(value, unit, 0, 63) as u8;
    let s: Vec<u8> = scales.iter().map(|&scale| six_bits(scale, d)).collect();
    let m: Vec<u8> = mins.iter().map(|&min| six_bits(min, d_min)).collect();
    out.extend((0..4).map(|j| s[j] | (s[j + 4] >> 4) << 6));
    out.extend((0..4).map(|j| m[j] | (m[j + 4] >> 4) << 6));
    out.extend((4..8).map(|j| (s[j] & 15) | (m[j] & 15) << 4));
    let q = |i: usize| {
        let (scale, min) = (d * f32::from(s[i / 32]), d_min * f32::from(m[i / 32]));
        level(block[i] + min, scale, 0, 15) as u8
    };
    for pair in 0..4 {
        out.extend((0..32).map(|i| q(pair * 64 + i) | q(pair * 64 + 32 + i) << 4));
    }
}

fn q6_k(block: &[f32], out: &mut Vec<u8>) {
    let scales: Vec<f32> = block.chunks_exact(16).map(|group| largest(group) / 31.0).collect();
    let d = largest(&scales) / 127.0;
    let s: Vec<i32> = scales.iter().map(|&scale| level(scale, d, 0, 127)).collect();
    let q: Vec<u8> =
        block.iter().enumerate().map(|(i, &v)| (level(v, d * s[i / 16] as f32, -32, 31) + 32) as u8).collect();
    for half in q.chunks_exact(128) {
        out.extend((0..64).map(|i| (half[i] & 15) | (half[i + 64] & 15) << 4));
    }
    for half in q.chunks_exact(128) {
        out.extend((0..32).map(|i| (0..4).fold(0, |bits, part| bits | (half[i + 32 * part] >> 4) << (2 * part))));
    }
    out.extend(s.iter().map(|&scale| scale as i8 as u8));
    out.extend(f16(d));
}

/// IEEE half precision, to the nearest, ties to even.
pub fn f16(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = f32::from_bits(bits & 0x7fff_ffff);
    let half = if magnitude >= 65520.0 {
        0x7c00
    } else if magnitude < 6.103_515_6e-5 {
        // Subnormal: a multiple of 2^-24.
        (magnitude * 16_777_216.0).round_ties_even() as u16
    } else {
        let bits = magnitude.to_bits();
        let rounded = bits + 0xfff + (bits >> 13 & 1);
        ((rounded >> 13) - (112 << 10)) as u16
    };
    (sign | half).to_le_bytes()
}
