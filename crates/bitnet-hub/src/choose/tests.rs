//! Repositories as they are published, and what is taken of them.

use super::*;

fn pick(files: &[&str], wanted: Option<&str>, index: &str) -> Result<Choice> {
    choose("org/name", files, wanted, &mut |_| Ok(index.as_bytes().to_vec()))
}

fn taken(files: &[&str], wanted: Option<&str>) -> (Vec<String>, Option<String>) {
    let choice = pick(files, wanted, "").unwrap();
    (choice.weights, choice.entry)
}

const OFFICIAL: [&str; 9] = [
    ".gitattributes",
    "LICENSE",
    "README.md",
    "config.json",
    "configuration_bitnet.py",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];

#[test]
fn of_the_official_model_all_but_code_is_taken() {
    let choice = pick(&OFFICIAL, None, "").unwrap();
    assert_eq!((choice.kind, choice.entry), (WeightKind::Safetensors, None));
    assert_eq!(choice.weights, ["model.safetensors"]);
    let companions = [
        "README.md",
        "LICENSE",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(choice.companions, companions);
}

#[test]
fn safetensors_go_before_bin_and_shards_come_from_the_index() {
    let files = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "extra.safetensors",
    ];
    let index =
        r#"{"weight_map":{"a":"model-00002-of-00002.safetensors","b":"model-00001-of-00002.safetensors"}}"#;
    let choice = pick(&files, None, index).unwrap();
    let weights = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    assert_eq!(choice.weights, weights);
    let named = pick(&files, Some("model-00002-of-00002.safetensors"), index).unwrap();
    assert_eq!(named.weights, weights, "one part stands for all");
    assert_eq!(pick(&files, Some("pytorch"), index).unwrap().weights, ["pytorch_model.bin"]);
    assert_eq!(pick(&files, Some("extra.safetensors"), index).unwrap().weights, ["extra.safetensors"]);
}

#[test]
fn an_index_is_not_believed_blindly() {
    let files = ["config.json", "a.safetensors", "model.safetensors.index.json"];
    for (index, part) in [
        (r#"{"weight_map":{"x":"b.safetensors"}}"#, "b.safetensors, which is not there"),
        (r#"{"weight_map":{"x":"../../b"}}"#, "no file"),
        (r#"{"weight_map":{"x":1}}"#, "no file"),
        (r#"{"weight_map":{}}"#, "no files"),
        ("[]", "no weight_map"),
        ("<html>", "no JSON"),
    ] {
        let error = pick(&files, None, index).unwrap_err().to_string();
        assert!(error.contains(part), "{index}: {error}");
    }
}

#[test]
fn of_many_gguf_files_the_ternary_one_is_taken() {
    let files = [
        "README.md",
        "m-F16.gguf",
        "m-Q4_0.gguf",
        "m-TQ1_0.gguf",
        "m-TQ2_0.gguf",
        "m.IQ2_BN_R4.gguf",
        "m-iq2_bn.gguf",
    ];
    assert_eq!(taken(&files, None), (vec!["m-TQ2_0.gguf".to_owned()], Some("m-TQ2_0.gguf".to_owned())));
    for (wanted, file) in [
        ("tq1_0", "m-TQ1_0.gguf"),
        ("Q4_0", "m-Q4_0.gguf"),
        ("iq2_bn", "m-iq2_bn.gguf"),
        ("iq2_bn_r4", "m.IQ2_BN_R4.gguf"),
        ("m-F16.gguf", "m-F16.gguf"),
    ] {
        assert_eq!(taken(&files, Some(wanted)).0, [file], "{wanted}");
    }
    let error = pick(&files, Some("i2_s"), "").unwrap_err().to_string();
    assert!(error.contains("no \"i2_s\"") && error.contains("m-TQ1_0.gguf"), "{error}");
    assert_eq!(taken(&["ggml-model-i2_s.gguf", "README.md"], None).0, ["ggml-model-i2_s.gguf"]);
    let error = pick(&["a-i2_s.gguf", "b-i2_s.gguf"], None, "").unwrap_err().to_string();
    assert!(error.contains("org/name:a-i2_s.gguf"), "{error}");
}

#[test]
fn split_gguf_files_are_taken_whole() {
    let files = ["m-f16.gguf", "m-i2_s-00002-of-00002.gguf", "m-i2_s-00001-of-00002.gguf"];
    let parts = vec!["m-i2_s-00001-of-00002.gguf".to_owned(), "m-i2_s-00002-of-00002.gguf".to_owned()];
    for wanted in [None, Some("i2_s"), Some("m-i2_s-00002-of-00002.gguf")] {
        assert_eq!(taken(&files, wanted), (parts.clone(), Some(parts[0].clone())), "{wanted:?}");
    }
}

#[test]
fn safetensors_go_before_gguf_unless_that_is_asked_for() {
    let files = ["config.json", "model.safetensors", "m-i2_s.gguf"];
    assert_eq!(taken(&files, None).0, ["model.safetensors"]);
    assert_eq!(taken(&files, Some("gguf")).0, ["m-i2_s.gguf"]);
    assert_eq!(taken(&files, Some("i2_s")).0, ["m-i2_s.gguf"]);
}

#[test]
fn pytorch_and_onnx_come_last() {
    assert_eq!(
        taken(&["config.json", "pytorch_model.bin", "training_args.bin"], None).0,
        ["pytorch_model.bin"]
    );
    assert_eq!(
        taken(&["optimizer.pt", "model_state.pt"], None),
        (vec!["model_state.pt".into()], Some("model_state.pt".into()))
    );
    let files = [
        "config.json",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/model_q4.onnx",
        "onnx/model_q4.onnx_data",
    ];
    assert_eq!(taken(&files, None).0, ["onnx/model.onnx", "onnx/model.onnx_data"]);
    assert_eq!(taken(&files, Some("model_q4.onnx")).0, ["onnx/model_q4.onnx", "onnx/model_q4.onnx_data"]);
    assert_eq!(taken(&[&files[..], &["pytorch_model.bin"]].concat(), None).0, ["pytorch_model.bin"]);
}

#[test]
fn repositories_without_weights_say_what_is_there() {
    let error = pick(&["README.md", "a.msgpack"], None, "").unwrap_err().to_string();
    assert!(error.contains("README.md, a.msgpack") && error.contains("org/name"), "{error}");
    assert!(pick(&[], None, "").unwrap_err().to_string().contains("no files"));
}
