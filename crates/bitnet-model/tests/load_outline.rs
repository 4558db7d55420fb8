//! An outline says what loading says.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod support;

use bitnet_model::load::{Outline, outline};
use bitnet_model::{LoadError, LoadedModel, ModelSource, load};
use serde_json::json;
use support::{Folder, bundled, load_path, testdata};

fn assert_same(outline: &Outline, model: &LoadedModel) {
    assert_eq!(outline.name, model.name);
    assert_eq!(outline.format, model.format);
    assert_eq!(outline.spec, model.spec);
    assert_eq!(outline.file_bytes, model.file_bytes);
    assert_eq!(
        outline.chat_template.as_deref(),
        model.chat_template.as_ref().map(bitnet_text::ChatTemplate::source)
    );
    assert_eq!(outline.tokenizer_note.is_some(), model.tokenizer.is_none(), "{:?}", outline.tokenizer_note);
}

#[test]
fn outlines_of_models_that_load() {
    let bundle = bundled("");
    for path in
        std::fs::read_dir(testdata("vectors")).unwrap().map(|entry| entry.unwrap().path()).chain([bundle])
    {
        if path.join("config.json").is_file() {
            assert_same(&outline(&path).unwrap(), &load_path(&path).unwrap());
        }
    }
}

#[test]
fn outlines_say_why_a_model_does_not_load() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(outline(dir.path()), Err(LoadError::NoModel { .. })));
    let mut folder = Folder::vector("tiny-bitnet-bf16");
    folder.config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": folder.config["hidden_size"], "intermediate_size": folder.config["intermediate_size"],
        "num_hidden_layers": folder.config["num_hidden_layers"], "num_attention_heads": folder.config["num_attention_heads"],
        "num_key_value_heads": folder.config["num_key_value_heads"], "vocab_size": folder.config["vocab_size"],
    });
    folder.tensors.retain(|name, _| !name.contains("sub_norm"));
    folder.write(dir.path());
    let source = ModelSource::Path(dir.path().to_owned());
    let full = load(&source, &bitnet_model::LoadOptions::default()).unwrap_err().to_string();
    assert!(full.contains("not a BitNet model"), "{full}");
    assert_eq!(outline(dir.path()).unwrap_err().to_string(), full);
}

#[test]
fn loading_after_an_outline_is_complete() {
    let path = bundled("");
    outline(&path).unwrap();
    assert!(load_path(&path).unwrap().tokenizer.is_some());
    assert!(outline(&testdata("no-such-model")).is_err());
    assert!(load_path(&path).unwrap().tokenizer.is_some(), "also after one that failed");
}
