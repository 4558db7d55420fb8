//! Tables of Markdown, drawn when they are complete: only then is it known how wide their columns are.

use console::measure_text_width;

use super::{Look, inline, styled};

/// The cells of a line.
pub(super) fn cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let inner = line.strip_prefix('|').unwrap_or(line);
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    let (mut cells, mut cell, mut escaped) = (Vec::new(), String::new(), false);
    for c in inner.chars() {
        if c == '|' && !escaped {
            cells.push(std::mem::take(&mut cell).trim().to_owned());
        } else {
            cell.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    cells.push(cell.trim().to_owned());
    cells
}

/// Whether a line only separates the head of a table from its body.
fn is_separator(cells: &[String]) -> bool {
    cells.iter().all(|cell| cell.contains('-') && cell.chars().all(|c| matches!(c, '-' | ':')))
}

/// Draws a table, or gives its lines as they are if the width has no room for it.
pub(super) fn draw(lines: &[String], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = lines.iter().map(|line| cells(line)).collect();
    let has_head = rows.get(1).is_some_and(|row| is_separator(row));
    let body = rows.iter().enumerate().filter(|(i, row)| *i != 1 || !is_separator(row));
    let render = |(i, row): (usize, &Vec<String>)| -> Vec<String> {
        let look = Look { bold: has_head && i == 0, ..Look::default() };
        row.iter().map(|cell| rendered(cell, look)).collect()
    };
    let rows: Vec<Vec<String>> = body.map(render).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        rows.iter().filter_map(move |row| row.get(column)).map(|cell| measure_text_width(cell))
    };
    let widths: Vec<usize> = (0..columns).map(|column| widest(column).max().unwrap_or(0)).collect();
    let total: usize = widths.iter().sum::<usize>() + 3 * columns.saturating_sub(1);
    if width.is_some_and(|width| total > width) {
        return lines.iter().map(|line| format!("{line}\n")).collect();
    }
    let bar = styled("│", Look { address: true, ..Look::default() });
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (column, &width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            if column > 0 {
                out += &format!(" {bar} ");
            }
            out += cell;
            if column + 1 < columns {
                out.extend(std::iter::repeat_n(' ', width - measure_text_width(cell)));
            }
        }
        out.push('\n');
        if i == 0 && has_head {
            let line: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
            out += &styled(&line.join("─┼─"), Look { address: true, ..Look::default() });
            out.push('\n');
        }
    }
    out
}

fn rendered(cell: &str, look: Look) -> String {
    let mut pieces = Vec::new();
    inline::scan(&cell.replace("\\|", "|"), None, look, true, &mut pieces);
    pieces.iter().map(|piece| styled(&piece.text, piece.look)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned() {
        let table = lines("| name | n |\n|---|:-:|\n| **fox** | 1 |\n| a\\|b longer | 22 | 3 |");
        let out = console::strip_ansi_codes(&draw(&table, Some(80))).into_owned();
        let want = "name       │ n  │ \n───────────┼────┼──\nfox        │ 1  │ \na|b longer │ 22 │ 3\n";
        assert_eq!(out, want);
    }

    #[test]
    fn wide_tables_stay_as_they_are() {
        let table = lines("| a long heading | another one |\n|---|---|");
        assert_eq!(draw(&table, Some(10)), "| a long heading | another one |\n|---|---|\n");
    }
}
