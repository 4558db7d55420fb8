//! Conversations that are kept.

use std::path::Path;

use crate::support::{Output, bitnet};

const FLAGS: &[&str] = &["chat", "--seed", "5", "-n", "16"];

fn run_in(state: &Path, args: &[&str], stdin: &str) -> Output {
    let output = bitnet(args).env("BITNET_STATE_DIR", state).write_stdin(stdin).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The numbers of tokens of the last prompt, and how many of them were not computed.
fn counts(stderr: &str) -> (usize, usize) {
    let line = stderr.lines().rfind(|line| line.starts_with("[prompt ")).unwrap();
    let numbers: Vec<usize> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert!(line.contains(" cached)"), "{line}");
    (numbers[0], numbers[1])
}

#[test]
fn a_conversation_goes_on_as_if_it_had_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    let turns = ["Tell me about a fox.", "And then?", "What did it eat?"];
    let whole = run_in(folder.path(), &[FLAGS, &["--stats"]].concat(), &turns.join("\n"));
    assert!(!folder.path().join("sessions").exists(), "nothing is kept unasked: {whole:?}");
    let session = [FLAGS, &["--stats", "--session", "foxes"]].concat();
    let parts: Vec<Output> = turns.iter().map(|turn| run_in(folder.path(), &session, turn)).collect();
    let joined: String = parts.iter().map(|output| output.stdout.as_str()).collect();
    assert_eq!(joined, whole.stdout, "{parts:?}");
    assert_eq!(counts(&parts[2].stderr), counts(&whole.stderr), "nothing is computed again");
    assert!(parts[2].stderr.contains("going on with foxes: 2 turns"), "{}", parts[2].stderr);
    let again = run_in(folder.path(), &[FLAGS, &["--stats", "--continue", "And", "then?"]].concat(), "");
    assert!(again.stderr.contains("going on with foxes: 3 turns"), "{again:?}");
}

#[test]
fn keys_and_values_that_do_not_fit_are_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let session = [FLAGS, &["--session", "foxes"]].concat();
    run_in(folder.path(), &session, "Tell me about a fox.");
    let kv = folder.path().join("sessions/foxes.kv");
    let text = std::fs::read(folder.path().join("sessions/foxes.json")).unwrap();
    let good = std::fs::read(&kv).unwrap();
    let mut whole = String::new();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    let spoiled = [
        ("", Some(&good[..])),
        ("is damaged", Some(&bad)),
        ("ends too early", Some(&good[..good.len() / 2])),
        ("", None),
    ];
    for (why, content) in spoiled {
        std::fs::write(folder.path().join("sessions/foxes.json"), &text).unwrap();
        match content {
            Some(content) => std::fs::write(&kv, content).unwrap(),
            None => std::fs::remove_file(&kv).unwrap(),
        }
        let output = run_in(folder.path(), &session, "And then?");
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stderr.contains(why), "{output:?}");
        assert_eq!(output.stderr.contains("computed again"), !why.is_empty(), "{output:?}");
        whole = if whole.is_empty() { output.stdout.clone() } else { whole };
        assert_eq!(output.stdout, whole);
    }
    let int8 = run_in(folder.path(), &[&session[..], &["--kv-type", "int8"]].concat(), "And then?");
    assert!(int8.stderr.contains("--kv-type") && int8.code == Some(0), "{int8:?}");
}

#[test]
fn conversations_are_saved_listed_loaded_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "Hello!\n/save first talk\n/clear\nTell me about a fox.\n/save foxes\n/load first talk\n/show messages\n/sessions\n";
    let output = run_in(folder.path(), FLAGS, lines);
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in ["saved as foxes", "going on with first talk: 1 turn,", "User:\nHello!"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    let list = run_in(folder.path(), &["chat", "--list-sessions"], "").stdout;
    assert!(
        list.lines().count() == 3 && list.contains("first talk  1") && list.contains("bitnet-tiny"),
        "{list}"
    );
    let taken = run_in(folder.path(), FLAGS, "Hi\n/save foxes\n/load nothing\n/save a:b\n");
    assert!(
        taken.stderr.contains("no terminal to ask") && taken.stderr.contains("no conversation nothing"),
        "{taken:?}"
    );
    assert_eq!(run_in(folder.path(), &["chat", "--delete-session", "foxes"], "").code, Some(0));
    let gone = run_in(folder.path(), &["chat", "--delete-session", "foxes"], "");
    assert!(gone.code == Some(1) && gone.stderr.contains("no conversation foxes"), "{gone:?}");
}

#[test]
fn what_cannot_be_read_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions/foxes.json");
    std::fs::create_dir(folder.path().join("sessions")).unwrap();
    std::fs::write(&path, "{\"version\": 7}").unwrap();
    let output = run_in(folder.path(), &[FLAGS, &["--session", "foxes", "Hi"]].concat(), "");
    assert!(output.code == Some(1) && output.stderr.contains("version is 7"), "{output:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"version\": 7}");
    let none = run_in(&folder.path().join("empty"), &["chat", "--continue", "Hi"], "");
    assert!(none.code == Some(1) && none.stderr.contains("no conversation to continue"), "{none:?}");
}
