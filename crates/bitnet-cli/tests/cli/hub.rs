//! Models on the Hub, against a server on loopback: pulled, used, listed, shown, removed; killed and run twice at once.

#[path = "../../../bitnet-hub/tests/hub/server.rs"]
#[allow(unreachable_pub, dead_code, missing_docs, reason = "shared with the tests of bitnet-hub")]
mod server;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use self::server::{Fault, Repo, Server, Side, noise};
use crate::support::{Output, bitnet};

const REPO: &str = "org/tiny";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A server with the bundled model, and an empty cache.
struct World {
    server: Server,
    repo: Repo,
    home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let card = b"---\nlicense: mit\nlanguage: en\n---\n# Tiny\n\nA small model of stories.\n".to_vec();
        let model = bitnet_tiny::files().into_iter().filter(|(name, _)| *name != "README.md");
        let mut files: Vec<(&str, Vec<u8>)> = model.map(|(name, bytes)| (name, bytes.to_vec())).collect();
        files.push(("README.md", card));
        Self::with(&files)
    }

    fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let server = Server::start();
        let repo = server.publish(REPO, COMMIT, files);
        Self { server, repo, home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = bitnet(args);
        command
            .env("HF_HOME", self.home.path())
            .env("HF_ENDPOINT", self.server.url())
            .env_remove("HF_HUB_OFFLINE");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.stdout(args)).unwrap()
    }

    fn fails(&self, args: &[&str], code: i32, parts: &[&str]) {
        let output = self.run(args);
        assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{args:?}: {output:?}");
        for part in parts {
            assert!(output.stderr.contains(part), "{args:?}: no {part:?} in {}", output.stderr);
        }
    }

    /// Starts a pull that can be killed.
    fn spawn(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_bitnet"))
            .args(["pull", REPO, "-q"])
            .env("HF_HOME", self.home.path())
            .env("HF_ENDPOINT", self.server.url())
            .env_remove("HF_TOKEN")
            .env_remove("HF_HUB_OFFLINE")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("hub/models--org--tiny")
    }

    fn snapshot(&self) -> PathBuf {
        self.folder().join("snapshots").join(COMMIT)
    }
}

#[test]
fn a_model_is_fetched_on_first_use_and_then_used_from_the_cache() {
    let world = World::new();
    let prompt = ["generate", "Once upon a time", "-n", "8", "--seed", "1"];
    let args = [&prompt[..], &["-m", REPO]].concat();
    world.fails(
        &[&args[..], &["--offline"]].concat(),
        1,
        &["org/tiny is not in the cache", "bitnet pull org/tiny"],
    );
    assert!(world.server.seen("").is_empty());
    let first = world.run(&args);
    assert_eq!(first.code, Some(0), "{first:?}");
    for part in
        ["fetching org/tiny (commit 0123456) from http://127.0.0.1", "MiB in 6 files", "model.safetensors"]
    {
        assert!(first.stderr.contains(part), "{part}: {}", first.stderr);
    }
    world.server.forget();
    let again = world.run(&args);
    assert_eq!((again.code, &again.stdout), (Some(0), &first.stdout));
    assert!(!again.stderr.contains("fetching"), "{}", again.stderr);
    assert!(world.server.seen("").is_empty(), "what is in the cache needs no network");
    assert_eq!(world.stdout(&[&prompt[..], &["-q"]].concat()), first.stdout, "it is the bundled model");
    assert!(world.stdout(&["inspect", &format!("{REPO}@{COMMIT}"), "--offline"]).contains("35,682,816"));
    assert!(world.folder().join(".bitnet/used").join(COMMIT).exists());
}

