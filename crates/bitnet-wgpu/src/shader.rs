//! The WGSL of each kernel: sources, the switches that make variants of them, and the little that expands the switches.
//!
//! A line `#if NAME` keeps what follows up to `#else` or `#endif` if the switch is on (`#if !NAME`: if it is off). Numbers
//! are WGSL constants, written before the source.

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
    /// Largest logits.
    Select,
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
            Source::Output => &[include_str!("../shaders/output.wgsl")],
            Source::Select => &[include_str!("../shaders/select.wgsl")],
        }
    }

    /// What is bound from binding 2 on: `r` is read, `w` is written as well. Bindings 0 and 1 are the parameters of the call
    /// and of the place.
    pub(crate) fn bindings(self) -> &'static str {
        match self {
            Source::Embed | Source::Combine | Source::Output | Source::Select => "rrw",
            Source::Norm => "wrrwwr",
            Source::Gemv | Source::Gemm => "rrrrw",
            Source::Rotary => "rwwr",
            Source::Attention => "rrrw",
        }
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

    /// The WGSL.
    pub(crate) fn wgsl(&self) -> String {
        let mut text: String =
            self.constants.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect();
        expand(include_str!("../shaders/common.wgsl"), &self.flags, &mut text);
        for source in self.source.texts() {
            expand(source, &self.flags, &mut text);
        }
        text
    }
}

/// Appends the lines of `source` that the switches keep.
fn expand(source: &str, flags: &[&str], out: &mut String) {
    // For each `#if` that is open: whether its lines are kept.
    let mut open: Vec<bool> = Vec::new();
    for line in source.lines() {
        match line.trim_start().strip_prefix('#') {
            None => {
                if open.iter().all(|kept| *kept) {
                    out.push_str(line);
                    out.push('\n');
                }
            }
            Some("else") => {
                if let Some(kept) = open.last_mut() {
                    *kept = !*kept;
                }
            }
            Some("endif") => {
                open.pop();
            }
            Some(condition) => {
                let name = condition.strip_prefix("if ").unwrap_or_default();
                open.push(match name.strip_prefix('!') {
                    Some(name) => !flags.contains(&name),
                    None => flags.contains(&name),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_keep_and_drop_lines() {
        let source = "a\n#if X\nb\n#if !Y\nc\n#else\nd\n#endif\n#else\ne\n#endif\nf";
        let expanded = |flags: &[&str]| {
            let mut out = String::new();
            expand(source, flags, &mut out);
            out.replace('\n', "")
        };
        assert_eq!(expanded(&[]), "aef");
        assert_eq!(expanded(&["X"]), "abcf");
        assert_eq!(expanded(&["X", "Y"]), "abdf");
        assert_eq!(expanded(&["Y"]), "aef");
    }
}
