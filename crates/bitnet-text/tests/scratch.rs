//! scratch
#![allow(clippy::all, warnings)]
mod common;
use bitnet_text::*;
use common::*;
use std::time::Instant;
fn cpu() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
struct T(u64);
impl T {
    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(cpu() - self.0)
    }
}
#[test]
fn scratch() {
    let b = bytes("testdata/llama3-tokenizer.model");
    for _ in 0..3 {
        let t = T(cpu());
        let x = Tokenizer::from_tiktoken(&b, "x").unwrap();
        println!("tiktoken {:?}", t.elapsed());
    }
    let t3 = llama3();
    let spec = llama3_spec(&t3);
    println!("merges {}", spec.merges.len());
    // tokenizer.json
    let vocab: serde_json::Map<String, serde_json::Value> =
        (0..128000u32).map(|i| (t3.token_str(i).unwrap().to_owned(), i.into())).collect();
    let merges: Vec<Vec<&str>> = spec.merges.iter().map(|m| m.split(' ').collect()).collect();
    let small = json("crates/bitnet-tiny/model/tokenizer.json");
    let mut j = small.clone();
    j["model"]["vocab"] = serde_json::Value::Object(vocab);
    j["model"]["merges"] = serde_json::json!(merges);
    j["post_processor"] = serde_json::Value::Null;
    j["added_tokens"] = (128000..128256u32).map(|i| serde_json::json!({"id": i, "content": t3.token_str(i).unwrap(), "special": true, "single_word":false,"lstrip":false,"rstrip":false,"normalized":false})).collect();
    let jb = serde_json::to_vec(&j).unwrap();
    println!("json {} bytes", jb.len());
    for _ in 0..3 {
        let t = T(cpu());
        let x = Tokenizer::from_json(&jb, "x").unwrap();
        println!("json {} {:?}", x.kind(), t.elapsed());
    }
    j["normalizer"] = serde_json::json!({"type":"NFC"});
    let jb2 = serde_json::to_vec(&j).unwrap();
    for _ in 0..2 {
        let t = T(cpu());
        let x = Tokenizer::from_json(&jb2, "x").unwrap();
        println!("json library {} {:?}", x.kind(), t.elapsed());
    }
    for _ in 0..3 {
        let s = spec.clone();
        let t = T(cpu());
        let x = Tokenizer::from_vocab(s, "x").unwrap();
        println!("gguf {:?}", t.elapsed());
    }
    let g = Tokenizer::from_json(&jb, "x").unwrap();
    let eval = String::from_utf8(bytes("testdata/bitnet-tiny/eval.txt")).unwrap();
    let mb = eval.repeat(1 + (1 << 20) / eval.len());
    for (n, s) in [
        ("eval", mb),
        ("spaces", " ".repeat(1 << 20)),
        ("a", "a".repeat(1 << 20)),
        ("alt", " \n".repeat(1 << 19)),
    ] {
        for (k, tk) in [("tiktoken", &t3), ("json", &g)] {
            let t = T(cpu());
            let ids = tk.encode(&s, EncodeOptions::PLAIN).unwrap();
            println!("{k} {n} {} bytes {} ids {:?}", s.len(), ids.len(), t.elapsed());
        }
    }
    let lib = Tokenizer::from_json(&jb2, "x").unwrap();
    for (n, s) in [("spaces", " ".repeat(1 << 20)), ("a", "a".repeat(1 << 20))] {
        let t = T(cpu());
        let ids = lib.encode(&s, EncodeOptions::PLAIN).unwrap();
        println!("library {n} {} ids {:?}", ids.len(), t.elapsed());
    }
}
