//! Looking for damage in the cache, and whether the Hub answers.

use bitnet_hub::{Cache, CacheFault, FaultKind, Hub, HubConfig, HubError};

use crate::server::{Fault, Side};
use crate::support::{COMMIT, REPO, TAKEN, World, pull, token};

fn check(world: &World, deep: bool) -> bitnet_hub::CacheCheck {
    let cache = Cache::new(world.cache());
    cache.check(&cache.repos().unwrap(), deep, &mut |done, total| assert!(done <= total))
}

fn kinds(faults: &[CacheFault]) -> Vec<&FaultKind> {
    faults.iter().map(|fault| &fault.kind).collect()
}

#[test]
fn a_cache_that_is_whole_has_no_faults() {
    let world = World::new();
    assert!(check(&world, true).faults.is_empty(), "nothing is there");
    pull(world.config(), REPO).unwrap();
    let deep = check(&world, true);
    assert_eq!((deep.faults.as_slice(), deep.files, deep.hashed), ([].as_slice(), TAKEN.len(), TAKEN.len()));
    assert_eq!((check(&world, false).hashed, deep.held_locks), (0, 0));
}

#[test]
fn damage_is_found_and_mended_and_the_next_pull_fetches_what_is_missing() {
    let world = World::new();
    pull(world.config(), REPO).unwrap();
    // A changed byte: only the hash tells.
    let blob = world.blob("model.safetensors");
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    // A content that is gone, what a killed process left, a reference to nothing, a download that did not end.
    std::fs::remove_file(world.blob("tokenizer.json")).unwrap();
    std::fs::write(world.snapshot().join("config.json.00000001.tmp"), "x").unwrap();
    std::fs::write(world.folder().join("refs/v1"), "f".repeat(40)).unwrap();
    world.leave("pytorch_model.bin", &[0; 77]);

    assert_eq!(check(&world, false).faults.len(), 4);
    let found = check(&world, true);
    let broken = found.faults.iter().find(|fault| fault.kind == FaultKind::BrokenLink).unwrap();
    assert_eq!(broken.path, world.snapshot().join("tokenizer.json"));
    assert!(kinds(&found.faults).contains(&&FaultKind::Temporary));
    assert!(kinds(&found.faults).contains(&&FaultKind::LostReference));
    let wrong = found.faults.iter().find(|fault| matches!(fault.kind, FaultKind::WrongHash { .. })).unwrap();
    assert_eq!((&wrong.path, wrong.repo.as_str()), (&blob, REPO));
    let incomplete = FaultKind::Incomplete { size: 77, busy: false, age: None };
    let left = found.faults.iter().find(|fault| fault.path == world.incomplete("pytorch_model.bin")).unwrap();
    assert_eq!(std::mem::discriminant(&left.kind), std::mem::discriminant(&incomplete));
    assert_eq!(found.faults.len(), 5);

    let cache = Cache::new(world.cache());
    // The blob and its link, the broken link, the temporary file, the reference.
    assert_eq!(cache.mend(&found.faults).unwrap(), 5);
    let after = check(&world, true);
    assert_eq!(after.faults.len(), 1, "a download that did not end stays: {:?}", after.faults);
    pull(world.config(), REPO).unwrap();
    world.assert_snapshot(&TAKEN);
    assert_eq!(std::fs::read_to_string(world.folder().join("refs/main")).unwrap(), COMMIT);
}

#[test]
fn downloads_under_way_are_told_from_those_that_ended() {
    let world = World::new();
    world.leave("model.safetensors", &[0; 5]);
    let busy = || {
        let faults = check(&world, false).faults;
        match faults.as_slice() {
            [CacheFault { kind: FaultKind::Incomplete { size: 5, busy, .. }, .. }] => *busy,
            other => panic!("{other:?}"),
        }
    };
    assert!(!busy(), "there is no lock");
    let etag = world.content("model.safetensors").etag();
    let lock = world.cache().join(".locks/models--org--model").join(format!("{etag}.lock"));
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let file = std::fs::File::create(&lock).unwrap();
    assert!(!busy(), "a lock that nobody holds is only a file");
    file.lock().unwrap();
    assert!(busy());
    assert_eq!(check(&world, false).held_locks, 1);
}

#[test]
fn the_hub_is_asked_once_whether_it_answers() {
    let world = World::new();
    let reach = |config| Hub::new(config).unwrap().reach();
    assert_eq!(reach(world.config()).unwrap().user, None);
    let with = |text: &str| HubConfig { token: token(text), ..world.config() };
    assert_eq!(reach(with("hf_person")).unwrap().user.as_deref(), Some("person"));
    let refused = reach(with("hf_other")).unwrap_err();
    assert!(matches!(refused, HubError::BadToken { .. }), "{refused}");
    world.server.order(Side::Hub, "models?limit", 1, Fault::Status(503, Vec::new()));
    world.server.forget();
    assert!(matches!(reach(world.config()), Err(HubError::Server { status: 503, .. })));
    assert_eq!(world.server.seen("").len(), 1);
    let offline = HubConfig { offline: true, ..world.config() };
    assert!(matches!(reach(offline), Err(HubError::Offline { .. })));
}
