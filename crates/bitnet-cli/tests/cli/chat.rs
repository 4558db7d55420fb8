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
    for part in ["forgotten", "/system TEXT", "temp                0", "seed 5", "seed 6"] {
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
