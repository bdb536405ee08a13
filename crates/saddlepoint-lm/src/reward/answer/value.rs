//! The value of an expression: exact where it is rational, else complex at given points of its variables.

use num_complex::Complex64;
use num_rational::Ratio;
use num_traits::{CheckedAdd, CheckedDiv, CheckedMul, One, Zero};

use super::expression::{Expression, Function};

/// A rational number. Operations that leave 128 bits give none.
pub(super) type Exact = Ratio<i128>;

/// Points at which expressions with variables are compared.
pub(super) const POINTS: u64 = 3;
/// Relative difference of equal values.
const TOLERANCE: f64 = 1e-9;
/// Largest whole exponent and factorial that are computed exactly.
const MOST: i128 = 128;

impl Expression {
    /// The rational value; none if it is not rational, or not seen to be, or too large.
    pub(super) fn exact(&self) -> Option<Exact> {
        bounded(match self {
            Self::Number(value) => Some(*value),
            Self::Sum(terms) => {
                terms.iter().try_fold(Exact::zero(), |sum, term| bounded(sum.checked_add(&term.exact()?)))
            }
            Self::Product(factors) => factors
                .iter()
                .try_fold(Exact::one(), |product, factor| bounded(product.checked_mul(&factor.exact()?))),
            Self::Quotient(above, below) => above.exact()?.checked_div(&below.exact()?),
            Self::Power(base, exponent) => power(base.exact()?, exponent.exact()?),
            Self::Call(Function::Factorial, of) => {
                let of = of.exact()?;
                let fits = of.is_integer() && (0..=MOST).contains(of.numer());
                let factors = 1..=*of.numer();
                fits.then(|| {
                    factors.map(Ratio::from_integer).try_fold(Exact::one(), |n, k| bounded(n.checked_mul(&k)))
                })?
            }
            Self::Call(Function::Abs, of) => {
                of.exact().map(|value| if value < Exact::zero() { -value } else { value })
            }
            Self::Symbol(_) | Self::Call(..) | Self::Log(..) => None,
        })
    }

    /// The value at a point: every variable has a fixed value there, between 1/2 and 5/2.
    pub(super) fn at(&self, point: u64) -> Complex64 {
        match self {
            Self::Number(value) => Complex64::new(*value.numer() as f64 / *value.denom() as f64, 0.0),
            Self::Symbol(name) => match name.as_str() {
                "pi" => std::f64::consts::PI.into(),
                "e" => std::f64::consts::E.into(),
                "i" => Complex64::I,
                name => Complex64::new(variable(name, point), 0.0),
            },
            Self::Sum(terms) => terms.iter().map(|term| term.at(point)).sum(),
            Self::Product(factors) => factors.iter().map(|factor| factor.at(point)).product(),
            Self::Quotient(above, below) => above.at(point) / below.at(point),
            Self::Power(base, exponent) => complex_power(base.at(point), exponent.at(point)),
            Self::Log(base, of) => of.at(point).ln() / base.at(point).ln(),
            Self::Call(function, of) => call(*function, of.at(point)),
        }
    }

    /// Whether two expressions have the same value at every point at which both have one, and that is anywhere.
    pub(super) fn equals(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.exact(), other.exact()) {
            return a == b;
        }
        let values = (0..POINTS).map(|point| (self.at(point), other.at(point)));
        let finite: Vec<_> = values.filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
        !finite.is_empty() && finite.into_iter().all(|(a, b)| close(a, b))
    }
}

pub(super) fn close(a: Complex64, b: Complex64) -> bool {
    (a - b).norm() <= TOLERANCE * a.norm().max(b.norm()).max(1e-3)
}

/// Far from the ends of 128 bits, where signs cannot change and fractions cannot be reduced.
fn bounded(value: Option<Exact>) -> Option<Exact> {
    value.filter(|value| value.numer().unsigned_abs() < 1 << 120 && value.denom().unsigned_abs() < 1 << 120)
}

fn power(base: Exact, exponent: Exact) -> Option<Exact> {
    let whole = exponent.is_integer().then(|| *exponent.numer())?;
    let base = if whole < 0 { Exact::one().checked_div(&base)? } else { base };
    let count = whole.checked_abs().filter(|&count| count <= MOST)?;
    (0..count).try_fold(Exact::one(), |product, _| bounded(product.checked_mul(&base)))
}

fn complex_power(base: Complex64, exponent: Complex64) -> Complex64 {
    // The real root of a negative number under an odd index is what is meant in school.
    let index = exponent.inv();
    let odd =
        index.im.abs() < 1e-12 && (index.re.round() - index.re).abs() < 1e-9 && index.re.round() % 2.0 != 0.0;
    if odd && base.im == 0.0 && base.re < 0.0 {
        return Complex64::new(-(-base.re).powf(exponent.re), 0.0);
    }
    match exponent {
        Complex64 { re, im: 0.0 } if re.fract() == 0.0 && re.abs() <= 1e3 => base.powi(re as i32),
        _ => base.powc(exponent),
    }
}

fn call(function: Function, z: Complex64) -> Complex64 {
    match function {
        Function::Sin => z.sin(),
        Function::Cos => z.cos(),
        Function::Tan => z.tan(),
        Function::Cot => z.tan().inv(),
        Function::Sec => z.cos().inv(),
        Function::Csc => z.sin().inv(),
        Function::Arcsin => z.asin(),
        Function::Arccos => z.acos(),
        Function::Arctan => z.atan(),
        Function::Ln => z.ln(),
        Function::Exp => z.exp(),
        Function::Abs => z.norm().into(),
        Function::Factorial => {
            let whole = z.im == 0.0 && z.re.fract() == 0.0 && (0.0..=170.0).contains(&z.re);
            let value = if whole { (1..=z.re as u32).map(f64::from).product() } else { f64::NAN };
            value.into()
        }
    }
}

/// A number that depends on name and point, and on nothing else (FNV-1a).
fn variable(name: &str, point: u64) -> f64 {
    let hash = name.bytes().chain(point.to_le_bytes()).fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    0.5 + 2.0 * (hash >> 11) as f64 / (1_u64 << 53) as f64
}
