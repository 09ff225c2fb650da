//! `strftime_now` of chat templates: a moment in UTC as text.
//!
//! The C locale's names; of the directives those that templates use. Deliberately not known: time zones, which a phone's core
//! library cannot ask for without the platform. An app that wants local time adds the offset to the time it passes in.

use std::fmt::Write;

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
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: u64 = 86_400;

/// `unix_seconds` written as `format` says. Directives that are not known stay as they are.
pub(super) fn strftime(format: &str, unix_seconds: u64) -> String {
    let days = unix_seconds / SECONDS_PER_DAY;
    let (year, month, day, day_of_year) = civil(days);
    let (hour, minute, second) = (unix_seconds % SECONDS_PER_DAY / 3600, unix_seconds / 60 % 60, unix_seconds % 60);
    let weekday = usize::try_from((days + 4) % 7).unwrap_or_default();
    let (month_name, day_name) = (MONTHS[month], DAYS[weekday]);
    let month = month + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        // `%-d`: without the leading zero.
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        let width = if bare { 1 } else { 2 };
        // Writing to a String cannot fail.
        let _ = match directive {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:0width$}", year % 100),
            Some('m') => write!(out, "{month:0width$}"),
            Some('d') => write!(out, "{day:0width$}"),
            Some('e') => write!(out, "{day:2}"),
            Some('j') => write!(out, "{:0width$}", day_of_year, width = if bare { 1 } else { 3 }),
            Some('H') => write!(out, "{hour:0width$}"),
            Some('I') => write!(out, "{:0width$}", (hour + 11) % 12 + 1),
            Some('M') => write!(out, "{minute:0width$}"),
            Some('S') => write!(out, "{second:0width$}"),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('B') => write!(out, "{month_name}"),
            Some('b' | 'h') => write!(out, "{}", &month_name[..3]),
            Some('A') => write!(out, "{day_name}"),
            Some('a') => write!(out, "{}", &day_name[..3]),
            Some('w') => write!(out, "{weekday}"),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => write!(out, "UTC"),
            Some('z') => write!(out, "+0000"),
            Some('s') => write!(out, "{unix_seconds}"),
            Some('n') => writeln!(out),
            Some('%') => write!(out, "%"),
            Some(other) => write!(out, "%{}{other}", if bare { "-" } else { "" }),
            None => write!(out, "%"),
        };
    }
    out
}

/// Year, month from 0, day from 1 and day of the year from 1 of a day counted from 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64, u64) {
    // 400 years of the Gregorian calendar are 146,097 days: whole cycles first, so that the loops stay short.
    let cycles = days / 146_097;
    days %= 146_097;
    let mut year = 1970 + 400 * cycles;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let day_of_year = days + 1;
    let mut month = 0;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    (year, month, days + 1, day_of_year)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

/// `month` counts from 0.
fn days_of_month(year: u64, month: usize) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::strftime;

    /// Expected texts are GNU date's: `date -u -d @SECONDS +FORMAT`.
    #[test]
    fn moments_in_utc() {
        assert_eq!(strftime("%d %b %Y", 1_721_952_000), "26 Jul 2024");
        assert_eq!(
            strftime("%A, %B %-d, %Y %I:%M %p (%j)", 1_709_210_096),
            "Thursday, February 29, 2024 12:34 PM (060)"
        );
        assert_eq!(strftime("%F %T %a %y", 0), "1970-01-01 00:00:00 Thu 70");
        assert_eq!(strftime("%F %j %a", 4_107_542_399), "2100-02-28 059 Sun");
        assert_eq!(strftime("%F", 4_107_542_400), "2100-03-01");
        assert_eq!(strftime("%F", 13_574_563_200), "2400-02-29");
    }

    #[test]
    fn unknown_directives_stay() {
        assert_eq!(strftime("100%% %Q %-q %", 0), "100% %Q %-q %");
        assert!(!strftime("%F", u64::MAX).is_empty());
    }
}
