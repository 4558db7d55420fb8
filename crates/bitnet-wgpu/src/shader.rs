//! The WGSL of each kernel: sources, the switches that make variants of them, and the little that expands the switches.
//!
//! A line `#if NAME` keeps what follows up to `#else` or `#endif` if the switch is on (`#if !NAME`: if it is off). Lines
//! between `#each i N` and `#end` are repeated with `$i` as 0, 1, … N - 1, where N is a number or a constant; such blocks can
//! be nested. They stand for loops that must be unrolled whatever a driver does, so that small arrays stay in registers and what
//! is read comes together, not turn by turn. Constants are written before the source.

/// What kernels of the search share.
const INTERVAL: &str = include_str!("../shaders/interval.wgsl");

/// A kernel's source, in the order of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Rows of the embedding.
    Embed,
    /// Residual addition, norms, quantisation.
    Norm,
    /// Ternary product of few rows.
    Gemv,
    /// Ternary product of many rows.
    Gemm,
    /// Norms of heads, rotation, writing to the cache.
    Rotary,
    /// Attention over one range.
    Attention,
    /// Merging of ranges.
    Combine,
    /// Output layer.
    Output,
    /// Images of hidden rows.
    Split,
    /// Products of images.
    Scan,
    /// Largest logits.
    Select,
    /// Tokens near the largest logits.
    Collect,
}

impl Source {
    /// The texts that make it, after what all share.
    fn texts(self) -> &'static [&'static str] {
        match self {
            Source::Embed => &[include_str!("../shaders/embed.wgsl")],
            Source::Norm => &[include_str!("../shaders/norm.wgsl")],
            Source::Gemv => &[include_str!("../shaders/gemv.wgsl")],
            Source::Gemm => &[include_str!("../shaders/gemm.wgsl")],
            Source::Rotary => &[include_str!("../shaders/kv.wgsl"), include_str!("../shaders/rotary.wgsl")],
            Source::Attention => {
                &[include_str!("../shaders/kv.wgsl"), include_str!("../shaders/attention.wgsl")]
            }
            Source::Combine => &[include_str!("../shaders/combine.wgsl")],
            Source::Output => &[INTERVAL, include_str!("../shaders/output.wgsl")],
            Source::Split => &[include_str!("../shaders/split.wgsl")],
            Source::Scan => &[include_str!("../shaders/scan.wgsl")],
            Source::Select => &[INTERVAL, include_str!("../shaders/select.wgsl")],
            Source::Collect => &[INTERVAL, include_str!("../shaders/collect.wgsl")],
        }
    }

    /// Whether its kernels count on workgroup memory that is zero at first.
    pub(crate) fn needs_zeros(self) -> bool {
        matches!(self, Source::Gemv | Source::Scan | Source::Select | Source::Split)
    }

    /// Whether its kernels have variants with subgroup operations.
    pub(crate) fn has_subgroups(self) -> bool {
        matches!(self, Source::Norm | Source::Gemv | Source::Scan)
    }
}

/// A kernel: a source with its switches and constants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    pub(crate) source: Source,
    /// Switches that are on.
    pub(crate) flags: Vec<&'static str>,
    /// Constants.
    pub(crate) constants: Vec<(&'static str, u32)>,
}

impl Kernel {
    /// A kernel without switches and constants.
    pub(crate) fn new(source: Source) -> Self {
        Self { source, flags: Vec::new(), constants: Vec::new() }
    }

    /// With a switch on.
    #[must_use]
    pub(crate) fn flag(mut self, flag: &'static str) -> Self {
        self.flags.push(flag);
        self
    }

    /// With a switch on if the condition holds.
    #[must_use]
    pub(crate) fn flag_if(self, condition: bool, flag: &'static str) -> Self {
        if condition { self.flag(flag) } else { self }
    }

    /// With a constant.
    #[must_use]
    pub(crate) fn constant(mut self, name: &'static str, value: usize) -> Self {
        self.constants.push((name, value as u32));
        self
    }

