//! Sizes and ages as people write and read them. Pure. K, M, G and T are powers of 1024, as in ZFS.

/// `16M`, `5G`, `1048576`; at most one letter, in either case.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u64> = if plain { digits.parse().ok() } else { None };
    number
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("'{text}' is not a size (such as 1048576, 16M or 1G)"))
}

/// As `zfs list` shows it: three digits and a letter, `1.21G`.
pub fn human_size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    let mut letters = "KMGTPE".chars();
    let mut letter = ' ';
    while value >= 1024.0 {
        value /= 1024.0;
        letter = letters.next().unwrap_or('E');
    }
    match value {
        v if v < 9.995 => format!("{v:.2}{letter}"),
        v if v < 99.95 => format!("{v:.1}{letter}"),
        v => format!("{v:.0}{letter}"),
    }
}

/// `90m`, `26h`, `2d`: in seconds.
pub fn parse_age(text: &str) -> Result<i64, String> {
    let seconds = [('m', 60), ('h', 3600), ('d', 86_400)];
    let parsed = seconds.iter().find_map(|(letter, seconds)| {
        let digits =
            text.strip_suffix(*letter).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<i64>().ok()?.checked_mul(*seconds)
    });
    parsed.filter(|age| *age > 0).ok_or_else(|| format!("'{text}' is not an age, such as 90m, 26h or 2d"))
}

/// Seconds as `5 min`, `26 h` or `3 days`.
pub fn age(seconds: i64) -> String {
    match seconds {
        ..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The first few names, and how many there are beyond them: `a, b and 3 more`.
pub fn first_of(names: &[&str], few: usize) -> String {
    let shown = names.iter().take(few).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(few) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `1 part`, `2 parts`.
pub fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("5M", 5 << 20), ("5m", 5 << 20), ("3k", 3072), ("2T", 2 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for bad in ["", "M", "-1", "+1", "1.5G", "16MB", "16 M", "99999999999T", "0x10", "1é"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_of_many_names() {
        let first = |few| first_of(&["a", "b", "c"], few);
        assert_eq!([first(1), first(3), first(5)], ["a and 2 more", "a, b, c", "a, b, c"]);
    }

    #[test]
    fn ages() {
        for (text, seconds) in [("90m", 5400), ("26h", 93_600), ("2d", 172_800)] {
            assert_eq!(parse_age(text), Ok(seconds));
        }
        for bad in ["", "h", "26", "0h", "-1h", "1.5h", "+2h", "26 h", "99999999999999999d", "1w"] {
            assert!(parse_age(bad).is_err(), "{bad:?}");
        }
        let words = [59, 5400, 7200, 172_799, 172_800, 864_000].map(age);
        assert_eq!(words, ["0 min", "90 min", "2 h", "47 h", "2 days", "10 days"]);
    }

    #[test]
    fn sizes_out() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1300 << 20, "1.27G"),
            (10239, "10.0K"),
            (123 << 30, "123G"),
            ((1 << 20) - 1, "1024K"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
