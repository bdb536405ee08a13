//! The operations of a function, in order.

/// Index of the register that an operation fills.
pub(crate) type Register = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unary {
    Neg,
    Sqrt,
    Exp,
    Log,
    Log10,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Abs,
    /// Towards 0, as Fortran's `INT`.
    Truncate,
    Not,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// Of integers, towards 0.
    Quotient,
    Pow,
    Min,
    Max,
    /// The size of the first with the sign of the second.
    Sign,
    Atan2,
    Mod,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    And,
    Or,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Op {
    Constant(f64),
    Input(usize),
    Unary(Unary, Register),
    Binary(Binary, Register, Register),
    /// The second if the first is not 0, else the third.
    Select(Register, Register, Register),
}

/// A function from `inputs` numbers to some results. Only the first `variables` of the inputs are differentiated.
#[derive(Debug, Clone, PartialEq)]
pub struct Tape {
    inputs: usize,
    variables: usize,
    ops: Vec<Op>,
    /// Whether a register depends on a variable.
    active: Vec<bool>,
    results: Vec<Register>,
}

impl Tape {
    pub(crate) fn new(inputs: usize, variables: usize) -> Self {
        assert!(variables <= inputs, "variables are inputs");
        Self { inputs, variables, ops: Vec::new(), active: Vec::new(), results: Vec::new() }
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The number of inputs that are differentiated; they come first.
    pub fn variables(&self) -> usize {
        self.variables
    }

    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(crate) fn results(&self) -> &[Register] {
        &self.results
    }

    pub(crate) fn is_active(&self, register: Register) -> bool {
        self.active[register]
    }

    /// Appends an operation; one on constants alone is carried out at once.
    pub(crate) fn push(&mut self, op: Op) -> Register {
        let constant = |r: Register| match self.ops[r] {
            Op::Constant(value) => Some(value),
            _ => None,
        };
        let folded = match op {
            Op::Unary(unary, a) => constant(a).map(|a| unary.apply(a)),
            Op::Binary(binary, a, b) => constant(a).zip(constant(b)).map(|(a, b)| binary.apply(a, b)),
            _ => None,
        };
        let op = folded.map_or(op, Op::Constant);
        let active = match op {
            Op::Constant(_) | Op::Unary(Unary::Not, _) => false,
            Op::Input(i) => i < self.variables,
            Op::Unary(_, a) => self.active[a],
            Op::Binary(binary, a, b) => !binary.is_logical() && (self.active[a] || self.active[b]),
            Op::Select(_, a, b) => self.active[a] || self.active[b],
        };
        self.ops.push(op);
        self.active.push(active);
        self.ops.len() - 1
    }

    pub(crate) fn result(&mut self, register: Register) {
        self.results.push(register);
    }

    /// The results, into `out`; `registers` is memory to work in.
    pub fn values(&self, inputs: &[f64], registers: &mut Vec<f64>, out: &mut Vec<f64>) {
        assert_eq!(inputs.len(), self.inputs, "one number an input");
        registers.clear();
        for op in &self.ops {
            let value = op.apply(inputs, registers);
            registers.push(value);
        }
        out.clear();
        out.extend(self.results.iter().map(|r| registers[*r]));
    }
}

impl Op {
    pub(crate) fn apply(self, inputs: &[f64], registers: &[f64]) -> f64 {
        match self {
            Op::Constant(value) => value,
            Op::Input(i) => inputs[i],
            Op::Unary(unary, a) => unary.apply(registers[a]),
            Op::Binary(binary, a, b) => binary.apply(registers[a], registers[b]),
            Op::Select(c, a, b) => registers[if registers[c] == 0.0 { b } else { a }],
        }
    }
}

impl Unary {
    pub(crate) fn apply(self, a: f64) -> f64 {
        match self {
            Self::Neg => -a,
            Self::Sqrt => a.sqrt(),
            Self::Exp => a.exp(),
            Self::Log => a.ln(),
            Self::Log10 => a.log10(),
            Self::Sin => a.sin(),
            Self::Cos => a.cos(),
            Self::Tan => a.tan(),
            Self::Asin => a.asin(),
            Self::Acos => a.acos(),
            Self::Atan => a.atan(),
            Self::Sinh => a.sinh(),
            Self::Cosh => a.cosh(),
            Self::Tanh => a.tanh(),
            Self::Abs => a.abs(),
            Self::Truncate => a.trunc(),
            Self::Not => f64::from(u8::from(a == 0.0)),
        }
    }

    /// First and second derivative at `a`, where the function is `f`.
    pub(crate) fn derivatives(self, a: f64, f: f64) -> (f64, f64) {
        match self {
            Self::Neg => (-1.0, 0.0),
            Self::Sqrt => (0.5 / f, -0.25 / (f * f * f)),
            Self::Exp => (f, f),
            Self::Log => (1.0 / a, -1.0 / (a * a)),
            Self::Log10 => {
                let scale = std::f64::consts::LOG10_E;
                (scale / a, -scale / (a * a))
            }
            Self::Sin => (a.cos(), -f),
            Self::Cos => (-a.sin(), -f),
            Self::Tan => (1.0 + f * f, 2.0 * f * (1.0 + f * f)),
            Self::Asin | Self::Acos => {
                let root = (1.0 - a * a).sqrt();
                let sign = if self == Self::Asin { 1.0 } else { -1.0 };
                (sign / root, sign * a / (root * root * root))
            }
            Self::Atan => {
                let d = 1.0 / (1.0 + a * a);
                (d, -2.0 * a * d * d)
            }
            Self::Sinh => (a.cosh(), f),
            Self::Cosh => (a.sinh(), f),
            Self::Tanh => (1.0 - f * f, -2.0 * f * (1.0 - f * f)),
            Self::Abs => (if a < 0.0 { -1.0 } else { 1.0 }, 0.0),
            Self::Truncate | Self::Not => (0.0, 0.0),
        }
    }
}

impl Binary {
    pub(crate) fn is_logical(self) -> bool {
        matches!(self, Self::Lt | Self::Le | Self::Gt | Self::Ge | Self::Eq | Self::Ne | Self::And | Self::Or)
    }

    #[allow(clippy::float_cmp, reason = "the comparison that the text asks for")]
    pub(crate) fn apply(self, a: f64, b: f64) -> f64 {
        let truth = |holds: bool| f64::from(u8::from(holds));
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Quotient => (a / b).trunc(),
            Self::Pow => a.powf(b),
            Self::Min => a.min(b),
            Self::Max => a.max(b),
            Self::Sign => a.abs().copysign(b),
            Self::Atan2 => a.atan2(b),
            Self::Mod => a % b,
            Self::Lt => truth(a < b),
            Self::Le => truth(a <= b),
            Self::Gt => truth(a > b),
            Self::Ge => truth(a >= b),
            Self::Eq => truth(a == b),
            Self::Ne => truth(a != b),
            Self::And => truth(a != 0.0 && b != 0.0),
            Self::Or => truth(a != 0.0 || b != 0.0),
        }
    }

    /// The derivatives `(f_a, f_b, f_aa, f_ab, f_bb)`; `b_active` says whether those in `b` are wanted.
    pub(crate) fn derivatives(self, a: f64, b: f64, b_active: bool) -> [f64; 5] {
        match self {
            Self::Add => [1.0, 1.0, 0.0, 0.0, 0.0],
            Self::Sub => [1.0, -1.0, 0.0, 0.0, 0.0],
            Self::Mul => [b, a, 0.0, 1.0, 0.0],
            Self::Div => {
                let r = 1.0 / b;
                [r, -a * r * r, 0.0, -r * r, 2.0 * a * r * r * r]
            }
            Self::Pow => {
                // A factor that is 0 makes the term 0, even where the power is infinite.
                let term = |factor: f64, power: f64| if factor == 0.0 { 0.0 } else { factor * a.powf(power) };
                let (fa, faa) = (term(b, b - 1.0), term(b * (b - 1.0), b - 2.0));
                if !b_active {
                    return [fa, 0.0, faa, 0.0, 0.0];
                }
                let (f, log) = (a.powf(b), a.ln());
                [fa, f * log, faa, a.powf(b - 1.0) * (1.0 + b * log), f * log * log]
            }
            Self::Min => first(a <= b, 1.0),
            Self::Max => first(a >= b, 1.0),
            Self::Sign => first(true, if (a < 0.0) == b.is_sign_negative() { 1.0 } else { -1.0 }),
            Self::Atan2 => {
                let d = 1.0 / (a * a + b * b);
                [b * d, -a * d, -2.0 * a * b * d * d, (a * a - b * b) * d * d, 2.0 * a * b * d * d]
            }
            Self::Mod => [1.0, -(a / b).trunc(), 0.0, 0.0, 0.0],
            _ => [0.0; 5],
        }
    }
}

/// The derivatives of a function that is one of its operands, times a sign.
fn first(is_first: bool, sign: f64) -> [f64; 5] {
    if is_first { [sign, 0.0, 0.0, 0.0, 0.0] } else { [0.0, sign, 0.0, 0.0, 0.0] }
}
