//! Durations, sizes and rates as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest duration: a year of simulated time.
const MAX_SECONDS: f64 = 365.0 * 86_400.0;

/// What is wrong with a quantity; its author erred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No duration.
    #[error("`{0}` is no duration: a number and ms, s, m, h or d")]
    Duration(String),
    /// No size.
    #[error("`{0}` is no size: a number and B, KiB, MiB or GiB")]
    Bytes(String),
    /// No rate.
    #[error("`{0}` is no rate: a number and kbit, Mbit or Gbit (a second)")]
    Bits(String),
}

/// The number before the unit, and the unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number = text[..unit].trim().parse::<f64>().ok()?;
    (number.is_finite() && number >= 0.0).then_some((number, &text[unit..]))
}

/// `"250ms"`, `"1.5s"`, `"10m"`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError::Duration(text.to_owned());
    let (number, unit) = split(text).ok_or_else(error)?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        "d" => number * 86_400.0,
        _ => return Err(error()),
    };
    if seconds > MAX_SECONDS {
        return Err(error());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// An amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Bytes, UnitError> {
        let error = || UnitError::Bytes(text.to_owned());
        let (number, unit) = split(text).ok_or_else(error)?;
        let factor = match unit {
            "B" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(error()),
        };
        Ok(Bytes((number * factor) as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, shift)| self.0 >= 1 << shift) {
            Some((unit, shift)) => {
                let tenths = (self.0 * 10) >> shift;
                write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A rate in bits a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits(pub u64);

impl FromStr for Bits {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Bits, UnitError> {
        let error = || UnitError::Bits(text.to_owned());
        let (number, unit) = split(text).ok_or_else(error)?;
        let factor = match unit {
            "kbit" => 1e3,
            "Mbit" => 1e6,
            "Gbit" => 1e9,
            _ => return Err(error()),
        };
        Ok(Bits((number * factor) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: each unit, spaces and fractions; what is no quantity is refused with the units that are.
    #[test]
    fn quantities_are_read() {
        let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1.5s"), Ok(1_500));
        assert_eq!(millis("10 m"), Ok(600_000));
        assert_eq!(millis("1h"), Ok(3_600_000));
        assert_eq!(millis("2d"), Ok(172_800_000));
        for text in ["", "s", "5", "-1s", "1e400s", "5 parsec", "400d", "NaNs"] {
            assert_eq!(millis(text), Err(UnitError::Duration(text.to_owned())));
        }
        assert_eq!("64KiB".parse(), Ok(Bytes(65_536)));
        assert_eq!("1.5GiB".parse(), Ok(Bytes(1_610_612_736)));
        let kilobytes = "64kB".parse::<Bytes>();
        assert_eq!(kilobytes, Err(UnitError::Bytes("64kB".to_owned())));
        assert_eq!("100Mbit".parse(), Ok(Bits(100_000_000)));
        let mega = "100M".parse::<Bits>();
        assert_eq!(mega, Err(UnitError::Bits("100M".to_owned())));
    }

    #[test]
    fn sizes_are_written_as_read() {
        assert_eq!(Bytes(812).to_string(), "812 B");
        assert_eq!(Bytes(1_610_612_736).to_string(), "1.5 GiB");
        assert_eq!(Bytes(13 << 20).to_string(), "13.0 MiB");
    }
}
