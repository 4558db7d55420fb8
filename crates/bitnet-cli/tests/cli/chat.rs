//! `bitnet chat` without a terminal: each line a turn.

use crate::support::run_with;

const FLAGS: &[&str] = &["chat", "--seed", "5", "-n", "12"];

#[test]
fn every_line_is_a_turn_and_gets_an_answer() {
    let two = run_with(&[FLAGS, &["-q"]].concat(), "Hello!\n\nTell me about the sea.\n");
    assert_eq!(two.code, Some(0), "{two:?}");
    assert_eq!(two.stderr, "");
    let one = run_with(&[FLAGS, &["-q"]].concat(), "Hello!\n");
    assert!(one.stdout.trim().len() > 3 && two.stdout.starts_with(&one.stdout), "{one:?} {two:?}");
    assert!(two.stdout.len() > one.stdout.len() + 3, "{two:?}");
}

#[test]
fn later_turns_compute_only_what_is_new() {
    let output = run_with(&[FLAGS, &["--stats"]].concat(), "Hello!\nTell me about the sea.\n");
    assert!(output.stderr.contains(" cached)"), "{}", output.stderr);
}

#[test]
fn commands_change_the_conversation() {
    let lines = "Hello!\n/regen\n/clear\nHello!\n/set temp 0\n/set\n/help\n/stats\n/exit\nnever said\n";
    let output = run_with(FLAGS, lines);
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in ["forgotten", "/system [TEXT]", "temp                0", "seed 5", "seed 6"] {
        let stats = run_with(&[FLAGS, &["--stats"]].concat(), lines);
        assert!(stats.stderr.contains(part), "{part}: {}", stats.stderr);
    }
    let answers: Vec<String> = ["Hello!\n", "Hello!\n/regen\n", "Hello!\n/clear\nHello!\n"]
        .map(|lines| run_with(&[FLAGS, &["-q"]].concat(), lines).stdout)
        .into();
    assert_eq!(answers[2], answers[0].repeat(2), "after /clear all begins anew");
    assert_ne!(answers[1], answers[0].repeat(2), "/regen gives another answer");
}

#[test]
fn mistakes_are_told_and_the_conversation_goes_on() {
    let output = run_with(FLAGS, "/hlep\n/regen\n/set tmep 1\n/set temp warm\nHello!\n");
    assert_eq!(output.code, Some(2), "{output:?}");
    for part in [
        "no command /hlep",
        "did you mean /help",
        "no answer yet",
        "did you mean temp",
        "0 (always the best token)",
    ] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    assert!(output.stdout.trim().len() > 3, "{output:?}");
}

#[test]
fn a_full_context_says_what_to_do() {
    let long = "word ".repeat(60);
    let output = run_with(&["chat", "-c", "48", "--seed", "1"], &format!("{long}\nHi\n/clear\nHello!\n"));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("/clear starts the conversation over"), "{}", output.stderr);
    assert!(output.stderr.contains("the context holds 48"), "{}", output.stderr);
    assert!(output.stdout.trim().len() > 3, "what failed is forgotten, the rest is answered: {output:?}");
}

#[test]
fn the_oldest_turns_go_where_that_is_allowed() {
    let turns = "Tell me about a fox.\n".repeat(6) + "/tokens\n";
    let flags = ["chat", "-c", "128", "-n", "24", "--seed", "1", "--system", "Be brief."];
    let without = run_with(&flags, &turns);
    assert_eq!(without.code, Some(1), "{without:?}");
    assert!(without.stderr.contains("/set context-shift on"), "{}", without.stderr);
    let with = run_with(&[&flags[..], &["--context-shift"]].concat(), &turns);
    assert_eq!(with.code, Some(0), "{with:?}");
    assert!(with.stderr.contains("left out to make room"), "{}", with.stderr);
    assert!(with.stderr.contains("of 6 turns, which were left out"), "{}", with.stderr);
}

#[test]
fn an_answer_that_fills_the_context_goes_on() {
    let lines = "Tell me about a fox.\nTell me a long story.\n";
    let flags = ["chat", "-q", "-c", "80", "-n", "120", "--seed", "1", "--context-shift"];
    let output = run_with(&flags, lines);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.lines().count() >= 2, "{output:?}");
}

#[test]
fn messages_may_have_several_lines() {
    let same = |lines: &str| run_with(&[FLAGS, &["-q"]].concat(), lines).stdout;
    let quoted = same("\"\"\"\nTell me\na story.\n\"\"\"\n");
    assert_eq!(quoted, same("Tell me\\\na story.\n"));
    assert_eq!(quoted, same("\"\"\"Tell me\r\na story.\"\"\""));
    assert_ne!(quoted, same("Tell me a story.\n"));
    assert_eq!(same("//exit\n"), same("\"\"\"/exit\"\"\"\n"), "two slashes are said as one");
}

#[test]
fn turns_are_undone_and_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my notes.txt");
    std::fs::write(&file, "The fox is red.\nThe sea is blue.\n").unwrap();
    let read = format!("/read {}\nWhat is red?\n/show messages\n", file.display());
    let output = run_with(FLAGS, &read);
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in ["my notes.txt: 2 lines", "my notes.txt:\n\nThe fox is red.", "What is red?"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    let undone = run_with(FLAGS, "Hello!\n/undo\n/tokens\n/undo\n");
    assert!(
        undone.stderr.contains("has 0 of 2048 tokens") || undone.stderr.contains("has 0 of"),
        "{undone:?}"
    );
    assert!(undone.stderr.contains("nothing to undo"), "{undone:?}");
}

#[test]
fn settings_have_the_names_of_flags_and_those_of_ollama() {
    let lines = "/set parameter temperature 0\n/set verbose\n/set nowordwrap\n/set num_predict 3\n/set format json\n/set\n\
                 /set markdown maybe\n/set markdon off\n/set top-k\n";
    let output = run_with(FLAGS, lines);
    for part in [
        "temp                0",
        "stats               on",
        "wordwrap            off",
        "predict             3",
        "format              constrained",
        "it must be on or off",
        "did you mean markdown",
        "/set top-k needs a value",
    ] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
}

#[test]
fn conversations_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let lines: String = ["a.md", "a.json", "a.html", "a.txt"]
        .map(|name| format!("/export {}\n", file(name).display()))
        .concat();
    let output = run_with(FLAGS, &format!("Hello!\n{lines}/export {}\n", file("a.md").display()));
    assert_eq!(output.code, Some(2), "what is there is not replaced unasked: {output:?}");
    let text = |name| std::fs::read_to_string(file(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text("a.json")).unwrap();
    let answer = json["messages"][1]["content"].as_str().unwrap();
    assert_eq!(answer, output.stdout.trim());
    for name in ["a.md", "a.txt"] {
        assert!(text(name).contains("Hello!") && text(name).contains(answer), "{}", text(name));
    }
    assert!(text("a.html").starts_with("<!doctype html>"));
}

#[test]
fn the_model_can_be_shown_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    crate::support::write_model(folder.path());
    let path = folder.path().display();
    let lines = format!("Hello!\n/model\n/model {path}\n/show\nAnd then?\n/model nowhere\n/model\n");
    let output = run_with(FLAGS, &lines);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stderr.contains("bitnet-tiny:") && output.stderr.contains("(going on with "),
        "{output:?}"
    );
    assert!(output.stderr.contains("turns               1"), "what was said stays: {output:?}");
    assert_eq!(output.stdout.lines().filter(|line| !line.is_empty()).count(), 2, "{output:?}");
}
