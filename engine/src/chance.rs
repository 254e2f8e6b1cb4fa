//! What is left to chance, so that tests own that too: the ends of workflows' ids, and how long a wait is within its bounds.
//!
//! Secrets are not made of it.

/// Draws at random.
pub trait Chance: Send + Sync + 'static {
    /// 64 bits.
    fn bits(&self) -> u64;
}

/// The system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn bits(&self) -> u64 {
        rand::random()
    }
}

/// A number in `[0, 1)`.
pub(crate) fn fraction(chance: &dyn Chance) -> f64 {
    // As many bits as a number of this kind holds.
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (chance.bits() >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(u64);

    impl Chance for Always {
        fn bits(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_fraction_is_never_less_than_nothing_and_never_one() {
        assert!(fraction(&Always(0)).abs() < f64::EPSILON);
        assert!((fraction(&Always(1 << 63)) - 0.5).abs() < f64::EPSILON);
        assert!(fraction(&Always(u64::MAX)) < 1.0);
    }
}
