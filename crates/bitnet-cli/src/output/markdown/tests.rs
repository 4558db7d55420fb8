//! Whole texts, and that chunks change nothing.

use super::*;

const TEXT: &str = "# Foxes\n\nA **fox** is a `Vulpes`, see *below* or [here](http://fox.org).\nPrices: 2 * 3 * 4.\n\n\
- one item that is long enough to be cut somewhere\n  - nested\n3. third\n\n> said\n\n```rust\nfn main() {\n    \
let a = \"**x**\";\n\n}\n```\nAfter.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n---\nThe **open end";

fn render(text: &str, width: Option<usize>, styles: bool, chunk: usize) -> String {
    let mut markdown = Markdown::new(width, styles);
    let chars: Vec<char> = text.chars().collect();
    let mut out: String = chars.chunks(chunk).map(|chunk| markdown.push(&String::from_iter(chunk))).collect();
    out += &markdown.finish();
    out
}

fn visible(text: &str) -> String {
    console::strip_ansi_codes(text).into_owned()
}

#[test]
fn a_text_is_rendered() {
    let out = render(TEXT, Some(40), true, 1000);
    let want = "Foxes\n\nA fox is a Vulpes, see below or here\n(http://fox.org).\nPrices: 2 * 3 * 4.\n\n\
                • one item that is long enough to be cut\n  somewhere\n  • nested\n3. third\n\n│ said\n\n    rust\n    \
                fn main() {\n        let a = \"**x**\";\n\n    }\nAfter.\n\na │ b\n──┼──\n1 │ 2\n\n";
    let want = format!("{want}{}\nThe **open end", "─".repeat(40));
    assert_eq!(visible(&out), want);
    for part in ["\u{1b}[1m", "\u{1b}[3m", "\u{1b}[36m", "\u{1b}[4m"] {
        assert!(out.contains(part), "{part:?} in {out:?}");
    }
}

#[test]
fn chunks_change_nothing() {
    for width in [None, Some(30), Some(80)] {
        for styles in [true, false] {
            let whole = visible(&render(TEXT, width, styles, 10_000));
            for chunk in [1, 2, 3, 7] {
                assert_eq!(visible(&render(TEXT, width, styles, chunk)), whole, "{width:?} {styles} {chunk}");
            }
        }
    }
}

#[test]
fn without_styles_nothing_but_lines_changes() {
    assert_eq!(render(TEXT, None, false, 5), TEXT);
    let out = render(TEXT, Some(30), false, 5);
    assert!(!out.contains('\u{1b}') && out.lines().all(|line| line.chars().count() <= 30), "{out}");
    assert_eq!(out.replace('\n', " ").split_whitespace().count(), TEXT.split_whitespace().count());
}

#[test]
fn text_shows_as_soon_as_it_is_certain() {
    let mut markdown = Markdown::new(Some(80), true);
    assert_eq!(markdown.push("A fox"), "A");
    assert_eq!(visible(&markdown.push(" is *so")), " fox is");
    assert_eq!(visible(&markdown.push("* here ")), " so here");
    assert_eq!(visible(&markdown.push("\n```\ncode")), "\n    code");
}

#[test]
fn a_model_does_not_steer_the_terminal() {
    for styles in [true, false] {
        let out = render("a\u{1b}[2Jb\u{7}\r\nc\u{9b}31m\n```\n\u{1b}]0;x\n```", None, styles, 3);
        assert!(!visible(&out).contains(['\u{1b}', '\u{7}', '\r', '\u{9b}']), "{out:?}");
        assert!(!out.contains("\u{1b}[2J") && !out.contains("\u{1b}]"), "{out:?}");
    }
}
