//! The date that `strftime_now` formats: given by the run, never read from the clock here.

use std::str::FromStr;

use minijinja::{Error, ErrorKind};

/// A day of the Gregorian calendar, written `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    year: u32,
    month: u32,
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl FromStr for Date {
    type Err = String;

    /// Reads `YYYY-MM-DD`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a date; write it as YYYY-MM-DD");
        let parts: Vec<u32> = text
            .split('-')
            .map(|p| p.parse().ok().filter(|_| p.bytes().all(|b| b.is_ascii_digit())))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        match parts[..] {
            [year @ 1..=9999, month @ 1..=12, day] if (1..=days_in(year, month)).contains(&day) => {
                Ok(Self { year, month, day })
            }
            _ => Err(wrong()),
        }
    }
}

fn leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Date {
    fn day_of_year(self) -> u32 {
        (1..self.month).map(|m| days_in(self.year, m)).sum::<u32>() + self.day
    }

    /// Days from Sunday.
    fn weekday(self) -> usize {
        let years = self.year - 1;
        // 1 January of year 1 was a Monday, and a year has 52 weeks and one or two days.
        ((years + years / 4 - years / 100 + years / 400 + self.day_of_year()) % 7) as usize
    }

    /// C's `strftime` at midnight, for the fields that a date has.
    pub(super) fn format(self, format: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut rest = format.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut field = rest.next();
            let unpadded = field == Some('-');
            if unpadded {
                field = rest.next();
            }
            let two = |n: u32| if unpadded { n.to_string() } else { format!("{n:02}") };
            let text = match field {
                Some('Y') => format!("{:04}", self.year),
                Some('y') => two(self.year % 100),
                Some('m') => two(self.month),
                Some('d') => two(self.day),
                Some('e') => format!("{:2}", self.day),
                Some('j') if unpadded => self.day_of_year().to_string(),
                Some('j') => format!("{:03}", self.day_of_year()),
                Some('B') => MONTHS[self.month as usize - 1].to_owned(),
                Some('b' | 'h') => MONTHS[self.month as usize - 1][..3].to_owned(),
                Some('A') => WEEKDAYS[self.weekday()].to_owned(),
                Some('a') => WEEKDAYS[self.weekday()][..3].to_owned(),
                Some('F') => format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
                Some('H' | 'M' | 'S') => two(0),
                Some('I') => "12".to_owned(),
                Some('p') => "AM".to_owned(),
                Some('%') => "%".to_owned(),
                other => {
                    let field = other.map(String::from).unwrap_or_default();
                    return Err(Error::new(
                        ErrorKind::InvalidOperation,
                        format!("strftime_now cannot format `%{field}`; it knows the fields of a date"),
                    ));
                }
            };
            out.push_str(&text);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are Python's `datetime.date.strftime`.
    #[test]
    fn dates_are_formatted_as_python_formats_them() {
        let format =
            |date: &str, f: &str| date.parse::<Date>().expect("a date").format(f).expect("known fields");
        assert_eq!(format("2024-07-26", "%d %b %Y"), "26 Jul 2024");
        assert_eq!(format("2026-11-23", "%A, %-d %B %Y (%j)"), "Monday, 23 November 2026 (327)");
        assert_eq!(format("2000-02-29", "%a %F %y%%"), "Tue 2000-02-29 00%");
        assert_eq!(format("1999-12-31", "%A %j"), "Friday 365");
    }

    #[test]
    fn only_real_dates_are_read() {
        for text in [
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-01-00",
            "24",
            "2024-1-1-1",
            "+2024-01-01",
            "today",
        ] {
            assert_eq!(text.parse::<Date>(), Err(format!("`{text}` is not a date; write it as YYYY-MM-DD")));
        }
    }

    #[test]
    fn unknown_fields_are_named() {
        let error = "2024-01-01".parse::<Date>().expect("a date").format("%Q").expect_err("no such field");
        assert_eq!(error.detail(), Some("strftime_now cannot format `%Q`; it knows the fields of a date"));
    }
}
