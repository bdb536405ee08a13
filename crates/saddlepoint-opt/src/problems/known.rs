//! Problems with known solutions, of Hock & Schittkowski and of CUTEst, stated by formulas.

use super::formula::{Formula, Limits, Model, Variable};

/// A problem of the list.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its name in CUTEst.
    pub name: &'static str,
    /// The objective in `x1, x2, ...`.
    pub objective: &'static str,
    /// Functions that are to be 0.
    pub equalities: &'static [&'static str],
    /// Functions that are to be at least 0.
    pub inequalities: &'static [&'static str],
    /// Where it starts.
    pub start: &'static [f64],
    /// Lower and upper bounds of all variables alike.
    pub bounds: Option<(f64, f64)>,
    /// The least objective, where one is known.
    pub least: Option<f64>,
}

impl Known {
    /// The problem.
    pub fn problem(&self) -> Formula {
        let bound = |value: f64| value.is_finite().then_some(value);
        let (lower, upper) = self.bounds.map_or((None, None), |(lower, upper)| (bound(lower), bound(upper)));
        // Two digits, so that the order of the names is that of the numbers.
        let named = |text: &str| -> String { text.replace('x', "X0") };
        let variables = self.start.iter().enumerate();
        let variables =
            variables.map(|(i, &start)| (format!("X0{}", i + 1), Variable { start, lower, upper }));
        let equal = self.equalities.iter().map(|text| (text, Some(0.0), None));
        let least = self.inequalities.iter().map(|text| (text, None, Some(0.0)));
        let constraints = equal.chain(least).enumerate().map(|(i, (text, equals, lower))| {
            (format!("c{}", i + 1), Limits { function: named(text), equals, lower, upper: None })
        });
        let model = Model {
            minimize: named(self.objective),
            variables: variables.collect(),
            constraints: constraints.collect(),
        };
        Formula::new(&model).expect("the list is tested")
    }
}

const fn equality(
    name: &'static str,
    objective: &'static str,
    equalities: &'static [&'static str],
    start: &'static [f64],
    least: Option<f64>,
) -> Known {
    Known { name, objective, equalities, inequalities: &[], start, bounds: None, least }
}

const fn within(
    name: &'static str,
    objective: &'static str,
    inequalities: &'static [&'static str],
    start: &'static [f64],
    bounds: Option<(f64, f64)>,
    least: f64,
) -> Known {
    Known { name, objective, equalities: &[], inequalities, start, bounds, least: Some(least) }
}

const INFINITE: f64 = f64::INFINITY;

