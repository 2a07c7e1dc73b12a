//! Sizes as people write and read them. Pure. K, M, G and T are powers of 1024, as everywhere in ZFS.

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