#[test]
fn pull_says_where_and_what() {
    let world = World::new();
    let path = world.stdout(&["pull", REPO]);
    assert_eq!(path.trim_end(), world.snapshot().to_str().unwrap());
    let json = world.json(&["pull", REPO, "--json", "-q"]);
    assert_eq!(
        (&json["commit"], &json["fetched_bytes"], &json["format"]),
        (&COMMIT.into(), &0.into(), &"safetensors".into())
    );
    assert!(json["files"].as_array().unwrap().iter().all(|file| file["was"] == "present"));
    assert_eq!(world.stdout(&["pull", REPO, "--offline", "-q"]), path);
    world.fails(&["pull", "org/none"], 1, &["no such model, or it is private", "HF_TOKEN"]);
    world.fails(&["pull", "none"], 2, &["no organisation"]);
    world.fails(&["pull", "org/tiny@v2"], 1, &["no revision \"v2\""]);
    world.fails(&["pull", "org/tiny@v1", "--revision", "v2"], 2, &["two revisions"]);
    world.fails(&["pull", "org/tiny:q4_0"], 1, &["no \"q4_0\"", "model.safetensors"]);
    world.fails(&["pull", "org/tiny", "--token", "a b"], 2, &["--token"]);
}

#[test]
fn gated_models_need_a_token_that_is_not_shown() {
    let world = World::new();
    world.server.change(REPO, |repo| repo.token = Some("hf_secret".to_owned()));
    world.fails(&["pull", REPO], 1, &["org/tiny is gated", "accept its terms"]);
    world.fails(&["pull", REPO, "--token", "hf_wrong"], 1, &["refuses the token", "Invalid credentials"]);
    std::fs::write(world.home.path().join("token"), "hf_secret\n").unwrap();
    let output = world.run(&["pull", REPO, "-v"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(!output.stderr.contains("hf_secret"));
}

#[test]
fn what_was_perhaps_meant_is_told() {
    let world = World::new();
    world.stdout(&["pull", REPO, "-q"]);
    world.fails(&["inspect", "org/tinny", "--offline"], 1, &["did you mean org/tiny?"]);
    world.fails(&["inspect", "org/tinny"], 1, &["no such model", "did you mean org/tiny?"]);
    world.fails(&["inspect", "tiny"], 1, &["no such file", "did you mean org/tiny?"]);
    let near = world.snapshot().join("model.safetensor");
    world.fails(&["inspect", near.to_str().unwrap()], 1, &["did you mean ", "model.safetensors?"]);
}

#[test]
fn the_cache_is_listed_shown_and_emptied() {
    let world = World::new();
    assert_eq!(world.stdout(&["list"]), "");
    world.stdout(&["pull", REPO, "-q"]);
    world.server.publish(
        "org/other",
        &"a".repeat(40),
        &[("config.json", b"{\"architectures\":[\"GPT2\"]}".to_vec()), ("model.safetensors", noise(500, 3))],
    );
    world.stdout(&["pull", "org/other", "-q"]);
    world.server.forget();
    let list = world.json(&["list", "--json"]);
    let tiny = list.as_array().unwrap().iter().find(|model| model["name"] == REPO).unwrap();
    assert_eq!((&tiny["loadable"], &tiny["refs"][0]), (&true.into(), &"main".into()));
    assert!(tiny["format"].as_str().unwrap().contains("packed"), "{tiny}");
    let other = list.as_array().unwrap().iter().find(|model| model["name"] == "org/other").unwrap();
    assert_eq!(other["loadable"], false);
    assert!(!other["reason"].as_str().unwrap().contains("snapshots"), "{other}");
    let text = world.stdout(&["ls"]);
    assert!(text.contains("org/tiny") && text.contains("main (0123456)") && text.contains("no: "), "{text}");

    let show = world.json(&["show", REPO, "--json"]);
    assert_eq!((&show["license"], &show["parameters"]), (&"mit".into(), &35_682_816.into()));
    assert_eq!(show["summary"], "A small model of stories.");
    let text = world.stdout(&["show", REPO]);
    for part in
        ["licence", "mit", "A small model of stories.", "88.2 % ternary", "chat template:", "tokenizer.json"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        world.stdout(&["show", REPO, "--template"]).trim_end(),
        show["chat_template"].as_str().unwrap().trim_end()
    );
    assert_eq!(world.json(&["show", world.snapshot().to_str().unwrap(), "--json"])["license"], "mit");
    world.fails(&["show", "org/none"], 1, &["not in the cache", "bitnet pull org/none"]);

    world.fails(&["rm", REPO], 2, &["--yes"]);
    world.fails(&["rm", REPO, "org/none", "--yes"], 1, &["org/none is not in the cache"]);
    assert!(world.snapshot().exists(), "nothing goes if a name is wrong");
    let du = world.json(&["du", "--json"]);
    let removed = world.json(&["rm", REPO, "--yes", "--json"]);
    let size =
        du["models"].as_array().unwrap().iter().find(|model| model["repo"] == REPO).unwrap()["size"].clone();
    assert_eq!(removed["freed_bytes"], size);
    assert!(!world.folder().exists());
    assert!(world.server.seen("").is_empty(), "none of this needs the network");
}

#[test]
fn a_budget_is_offered_and_kept_when_told_to() {
    let world = World::new();
    world.stdout(&["pull", REPO, "-q"]);
    world.server.publish(
        "org/other",
        &"a".repeat(40),
        &[("config.json", b"{}".to_vec()), ("model.safetensors", noise(500, 3))],
    );
    world.stdout(&["pull", "org/other", "-q"]);
    let within = world.stdout(&["du", "--budget", "1GB"]);
    assert!(within.contains("nothing would go"), "{within}");
    let plan = world.json(&["du", "--budget", "1", "--json"]);
    assert_eq!(plan["models"].as_array().unwrap().len(), 1, "models of other programs are theirs: {plan}");
    assert_eq!((&plan["models"][0]["repo"], &plan["freed_bytes"]), (&REPO.into(), &0.into()));
    let all = world.json(&["du", "--budget", "1", "--all", "--json"]);
    assert_eq!(all["models"].as_array().unwrap().len(), 2);
    assert!(world.snapshot().exists(), "nothing goes unless told");
    world.run(&["du", "--budget", "1", "--prune"]);
    assert!(world.snapshot().exists(), "nothing goes unasked");
    let pruned = world.json(&["du", "--budget", "1", "--prune", "--yes", "--json"]);
    assert_eq!(pruned["freed_bytes"], plan["size"]);
    assert!(!world.folder().exists());
    assert!(world.stdout(&["du"]).contains("org/other"));
}

/// A model whose files are right and whose weights come slowly.
fn slow_world() -> (World, Vec<(&'static str, Vec<u8>)>) {
    let files = vec![
        ("config.json", b"{\"a\":1}".to_vec()),
        ("tokenizer.json", noise(3000, 5)),
        ("model.safetensors", noise(240_000, 7)),
    ];
    (World::with(&files), files)
}

fn assert_complete(world: &World, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        assert!(std::fs::read(world.snapshot().join(name)).unwrap() == *bytes, "{name} has other content");
    }
    let blobs = std::fs::read_dir(world.folder().join("blobs")).unwrap().flatten();
    let names: Vec<String> = blobs.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), files.len(), "{names:?}");
}

