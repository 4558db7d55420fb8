//! Help, version and what the machine is.

use crate::support::{fails, run, stdout};

#[test]
fn every_command_has_help_with_examples() {
    let whole = stdout(&["--help"]);
    for command in [
        "generate",
        "chat",
        "inspect",
        "tokenize",
        "devices",
        "doctor",
        "perplexity",
        "eval",
        "compare",
        "bench",
        "synth",
    ] {
        assert!(whole.contains(command), "{whole}");
        let help = stdout(&[command, "--help"]);
        assert!(help.contains("Examples:") && help.contains("Usage: bitnet"), "{help}");
    }
    assert!(stdout(&["--version"]).starts_with("bitnet 0."));
    assert_eq!(run(&[]).code, Some(2));
}

#[test]
fn devices_name_the_kernels() {
    let json: serde_json::Value = serde_json::from_str(&stdout(&["devices", "--json"])).unwrap();
    let cpu = &json["devices"][0];
    assert_eq!(cpu["kind"], "cpu");
    let sets = cpu["kernel_sets"].as_array().unwrap();
    let chosen: Vec<_> = sets.iter().filter(|set| set["chosen"] == true).collect();
    assert_eq!(
        (chosen.len(), &chosen[0]["available"], &chosen[0]["name"]),
        (1, &true.into(), &cpu["kernel_set"])
    );
    assert!(sets.iter().any(|set| set["name"] == "scalar" && set["available"] == true));
    assert!(stdout(&["devices"]).contains("chosen"));
    let scalar = stdout(&["devices", "--kernels", "scalar", "--json"]);
    let scalar: serde_json::Value = serde_json::from_str(&scalar).unwrap();
    assert_eq!(scalar["devices"][0]["kernel_set"], "scalar");
}

#[test]
fn unknown_kernels_are_refused() {
    fails(&["devices", "--kernels", "abacus"], 1, &["abacus", "scalar"]);
    fails(&["generate", "Hi", "--kernels", "abacus"], 1, &["abacus", "scalar"]);
}