    /// What is bound from binding 2 on: `r` is read, `w` is written as well. Bindings 0 and 1 are the parameters of the call
    /// and of the place.
    pub(crate) fn bindings(&self) -> &'static str {
        let has = |flag| self.flags.contains(&flag);
        match self.source {
            Source::Output if has("PICKED") => "rrwr",
            Source::Select if has("SCAN") && has("NEAR") => "rrwrr",
            Source::Embed | Source::Combine | Source::Output | Source::Select => "rrw",
            Source::Norm => "wrrwwr",
            Source::Gemv | Source::Gemm | Source::Scan => "rrrrw",
            Source::Rotary => "rwwr",
            Source::Attention => "rrrw",
            Source::Split => "rww",
            Source::Collect => "rrwrr",
        }
    }

    /// The WGSL.
    pub(crate) fn wgsl(&self) -> String {
        let mut text: String =
            self.constants.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect();
        let common = include_str!("../shaders/common.wgsl");
        for source in std::iter::once(common).chain(self.source.texts().iter().copied()) {
            let lines: Vec<&str> = source.lines().filter(kept(&self.flags)).collect();
            self.repeat(&lines, &[], &mut text);
        }
        text
    }

    /// Appends lines, repeating the blocks between `#each` and `#end`; `values` are those of the blocks around.
    fn repeat(&self, lines: &[&str], values: &[(&str, u32)], out: &mut String) {
        let mut rest = lines;
        while let Some((line, behind)) = rest.split_first() {
            rest = behind;
            let Some(block) = line.trim_start().strip_prefix("#each ") else {
                out.push_str(&with_values(line, values));
                out.push('\n');
                continue;
            };
            let (name, count) = block.split_once(' ').unwrap_or((block, "0"));
            let inside = &rest[..end_of_block(rest)];
            for value in 0..self.number(count) {
                let values: Vec<(&str, u32)> = values.iter().copied().chain([(name, value)]).collect();
                self.repeat(inside, &values, out);
            }
            rest = rest.get(inside.len() + 1..).unwrap_or_default();
        }
    }

    /// A number, or the value of a constant.
    fn number(&self, text: &str) -> u32 {
        let constant = self.constants.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        constant.or_else(|| text.parse().ok()).unwrap_or(0)
    }
}

/// A line with the numbers of the blocks around it.
fn with_values(line: &str, values: &[(&str, u32)]) -> String {
    values
        .iter()
        .fold(line.to_owned(), |line, (name, value)| line.replace(&format!("${name}"), &value.to_string()))
}

/// Lines up to the `#end` of the block that has begun.
fn end_of_block(lines: &[&str]) -> usize {
    let mut depth = 0;
    let ends = |line: &&str| {
        let line = line.trim_start();
        depth += usize::from(line.starts_with("#each "));
        if line != "#end" {
            return false;
        }
        depth = depth.wrapping_sub(1);
        depth == usize::MAX
    };
    lines.iter().position(ends).unwrap_or(lines.len())
}

/// Tells of each line in turn whether the switches keep it.
fn kept(flags: &[&'static str]) -> impl FnMut(&&str) -> bool {
    // For each `#if` that is open: whether its lines are kept.
    let mut open: Vec<bool> = Vec::new();
    move |line| {
        match line.trim_start() {
            "#else" => {
                if let Some(kept) = open.last_mut() {
                    *kept = !*kept;
                }
            }
            "#endif" => {
                open.pop();
            }
            line => {
                let Some(name) = line.strip_prefix("#if ") else {
                    return open.iter().all(|kept| *kept);
                };
                open.push(match name.strip_prefix('!') {
                    Some(name) => !flags.contains(&name),
                    None => flags.contains(&name),
                });
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_keep_and_drop_lines() {
        let source = "a\n#if X\nb\n#if !Y\nc\n#else\nd\n#endif\n#else\ne\n#endif\nf";
        let expanded = |flags: &[&'static str]| source.lines().filter(kept(flags)).collect::<String>();
        assert_eq!(expanded(&[]), "aef");
        assert_eq!(expanded(&["X"]), "abcf");
        assert_eq!(expanded(&["X", "Y"]), "abdf");
        assert_eq!(expanded(&["Y"]), "aef");
    }

    #[test]
    fn blocks_are_repeated() {
        let kernel = Kernel::new(Source::Gemv).constant("M", 2);
        let lines = ["a", "#each m M", "b$m", "#each i 3", "c$m$i", "#end", "d", "#end", "e"];
        let mut out = String::new();
        kernel.repeat(&lines, &[], &mut out);
        assert_eq!(out.replace('\n', " "), "a b0 c00 c01 c02 d b1 c10 c11 c12 d e ");
    }
}
