//! What a pull does when things go wrong: it goes on from where it was, or says what to do and leaves nothing wrong.

use std::ops::ControlFlow;
use std::time::Duration;

use bitnet_hub::{Event, Hub, HubConfig, HubError, silent};

use crate::server::{Fault, Side};
use crate::support::{COMMIT, REPO, TAKEN, WEIGHTS, World, files, name, pull, pull_watched, token};

const MODEL: &str = "/model.safetensors";

fn range(world: &World) -> Vec<Option<String>> {
    let seen = world.server.seen(&format!("GET /{REPO}/resolve/{COMMIT}{MODEL}"));
    seen.iter()
        .filter(|seen| seen.side == Side::Store)
        .map(|seen| seen.headers.get("range").cloned())
        .collect()
}

#[test]
fn a_connection_that_breaks_is_gone_on_from() {
    let world = World::new();
    for at in [0, 1, 300_000] {
        world.server.order(Side::Store, MODEL, 1, Fault::Drop(at));
    }
    let (found, events) = pull_watched(world.config(), REPO);
    found.unwrap();
    world.assert_snapshot(&TAKEN);
    world.assert_clean();
    assert_eq!(range(&world), [None, None, Some("bytes=1-".into()), Some("bytes=300001-".into())]);
    assert_eq!(events.iter().filter(|event| event.starts_with("Retry")).count(), 3, "{events:?}");
}

#[test]
fn attempts_without_progress_come_to_an_end_and_what_came_stays() {
    let world = World::new();
    world.server.order(Side::Store, MODEL, 1, Fault::Drop(1000));
    world.server.order(Side::Store, MODEL, 99, Fault::Drop(0));
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(matches!(error, HubError::Interrupted { .. }), "{error:?}");
    assert!(error.to_string().contains("goes on from where it was"), "{error}");
    assert!(!world.snapshot().join("model.safetensors").exists());
    assert!(!world.folder().join("refs/main").exists());
    assert_eq!(Hub::new(world.config()).unwrap().find(&name(REPO)).unwrap(), None);
    assert_eq!(
        std::fs::read(world.incomplete("model.safetensors")).unwrap(),
        world.content("model.safetensors").bytes[..1000]
    );
    world.server.behave();
    world.server.forget();
    pull(world.config(), REPO).unwrap();
    assert_eq!(range(&world), [Some("bytes=1000-".into())]);
    world.assert_snapshot(&TAKEN);
}

#[test]
fn a_stall_ends_in_time_and_is_gone_on_from() {
    let world = World::new();
    world.server.order(Side::Store, MODEL, 1, Fault::Stall(5000));
    let mut config = world.config();
    config.stall_timeout = Duration::from_millis(300);
    let (found, events) = pull_watched(config, REPO);
    found.unwrap();
    assert!(events.iter().any(|event| event.contains("nothing came for too long")), "{events:?}");
    assert_eq!(range(&world), [None, Some("bytes=5000-".into())]);
    world.assert_snapshot(&TAKEN);
}

#[test]
fn every_kind_of_beginning_ends_in_the_right_file() {
    let bytes = files()[3].1.clone();
    let mut wrong = bytes[..1000].to_vec();
    wrong[10] ^= 1;
    let longer = [&bytes[..], b"more"].concat();
    let mut all_wrong = bytes.clone();
    all_wrong[0] ^= 1;
    for (what, beginning, ranges) in [
        ("nothing", &bytes[..0], vec![None]),
        ("a byte", &bytes[..1], vec![Some("bytes=1-")]),
        ("all but a byte", &bytes[..WEIGHTS - 1], vec![Some("bytes=700000-")]),
        ("all", &bytes[..], vec![]),
        ("more than all", &longer[..], vec![None]),
        ("something else", &wrong[..], vec![Some("bytes=1000-"), None]),
        ("all of something else", &all_wrong[..], vec![None]),
    ] {
        let world = World::new();
        world.leave("model.safetensors", beginning);
        pull(world.config(), REPO).unwrap();
        world.assert_snapshot(&TAKEN);
        world.assert_clean();
        let ranges: Vec<_> = ranges.into_iter().map(|range| range.map(str::to_owned)).collect();
        assert_eq!(range(&world), ranges, "{what}");
    }
}

