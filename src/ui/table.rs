//! Text in aligned columns. Pure.

/// `right`: the columns that are aligned on the right. The last column is not padded.
pub fn aligned(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (n, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[n].saturating_sub(cell.chars().count()));
            let is_last = n + 1 == row.len();
            text.push_str(if n > 0 { "  " } else { "" });
            match (right.contains(&n), is_last) {
                (true, _) => text.extend([pad.as_str(), cell]),
                (false, true) => text.push_str(cell),
                (false, false) => text.extend([cell, pad.as_str()]),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["é", "1", "x"], ["abc", "22", "yy"]].map(|row| row.map(str::to_string).to_vec());
        assert_eq!(aligned(&rows, &[1]), "é     1  x\nabc  22  yy\n");
        assert_eq!(aligned(&[], &[]), "");
    }
}
