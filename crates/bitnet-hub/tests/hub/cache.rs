//! Listing, removing and budgets.

use std::time::{Duration, SystemTime};

use bitnet_hub::{Cache, Hub, HubError, Removal};

use crate::support::{COMMIT, REPO, TAKEN, WEIGHTS, World, files, files_below, name, pull};

const NEXT: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A cache with two revisions that share all but the configuration.
fn two_revisions() -> World {
    let world = World::new();
    pull(world.config(), &format!("{REPO}@main")).unwrap();
    world.server.change(REPO, |repo| {
        repo.commit = NEXT.to_owned();
        repo.files[2].bytes = b"{\"new\":1}".to_vec();
    });
    pull(world.config(), REPO).unwrap();
    world
}

fn cache(world: &World) -> Cache {
    Cache::new(world.cache())
}

fn remove(world: &World, text: &str) -> (Removal, u64) {
    let removal = cache(world).plan_removal(&name(text)).unwrap();
    let freed = cache(world).remove(&removal).unwrap();
    (removal, freed)
}

#[test]
fn the_list_tells_revisions_files_and_sizes() {
    let world = two_revisions();
    std::fs::create_dir_all(world.cache().join("datasets--a--b/snapshots")).unwrap();
    std::fs::create_dir_all(world.cache().join("blobs/00")).unwrap();
    world.leave("pytorch_model.bin", &[0; 77]);
    let repos = cache(&world).repos().unwrap();
    assert_eq!(repos.len(), 1);
    let repo = &repos[0];
    assert_eq!((repo.repo.as_str(), repo.revisions.len()), (REPO, 2));
    let main = repo.revisions.iter().find(|revision| revision.commit == NEXT).unwrap();
    assert_eq!(main.refs, ["main"]);
    let names: Vec<&str> = main.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, TAKEN);
    assert!(main.size > WEIGHTS as u64 && main.last_used.is_some());
    assert_eq!((repo.leftovers.len(), repo.leftovers[0].size, repo.leftovers[0].incomplete), (1, 77, true));
    let once: usize = TAKEN.iter().map(|path| world.content(path).bytes.len()).sum();
    assert_eq!(Cache::size(&repos), once as u64 + 9 + 77, "what both share counts once");
    assert!(Cache::new(world.dir.path().join("none")).repos().unwrap().is_empty());
}

#[test]
fn removing_a_revision_leaves_what_others_need() {
    let world = two_revisions();
    let config = world.content("config.json").bytes.len() as u64;
    let (removal, freed) = remove(&world, &format!("{REPO}@{}", &COMMIT[..7]));
    assert_eq!(
        (removal.commits, removal.whole, removal.frees, freed),
        (vec![COMMIT.to_owned()], false, config, config)
    );
    assert!(!world.snapshot().exists() && !world.blob("config.json").exists());
    assert!(world.blob("model.safetensors").exists() && world.folder().join("refs/main").exists());
    assert!(Hub::new(world.config()).unwrap().find(&name(REPO)).unwrap().is_some());
    let (removal, _) = remove(&world, "org/model@main");
    assert!(removal.whole);
    assert!(!world.folder().exists());
    let missing = cache(&world).plan_removal(&name(REPO)).unwrap_err();
    assert!(
        matches!(missing, HubError::NotCached { .. }) && missing.to_string().contains("bitnet list"),
        "{missing}"
    );
}

#[test]
fn removing_a_model_takes_everything_of_it() {
    let world = two_revisions();
    world.leave("pytorch_model.bin", &[0; 77]);
    let before = Cache::size(&cache(&world).repos().unwrap());
    let (removal, freed) = remove(&world, REPO);
    assert_eq!((removal.whole, removal.frees, freed), (true, before, before));
    assert!(!world.folder().exists());
    assert!(cache(&world).repos().unwrap().is_empty());
}

#[test]
fn removing_one_of_several_files_leaves_the_others() {
    let world = World::with(&[
        ("README.md", b"x".to_vec()),
        ("m-tq1_0.gguf", vec![1; 10]),
        ("m-tq2_0.gguf", vec![2; 20]),
    ]);
    pull(world.config(), "org/model:tq1_0").unwrap();
    pull(world.config(), "org/model:tq2_0").unwrap();
    let (removal, freed) = remove(&world, "org/model:tq2_0");
    assert_eq!((removal.files, freed), (Some((COMMIT.to_owned(), vec!["m-tq2_0.gguf".to_owned()])), 20));
    assert_eq!(files_below(&world.snapshot()).len(), 2);
    let (removal, _) = remove(&world, "org/model:tq1_0");
    assert!(removal.whole, "without weights the rest is of no use");
    assert!(cache(&world).plan_removal(&name("org/model:q8_0")).is_err());
}