#[test]
fn servers_that_cannot_go_on_start_again() {
    for fault in [Fault::NoRanges, Fault::OtherRange, Fault::Status(416, Vec::new())] {
        let world = World::new();
        world.leave("model.safetensors", &world.content("model.safetensors").bytes[..1234]);
        world.server.order(Side::Store, MODEL, 1, fault.clone());
        pull(world.config(), REPO).unwrap();
        world.assert_snapshot(&TAKEN);
        world.assert_clean();
        assert!(range(&world).len() <= 2, "{fault:?}");
    }
}

#[test]
fn small_files_are_gone_on_from_only_if_they_are_the_same() {
    let world = World::new();
    world.leave("tokenizer.json", b"{");
    pull(world.config(), REPO).unwrap();
    world.assert_snapshot(&TAKEN);
    let seen = &world
        .server
        .seen("GET /org/model/resolve/0123456789abcdef0123456789abcdef01234567/tokenizer.json")[0];
    assert_eq!(seen.headers["range"], "bytes=1-");
    assert_eq!(seen.headers["if-range"], format!("\"{}\"", world.content("tokenizer.json").etag()));
}

#[test]
fn wrong_content_never_reaches_the_snapshot() {
    for part in [MODEL, "/config.json"] {
        let world = World::new();
        for side in [Side::Store, Side::Hub] {
            world.server.order(side, &format!("GET /{REPO}/resolve/{COMMIT}{part}"), 99, Fault::Damage);
        }
        if part == MODEL {
            // On the Hub's side there is only the redirect, whose body nobody reads.
            world.server.behave();
            world.server.order(Side::Store, part, 99, Fault::Damage);
        }
        let error = pull(world.config(), REPO).unwrap_err();
        assert!(matches!(error, HubError::WrongHash { .. }), "{error:?}");
        assert!(error.to_string().contains("thrown away"), "{error}");
        assert!(!world.snapshot().join("model.safetensors").exists());
        assert!(!world.snapshot().join(&part[1..]).exists() && !world.blob(&part[1..]).exists());
        assert!(!world.folder().join("refs/main").exists());
        // Other files, which came at the same time and were given up, may wait to be gone on from.
        assert!(!world.incomplete(&part[1..]).exists());
        world.server.behave();
        pull(world.config(), REPO).unwrap();
        world.assert_snapshot(&TAKEN);
    }
}

#[test]
fn damage_that_passes_is_got_over() {
    let world = World::new();
    world.server.order(Side::Store, MODEL, 1, Fault::Damage);
    let (found, events) = pull_watched(world.config(), REPO);
    found.unwrap();
    assert!(events.iter().any(|event| event.contains("WrongHash")), "{events:?}");
    world.assert_snapshot(&TAKEN);
}

#[test]
fn other_sizes_than_announced_are_refused() {
    let world = World::new();
    world.server.order(Side::Store, MODEL, 99, Fault::Longer);
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(matches!(error, HubError::WrongSize { expected: 700_001, found: 700_002, .. }), "{error:?}");
    world.server.behave();
    world.server.order(Side::Store, MODEL, 99, Fault::Page);
    assert!(matches!(pull(world.config(), REPO), Err(HubError::WrongSize { .. })));
    assert!(!world.snapshot().join("model.safetensors").exists());
}

#[test]
fn login_pages_are_told_from_the_hub() {
    let world = World::new();
    world.server.order(Side::Hub, "/api/", 1, Fault::Page);
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(
        matches!(error, HubError::BadAnswer { .. }) && error.to_string().contains("login page"),
        "{error}"
    );
    world.server.order(Side::Hub, "HEAD", 1, Fault::Page);
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(error.to_string().contains("X-Repo-Commit"), "{error}");
}

