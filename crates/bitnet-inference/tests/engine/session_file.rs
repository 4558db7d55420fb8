//! Conversations in files: they go on with the same bits and without computing anything again, or not at all.

use std::ops::ControlFlow;
use std::path::Path;

use bitnet_inference::{
    ChatMessage, EngineError, GenerateRequest, Generation, InferenceEngine, KvType, Prompt, Session,
    SessionFileError,
};

use crate::support::{builder, engine};

fn say(engine: &InferenceEngine, session: &mut Session, messages: &[ChatMessage]) -> Generation {
    let request = GenerateRequest::new(Prompt::Chat(messages.to_vec())).max_tokens(40).seed(11);
    engine.generate_with(session, &request, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Two turns, the second in `engine` or, from a file, in another one.
fn talk(engine: &InferenceEngine, resume: Option<(&InferenceEngine, &Path)>) -> [Generation; 2] {
    let mut session = engine.session();
    let mut messages = vec![ChatMessage::system("You tell stories."), ChatMessage::user("Tell me of a fox.")];
    let first = say(engine, &mut session, &messages);
    messages.push(ChatMessage::assistant(first.text.trim()));
    messages.push(ChatMessage::user("And then?"));
    let second = match resume {
        None => say(engine, &mut session, &messages),
        Some((other, path)) => {
            let size = engine.save_session(&mut session, path).unwrap();
            assert_eq!(size, path.metadata().unwrap().len());
            let mut loaded = other.load_session(path).unwrap();
            assert_eq!((loaded.tokens(), loaded.computed()), (session.tokens(), session.computed()));
            say(other, &mut loaded, &messages)
        }
    };
    [first, second]
}

/// The error of loading a file.
fn refusal(engine: &InferenceEngine, path: &Path) -> SessionFileError {
    match engine.load_session(path).unwrap_err() {
        EngineError::SessionFile(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn texts_go_on_with_the_same_bits_and_compute_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    for kv_type in KvType::ALL {
        let new = |threads| builder(threads).kv_type(kv_type).build().unwrap();
        let whole = talk(&new(1), None);
        let other = new(2);
        let resumed = talk(&new(1), Some((&other, &folder.path().join("saved"))));
        for (whole, resumed) in whole.iter().zip(&resumed) {
            assert_eq!(whole.tokens, resumed.tokens, "{kv_type}");
            let cached = |g: &Generation| (g.stats.prompt_tokens, g.stats.cached_tokens);
            assert_eq!(cached(whole), cached(resumed), "{kv_type}");
        }
        assert!(resumed[1].stats.cached_tokens > resumed[0].stats.prompt_tokens, "{kv_type}");
    }
    let files: Vec<_> = folder.path().read_dir().unwrap().collect();
    assert_eq!(files.len(), 1, "no temporary files are left: {files:?}");
}

#[test]
fn logits_behind_restored_keys_and_values_are_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let request = |prompt: &[u32]| {
        GenerateRequest::new(Prompt::Tokens(prompt.to_vec())).max_tokens(1).seed(1).logprobs(20)
    };
    let text: Vec<u32> = (0..75).map(|i| 300 + 7 * i).collect();
    let (first, second) = (engine(1), engine(1));
    let mut session = first.session();
    first.generate_with(&mut session, &request(&text[..70]), &mut |_| ControlFlow::Continue(())).unwrap();
    first.save_session(&mut session, &path).unwrap();
    let run = |engine: &InferenceEngine, session: &mut Session| {
        engine.generate_with(session, &request(&text), &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let whole = run(&first, &mut first.session());
    let resumed = run(&second, &mut second.load_session(&path).unwrap());
    assert_eq!(resumed.stats.cached_tokens, 70);
    assert_eq!(whole.logprobs, resumed.logprobs);
}

#[test]
fn a_smaller_context_takes_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let text: Vec<u32> = (0..90).map(|i| 300 + i).collect();
    let engine = engine(1);
    let mut session = engine.session();
    let request = GenerateRequest::new(Prompt::Tokens(text.clone())).max_tokens(1);
    engine.generate_with(&mut session, &request, &mut |_| ControlFlow::Continue(())).unwrap();
    engine.save_session(&mut session, &path).unwrap();
    let small = builder(1).context_size(40).build().unwrap();
    let loaded = small.load_session(&path).unwrap();
    assert_eq!((loaded.tokens(), loaded.computed()), (&text[..40], 40));
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let engine = engine(1);
    let mut session = engine.session();
    say(&engine, &mut session, &[ChatMessage::user("Hi")]);
    engine.save_session(&mut session, &path).unwrap();
    let int8 = builder(1).kv_type(KvType::Int8).build().unwrap();
    assert!(
        matches!(refusal(&int8, &path), SessionFileError::Mismatch { what, .. } if what.contains("--kv-type"))
    );
    let missing = refusal(&engine, &folder.path().join("missing"));
    assert!(matches!(missing, SessionFileError::Io { what: "open", .. }), "{missing}");
    let nowhere = engine.save_session(&mut session, &folder.path().join("no/such/folder")).unwrap_err();
    assert!(nowhere.to_string().contains("no/such/folder"), "{nowhere}");
}

#[test]
fn every_damage_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bad) = (folder.path().join("saved"), folder.path().join("bad"));
    let engine = engine(1);
    let mut session = engine.session();
    say(&engine, &mut session, &[ChatMessage::user("Hi")]);
    engine.save_session(&mut session, &path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let header = 64.min(good.len());
    let spread = (0..40).map(|i| i * (good.len() - 1) / 39);
    for at in (0..header).chain(spread.clone()) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&bad, bytes).unwrap();
        engine.load_session(&bad).unwrap_err();
    }
    for len in spread.filter(|&len| len < good.len()) {
        std::fs::write(&bad, &good[..len]).unwrap();
        engine.load_session(&bad).unwrap_err();
    }
    assert_eq!(engine.pool_stats().in_use, session.blocks().len(), "refused files keep no blocks");
    std::fs::write(&bad, "hello").unwrap();
    assert!(matches!(refusal(&engine, &bad), SessionFileError::NotASession { .. }));
}
