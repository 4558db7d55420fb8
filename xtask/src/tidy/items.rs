//! Finds functions and test-only items in the code layer of a [`Source`].
//!
//! The extent of an item is found by matching brackets; that is enough for code that rustfmt has formatted.

use std::ops::Range;

use super::lexer::{Source, words};

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn` keyword, from 1.
    pub(crate) first_line: usize,
    /// The line of its closing brace.
    pub(crate) last_line: usize,
}

impl Function {
    /// The number of lines from the `fn` keyword to the closing brace.
    pub(crate) fn lines(&self) -> usize {
        self.last_line - self.first_line + 1
    }
}

/// Every function that has a body, nested ones and those in macros included.
pub(crate) fn functions(source: &Source) -> Vec<Function> {
    let code = &source.code;
    source
        .words()
        .filter(|&(_, word)| word == "fn")
        .filter_map(|(begin, _)| {
            let after = &code[begin + "fn".len()..];
            // `fn(u8) -> u8` is a type; `fn $name` is a function in a macro.
            let name = after.trim_start().trim_start_matches(['$', 'r', '#'].as_slice());
            let is_type = after.trim_start().starts_with('(');
            let end = item_end(code, begin);
            let has_body = code[..end].ends_with('}');
            (has_body && !is_type).then(|| Function {
                name: words(name).next().map(|(_, word)| word.to_owned()).unwrap_or_default(),
                first_line: source.line(begin),
                last_line: source.line(end - 1),
            })
        })
        .collect()
}

/// What of a file is compiled for tests only.
#[derive(Debug, Default)]
pub(crate) struct TestCode {
    /// Byte ranges of items below `#[cfg(test)]` or `#[test]`.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Names of modules in other files, declared as `#[cfg(test)] mod name;`.
    pub(crate) modules: Vec<String>,
    /// Whether the file begins with `#![cfg(test)]`.
    pub(crate) whole_file: bool,
}

impl TestCode {
    /// Whether the byte at `offset` belongs to a test.
    pub(crate) fn contains(&self, offset: usize) -> bool {
        self.whole_file || self.ranges.iter().any(|range| range.contains(&offset))
    }
}

/// Finds what of `source` is compiled for tests only.
pub(crate) fn test_code(source: &Source) -> TestCode {
    let code = &source.code;
    let mut found = TestCode::default();
    for (begin, _) in code.match_indices('#') {
        let inner = code[begin + 1..].starts_with('!');
        let bracket = begin + 1 + usize::from(inner);
        if !code[bracket..].starts_with('[') {
            continue;
        }
        let attribute_end = closing(code, bracket);
        if !is_test_attribute(&code[bracket + 1..attribute_end]) {
            continue;
        }
        if inner {
            found.whole_file = true;
            continue;
        }
        let end = item_end(code, attribute_end + 1);
        let mut item =
            words(&code[attribute_end + 1..end]).map(|(_, word)| word).skip_while(|&word| word != "mod");
        if let (true, Some(name)) = (code[..end].ends_with(';'), item.nth(1)) {
            found.modules.push(name.to_owned());
        }
        found.ranges.push(begin..end);
    }
    found
}

/// Whether the inside of an attribute is `test` or a `cfg` that only tests satisfy.
fn is_test_attribute(attribute: &str) -> bool {
    let attribute: String = attribute.split_whitespace().collect();
    if attribute == "test" {
        return true;
    }
    attribute.starts_with("cfg(")
        && words(&attribute).any(|(_, word)| word == "test")
        && !attribute.contains("not(test")
        && !attribute.contains("any(")
}

/// The offset behind the item that begins at `begin`: behind its `;` or the brace that closes its body.
fn item_end(code: &str, begin: usize) -> usize {
    let bytes = code.as_bytes();
    let mut nesting = 0_usize;
    // Const generic arguments may hold braces: `Array<{ N + 1 }>`.
    let mut angles = 0_usize;
    let mut at = begin;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'(' | b'[' => nesting += 1,
            b')' | b']' => nesting = nesting.saturating_sub(1),
            b'-' | b'=' if bytes.get(at + 1) == Some(&b'>') => at += 1,
            b'<' => angles += 1,
            b'>' => angles = angles.saturating_sub(1),
            b';' if nesting == 0 => return at + 1,
            b'{' if nesting == 0 && angles == 0 => return (closing(code, at) + 1).min(code.len()),
            b'{' => at = closing(code, at),
            // The item is a field or a variant inside another one, which ends here.
            b'}' => return at,
            _ => {}
        }
        at += 1;
    }
    code.len()
}

