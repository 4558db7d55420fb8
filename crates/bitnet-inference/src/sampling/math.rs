//! Logarithm and exponential of IEEE operations alone, so that a seed gives the same text on every machine. The
//! platform's own differ in the last bits from one system to the next.

use std::f64::consts::{LN_2, SQRT_2};

/// Natural logarithm, to about 2 ulp; minus infinity at 0, NaN below and for NaN.
///
/// `x = m 2^e` with `m` in `[sqrt(1/2), sqrt(2))`; `ln m = 2 artanh((m - 1) / (m + 1))` by its series, whose terms from
/// the 14th on are below 2^-60.
pub(super) fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 || x == f64::INFINITY {
        return if x == 0.0 { f64::NEG_INFINITY } else { x };
    }
    // Subnormal numbers have no exponent of their own.
    let (x, scaled) = if x < f64::MIN_POSITIVE { (x * (1u64 << 54) as f64, 54.0) } else { (x, 0.0) };
    let mut e = (x.to_bits() >> 52) as f64 - 1023.0 - scaled;
    let mut m = f64::from_bits(x.to_bits() & ((1 << 52) - 1) | 1.0f64.to_bits());
    if m > SQRT_2 {
        (m, e) = (m * 0.5, e + 1.0);
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = (0..14).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    e * LN_2 + 2.0 * s * series
}

/// `e^x`, to a few ulp; 0 below -700, infinite above 700.
///
/// `x = n ln2 + r`, `|r| <= ln2 / 2`; `e^r` by its Taylor polynomial of degree 14.
pub(super) fn exp(x: f64) -> f64 {
    if x < -700.0 {
        return 0.0;
    }
    if x > 700.0 {
        return f64::INFINITY;
    }
    // ln 2 in two parts: the first has few bits, so that its multiples are exact.
    const HIGH: f64 = 2_977_044_472.0 / 4_294_967_296.0;
    const LOW: f64 = -4.2009150726810846e-11;
    let n = (x / LN_2).round();
    let r = (x - n * HIGH) - n * LOW;
    let series = (1..=14).rev().fold(1.0, |sum, k| 1.0 + r / f64::from(k) * sum);
    // NaN becomes 0 here, but `series` is NaN then.
    series * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// `base^exponent` for a base of 0 or greater.
pub(super) fn pow(base: f64, exponent: f64) -> f64 {
    if exponent == 0.0 || base == 1.0 {
        return 1.0;
    }
    if base == 0.0 {
        return if exponent > 0.0 { 0.0 } else { f64::INFINITY };
    }
    exp(exponent * ln(base))
}

/// `base^exponent` for whole exponents by repeated squaring, at most `limit`.
pub(super) fn powi(base: f64, exponent: usize, limit: f64) -> f64 {
    let (mut result, mut square, mut rest) = (1.0f64, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= square;
        }
        square = (square * square).min(f64::MAX);
        rest >>= 1;
    }
    result.min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, want: f64) -> bool {
        (got - want).abs() <= want.abs() * 1e-14 + 1e-300
    }

    #[test]
    fn logarithms_are_those_of_the_standard_library() {
        for i in 1..4000 {
            let x = f64::from(i) * 0.37;
            for x in [x, 1.0 / x, 1.0 + 1e-6 * x, x * 1e200, x * 1e-300, x * 1e-308] {
                assert!(
                    (ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs() + 1e-16,
                    "ln {x}: {} {}",
                    ln(x),
                    x.ln()
                );
            }
        }
        assert_eq!((ln(0.0), ln(1.0), ln(f64::INFINITY)), (f64::NEG_INFINITY, 0.0, f64::INFINITY));
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
    }

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        for i in -6900..6900 {
            let x = f64::from(i) * 0.1013;
            assert!(close(exp(x), x.exp()), "exp {x}: {} {}", exp(x), x.exp());
        }
        assert_eq!((exp(0.0), exp(-1e9), exp(1e9)), (1.0, 0.0, f64::INFINITY));
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn powers_are_those_of_the_standard_library() {
        for (b, e) in [(2.0, 5.0), (0.3, 1.7), (9.5, 0.5), (0.0, 2.0), (1.0, 9.0), (7.0, 0.0)] {
            assert!((pow(b, e) - f64::powf(b, e)).abs() <= 1e-13 * f64::powf(b, e), "{b}^{e}");
        }
        assert_eq!((powi(1.75, 3, 1e30), powi(3.0, 0, 1e30)), (1.75 * 1.75 * 1.75, 1.0));
        assert_eq!((powi(1.75, 1_000_000, 1e30), powi(0.5, usize::MAX, 1e30)), (1e30, 0.0));
    }
}
