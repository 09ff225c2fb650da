//! Conversions between f32 and the bits of an IEEE half, for the portable kernels and for packing.
//!
//! Exact in both directions as the hardware instructions are: subnormals are kept, rounding is to nearest, ties to even.

/// The value of the half with these bits.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    // Shifted into place the half is an f32 whose exponent is 112 too small; multiplying by 2^112 mends it and normalises subnormals.
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let value = if magnitude < 0x0f80_0000 {
        f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)
    } else {
        f32::from_bits(magnitude | 0x7f80_0000)
    };
    f32::from_bits(value.to_bits() | sign)
}

/// The bits of the half nearest to `value`; infinite where that is too large.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // the shifts leave 16 bits
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00; // not a number
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00; // 65520 and above round to infinity
    }
    if magnitude < 0x3880_0000 {
        // Below the smallest normal half: adding 0.5 leaves the wanted bits, rounded by the addition itself.
        let rounded = f32::from_bits(magnitude) + 0.5;
        return sign | (rounded.to_bits() - 0x3f00_0000) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    sign | ((magnitude - 0x3800_0000 + 0x0fff + odd) >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
        ] {
            assert_eq!(f16_to_f32(bits), value);
            assert_eq!(f32_to_f16(value), bits);
        }
        assert_eq!(f16_to_f32(0x7c00), f32::INFINITY);
        assert!(f16_to_f32(0x7e00).is_nan());
        assert!(f16_to_f32(f32_to_f16(f32::NAN)).is_nan());
        assert_eq!(f32_to_f16(65519.9), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
    }

    #[test]
    fn every_half_comes_back() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            if !value.is_nan() {
                assert_eq!(f32_to_f16(value), bits, "{value}");
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_neighbours_do_not() {
        for bits in 0..0x7bff_u16 {
            let (low, high) = (f64::from(f16_to_f32(bits)), f64::from(f16_to_f32(bits + 1)));
            #[allow(clippy::cast_possible_truncation)]
            let middle = ((low + high) / 2.0) as f32;
            assert_eq!(f32_to_f16(middle), bits + (bits & 1));
            assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() + 1)), bits + 1);
            assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() - 1)), bits);
        }
    }
}
