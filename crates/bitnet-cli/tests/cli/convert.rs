//! `bitnet convert` and `bitnet quantize`.

use crate::support::{bitnet, fails, run, stdout, write_model};

#[test]
fn a_model_is_converted_verified_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (tiny, file, masters) = (at("tiny"), at("tiny.gguf"), at("masters"));
    std::fs::create_dir(&tiny).unwrap();
    write_model(std::path::Path::new(&tiny));

    let text = stdout(&["convert", &tiny, &file, "-q"]);
    for part in ["31,457,280 in 70 tensors, all equal", "lossless", "yes", "I2_S", "conversations"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&stdout(&[
        "convert",
        &file,
        &masters,
        "--to",
        "safetensors-bf16",
        "--json",
        "-q",
    ]))
    .unwrap();
    assert_eq!(json["verification"]["trits"], 31_457_280);
    assert!(json["verification"]["scales"]["max_relative"].as_f64().unwrap() < 2.5e-7, "{json}");

    // The file holds no sampling defaults.
    let say = |model: &str| {
        let greedy = ["--temp", "0", "--repeat-penalty", "1"];
        stdout(&[&["generate", "Once upon a time", "-n", "8", "-q", "-m", model], &greedy[..]].concat())
    };
    assert_eq!(say(&file), say(&tiny));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&["convert", &tiny, &file, "--verify-only", "--json", "-q"])).unwrap();
    assert_eq!(json["verification"]["lossless"], true);

    fails(&["convert", &tiny, &file], 1, &["exists", "tiny.gguf"]);
    assert!(run(&["convert", &tiny, &file]).stderr.contains("--force"));
    stdout(&["convert", &tiny, &file, "--force", "--tables", "q8_0", "--threads", "1", "-q"]);
    fails(&["convert", &tiny, &at("folder")], 2, &["does not tell which form", "--to"]);
    for args in [&["convert", &tiny, &at("x.onnx")][..], &["convert", &tiny, &at("x.onnx"), "--to", "onnx"]] {
        fails(args, 2, &["the name of a file", "folder", "--to onnx"]);
    }
    fails(&["convert", &tiny, &at("y.gguf"), "--keep-free", "900000GB"], 1, &["free"]);
    fails(&["quantize", &tiny, &at("z.gguf")], 1, &["ternary already", "convert"]);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn an_onnx_folder_is_written_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tiny = at("tiny");
    std::fs::create_dir(&tiny).unwrap();
    write_model(std::path::Path::new(&tiny));
    let say =
        |model: &str| stdout(&["generate", "Once upon a time", "-n", "8", "--temp", "0", "-q", "-m", model]);
    for (form, format) in [("int8", "8-bit"), ("2bit", "2-bit")] {
        let out = at(form);
        let text = stdout(&["convert", &tiny, &out, "--to", "onnx", "--onnx-weights", form, "-q"]);
        for part in ["31,457,280 in 70 tensors, all equal", "yes", "ONNX", format, "conversations"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let mut names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort_unstable();
        for name in ["config.json", "generation_config.json", "model.onnx", "tokenizer.json"] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
        assert_eq!(say(&out), say(&tiny), "{form}");
        let back = at(&format!("{form}.gguf"));
        stdout(&["convert", &format!("{out}/model.onnx"), &back, "-q"]);
        let json = stdout(&["convert", &tiny, &back, "--verify-only", "--json", "-q"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["verification"]["lossless"], true, "{form}");
    }
    fails(&["convert", &tiny, &at("q"), "--to", "onnx", "--tables", "q8_0"], 1, &["q8_0", "onnx"]);
}

#[test]
fn a_verification_that_fails_is_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for seed in ["1", "2"] {
        stdout(&["synth", "--shape", "tiny", "--seed", seed, &at(seed), "-q"]);
    }
    fails(&["convert", &at("1"), &at("2"), "--verify-only"], 1, &["verification failed", "layer 0, q["]);
}

#[test]
fn a_killed_conversion_leaves_nothing_under_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tiny = at("tiny");
    std::fs::create_dir(&tiny).unwrap();
    write_model(std::path::Path::new(&tiny));
    for (out, form) in [("out", "safetensors-bf16"), ("out.gguf", "gguf-tq2_0"), ("graph", "onnx")] {
        let command = bitnet(&[]);
        let args = ["convert", &tiny, &at(out), "--to", form, "-q"];
        let mut child = std::process::Command::new(command.get_program())
            .args(args)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // Whenever it was killed: nothing, or the whole model.
        if std::path::Path::new(&at(out)).exists() {
            stdout(&["convert", &tiny, &at(out), "--verify-only", "-q"]);
        } else {
            stdout(&args);
        }
        let left: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".partial"))
            .collect();
        assert_eq!(left, [""; 0]);
    }
}
