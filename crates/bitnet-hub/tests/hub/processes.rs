//! Several at a time, and what an end at any moment leaves behind.

use std::sync::Barrier;
use std::time::Duration;

use bitnet_hub::{Hub, silent};

use crate::server::{Fault, Side};
use crate::support::{REPO, TAKEN, World, name, pull, pull_watched};

#[test]
fn two_pulls_at_once_share_the_work() {
    let world = World::new();
    world.server.order(Side::Store, "/model.safetensors", 1, Fault::Slow(100_000, Duration::from_millis(50)));
    let barrier = Barrier::new(2);
    let run = || {
        let hub = Hub::new(world.config()).unwrap();
        let plan = hub.plan(&name(REPO), &silent).unwrap();
        barrier.wait();
        hub.fetch(&plan, &silent).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(run);
        scope.spawn(run);
    });
    world.assert_snapshot(&TAKEN);
    world.assert_clean();
    let store = world.server.seen("GET").into_iter().filter(|seen| seen.side == Side::Store).count();
    assert_eq!(store, 1, "the second waits for the first and finds the file");
}

#[test]
fn a_file_that_another_process_writes_is_waited_for() {
    let world = World::new();
    let path = world
        .cache()
        .join(format!(".locks/models--org--model/{}.lock", world.content("model.safetensors").etag()));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lock = std::fs::File::create(path).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| pull_watched(world.config(), REPO));
        while world.server.seen("GET /org").len() < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!world.incomplete("model.safetensors").exists());
        // The other ends without having written anything.
        lock.unlock().unwrap();
        let (found, events) = pull.join().unwrap();
        found.unwrap();
        assert!(events.iter().filter(|event| event.contains("Waiting")).count() <= 1, "{events:?}");
    });
    world.assert_snapshot(&TAKEN);
}

#[test]
fn a_cache_that_cannot_be_written_can_be_read() {
    let world = World::new();
    pull(world.config(), REPO).unwrap();
    let refs = world.folder().join("refs/main");
    std::fs::remove_file(&refs).unwrap();
    // A folder in its place: the reference cannot be written, whoever runs this.
    std::fs::create_dir(&refs).unwrap();
    pull(world.config(), REPO).unwrap();
}
