//! Pairs written by hand, every solution of GSM8K and MATH-500, and texts that are nonsense.

use std::fs;

use proptest::prelude::*;
use saddlepoint_core::test::data;
use serde_json::Value;

use super::*;

#[test]
fn what_means_the_same_is_equal() {
    for (a, b) in [
        ("1/2", "0.5"),
        (r"\frac12", "1/2"),
        (r"\frac{1}{2}", r"\dfrac{2}{4}"),
        ("1,234,567", "1234567"),
        (r"\$18.90", "18.9"),
        ("50%", "50"),
        ("50%", "0.5"),
        ("12.5 percent", r"12.5\%"),
        (r"0.\overline{3}", "1/3"),
        (r"1\frac{4}{5}", "9/5"),
        ("137 1/2", "137.5"),
        ("90^\\circ", "90"),
        ("90 degrees", r"90^{\circ}"),
        (r"5.4 \text{ cents}", "5.4"),
        (r"\sqrt{8}", r"2\sqrt2"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        (r"\sqrt[3]{27}", "3"),
        ("x^3+3x-6", "3x + x^3 - 6"),
        ("(a+5)(b+2)", "ab + 2a + 5b + 10"),
        ("6 - 5i", "-5i+6"),
        (r"\cot x", r"\frac{\cos x}{\sin x}"),
        (r"\sin^2 x", "1 - cos(x)^2"),
        (r"\log_2 8", "3"),
        ("5!", "120"),
        ("x=5", "5"),
        ("y = 2x + 3", "2x+3"),
        ("5x - 7y + 11z + 4 = 0", "-10x + 14y = 22z + 8"),
        ("1,-2", "-2, 1"),
        ("-2 and 1", "1, -2"),
        (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
        (r"\{1\pm\sqrt{5},-2\}", r"-2, 1+\sqrt5, 1-\sqrt5"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
        (r"x \in [-2,7]", "[-2, 7]"),
        (
            r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}",
            r"\begin{pmatrix} \frac{-1}{3} \\ \frac23 \end{pmatrix}",
        ),
        (r"\text{Evelyn}", "evelyn"),
        (r"\text{(C)}", "C"),
        ("4210_{5}", "4210_5"),
        ("2^{10}", "1024"),
        ("-x", "-1x"),
    ] {
        assert!(equal(a, b), "{a} is {b}");
        assert!(equal(b, a), "{b} is {a}");
    }
}

#[test]
fn what_means_something_else_is_not() {
    for (a, b) in [
        ("1/3", "0.333"),
        (r"\sqrt{51}", "7.14"),
        ("11111111100", "11111111101"),
        ("123456789012345678901234567890123456789012", "123456789012345678901234567890123456789013"),
        ("50%", "5"),
        ("52_8", "42"),
        ("52_8", "52_9"),
        ("(3,4]", "(3,4)"),
        ("(3,4)", "(4,3)"),
        ("1,2", "1,2,2"),
        ("1,1,2", "1,2,2"),
        ("2x", "2y"),
        ("x^2", "x"),
        ("y = 2x + 3", "y = 2x + 4"),
        ("east", "seat"),
        ("3", ""),
        ("3", "three"),
        ("3", "3 or 4"),
        (r"\frac{1}{0}", r"\frac{2}{0}"),
        ("2 3", "6"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    ] {
        assert!(!equal(a, b), "{a} is not {b}");
        assert!(!equal(b, a), "{b} is not {a}");
    }
}

/// The text with one digit after another changed.
fn perturbed(text: &str) -> Vec<String> {
    let digits: Vec<(usize, char)> = text.char_indices().filter(|(_, c)| c.is_ascii_digit()).collect();
    let change = |(at, c): (usize, char)| {
        let other = char::from(b'0' + (c as u8 - b'0' + 1) % 10);
        let mut changed = text.to_owned();
        changed.replace_range(at..=at, &other.to_string());
        changed
    };
    if digits.is_empty() { vec![format!("{text}z")] } else { digits.into_iter().map(change).collect() }
}

fn with_separators(digits: &str) -> String {
    let (whole, rest) = digits.split_once('.').map_or((digits, String::new()), |(w, r)| (w, format!(".{r}")));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(c);
    }
    format!("{sign}{grouped}{rest}")
}

#[test]
fn every_solution_of_gsm8k_is_itself_and_nothing_else() {
    let mut count = 0;
    for name in ["lm/gsm8k-train.jsonl", "lm/gsm8k-test.jsonl"] {
        let Some(path) = data(name) else { return };
        let text = fs::read_to_string(path).expect("readable");
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect("JSON");
            let gold = solution(record["answer"].as_str().expect("text"));
            let plain: String = gold.chars().filter(|c| !matches!(c, ',' | '$')).collect();
            let decimal = if plain.contains('.') { format!("{plain}0") } else { format!("{plain}.00") };
            let separated = with_separators(&plain);
            for written in [
                format!("Some steps.\n#### {gold}"),
                format!("The answer is {plain}."),
                format!(r"Thus \boxed{{{separated}}}."),
                format!(r"$\boxed{{\${decimal}}}$"),
                format!("The answer is ${separated}. Done."),
                format!("<answer>{plain} apples</answer>"),
                format!(r"\boxed{{{plain}\text{{ miles per hour}}}}"),
                format!("**Answer:** {decimal}"),
                format!(r"\boxed{{x = {plain}}}"),
                format!(r"\boxed{{\frac{{{plain}}}{{1}}}}"),
            ] {
                let given = answer(&written, Unmarked::Whole).expect("an answer");
                assert!(equal(gold, given), "{gold} is {given} ({written})");
            }
            for wrong in perturbed(&plain).into_iter().chain([format!("{plain}0.5"), format!("{plain}.01")]) {
                let same = wrong.parse::<f64>().ok() == plain.parse::<f64>().ok();
                assert!(same || !equal(gold, &wrong), "{gold} is not {wrong}");
            }
            count += 1;
        }
    }
    assert_eq!(count, 7473 + 1319);
}

#[test]
fn every_solution_of_math_500_is_itself_and_nothing_else() {
    let Some(path) = data("lm/math500.json") else { return };
    let records: Vec<Value> = serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON");
    assert_eq!(records.len(), 500);
    let mut mistakes = Vec::new();
    for record in records {
        let gold = record["answer"].as_str().expect("text");
        for written in [
            format!("So the answer is \\boxed{{{gold}}}."),
            format!(r"\boxed{{{}}}", gold.replace(r"\frac", r"\dfrac")),
            format!(r"\boxed{{{}}}", gold.replace(r"\dfrac", r"\tfrac")),
            format!("#### ${gold}$"),
            format!("\\boxed{{ {gold}. }}"),
            format!(r"\boxed{{{}}}", gold.replace(r"\left", "").replace(r"\right", "")),
            format!(r"\boxed{{{}}}", gold.replace('+', " + ").replace(", ", ",")),
            format!("<answer>{gold}</answer>"),
        ] {
            let given = answer(&written, Unmarked::Whole).expect("an answer");
            if !equal(gold, given) {
                mistakes.push(format!("{gold} is {given}"));
            }
        }
        // A digit of a unit's exponent is no digit of the answer.
        let value = gold.split(r"\mbox").next().expect("a part");
        for wrong in perturbed(value) {
            if equal(gold, &wrong) {
                mistakes.push(format!("{gold} is not {wrong}"));
            }
        }
    }
    assert_eq!(mistakes, Vec::<String>::new());
}

proptest! {
    #[test]
    fn any_text_is_equal_to_itself_and_comparing_is_symmetric(a in r"[-0-9a-z+*/^(){}\\.,%_=|! ]{0,30}", b in r"\PC{0,20}") {
        prop_assert_eq!(equal(&a, &b), equal(&b, &a));
        // What nothing is left of (a unit, punctuation) is no answer; everything else is itself.
        let empty = super::parse::parse(&a).text.is_empty();
        prop_assert_eq!(equal(&a, &a), !empty);
        let _ = (answer(&a, Unmarked::LastNumber), solution(&b));
    }

    #[test]
    fn fractions_and_decimals_agree_with_exact_arithmetic(a in -9999_i64..9999, b in 1_i64..999, c in -9999_i64..9999, d in 1_i64..999) {
        let left = format!(r"\frac{{{a}}}{{{b}}}");
        let right = format!("{c}/{d}");
        prop_assert_eq!(equal(&left, &right), a * d == c * b);
        let scaled = format!(r"\dfrac{{{}}}{{{}}}", a * 7, b * 7);
        prop_assert!(equal(&left, &scaled));
        let (decimal, eighths) = ((a as f64 / 8.0).to_string(), format!("{a}/8"));
        prop_assert!(equal(&decimal, &eighths), "{} is {}", decimal, eighths);
    }

    #[test]
    fn nesting_ends(text in r"[(\[{^|-]{1,2000}", tail in r"[0-9x)\]}]{0,5}") {
        let nested = format!("{text}{tail}");
        let _ = equal(&nested, "1");
        let _ = answer(&format!(r"\boxed{{{nested}"), Unmarked::Whole);
    }
}