#[test]
fn a_pull_that_is_killed_anywhere_is_gone_on_from() {
    let (world, files) = slow_world();
    let weights = &files[2].1;
    let part = |name: &str| format!("GET /{REPO}/resolve/{COMMIT}/{name}");
    // Each run gets a little further: the server stops at a byte, and the process is killed there, again and again.
    let mut kills = 0;
    for (side, name, stops) in [
        (Side::Hub, "config.json", &[0, 1, 3][..]),
        (Side::Hub, "tokenizer.json", &[0, 1, 1499, 1000][..]),
        (Side::Store, "model.safetensors", &[0, 1, 2, 4095, 4096, 4097, 65_536, 65_537, 30_000, 50_000][..]),
    ] {
        for &stop in stops {
            world.server.behave();
            world.server.order(side, &part(name), 1, Fault::Stall(stop));
            if name == "config.json" {
                // It comes at the same time, and has its turn later.
                world.server.order(Side::Hub, &part("tokenizer.json"), 1, Fault::Stall(0));
            }
            world.server.forget();
            let before = partial(&world, name);
            let mut child = world.spawn();
            // Until what the server gave has arrived on the disk.
            while world.server.seen(&part(name)).iter().all(|seen| seen.side != side)
                || partial(&world, name) < before + stop as u64
            {
                assert!(child.try_wait().unwrap().is_none(), "{name} at {stop}: the pull ended by itself");
                std::thread::sleep(Duration::from_millis(2));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            assert!(!world.snapshot().join("model.safetensors").exists(), "{name} at {stop}");
            assert!(!world.folder().join("refs/main").exists());
            for (name, bytes) in &files {
                if let Ok(there) = std::fs::read(world.snapshot().join(name)) {
                    assert!(there == *bytes, "{name} is in the snapshot and is not whole");
                }
            }
        }
    }
    assert_eq!(kills, 17);
    world.server.behave();
    world.server.forget();
    world.stdout(&["pull", REPO, "-q"]);
    assert_complete(&world, &files);
    let last = world.server.seen(&part("model.safetensors"));
    let range = last.iter().find(|seen| seen.side == Side::Store).unwrap().headers["range"].clone();
    let from: u64 = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(from > 200_000 && from < weights.len() as u64, "{range}");
}

/// Bytes that are there of a download that has not ended.
fn partial(world: &World, name: &str) -> u64 {
    let content = world.repo.files.iter().find(|content| content.path == name).unwrap();
    let path = world.folder().join("blobs").join(format!("{}.incomplete", content.etag()));
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[test]
fn pulls_killed_at_odd_moments_leave_nothing_wrong() {
    let (world, files) = slow_world();
    for round in 0..25u64 {
        world.server.behave();
        world.server.order(Side::Store, "/model.safetensors", 9, Fault::Slow(3001, Duration::from_millis(1)));
        let mut child = world.spawn();
        // The moment is odd on purpose: nothing that is asserted depends on which it is.
        std::thread::sleep(Duration::from_millis(round * 7));
        let _ = child.kill();
        child.wait().unwrap();
        for (name, bytes) in &files {
            if let Ok(there) = std::fs::read(world.snapshot().join(name)) {
                assert!(there == *bytes, "{name} is in the snapshot and is not whole");
            }
        }
        if let Ok(commit) = std::fs::read_to_string(world.folder().join("refs/main")) {
            assert_eq!(commit, COMMIT);
            assert_complete(&world, &files);
        }
    }
    world.server.behave();
    world.stdout(&["pull", REPO, "-q"]);
    assert_complete(&world, &files);
}

#[test]
fn two_processes_at_once_share_the_work() {
    let (world, files) = slow_world();
    world.server.order(Side::Store, "/model.safetensors", 9, Fault::Slow(20_000, Duration::from_millis(20)));
    let mut children = [world.spawn(), world.spawn(), world.spawn()];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_complete(&world, &files);
    let fetched = world.server.seen("GET").into_iter().filter(|seen| seen.side == Side::Store).count();
    assert_eq!(fetched, 1, "two wait for the one that fetches");
}

#[test]
fn when_one_of_two_processes_is_killed_the_other_goes_on() {
    let (world, files) = slow_world();
    world.server.order(Side::Store, "/model.safetensors", 1, Fault::Stall(100_000));
    let mut first = world.spawn();
    while partial(&world, "model.safetensors") < 100_000 {
        assert!(first.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut second = world.spawn();
    while world.server.seen("HEAD").iter().filter(|seen| seen.path.contains("model.safetensors")).count() < 2
    {
        std::thread::sleep(Duration::from_millis(2));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.wait().unwrap().success());
    assert_complete(&world, &files);
    assert!(
        world
            .server
            .seen("GET")
            .iter()
            .any(|seen| seen.headers.get("range").is_some_and(|range| range == "bytes=100000-"))
    );
}
