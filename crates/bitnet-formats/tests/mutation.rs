//! Damaged files by the thousand: no reader may panic, or take memory that the file does not justify.
//!
//! `BITNET_MUTATIONS` sets the number of files for each reader (20,000 if it is not set); if it is set, no file may take a
//! second. Case numbers are seeds: a failing one is repeated by its number.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_formats::{
    FormatError, GgufArray, GgufValue, ShardIndex, StoredType, TensorPlan, TensorSet, create_gguf,
    create_safetensors, read_gguf, read_gguf_parts, read_safetensors, read_shards,
};

thread_local! {
    /// Bytes that this thread holds, and the most it held since the last [`peak_of`] began.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting the bytes of each thread.
struct Counting;

fn count(change: isize) {
    // Threads that are ending have no counters any more; nothing is measured there.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to `System` unchanged; the counters are plain cells that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs something and returns the most bytes it held at once.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (result, (PEAK.get() - before) as usize)
}

/// splitmix64: small, and good enough to choose what to break.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }
}

const EXTREMES: [u64; 11] =
    [0, 1, 7, 1 << 24, 100_000_000, 1 << 31, u32::MAX as u64, 1 << 40, 1 << 63, u64::MAX - 31, u64::MAX];

/// Damages bytes in one of the ways that disks, networks and ill will do. Fields lie in the first `head` bytes.
fn damage_bytes(bytes: &mut Vec<u8>, head: usize, random: &mut Random) {
    let head = head.min(bytes.len());
    match random.below(7) {
        0 => {
            for _ in 0..=random.below(8) {
                let at = random.below(head);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        1 => {
            let at = random.below(head);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        2 => bytes.truncate(random.below(bytes.len() + 1)),
        3 => {
            let value = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
            let width = if random.below(2) == 0 { 4 } else { 8 };
            let at = random.below(head);
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
        }
        4 => {
            let (from, to) = (random.below(head), random.below(head));
            let len = random.below(64).min(bytes.len() - from.max(to).min(bytes.len()));
            bytes.copy_within(from..from + len, to);
        }
        5 => {
            let at = random.below(head);
            let end = (at + random.below(64)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let at = random.below(head);
            let piece = bytes[at..(at + random.below(64)).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

/// Pieces to put where JSON had something else.
const JSON_PIECES: [&str; 20] = [
    "0",
    "1",
    "-1",
    "1.5",
    "1e400",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "null",
    "true",
    "\"\"",
    "\"BF16\"",
    "\"F4\"",
    "[]",
    "{}",
    "[0,0]",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"../x\"",
    "\"__metadata__\":{\"a\":\"b\"},",
];

/// Damages JSON text: numbers, strings and structure.
fn damage_json(text: &mut Vec<u8>, random: &mut Random) {
    if text.is_empty() {
        return;
    }
    let at = random.below(text.len());
    match random.below(6) {
        0 | 1 => {
            let is_start = |i: &usize| matches!(text[*i], b'0'..=b'9' | b'"' | b'[' | b'{');
            let Some(start) = (at..text.len()).find(is_start) else { return };
            let inside =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'"' | b'-');
            let len = text[start..].iter().take_while(|byte| inside(byte)).count().max(1);
            let piece = JSON_PIECES[random.below(JSON_PIECES.len())];
            text.splice(start..start + len, piece.bytes());
        }
        2 => {
            let piece = JSON_PIECES[random.below(JSON_PIECES.len())];
            text.splice(at..at, piece.bytes());
        }
        3 => {
            let brackets = [&b"["[..], b"{\"a\":", b"]", b"}", b"\"", b",", b":"][random.below(7)];
            let times = [1, 2, 200, 5000][random.below(4)];
            text.splice(at..at, brackets.repeat(times));
        }
        4 => {
            let piece = text[at..(at + random.below(200)).min(text.len())].to_vec();
            let to = random.below(text.len());
            text.splice(to..to, piece);
        }
        _ => {
            let end = (at + random.below(30)).min(text.len());
            text.drain(at..end);
        }
    }
}

fn cases() -> u64 {
    std::env::var("BITNET_MUTATIONS")
        .ok()
        .map_or(20_000, |text| text.parse().expect("BITNET_MUTATIONS is a number"))
}

/// Reads `cases()` damaged files and checks memory and messages; returns how many were refused.
fn drive(damaged: impl Fn(&mut Random) -> Vec<u8>, read: impl Fn(Vec<u8>) -> Result<(), FormatError>) -> u64 {
    let mut refused = 0;
    for case in 0..cases() {
        let bytes = damaged(&mut Random(case));
        let len = bytes.len();
        let copy = bytes.clone();
        let start = std::time::Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| peak_of(|| read(bytes))));
        let Ok((result, peak)) = outcome else { panic!("case {case} panicked: {}", copy.escape_ascii()) };
        // Time is not measured where other tests run beside this one.
        let slow = std::env::var_os("BITNET_MUTATIONS").is_some() && start.elapsed().as_secs() > 0;
        assert!(!slow, "case {case} took {:?}: {}", start.elapsed(), copy.escape_ascii());
        // The promise is twice the file and 16 MiB; small files must stay far below that.
        let bound = (2 * len + (16 << 20)).min(32 * len + (64 << 10));
        assert!(peak < bound, "case {case} took {peak} bytes for a file of {len}: {}", copy.escape_ascii());
        if let Err(error) = result {
            let message = error.to_string();
            assert!(
                message.contains("m.file") || message.contains("m.shard"),
                "case {case} names no file: {message}"
            );
            assert!(message.len() < 1200 && !message.contains(char::is_control), "case {case}: {message:?}");
            refused += 1;
        }
    }
    refused
}

/// Damage must mostly be seen, and must not be so heavy that only the first check is ever tried.
fn assert_both_happen(refused: u64) {
    assert!(refused > cases() / 2 && refused < cases(), "{refused} of {} files were refused", cases());
}

/// Touches all data of all tensors.
fn sum(tensors: &TensorSet) -> u64 {
    tensors.iter().map(|tensor| tensor.data.as_slice().iter().map(|&byte| u64::from(byte)).sum::<u64>()).sum()
}

fn plan() -> Vec<(TensorPlan, Vec<u8>)> {
    let types = [StoredType::F32, StoredType::BF16, StoredType::F16, StoredType::I8];
    let tensors = (0..24).map(|i| {
        let plan = TensorPlan::new(format!("model.layers.{i}.weight"), types[i % 4], [i as u64 % 3, 5]);
        let len = plan.stored.byte_len(&plan.shape).unwrap() as usize;
        (plan, vec![i as u8; len])
    });
    tensors.collect()
}

fn safetensors(path: &Path) -> Vec<u8> {
    let tensors = plan();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let plan: Vec<TensorPlan> = tensors.iter().map(|(plan, _)| plan.clone()).collect();
    let mut writer = create_safetensors(path, &plan, &metadata).unwrap();
    tensors.iter().for_each(|(plan, bytes)| writer.write_tensor(&plan.name, bytes).unwrap());
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn gguf(path: &Path) -> Vec<u8> {
    let mut tensors = plan();
    tensors.push((TensorPlan::new("i2s", StoredType::I2S, [4, 128]), vec![0x55; 160]));
    tensors.push((TensorPlan::new("q8", StoredType::Q8_0, [64]), vec![1; 68]));
    tensors.push((TensorPlan::new("tq1", StoredType::TQ1_0, [2, 256]), vec![1; 108]));
    tensors.push((TensorPlan::new("bn", StoredType::IQ2_BN, [2, 64]), vec![1; 40]));
    let strings: Vec<String> = (0..60).map(|i| format!("token {i}")).collect();
    let metadata = [
        ("general.architecture", GgufValue::String("bitnet-b1.58".to_owned())),
        ("general.alignment", GgufValue::U32(32)),
        ("split.count", GgufValue::U16(1)),
        ("a.count", GgufValue::U32(30)),
        ("a.epsilon", GgufValue::F32(1e-5)),
        ("a.flag", GgufValue::Bool(true)),
        ("a.tokens", GgufValue::Array(GgufArray::Strings(strings))),
        ("a.types", GgufValue::Array(GgufArray::I32(vec![1; 60]))),
        ("a.scores", GgufValue::Array(GgufArray::F32(vec![0.0; 60]))),
        ("a.flags", GgufValue::Array(GgufArray::Bool(vec![true; 9]))),
        ("a.bytes", GgufValue::Array(GgufArray::U8(vec![3; 50]))),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let plan: Vec<TensorPlan> = tensors.iter().map(|(plan, _)| plan.clone()).collect();
    let mut writer = create_gguf(path, &metadata, &plan).unwrap();
    tensors.iter().for_each(|(plan, bytes)| writer.write_tensor(&plan.name, bytes).unwrap());
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn damaged_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let good = safetensors(&folder.path().join("m"));
    let head = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let damaged = |random: &mut Random| {
        if random.below(3) == 0 {
            let mut bytes = good.clone();
            damage_bytes(&mut bytes, head + 8, random);
            return bytes;
        }
        // With a length that fits, so that the JSON is what is tested.
        let mut json = good[8..head].to_vec();
        (0..=random.below(3)).for_each(|_| damage_json(&mut json, random));
        [&(json.len() as u64).to_le_bytes()[..], &json, &good[head..]].concat()
    };
    let refused = drive(damaged, |bytes| {
        let read = read_safetensors(ByteView::from_vec(bytes), "m.file")?;
        std::hint::black_box(sum(&read.tensors));
        Ok(())
    });
    assert_both_happen(refused);
}

#[test]
fn damaged_shard_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let shard = safetensors(&folder.path().join("m"));
    let names: Vec<String> =
        plan().iter().map(|(plan, _)| format!("\"{}\":\"m.shard\"", plan.name)).collect();
    let good = format!("{{\"metadata\":{{\"total_size\":1234}},\"weight_map\":{{{}}}}}", names.join(","));
    let damaged = |random: &mut Random| {
        let mut bytes = good.clone().into_bytes();
        match random.below(3) {
            0 => damage_bytes(&mut bytes, usize::MAX, random),
            _ => (0..=random.below(3)).for_each(|_| damage_json(&mut bytes, random)),
        }
        bytes
    };
    let shard = ByteView::from_vec(shard);
    let refused = drive(damaged, |bytes| {
        let index = ShardIndex::from_json(&bytes, "m.file")?;
        let tensors = read_shards(&index, "m.file", &mut |_| Ok(shard.clone()))?;
        std::hint::black_box(sum(&tensors));
        Ok(())
    });
    assert_both_happen(refused);
}

#[test]
fn damaged_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let good = gguf(&folder.path().join("m"));
    // All but the last tensors, so that damage hits what is parsed.
    let head = good.len() - 800;
    let damaged = |random: &mut Random| {
        let mut bytes = good.clone();
        (0..=random.below(2)).for_each(|_| damage_bytes(&mut bytes, head, random));
        bytes
    };
    let refused = drive(damaged, |bytes| {
        let read = read_gguf(ByteView::from_vec(bytes), "m.file")?;
        for (key, _) in read.metadata.iter() {
            let asked = [
                read.metadata.u64(key).err(),
                read.metadata.f64(key).err(),
                read.metadata.string(key).err(),
                read.metadata.strings(key).err(),
            ];
            assert!(asked.into_iter().flatten().count() >= 3, "a value has one type");
        }
        std::hint::black_box(sum(&read.tensors));
        Ok(())
    });
    assert_both_happen(refused);
}

/// Two parts of a model; one of them gets damaged.
#[test]
fn damaged_parts_of_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let good: Vec<Vec<u8>> = (0..2u16)
        .map(|number| {
            let metadata = [
                ("split.no", GgufValue::U16(number)),
                ("split.count", GgufValue::U16(2)),
                ("split.tensors.count", GgufValue::I32(6)),
            ];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
            let plan: Vec<TensorPlan> = (0..3)
                .map(|i| TensorPlan::new(format!("{number}.{i}"), StoredType::TQ2_0, [1, 256]))
                .collect();
            let path = folder.path().join("m");
            let mut writer = create_gguf(&path, &metadata, &plan).unwrap();
            plan.iter().for_each(|plan| writer.write_tensor(&plan.name, &[1; 66]).unwrap());
            writer.finish().unwrap();
            std::fs::read(path).unwrap()
        })
        .collect();
    let head = good[0].len() - 200;
    for which in 0..2 {
        let damaged = |random: &mut Random| {
            let mut bytes = good[which].clone();
            (0..=random.below(2)).for_each(|_| damage_bytes(&mut bytes, head, random));
            bytes
        };
        let other = ByteView::from_vec(good[1 - which].clone());
        let refused = drive(damaged, |bytes| {
            let name = format!("m.file-0000{}-of-00002.gguf", which + 1);
            let read = read_gguf_parts(ByteView::from_vec(bytes), &name, &name, &mut |name| {
                Ok(Some((other.clone(), name.to_owned())))
            })?;
            std::hint::black_box(sum(&read.tensors));
            Ok(())
        });
        assert_both_happen(refused);
    }
}