/// With equalities alone: those of the released runs of AdaSketch-Newton whose formulas are short.
pub const EQUALITIES: &[Known] = &[
    equality("HS6", "(1-x1)**2", &["10*(x2-x1**2)"], &[-1.2, 1.0], Some(0.0)),
    equality("HS7", "log(1+x1**2)-x2", &["(1+x1**2)**2+x2**2-4"], &[2.0, 2.0], Some(-1.732_050_8)),
    equality("HS28", "(x1+x2)**2+(x2+x3)**2", &["x1+2*x2+3*x3-1"], &[-4.0, 1.0, 1.0], Some(0.0)),
    equality("HS40", "-x1*x2*x3*x4", &["x1**3+x2**2-1", "x1**2*x4-x3", "x4**2-x2"], &[0.8; 4], Some(-0.25)),
    equality(
        "HS42",
        "(x1-1)**2+(x2-2)**2+(x3-3)**2+(x4-4)**2",
        &["x1-2", "x3**2+x4**2-2"],
        &[1.0; 4],
        Some(13.857_864),
    ),
    equality(
        "HS47",
        "(x1-x2)**2+(x2-x3)**3+(x3-x4)**4+(x4-x5)**4",
        &["x1+x2**2+x3**3-3", "x2-x3**2+x4-1", "x1*x5-1"],
        &[2.0, std::f64::consts::SQRT_2, -1.0, 2.0 - std::f64::consts::SQRT_2, 0.5],
        None,
    ),
    equality(
        "HS48",
        "(x1-1)**2+(x2-x3)**2+(x4-x5)**2",
        &["x1+x2+x3+x4+x5-5", "x3-2*(x4+x5)+3"],
        &[3.0, 5.0, -3.0, 2.0, -2.0],
        Some(0.0),
    ),
    equality(
        "HS50",
        "(x1-x2)**2+(x2-x3)**2+(x3-x4)**4+(x4-x5)**2",
        &["x1+2*x2+3*x3-6", "x2+2*x3+3*x4-6", "x3+2*x4+3*x5-6"],
        &[35.0, -31.0, 11.0, 5.0, -5.0],
        Some(0.0),
    ),
    equality(
        "HS51",
        "(x1-x2)**2+(x2+x3-2)**2+(x4-1)**2+(x5-1)**2",
        &["x1+3*x2-4", "x3+x4-2*x5", "x2-x5"],
        &[2.5, 0.5, 2.0, -1.0, 0.5],
        Some(0.0),
    ),
    equality(
        "HS52",
        "(4*x1-x2)**2+(x2+x3-2)**2+(x4-1)**2+(x5-1)**2",
        &["x1+3*x2", "x3+x4-2*x5", "x2-x5"],
        &[2.0; 5],
        Some(5.326_647_6),
    ),
    equality(
        "BT3",
        "(x1-x2)**2+(x2+x3-2)**2+(x4-1)**2+(x5-1)**2",
        &["x1+3*x2", "x3+x4-2*x5", "x2-x5"],
        &[20.0; 5],
        Some(4.093_023_3),
    ),
    equality(
        "HS56",
        "-x1*x2*x3",
        &["x1-4.2*sin(x4)**2", "x2-4.2*sin(x5)**2", "x3-4.2*sin(x6)**2", "x1+2*x2+2*x3-7.2*sin(x7)**2"],
        &[1.0, 1.0, 1.0, 0.509_738, 0.509_738, 0.509_738, 0.985_111],
        Some(-3.456),
    ),
    equality(
        "HS77",
        "(x1-1)**2+(x1-x2)**2+(x3-1)**2+(x4-1)**4+(x5-1)**6",
        &["x1**2*x4+sin(x4-x5)-2*sqrt(2.0)", "x2+x3**4*x4**2-8-sqrt(2.0)"],
        &[2.0; 5],
        Some(0.241_505_13),
    ),
    equality(
        "HS78",
        "x1*x2*x3*x4*x5",
        &["x1**2+x2**2+x3**2+x4**2+x5**2-10", "x2*x3-5*x4*x5", "x1**3+x2**3+1"],
        &[-2.0, 1.5, 2.0, -1.0, -1.0],
        Some(-2.919_700_4),
    ),
    equality(
        "HS79",
        "(x1-1)**2+(x1-x2)**2+(x2-x3)**2+(x3-x4)**4+(x4-x5)**4",
        &["x1+x2**2+x3**3-2-3*sqrt(2.0)", "x2-x3**2+x4+2-2*sqrt(2.0)", "x1*x5-2"],
        &[2.0; 5],
        Some(0.078_776_821),
    ),
    equality(
        "BT2",
        "(x1-1)**2+(x1-x2)**2+(x2-x3)**4",
        &["x1*(1+x2**2)+x3**4-4-3*sqrt(2.0)"],
        &[10.0; 3],
        Some(0.032_568_2),
    ),
    equality(
        "BT5",
        "1000-x1**2-2*x2**2-x3**2-x1*x2-x1*x3",
        &["x1**2+x2**2+x3**2-25", "8*x1+14*x2+7*x3-56"],
        &[2.0; 3],
        Some(961.715_17),
    ),
    equality("BT9", "-x1", &["x2-x1**3-x3**2", "x1**2-x2-x4**2"], &[2.0; 4], Some(-1.0)),
    equality("BT10", "-x1", &["x2-x1**3", "x1**2-x2"], &[2.0; 2], Some(-1.0)),
    equality(
        "BT11",
        "(x1-1)**2+(x1-x2)**2+(x2-x3)**2+(x3-x4)**4+(x4-x5)**4",
        &["x1+x2**2+x3**3-(sqrt(18.0)-2)", "x2+x4-x3**2-(sqrt(8.0)-2)", "x1-x5-2"],
        &[2.0; 5],
        None,
    ),
    equality(
        "BT12",
        "0.01*x1**2+x2**2",
        &["x1+x2-x3**2-25", "x1**2+x2**2-x4**2-25", "x1-x5**2-2"],
        &[15.811, 1.5811, 0.0, 15.083, 3.7164],
        Some(6.188_118_8),
    ),
    equality(
        "MWRIGHT",
        "x1**2+(x1-x2)**2+(x2-x3)**3+(x3-x4)**4+(x4-x5)**4",
        &["x1+x2**2+x3**3-2-3*sqrt(2.0)", "x2-x3**2+x4+2-2*sqrt(2.0)", "x1*x5-2"],
        &[-1.0, 2.0, 1.0, -2.0, -2.0],
        None,
    ),
    equality(
        "HS100LNP",
        "(x1-10)**2+5*(x2-12)**2+x3**4+3*(x4-11)**2+10*x5**6+7*x6**2+x7**4-4*x6*x7-10*x6-8*x7",
        &["2*x1**2+3*x2**4+x3+4*x4**2+5*x5-127", "-4*x1**2-x2**2+3*x1*x2-2*x3**2-5*x6+11*x7"],
        &[1.0, 2.0, 0.0, 4.0, 0.0, 1.0, 1.0],
        Some(680.630_06),
    ),
    equality("BOOTH", "0.0", &["x1+2*x2-7", "2*x1+x2-5"], &[0.0; 2], Some(0.0)),
    equality("HIMMELBC", "0.0", &["x1**2+x2-11", "x1+x2**2-7"], &[1.0; 2], Some(0.0)),
];

