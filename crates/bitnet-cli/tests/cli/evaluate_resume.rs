//! `bitnet eval` on the bundled model, interrupted and resumed.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::batch::Folder;
use crate::support::{Output, fails, run};

/// Rows enough that a run is caught on its way.
const ROWS: usize = 100;

fn tasks() -> String {
    let line = |i: usize| match i % 4 {
        0 => format!(r#"{{"context": "Tom has {i} cats. One day", "answer": "x", "category": "written"}}"#),
        1 => format!(r#"{{"question": "What is {i}?", "choices": ["a dog", "a number"], "answer": 1}}"#),
        _ => format!(
            r#"{{"context": "Once upon a", "choices": ["time", "{i}", "spoon"], "answer": 0, "id": "r{i}"}}"#
        ),
    };
    (0..ROWS).map(|i| line(i) + "\n").collect()
}

/// The flags of all runs here.
fn flags<'a>(tasks: &'a str, output: &'a str) -> [&'a str; 8] {
    ["eval", tasks, "-o", output, "--shots", "1", "-n", "12"]
}

/// Starts a run as a process of its own.
fn start(tasks: &str, output: &str, more: &[&str]) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bitnet"));
    command.args(flags(tasks, output)).args(more).env_remove("BITNET_MODEL").env("BITNET_CONFIG", "");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs to the end.
fn whole(tasks: &str, output: &str, more: &[&str]) -> Output {
    let ended = run(&[&flags(tasks, output)[..], more].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// How many whole rows a growing file has.
fn rows(folder: &Folder, name: &str) -> usize {
    std::fs::read(folder.path(name)).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Starts a run and waits until it has so many rows; None if it ended before.
fn caught(folder: &Folder, tasks: &str, output: &str, more: &[&str], least: usize) -> Option<Child> {
    let mut child = start(tasks, output, more);
    let part = format!("{}.part", std::path::Path::new(output).file_name().unwrap().to_str().unwrap());
    let deadline = Instant::now() + Duration::from_secs(120);
    while rows(folder, &part) < least {
        assert!(Instant::now() < deadline, "no progress");
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Some(child)
}

/// A run that was killed when it had some rows.
fn killed(folder: &Folder, tasks: &str, output: &str, more: &[&str], least: usize) {
    let mut child = caught(folder, tasks, output, more, least).expect("the run was over too soon");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Killed again and again, a run writes and tells what it writes and tells at once.
#[test]
fn a_killed_run_goes_on_where_it_stopped() {
    let folder = Folder::new();
    let tasks = folder.write("tasks.jsonl", &tasks());
    let at_once = whole(&tasks, &folder.arg("whole.jsonl"), &["--json"]);
    assert_eq!(folder.names(), ["tasks.jsonl", "whole.jsonl"]);
    let out = folder.arg("broken.jsonl");
    killed(&folder, &tasks, &out, &[], 1);
    let first = rows(&folder, "broken.jsonl.part");
    killed(&folder, &tasks, &out, &["--resume"], first + 9);
    let second = rows(&folder, "broken.jsonl.part");
    assert!(
        folder.read("whole.jsonl").starts_with(&folder.read("broken.jsonl.part")),
        "rows are kept as they are"
    );
    // A line that was being written is cut off.
    folder.write("broken.jsonl.part", &(folder.read("broken.jsonl.part") + "{\"id\": \"r"));
    let resumed = whole(&tasks, &out, &["--json", "--resume"]);
    assert!(resumed.stderr.contains(&format!("{second} rows are done; going on")), "{resumed:?}");
    assert!(folder.read("broken.jsonl") == folder.read("whole.jsonl"), "the files differ");
    assert_eq!(resumed.stdout, at_once.stdout);
    assert_eq!(folder.names(), ["broken.jsonl", "tasks.jsonl", "whole.jsonl"]);

    let again = whole(&tasks, &out, &["--resume"]);
    assert!(again.stdout.is_empty() && again.stderr.contains("nothing to resume"), "{again:?}");
}

#[test]
fn another_run_is_not_continued() {
    let folder = Folder::new();
    let tasks = folder.write("tasks.jsonl", &tasks());
    let out = folder.arg("out.jsonl");
    killed(&folder, &tasks, &out, &[], 3);
    let part = folder.read("out.jsonl.part");
    let base = flags(&tasks, &out);
    fails(&base, 2, &["out.jsonl: a run was interrupted there", "--resume", "--force"]);
    for (more, difference) in [
        (&["--letters"][..], "settings.letters was false and is true"),
        (&["--limit", "9"], "settings.limit was null and is 9"),
        (&["--template", "{{context}}"], "settings.template was null and is \"{{context}}\""),
        (&["--delimiter", ""], "settings.delimiter was \" \" and is \"\""),
        (&["--stop", "."], "settings.stop"),
        (&["--kv-type", "f32"], "model.kv_type was \"f16\" and is \"f32\""),
        (&["--ctx-size", "256"], "model.context was 512 and is 256"),
        (&["--shots-file", &tasks], "shots_file"),
    ] {
        let parts = ["out.jsonl.journal belongs to another run", difference, "--force"];
        fails(&[&base[..], &["--resume"], more].concat(), 2, &parts);
    }
    folder.write("tasks.jsonl", &folder.read("tasks.jsonl").replace("spoon", "fork"));
    fails(&[&base[..], &["--resume"]].concat(), 2, &["another run", "tasks.sha256 was"]);
    assert_eq!(folder.read("out.jsonl.part"), part, "nothing was lost by asking");
    fails(&["eval", &tasks, "--resume"], 2, &["--output"]);
    whole(&tasks, &out, &["--force", "--limit", "3", "-q"]);
    assert_eq!((rows(&folder, "out.jsonl"), folder.names().len()), (3, 2));
}

/// Ctrl-C ends a run cleanly with the figures so far, and says how to go on.
#[test]
#[cfg(unix)]
fn ctrl_c_tells_how_to_resume() {
    let folder = Folder::new();
    let tasks = folder.write("tasks.jsonl", &tasks());
    let at_once = whole(&tasks, &folder.arg("whole.jsonl"), &[]);
    let out = folder.arg("out.jsonl");
    let child = caught(&folder, &tasks, &out, &[], 1).expect("the run was over too soon");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    let done = rows(&folder, "out.jsonl.part");
    assert!(said.contains(&format!("interrupted when {done} of {} rows were done", ROWS - 1)), "{said}");
    assert!(said.trim_end().ends_with("--shots 1 -n 12 --resume"), "{said}");
    let resumed = whole(&tasks, &out, &["--resume"]);
    assert_eq!(resumed.stdout, at_once.stdout);
    assert!(folder.read("out.jsonl") == folder.read("whole.jsonl"));
}
