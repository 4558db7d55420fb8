//! What is wrong is told in one line, without a panic.

use std::path::Path;

use crate::support::{fails, run, run_with, write_model};

fn generate(model: &Path) -> Vec<&str> {
    vec!["generate", "Hi", "-n", "2", "-m", model.to_str().unwrap()]
}

#[test]
fn models_that_are_not_there_or_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fails(&generate(&at("absent")), 1, &["absent", "no such file"]);
    std::fs::create_dir(at("empty")).unwrap();
    fails(&generate(&at("empty")), 1, &["empty"]);
    std::fs::write(at("garbage.gguf"), [0x5a; 4000]).unwrap();
    fails(&generate(&at("garbage.gguf")), 1, &["garbage.gguf"]);
    std::fs::write(at("nothing.safetensors"), "").unwrap();
    fails(&generate(&at("nothing.safetensors")), 1, &["nothing.safetensors"]);
    fails(&["inspect", at("absent").to_str().unwrap()], 1, &["absent"]);
}

#[test]
fn damaged_models_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_model(path);
    let whole = std::fs::read(path.join("model.safetensors")).unwrap();
    std::fs::write(path.join("model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    fails(&generate(path), 1, &["model.safetensors"]);
    // A header that claims more bytes than any file has.
    let lying = [&u64::MAX.to_le_bytes()[..], &whole[8..1000]].concat();
    std::fs::write(path.join("model.safetensors"), lying).unwrap();
    fails(&generate(path), 1, &["model.safetensors"]);
    std::fs::write(path.join("model.safetensors"), &whole).unwrap();
    std::fs::write(path.join("config.json"), "{\"model_type\": ").unwrap();
    fails(&generate(path), 1, &["config.json"]);
}

#[test]
fn a_model_without_tokenizer_cannot_read_text() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fails(&generate(folder.path()), 1, &["tokenizer", "--tokenizer"]);
    let tokenizer = folder.path().join("elsewhere.json");
    std::fs::write(&tokenizer, bitnet_tiny::TOKENIZER_JSON).unwrap();
    let output = run(&[&generate(folder.path())[..], &["--tokenizer", tokenizer.to_str().unwrap()]].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn an_unsupported_architecture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let config = String::from_utf8(bitnet_tiny::CONFIG_JSON.to_vec()).unwrap();
    let other = config.replace("BitNetForCausalLM", "MambaForCausalLM").replace("\"bitnet\"", "\"mamba\"");
    std::fs::write(folder.path().join("config.json"), other).unwrap();
    fails(&generate(folder.path()), 1, &["config.json", "amba"]);
}

#[test]
fn impossible_parameters() {
    for (flags, part) in [
        (&["--temp", "-1"][..], "--temp"),
        (&["--temp", "nan"], "--temp"),
        (&["--temp", "warm"], "--temp"),
        (&["--top-p", "2"], "--top-p"),
        (&["--min-p", "-0.5"], "--min-p"),
        (&["--repeat-penalty", "0"], "--repeat-penalty"),
        (&["--repeat-last-n", "-7"], "--repeat-last-n"),
        (&["-n", "0"], "at least 1"),
        (&["-n", "-3"], "at least 1"),
        (&["--threads", "0"], "--threads"),
        (&["--threads", "100000"], "1024"),
        (&["-c", "0"], "at least 1"),
        (&["-c", "1"], "at least 2"),
        (&["-c", "1000000000000"], "at most 512"),
        (&["--stop", ""], "stop"),
        (&["--raw", "--chat"], "--chat"),
        (&["--raw", "--system", "Hi"], "--raw"),
        (&["-p", "another"], "--prompt"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        fails(&[&["generate", "Hi"], flags].concat(), 2, &[part]);
    }
}

#[test]
fn prompts_that_cannot_be() {
    let output = run_with(&["generate"], &"word ".repeat(600));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("tokens, but the context holds 512"), "{}", output.stderr);
    let small = run_with(&["generate", "-c", "16"], &"word ".repeat(30));
    assert!(small.stderr.contains("hint: raise --ctx-size"), "{}", small.stderr);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latin1.txt");
    std::fs::write(&file, b"caf\xe9").unwrap();
    fails(&["generate", "-f", file.to_str().unwrap()], 1, &["latin1.txt", "UTF-8", "byte 3"]);
    fails(&["generate", "-f", "/no/such/file"], 1, &["/no/such/file"]);
    fails(&["perplexity", "/no/such/file"], 1, &["/no/such/file"]);
}