/// With inequalities and bounds.
pub const INEQUALITIES: &[Known] = &[
    within("HS12", "0.5*x1**2+x2**2-x1*x2-7*x1-7*x2", &["25-4*x1**2-x2**2"], &[0.0; 2], None, -30.0),
    within(
        "HS35",
        "9-8*x1-6*x2-4*x3+2*x1**2+2*x2**2+x3**2+2*x1*x2+2*x1*x3",
        &["3-x1-x2-2*x3"],
        &[0.5; 3],
        Some((0.0, INFINITE)),
        1.0 / 9.0,
    ),
    within(
        "HS43",
        "x1**2+x2**2+2*x3**2+x4**2-5*x1-5*x2-21*x3+7*x4",
        &[
            "8-x1**2-x2**2-x3**2-x4**2-x1+x2-x3+x4",
            "10-x1**2-2*x2**2-x3**2-2*x4**2+x1+x4",
            "5-2*x1**2-x2**2-x3**2-2*x1+x2+x4",
        ],
        &[0.0; 4],
        None,
        -44.0,
    ),
    Known {
        name: "HS71",
        objective: "x1*x4*(x1+x2+x3)+x3",
        equalities: &["x1**2+x2**2+x3**2+x4**2-40"],
        inequalities: &["x1*x2*x3*x4-25"],
        start: &[1.0, 5.0, 5.0, 1.0],
        bounds: Some((1.0, 5.0)),
        least: Some(17.014_017_3),
    },
    within(
        "HS76",
        "x1**2+0.5*x2**2+x3**2+0.5*x4**2-x1*x3+x3*x4-x1-3*x2+x3-x4",
        &["5-x1-2*x2-x3-x4", "4-3*x1-x2-2*x3+x4", "x2+4*x3-1.5"],
        &[0.5; 4],
        Some((0.0, INFINITE)),
        -4.681_818_18,
    ),
];

/// With bounds or nothing at all.
pub const BOUNDED: &[Known] = &[
    within("HS1", "100*(x2-x1**2)**2+(1-x1)**2", &[], &[-2.0, 1.0], None, 0.0),
    within("HS4", "(x1+1)**3/3+x2", &[], &[1.125, 0.125], Some((1.0, INFINITE)), 11.0 / 3.0),
    within(
        "HS38",
        "100*(x2-x1**2)**2+(1-x1)**2+90*(x4-x3**2)**2+(1-x3)**2+10.1*((x2-1)**2+(x4-1)**2)+19.8*(x2-1)*(x4-1)",
        &[],
        &[-3.0, -1.0, -3.0, -1.0],
        Some((-10.0, 10.0)),
        0.0,
    ),
    within("BOWL", "(x1-3)**2+2*(x2+1)**2+x1*x2", &[], &[0.0; 2], Some((0.0, 2.0)), 3.0),
];
