//! Rules on the manifests of the workspace's crates: dependencies point downwards, lints are inherited, and a
//! description says what the crate is.
//!
//! Manifests are read line by line: rustc and cargo have accepted them, so only the few forms in use matter.

use super::Finding;
use super::policy::{DATA_CRATES, LAYERS, LOWEST_USER_OF_DATA, TOOLS};

/// Checks the manifest at `path`.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let manifest = Manifest::parse(text);
    let mut findings = Vec::new();
    let name = manifest.name.as_str();
    if !LAYERS.contains(&name) && !DATA_CRATES.contains(&name) && !TOOLS.contains(&name) {
        let message = format!("`{name}` has no place in the layers: add it to tidy's policy");
        findings.push(Finding::new(path, 0, "layers", message));
        return findings;
    }
    for (line, dependency) in &manifest.dependencies {
        if let Some(reason) = forbidden(name, dependency) {
            let message = format!("`{name}` must not depend on `{dependency}`: {reason}");
            findings.push(Finding::new(path, *line, "layers", message));
        }
    }
    if manifest.description.is_empty() {
        findings.push(Finding::new(path, 0, "description", "the package needs a description"));
    }
    if !manifest.inherits_lints {
        findings.push(Finding::new(path, 0, "lints", "must have `[lints] workspace = true`"));
    }
    findings
}

/// Why the crate `name` may not depend on `dependency`, if it may not.
fn forbidden(name: &str, dependency: &str) -> Option<&'static str> {
    let height = |name: &str| LAYERS.iter().position(|&layer| layer == name);
    let Some(own) = height(name) else { return Some("it stands outside the layers") };
    if DATA_CRATES.contains(&dependency) {
        let lowest = height(LOWEST_USER_OF_DATA).unwrap_or(LAYERS.len());
        return (own < lowest).then_some("bundled models are for the top of the stack only");
    }
    match height(dependency) {
        Some(other) if other < own => None,
        Some(_) => Some("dependencies point downwards only"),
        None => Some("that crate has no place in the layers"),
    }
}

/// What the rules need of a manifest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Manifest {
    name: String,
    description: String,
    inherits_lints: bool,
    /// The crates of this workspace it depends on, by line; development dependencies are left out.
    dependencies: Vec<(usize, String)>,
}

impl Manifest {
    fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        let mut section = String::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                // A target's section may hold brackets itself; only its ending matters.
                section = line.rsplit_once(']').map_or(header.0, |(inner, _)| &inner[1..]).to_owned();
                if let Some((table, dependency)) = section.rsplit_once('.') {
                    manifest.add_dependency(index + 1, table, dependency);
                }
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            match (section.as_str(), key) {
                ("package", "name") => manifest.name = unquoted(value),
                ("package", "description") => manifest.description = unquoted(value),
                ("lints", "workspace") => manifest.inherits_lints = value == "true",
                _ => {
                    let renamed =
                        value.split_once("package").map(|(_, rest)| rest.trim_start_matches([' ', '=']));
                    let dependency = match renamed {
                        Some(package) => unquoted(package),
                        None => key.split('.').next().unwrap_or(key).trim_matches('"').to_owned(),
                    };
                    manifest.add_dependency(index + 1, &section, &dependency);
                }
            }
        }
        manifest
    }

    fn add_dependency(&mut self, line: usize, table: &str, dependency: &str) {
        let is_layered = ["dependencies", "build-dependencies"].into_iter().any(|kind| {
            table == kind || (table.starts_with("target.") && table.ends_with(&format!(".{kind}")))
        });
        if is_layered && dependency.starts_with("bitnet-") {
            self.dependencies.push((line, dependency.to_owned()));
        }
    }
}

/// The content of the first pair of quotes.
fn unquoted(value: &str) -> String {
    value.split('"').nth(1).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\ndescription = \"d\"\n\n[lints]\nworkspace = true\n\n{rest}")
    }

    fn findings(name: &str, rest: &str) -> Vec<String> {
        check("Cargo.toml", &manifest(name, rest)).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn every_crate_may_use_all_lower_ones_and_no_other() {
        for (height, name) in LAYERS.iter().enumerate() {
            for (other_height, other) in LAYERS.iter().enumerate() {
                let found = findings(name, &format!("[dependencies]\n{other}.workspace = true\n"));
                assert_eq!(found.is_empty(), other_height < height, "{name} -> {other}: {found:?}");
            }
        }
    }

    #[test]
    fn every_way_to_write_a_dependency_is_seen() {
        for rest in [
            "[dependencies]\nbitnet-cli.workspace = true",
            "[dependencies]\nbitnet-cli = { path = \"../bitnet-cli\" }",
            "[dependencies]\n\"bitnet-cli\" = \"0.1\"",
            "[dependencies]\nprogram = { package = \"bitnet-cli\", path = \"..\" }",
            "[dependencies.bitnet-cli]\nworkspace = true",
            "[build-dependencies]\nbitnet-cli.workspace = true",
            "[target.'cfg(unix)'.dependencies]\nbitnet-cli.workspace = true",
            "[target.'cfg(unix)'.dependencies.bitnet-cli]\nworkspace = true",
        ] {
            assert_eq!(findings("bitnet-core", rest).len(), 1, "{rest}");
        }
    }

    #[test]
    fn development_dependencies_and_comments_are_free() {
        for rest in [
            "[dev-dependencies]\nbitnet-cli.workspace = true",
            "[target.'cfg(unix)'.dev-dependencies]\nbitnet-cli.workspace = true",
            "[dependencies]\n# bitnet-cli.workspace = true\nlibc = \"0.2\"",
            "[features]\nbitnet-cli = []",
        ] {
            assert_eq!(findings("bitnet-core", rest), [""; 0], "{rest}");
        }
    }

    #[test]
    fn bundled_models_are_used_at_the_top_only() {
        let uses_model = "[dependencies]\nbitnet-tiny.workspace = true";
        assert_eq!(findings("bitnet-cli", uses_model), [""; 0]);
        assert_eq!(findings("bitnet-model", uses_model).len(), 1);
        assert_eq!(findings("bitnet-tiny", "[dependencies]\nbitnet-core.workspace = true").len(), 1);
        assert_eq!(findings("xtask", "[dependencies]\nbitnet-core.workspace = true").len(), 1);
    }

    #[test]
    fn unknown_crates_must_be_given_a_place() {
        assert!(findings("bitnet-new", "")[0].contains("`bitnet-new` has no place"));
        assert_eq!(findings("bitnet-cli", "[dependencies]\nbitnet-new.workspace = true").len(), 1);
    }

    #[test]
    fn findings_name_the_line() {
        let found = findings("bitnet-core", "[dependencies]\nlibc = \"1\"\nbitnet-cpu.workspace = true\n");
        assert_eq!(
            found,
            [
                "Cargo.toml:10: [layers] `bitnet-core` must not depend on `bitnet-cpu`: dependencies point downwards only"
            ]
        );
    }

    #[test]
    fn description_and_lints_are_required() {
        let bare = "[package]\nname = \"bitnet-core\"\ndescription = \"\"\n";
        let rules: Vec<_> = check("Cargo.toml", bare).into_iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, ["description", "lints"]);
    }
}
