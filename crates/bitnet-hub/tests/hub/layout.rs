//! What a pull leaves in the cache, and what it asks the Hub.

use std::path::Path;

use bitnet_hub::{FileState, Hub, HubError, WeightKind, silent};

use crate::server::{Fault, Side};
use crate::support::{COMMIT, REPO, TAKEN, World, files, name, pull, pull_watched, token};

#[test]
fn a_pull_leaves_what_huggingface_hub_would() {
    let world = World::new();
    let found = pull(world.config(), REPO).unwrap();
    assert_eq!((found.path.clone(), found.kind), (world.snapshot(), WeightKind::Safetensors));
    world.assert_snapshot(&TAKEN);
    world.assert_clean();
    assert_eq!(std::fs::read_to_string(world.folder().join("refs/main")).unwrap(), COMMIT);
    for path in TAKEN {
        let link = std::fs::read_link(world.snapshot().join(path)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(world.content(path).etag()));
        let lock = format!(".locks/models--org--model/{}.lock", world.content(path).etag());
        assert!(world.cache().join(lock).exists());
    }
    let tag = std::fs::read_to_string(world.cache().join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let world = World::new();
    pull(world.config(), REPO).unwrap();
    world.server.forget();
    pull(world.config(), REPO).unwrap();
    assert_eq!(world.server.seen("resolve").len(), 0, "the list tells that all is there");
    // Another commit with the same weights.
    let next = "f".repeat(40);
    world.server.change(REPO, |repo| {
        repo.commit = next.clone();
        repo.files[2].bytes = b"{\"a\":1}".to_vec();
    });
    let hub = Hub::new(world.config()).unwrap();
    let plan = hub.plan(&name(REPO), &silent).unwrap();
    assert_eq!(plan.missing_bytes(), 7);
    hub.fetch(&plan, &silent).unwrap();
    assert_eq!(world.server.seen("GET /org/model/resolve").len(), 1);
    assert_eq!(std::fs::read_to_string(world.folder().join("refs/main")).unwrap(), next);
    assert!(world.snapshot().join("config.json").exists(), "the old snapshot stays");
    let link = world.folder().join("snapshots").join(next).join("model.safetensors");
    assert_eq!(std::fs::read(link).unwrap(), world.content("model.safetensors").bytes);
}

#[test]
fn a_model_in_the_cache_is_found_without_the_network() {
    let world = World::new();
    let hub = Hub::new(world.config()).unwrap();
    assert_eq!(hub.find(&name(REPO)).unwrap(), None);
    pull(world.config(), REPO).unwrap();
    world.server.forget();
    for text in [REPO, "org/model@main", &format!("org/model@{COMMIT}")] {
        let found = hub.find(&name(text)).unwrap().unwrap();
        assert_eq!((found.path, found.thin), (world.snapshot(), false), "{text}");
    }
    assert_eq!(hub.find(&name("org/model@other")).unwrap(), None);
    assert_eq!(hub.find(&name("org/model:pytorch")).unwrap(), None);
    assert_eq!(hub.find(&name("org/other")).unwrap(), None);
    assert_eq!(world.server.seen("").len(), 0);
    // Without its weights it is none.
    std::fs::remove_file(world.blob("model.safetensors")).unwrap();
    assert_eq!(hub.find(&name(REPO)).unwrap(), None);
}

#[test]
fn offline_nothing_is_asked() {
    let world = World::new();
    let mut config = world.config();
    config.offline = true;
    let error = pull(config, REPO).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error:?}");
    assert!(error.to_string().contains("bitnet pull org/model"), "{error}");
    assert_eq!(world.server.seen("").len(), 0);
}

#[test]
fn revisions_become_references_and_commits_do_not() {
    let world = World::new();
    world.server.change(REPO, |repo| repo.revisions.extend(["v1".to_owned(), "refs/pr/3".to_owned()]));
    pull(world.config(), "org/model@v1").unwrap();
    pull(world.config(), "org/model@refs/pr/3").unwrap();
    pull(world.config(), &format!("org/model@{COMMIT}")).unwrap();
    let mut refs = crate::support::files_below(&world.folder().join("refs"));
    refs.sort();
    assert_eq!(refs, ["refs/pr/3", "v1"]);
    assert_eq!(world.server.seen("revision/refs%2Fpr%2F3").len(), 1);
}

#[test]
fn shards_come_from_the_index_and_files_lie_in_folders() {
    let index = r#"{"weight_map":{"a":"part 1/m-1.safetensors","b":"m-2.safetensors"}}"#;
    let world = World::with(&[
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.as_bytes().to_vec()),
        ("part 1/m-1.safetensors", vec![1; 10]),
        ("m-2.safetensors", vec![2; 20]),
        ("m-3.safetensors", vec![3; 30]),
    ]);
    let found = pull(world.config(), REPO).unwrap();
    assert!(found.thin, "there is no tokenizer");
    world.assert_snapshot(&[
        "config.json",
        "m-2.safetensors",
        "model.safetensors.index.json",
        "part 1/m-1.safetensors",
    ]);
    let link = std::fs::read_link(world.snapshot().join("part 1/m-1.safetensors")).unwrap();
    assert!(link.starts_with("../../../blobs"), "{link:?}");
}

