//! Runs that are interrupted and go on.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Folder, batch, done};
use crate::support::fails;

/// Rows enough that a run is caught on its way.
const ROWS: usize = 300;

fn lines(rows: usize) -> String {
    (0..rows).map(|i| format!("The story of number {i} begins\n")).collect()
}

const FLAGS: [&str; 7] = ["-n", "6", "--seed", "7", "-q", "--parallel", "4"];

/// Starts a run as a process of its own.
fn start(input: &str, output: &str, more: &[&str]) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bitnet"));
    command.args(["batch", input, "-o", output]).args(FLAGS).args(more).env_remove("BITNET_MODEL");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a journal is longer than it was; false if the run ended before.
fn wait_for_progress(child: &mut Child, folder: &Folder, name: &str, before: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    let journal = folder.path(name);
    while Instant::now() < deadline {
        if std::fs::metadata(&journal).is_ok_and(|data| data.len() > before) {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("no progress")
}

fn run_whole(input: &str, output: &str, more: &[&str]) {
    let ended = start(input, output, more).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// Killed again and again, at each new mark in its journal, a run writes what it writes at once: a page, which has a beginning
/// and an end as well.
#[test]
fn a_killed_run_goes_on_where_it_stopped() {
    let folder = Folder::new();
    let input = folder.write("in.txt", &lines(ROWS));
    run_whole(&input, &folder.arg("whole.html"), &[]);
    let out = folder.arg("broken.html");
    let (mut kills, mut length) = (0, 0);
    while kills < 3 {
        let more: &[&str] = if kills > 0 { &["--resume"] } else { &[] };
        let mut child = start(&input, &out, more);
        // The header comes first, then a mark each time.
        let goes_on = wait_for_progress(&mut child, &folder, "broken.html.journal", length);
        child.kill().unwrap();
        child.wait().unwrap();
        if !goes_on || folder.path("broken.html").exists() {
            break;
        }
        length = std::fs::metadata(folder.path("broken.html.journal")).unwrap().len();
        kills += 1;
    }
    assert!(kills >= 1, "the run was over too soon");
    run_whole(&input, &out, &["--resume"]);
    let (whole, broken) = (folder.read("whole.html"), folder.read("broken.html"));
    assert!(whole.replace("whole.html", "broken.html") == broken, "after {kills} kills the output differs");
    assert_eq!(folder.names(), ["broken.html", "in.txt", "whole.html"]);
}

/// A run cut off at any byte of what it wrote goes on; here the files are cut by hand.
#[test]
fn torn_files_are_mended() {
    let folder = Folder::new();
    let input = folder.write("in.txt", &lines(40));
    let whole = folder.arg("whole.jsonl");
    run_whole(&input, &whole, &[]);
    let mut child = start(&input, &folder.arg("out.jsonl"), &[]);
    assert!(wait_for_progress(&mut child, &folder, "out.jsonl.journal", 0));
    child.kill().unwrap();
    child.wait().unwrap();
    // More was written than was noted, and the last note is torn.
    let mut part = folder.read("out.jsonl.part");
    part += "{\"row\": 9";
    folder.write("out.jsonl.part", &part);
    let mut journal = folder.read("out.jsonl.journal");
    journal += "0123456789abcdef {\"rows\":";
    folder.write("out.jsonl.journal", &journal);
    run_whole(&input, &folder.arg("out.jsonl"), &["--resume"]);
    assert_eq!(folder.read("out.jsonl"), folder.read("whole.jsonl"));
}

#[test]
fn another_run_is_not_continued() {
    let folder = Folder::new();
    let input =
        folder.write("in.jsonl", "{\"prompt\": \"The cat\"}\n{\"prompt\": 7}\n{\"prompt\": \"A dog\"}\n");
    let out = folder.arg("out.jsonl");
    let flags = ["batch", &input, "-o", &out, "-n", "4", "--seed", "7"];
    let stop = batch(&input, &out, &["--fail-fast"]);
    assert_eq!(stop.code, Some(1), "{stop:?}");
    fails(&flags, 2, &["interrupted", "2 rows", "--resume", "--force"]);
    let with = |more: &[&'static str]| [&flags[..], &["--resume"], more].concat();
    fails(&with(&["--temp", "0.5"]), 2, &["another run", "settings.sampling"]);
    fails(&with(&["--chat"]), 2, &["settings.chat was false and is true"]);
    folder.write("in.jsonl", "{\"prompt\": \"The cow\"}\n{\"prompt\": 7}\n{\"prompt\": \"A dog\"}\n");
    fails(&with(&[]), 2, &["another run", "inputs[0].sha256"]);
    done(&input, &folder.arg("other.jsonl"), &["--limit", "1"]);
    assert_eq!(folder.names(), ["in.jsonl", "other.jsonl", "out.jsonl.journal", "out.jsonl.part"]);
}

/// Ctrl-C ends a run cleanly, and says how to go on.
#[test]
#[cfg(unix)]
fn ctrl_c_tells_how_to_resume() {
    let folder = Folder::new();
    let input = folder.write("in.txt", &lines(100));
    run_whole(&input, &folder.arg("whole.csv"), &[]);
    let out = folder.arg("out.csv");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bitnet"));
    command.args(["batch", &input, "-o", &out, "-n", "6", "--seed", "7", "--parallel", "4"]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait_for_progress(&mut child, &folder, "out.csv.journal", 0));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(
        said.contains("interrupted when ") && said.trim_end().ends_with("--parallel 4 --resume"),
        "{said}"
    );
    run_whole(&input, &out, &["--resume"]);
    assert!(folder.read("out.csv") == folder.read("whole.csv"));
}