#[test]
fn what_is_being_downloaded_is_not_removed() {
    let world = two_revisions();
    let lock = world
        .cache()
        .join(format!(".locks/models--org--model/{}.lock", world.content("model.safetensors").etag()));
    let lock = std::fs::File::open(lock).unwrap();
    lock.lock().unwrap();
    let removal = cache(&world).plan_removal(&name(REPO)).unwrap();
    assert!(matches!(cache(&world).remove(&removal), Err(HubError::Busy { .. })));
    assert!(world.snapshot().join("config.json").exists(), "nothing was removed");
}

#[test]
#[cfg(unix)]
fn the_shared_store_loses_what_nobody_links_to() {
    let world = World::new();
    pull(world.config(), REPO).unwrap();
    // As huggingface_hub 2 has it: the blob is a link into the store, and the store lists its links.
    let hash = "ab".repeat(32);
    let entry = world.cache().join("blobs/ab").join(&hash);
    std::fs::create_dir_all(entry.parent().unwrap()).unwrap();
    std::fs::write(world.cache().join("blobs/.huggingface-shared-blobs"), "1\n").unwrap();
    let blob = world.blob("model.safetensors");
    std::fs::rename(&blob, &entry).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/ab/{hash}"), &blob).unwrap();
    let other = world.cache().join("models--org--other/blobs/x");
    std::fs::create_dir_all(other.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/ab/{hash}"), &other).unwrap();
    let own = format!("models--org--model/blobs/{}", blob.file_name().unwrap().to_str().unwrap());
    let list = entry.with_file_name(format!("{hash}.refs"));
    std::fs::write(&list, format!("{own}\nmodels--org--other/blobs/x\n../../etc/passwd\n")).unwrap();

    assert!(Hub::new(world.config()).unwrap().find(&name(REPO)).unwrap().is_some());
    let (_, freed) = remove(&world, REPO);
    assert!(entry.exists() && freed < WEIGHTS as u64, "another repository needs it");
    assert_eq!(std::fs::read_to_string(&list).unwrap(), "models--org--other/blobs/x\n");
    let again = World { repo: world.repo.clone(), server: world.server, dir: world.dir };
    pull(again.config(), REPO).unwrap();
    std::fs::remove_file(again.blob("model.safetensors")).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/ab/{hash}"), again.blob("model.safetensors")).unwrap();
    std::fs::write(&list, format!("{own}\n")).unwrap();
    let (_, freed) = remove(&again, REPO);
    assert!(!entry.exists() && !list.exists() && freed > WEIGHTS as u64);
}

#[test]
fn a_budget_takes_what_was_used_longest_ago() {
    let world = World::new();
    let hub = Hub::new(world.config()).unwrap();
    for (index, repo) in ["org/a", "org/b", "org/c"].into_iter().enumerate() {
        let commit = format!("{index}").repeat(40);
        world.server.publish(repo, &commit, &files());
        let found = pull(world.config(), repo).unwrap();
        // Used in the order c, a, b, all after they came.
        hub.cache().note_use(&found);
        let used = world.cache().join(found.repo.folder()).join(".bitnet/used").join(&commit);
        let time = SystemTime::now() + Duration::from_secs(1000 + [20, 30, 10][index]);
        std::fs::File::options().append(true).open(used).unwrap().set_modified(time).unwrap();
    }
    let repos = hub.cache().repos().unwrap();
    let total = Cache::size(&repos);
    assert!(Cache::budget(&repos, total).evictions.is_empty());
    let budget = Cache::budget(&repos, total - 1);
    let names =
        |budget: &bitnet_hub::Budget| budget.evictions.iter().map(|e| e.repo.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&budget), ["org/c"]);
    assert_eq!(budget.after, total - budget.evictions[0].frees);
    assert_eq!(names(&Cache::budget(&repos, total / 3)), ["org/c", "org/a"]);
    assert_eq!(names(&Cache::budget(&repos, 0)).len(), 3);
    let freed = hub.cache().evict(&budget).unwrap();
    assert_eq!(freed, budget.evictions[0].frees);
    assert!(hub.find(&name("org/c")).unwrap().is_none() && hub.find(&name("org/a")).unwrap().is_some());
}