/// The error of a pull that the Hub refuses with a status at the beginning.
fn refused(status: u16, headers: &[(&'static str, &str)], with_token: bool) -> HubError {
    let world = World::new();
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    world.server.order(Side::Hub, "/api/models", 99, Fault::Status(status, headers));
    let config = HubConfig { token: if with_token { token("hf_x") } else { None }, ..world.config() };
    let error = pull(config, REPO).unwrap_err();
    assert!(!world.folder().exists());
    assert!(!error.to_string().contains("hf_x"));
    error
}

#[test]
fn refusals_say_what_to_do() {
    let code = |code| [("x-error-code", code)];
    let gated = refused(403, &code("GatedRepo"), false);
    assert!(matches!(gated, HubError::Gated { token: false, .. }), "{gated:?}");
    assert!(gated.to_string().contains("/org/model, then set HF_TOKEN"), "{gated}");
    let gated = refused(403, &code("GatedRepo"), true);
    assert!(gated.to_string().contains("has no access yet"), "{gated}");
    for (status, headers) in [(401, &code("RepoNotFound")[..]), (404, &code("RepoNotFound")), (401, &[])] {
        let error = refused(status, headers, false);
        assert!(
            matches!(error, HubError::RepoNotFound { .. }) && error.to_string().contains("spelling"),
            "{error}"
        );
    }
    let error = refused(401, &[("x-error-message", "Invalid credentials in Authorization header")], true);
    assert!(
        matches!(error, HubError::BadToken { .. }) && error.to_string().contains("Invalid credentials"),
        "{error}"
    );
    let error = refused(404, &code("RevisionNotFound"), false);
    assert!(
        matches!(error, HubError::RevisionNotFound { .. }) && error.to_string().contains("\"main\""),
        "{error}"
    );
    let error = refused(403, &[("x-error-message", "blocked by policy")], true);
    assert!(matches!(error, HubError::Forbidden { .. }) && error.to_string().contains("blocked"), "{error}");
    let error = refused(418, &[], false);
    assert!(matches!(error, HubError::Server { status: 418, .. }), "{error:?}");
}

#[test]
fn a_file_that_vanished_is_named() {
    let world = World::new();
    world.server.order(
        Side::Hub,
        "HEAD /org/model/resolve",
        99,
        Fault::Status(404, vec![("x-error-code", "EntryNotFound".into())]),
    );
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(matches!(&error, HubError::FileNotFound { .. }), "{error:?}");
}

#[test]
fn trouble_of_the_server_is_waited_for() {
    for (status, times) in [(500, 1), (502, 2), (503, 1), (504, 1), (408, 1), (429, 2)] {
        let world = World::new();
        world.server.order(
            Side::Hub,
            "/api/models",
            times,
            Fault::Status(status, vec![("retry-after", "0".into())]),
        );
        world.server.order(Side::Hub, "HEAD", 1, Fault::Status(status, Vec::new()));
        world.server.order(Side::Store, MODEL, 1, Fault::Status(status, Vec::new()));
        let (found, events) = pull_watched(world.config(), REPO);
        found.unwrap();
        assert_eq!(
            events.iter().filter(|event| event.starts_with("Retry")).count(),
            times + 2,
            "{status}: {events:?}"
        );
        world.assert_snapshot(&TAKEN);
    }
    let error = refused(503, &[], false);
    assert!(matches!(error, HubError::Server { status: 503, .. }), "{error:?}");
}

#[test]
fn retry_after_is_obeyed_and_told_when_it_is_long() {
    let world = World::new();
    world.server.order(Side::Hub, "/api/models", 1, Fault::Status(429, vec![("retry-after", "1".into())]));
    let (found, events) = pull_watched(world.config(), REPO);
    found.unwrap();
    assert!(events[0].contains("delay: 1s"), "{events:?}");
    let error = refused(429, &[("retry-after", "3600")], false);
    assert!(matches!(error, HubError::RateLimited { wait: Some(3600), .. }), "{error:?}");
    assert!(error.to_string().contains("3600 seconds"), "{error}");
    let error = refused(429, &[("ratelimit", "\"api\";r=0;t=300")], false);
    assert!(matches!(error, HubError::RateLimited { wait: Some(300), .. }), "{error:?}");
}

#[test]
fn expired_addresses_are_asked_for_again() {
    let world = World::new();
    world.server.order(Side::Store, MODEL, 1, Fault::Status(403, Vec::new()));
    pull(world.config(), REPO).unwrap();
    world.assert_snapshot(&TAKEN);
    assert_eq!(
        world.server.seen(&format!("GET /{REPO}/resolve/{COMMIT}{MODEL}")).len(),
        4,
        "twice the Hub and the store"
    );
}

#[test]
fn redirects_in_circles_and_to_nowhere_are_refused() {
    for (to, part) in
        [("/api/models/x", "more than 10 redirects"), ("ftp://x/y", "no address"), ("", "no address")]
    {
        let world = World::new();
        world.server.order(Side::Hub, "/api/models", 99, Fault::Redirect(to.to_owned()));
        let error = pull(world.config(), REPO).unwrap_err();
        assert!(matches!(error, HubError::BadRedirect { .. }) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn servers_that_cannot_be_reached_are_named() {
    let world = World::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = HubConfig { endpoint: format!("http://{closed}"), ..world.config() };
    let (error, events) = pull_watched(config, REPO);
    let error = error.unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&closed.to_string()) && error.to_string().contains("--offline"),
        "{error}"
    );
    assert_eq!(events.len(), 2, "{events:?}");
}

#[test]
fn files_without_a_hash_are_refused() {
    let world = World::new();
    world.server.change(REPO, |repo| repo.detailed = false);
    let headers = vec![
        ("x-repo-commit", COMMIT.to_owned()),
        ("etag", "\"abc\"".to_owned()),
        ("content-length", "5".to_owned()),
    ];
    world.server.order(Side::Hub, "HEAD", 99, Fault::Status(200, headers));
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(matches!(error, HubError::Unverifiable { .. }), "{error:?}");
}

#[test]
fn a_hash_that_contradicts_the_list_is_refused() {
    let world = World::new();
    let etag = "0".repeat(64);
    let headers = vec![
        ("x-repo-commit", COMMIT.to_owned()),
        ("x-linked-etag", etag),
        ("x-linked-size", WEIGHTS.to_string()),
    ];
    world.server.order(
        Side::Hub,
        &format!("HEAD /{REPO}/resolve/{COMMIT}{MODEL}"),
        9,
        Fault::Status(302, headers),
    );
    let error = pull(world.config(), REPO).unwrap_err();
    // Without a location the redirect leads nowhere, which is the first thing wrong with it.
    assert!(matches!(error, HubError::BadRedirect { .. }), "{error:?}");
    world.server.behave();
    let headers = vec![
        ("x-repo-commit", COMMIT.to_owned()),
        ("x-linked-etag", "0".repeat(64)),
        ("x-linked-size", "1".to_owned()),
    ];
    world.server.order(
        Side::Hub,
        &format!("HEAD /{REPO}/resolve/{COMMIT}{MODEL}"),
        9,
        Fault::Status(200, headers),
    );
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(error.to_string().contains("of the list"), "{error}");
}

#[test]
fn repositories_without_models_say_what_they_hold() {
    let world = World::with(&[("README.md", b"x".to_vec()), ("model.safetensors", vec![0; 9])]);
    let error = pull(world.config(), REPO).unwrap_err();
    assert!(error.to_string().contains("no config.json"), "{error}");
    let world = World::with(&[("README.md", b"x".to_vec())]);
    assert!(matches!(pull(world.config(), REPO), Err(HubError::NoModel { .. })));
    assert!(!world.cache().exists());
}

#[test]
fn whoever_watches_may_stop() {
    let world = World::new();
    let hub = Hub::new(world.config()).unwrap();
    let plan = hub.plan(&name(REPO), &silent).unwrap();
    let stop = |event: Event<'_>| match event {
        Event::Progress { file: "model.safetensors", bytes } if bytes > 100_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(matches!(hub.fetch(&plan, &stop), Err(HubError::Stopped)));
    assert!(
        world.incomplete("model.safetensors").exists()
            && !world.snapshot().join("model.safetensors").exists()
    );
    hub.fetch(&plan, &silent).unwrap();
    world.assert_snapshot(&TAKEN);
}

#[test]
fn a_disk_without_room_is_told_before_anything_comes() {
    let world = World::new();
    let huge = 1u64 << 60;
    let hub = Hub::new(world.config()).unwrap();
    world.server.change(REPO, |repo| repo.detailed = false);
    let headers = vec![
        ("x-repo-commit", COMMIT.to_owned()),
        ("x-linked-etag", world.content("model.safetensors").etag()),
        ("x-linked-size", huge.to_string()),
    ];
    world.server.order(
        Side::Hub,
        &format!("HEAD /{REPO}/resolve/{COMMIT}{MODEL}"),
        9,
        Fault::Status(200, headers),
    );
    let plan = hub.plan(&name(REPO), &silent).unwrap();
    let error = hub.fetch(&plan, &silent).unwrap_err();
    assert!(matches!(error, HubError::DiskFull { free: Some(_), .. }), "{error:?}");
    assert!(error.to_string().contains("are free") && error.to_string().contains("bitnet du"), "{error}");
    assert!(world.server.seen("GET /org").is_empty());
}