#[test]
fn one_gguf_file_is_chosen() {
    let world = World::with(&[
        ("README.md", b"# m".to_vec()),
        ("m-tq1_0.gguf", vec![1; 10]),
        ("m-tq2_0.gguf", vec![2; 20]),
        ("m-f16.gguf", vec![3; 90]),
    ]);
    let found = pull(world.config(), REPO).unwrap();
    assert_eq!(found.path, world.snapshot().join("m-tq2_0.gguf"));
    let found = pull(world.config(), "org/model:tq1_0").unwrap();
    assert_eq!(found.path, world.snapshot().join("m-tq1_0.gguf"));
    world.assert_snapshot(&["README.md", "m-tq1_0.gguf", "m-tq2_0.gguf"]);
    let hub = Hub::new(world.config()).unwrap();
    assert_eq!(hub.find(&name(REPO)).unwrap().unwrap().path, world.snapshot().join("m-tq2_0.gguf"));
    assert!(matches!(pull(world.config(), "org/model:q4_0"), Err(HubError::NoSuchChoice { .. })));
}

#[test]
fn without_links_snapshots_hold_the_files() {
    let world = World::new();
    let mut config = world.config();
    config.symlinks = false;
    pull(config.clone(), REPO).unwrap();
    world.assert_snapshot(&TAKEN);
    assert!(!world.snapshot().join("config.json").is_symlink());
    assert!(!world.blob("model.safetensors").exists(), "nothing is there twice");
    world.server.forget();
    let found = pull(config.clone(), REPO).unwrap();
    assert_eq!(world.server.seen("GET /org").len(), 0);
    assert_eq!(Hub::new(config).unwrap().find(&name(REPO)).unwrap(), Some(found));
}

#[test]
fn lists_without_sizes_and_hashes_are_enough() {
    let world = World::new();
    world.server.change(REPO, |repo| repo.detailed = false);
    let hub = Hub::new(world.config()).unwrap();
    let plan = hub.plan(&name(REPO), &silent).unwrap();
    let total: usize = TAKEN.iter().map(|path| world.content(path).bytes.len()).sum();
    assert_eq!((plan.total_bytes(), plan.missing_bytes()), (total as u64, total as u64));
    assert!(plan.files.iter().all(|file| file.state == FileState::Missing));
    hub.fetch(&plan, &silent).unwrap();
    world.assert_snapshot(&TAKEN);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let world = World::new();
    world.server.change(REPO, |repo| repo.token = Some("hf_secret".to_owned()));
    let mut config = world.config();
    config.token = token("hf_secret");
    let (found, events) = pull_watched(config, REPO);
    found.unwrap();
    let all = world.server.seen("");
    let with = |side| {
        let of_side: Vec<_> = all.iter().filter(|seen| seen.side == side).collect();
        (of_side.len(), of_side.iter().filter(|seen| seen.headers.contains_key("authorization")).count())
    };
    let (hub, hub_with) = with(Side::Hub);
    assert_eq!(hub, hub_with);
    assert_eq!(with(Side::Store), (1, 0));
    assert!(all.iter().all(|seen| seen.headers["accept-encoding"] == "identity"));
    assert!(all.iter().all(|seen| seen.headers["user-agent"].starts_with("bitnet/")));
    assert!(!format!("{events:?}").contains("hf_secret"));
}

#[test]
fn renamed_repositories_are_followed_with_the_token() {
    let world = World::new();
    world.server.publish("org/new", COMMIT, &files());
    world.server.change(REPO, |repo| repo.files.clear());
    let old = format!("GET /api/models/{REPO}");
    world.server.order(
        Side::Hub,
        &old,
        1,
        Fault::Redirect("/api/models/org/new/revision/main?blobs=true".into()),
    );
    for path in TAKEN {
        let to = format!("/org/new/resolve/{COMMIT}/{path}");
        world.server.order(Side::Hub, &format!("/{REPO}/resolve/{COMMIT}/{path}"), 9, Fault::Redirect(to));
    }
    let mut config = world.config();
    config.token = token("hf_x");
    pull(config, REPO).unwrap();
    world.assert_snapshot(&TAKEN);
    let followed = world.server.seen("/org/new/");
    assert!(
        followed
            .iter()
            .filter(|seen| seen.side == Side::Hub)
            .all(|seen| seen.headers.contains_key("authorization"))
    );
}

#[test]
fn a_token_that_left_home_does_not_come_back() {
    let world = World::new();
    // The Hub sends to the store, the store back to the Hub.
    let back = format!("{}/org/model/resolve/{COMMIT}/tokenizer.json?back", world.server.url());
    let there = format!("{}/away", world.server.store_url());
    world.server.order(
        Side::Hub,
        "GET /org/model/resolve/0123456789abcdef0123456789abcdef01234567/tokenizer.json",
        1,
        Fault::Redirect(there),
    );
    world.server.order(Side::Store, "GET /away", 1, Fault::Redirect(back));
    let mut config = world.config();
    config.token = token("hf_x");
    pull(config, REPO).unwrap();
    let last = world.server.seen("?back");
    assert_eq!(last.len(), 1);
    assert!(!last[0].headers.contains_key("authorization"));
    assert!(!world.server.seen("/away")[0].headers.contains_key("authorization"));
}

#[test]
fn hostile_names_never_leave_the_cache() {
    let world = World::new();
    for path in ["../../escape.txt", "/tmp/escape.txt", "a/../../b"] {
        world.server.change(REPO, |repo| repo.files[0].path = path.to_owned());
        let error = pull(world.config(), REPO).unwrap_err();
        assert!(matches!(error, HubError::BadAnswer { .. }), "{error:?}");
    }
    world.server.publish(REPO, "../../main", &files());
    world.server.change(REPO, |repo| repo.revisions.push("main".to_owned()));
    assert!(matches!(pull(world.config(), REPO), Err(HubError::BadAnswer { .. })));
    assert!(!world.folder().exists());
}