/// The offset of the bracket that closes the one at `open`, or the end of the code.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return offset;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, usize)> {
        functions(&Source::new(text)).into_iter().map(|f| (f.name.clone(), f.lines())).collect()
    }

    #[test]
    fn functions_are_measured_from_keyword_to_closing_brace() {
        let text = "/// doc\n#[inline]\npub fn a(\n    x: u8,\n) -> u8 {\n    x\n}\nfn b() {}\n";
        assert_eq!(found(text), [("a".to_owned(), 5), ("b".to_owned(), 1)]);
    }

    #[test]
    fn braces_in_text_do_not_count() {
        let text = "fn a() {\n    f(\"}\");\n    // }\n    g('}');\n    h(r#\"}\"#);\n}\nfn b() {}";
        assert_eq!(found(text), [("a".to_owned(), 6), ("b".to_owned(), 1)]);
    }

    #[test]
    fn declarations_and_function_types_are_not_functions() {
        let text = "trait T { fn a(&self) -> u8; }\nstruct S { f: fn(u8) -> u8 }\ntype F = fn();";
        assert_eq!(found(text), []);
    }

    #[test]
    fn signatures_may_hold_braces_and_semicolons() {
        let text =
            "fn a<const N: usize>(x: [u8; 4]) -> Array<{ N + 1 }>\nwhere\n    F: Fn(u8) -> u8,\n{\n}\n";
        assert_eq!(found(text), [("a".to_owned(), 5)]);
    }

    #[test]
    fn functions_in_macros_and_in_functions_are_found() {
        let text =
            "macro_rules! m { ($name:ident) => { fn $name() {} } }\nfn outer() {\n    fn inner() {\n    }\n}";
        assert_eq!(found(text), [("name".to_owned(), 1), ("outer".to_owned(), 4), ("inner".to_owned(), 2)]);
    }

    /// The offsets of the letter T that are, and are not, in test code.
    fn test_marks(text: &str) -> (usize, usize) {
        let source = Source::new(text);
        let tests = test_code(&source);
        let (inside, outside): (Vec<_>, Vec<_>) =
            source.words().filter(|(_, word)| *word == "T").partition(|(offset, _)| tests.contains(*offset));
        (inside.len(), outside.len())
    }

    #[test]
    fn test_modules_are_found() {
        assert_eq!(test_marks("T;\n#[cfg(test)]\nmod tests {\n fn a() { T }\n}\nT;"), (1, 2));
        assert_eq!(test_marks("#[cfg(test)]\n#[allow(dead_code)]\nmod tests { T }\nT;"), (1, 1));
        assert_eq!(test_marks("#[cfg(all(test, unix))]\nfn f() { T }\nT;"), (1, 1));
        assert_eq!(test_marks("#[test]\nfn f() { T }\nT;"), (1, 1));
        assert_eq!(test_marks("#![cfg(test)]\nT;"), (1, 0));
    }

    #[test]
    fn product_code_below_other_attributes_is_not_test_code() {
        assert_eq!(test_marks("#[cfg(not(test))]\nfn f() { T }"), (0, 1));
        assert_eq!(test_marks("#[cfg(feature = \"test\")]\nfn f() { T }"), (0, 1));
        assert_eq!(test_marks("#[cfg(any(test, windows))]\nfn f() { T }"), (0, 1));
        assert_eq!(test_marks("// #[cfg(test)]\nfn f() { T }"), (0, 1));
    }

    #[test]
    fn fields_end_with_the_item_that_holds_them() {
        assert_eq!(test_marks("struct S {\n #[cfg(test)]\n a: u8\n}\nfn f() { T }"), (0, 1));
    }

    #[test]
    fn test_modules_in_other_files_are_named() {
        let tests =
            test_code(&Source::new("#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod kit;\nmod a;"));
        assert_eq!(tests.modules, ["tests", "kit"]);
        let inline = test_code(&Source::new("#[cfg(test)]\nmod tests { mod inner; }"));
        assert!(inline.modules.is_empty());
    }
}
