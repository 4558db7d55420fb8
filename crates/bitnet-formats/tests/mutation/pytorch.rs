//! Damaged PyTorch files: the archive around the pickle, the pickle itself, and files of the form before it.

use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_formats::{FormatError, read_pytorch};

use super::{Random, assert_both_happen, damage_bytes, drive_within, sum};

/// Instructions and parts of them, to put between others or in their place.
const PIECES: [&[u8]; 36] = [
    b"(",
    b"0",
    b"1",
    b"2",
    b".",
    b"N",
    b"]",
    b"}",
    b")",
    b"t",
    b"e",
    b"a",
    b"s",
    b"u",
    b"d",
    b"b",
    b"R",
    b"Q",
    b"\x81",
    b"\x86",
    b"\x93",
    b"\x94",
    b"h\x00",
    b"q\x07",
    b"j\xff\xff\xff\xff",
    b"K\xff",
    b"J\xff\xff\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    b"ccollections\nOrderedDict\n",
    b"cos\nsystem\n",
    b"X\x05\x00\x00\x00model",
];

/// What an instruction of one byte may take: a container, its place on the stack, and both lists while they move.
const OBJECT_BYTES: usize = 100;

fn testdata(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/pytorch")).join(name))
        .unwrap()
}

/// Damages a pickle so that it mostly still runs for a while.
fn damage_pickle(pickle: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(pickle.len());
    let piece = PIECES[random.below(PIECES.len())];
    match random.below(6) {
        0 => damage_bytes(pickle, usize::MAX, random),
        1 => drop(pickle.splice(at..at, piece.iter().copied())),
        2 => {
            let times = [2, 50, 2000][random.below(3)];
            pickle.splice(at..at, piece.repeat(times));
        }
        3 => {
            let end = (at + piece.len()).min(pickle.len());
            pickle.splice(at..end, piece.iter().copied());
        }
        // Numbers are what sizes, strides and places in the memo are made of.
        4 => {
            let is_number = |place: &usize| matches!(pickle[*place], b'K' | b'h' | b'q');
            let Some(place) = (at..pickle.len().saturating_sub(1)).find(is_number) else { return };
            pickle[place + 1] = [0, 1, 2, 5, 64, 255, random.next() as u8][random.below(7)];
        }
        _ => {
            let piece = pickle[at..(at + random.below(60)).min(pickle.len())].to_vec();
            let to = random.below(pickle.len());
            pickle.splice(to..to, piece);
        }
    }
}

/// Where the content of an entry begins in an archive of torch, and how long it is.
fn entry(archive: &[u8], name: &str) -> (usize, usize) {
    let found = archive.windows(name.len()).rposition(|window| window == name.as_bytes()).unwrap();
    let number = |at: usize, width: usize| {
        archive[at..at + width].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
    };
    let (len, header) = (number(found - 46 + 24, 4), number(found - 46 + 42, 4));
    (header + 30 + number(header + 26, 2) + number(header + 28, 2), len)
}

/// An archive with another pickle in it: it is put at the end, and the directory told so.
fn with_pickle(archive: &[u8], name: &str, pickle: &[u8]) -> Vec<u8> {
    let end = archive.len() - 22;
    let number = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().unwrap()) as usize;
    let (size, start) = (number(end + 12), number(end + 16));
    let local =
        [&b"PK\x03\x04"[..], &[0; 22], &(name.len() as u16).to_le_bytes(), &[0; 2], name.as_bytes()].concat();
    let mut out = [&archive[..start], &local, pickle].concat();
    let directory = out.len();
    // Without the record of 64 bits, which torch writes in any case.
    out.extend_from_slice(&archive[start..start + size]);
    out.extend_from_slice(&archive[end..]);
    let place = out[directory..].windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
    let fixed = directory + place - 46;
    out[fixed + 20..fixed + 24].copy_from_slice(&(pickle.len() as u32).to_le_bytes());
    out[fixed + 24..fixed + 28].copy_from_slice(&(pickle.len() as u32).to_le_bytes());
    out[fixed + 42..fixed + 46].copy_from_slice(&(start as u32).to_le_bytes());
    let end = out.len() - 22;
    out[end + 16..end + 20].copy_from_slice(&(directory as u32).to_le_bytes());
    out
}

fn read(bytes: Vec<u8>) -> Result<(), FormatError> {
    let file = read_pytorch(ByteView::from_vec(bytes), "m.file")?;
    std::hint::black_box(sum(&file.tensors));
    Ok(())
}

fn damaged_archives(name: &str, folder: &str) {
    let good = testdata(name);
    let pickle_name = format!("{folder}/data.pkl");
    let (start, len) = entry(&good, &pickle_name);
    let pickle = good[start..start + len].to_vec();
    read(with_pickle(&good, &pickle_name, &pickle)).unwrap();
    let refused = drive_within(
        OBJECT_BYTES,
        |random: &mut Random| {
            if random.below(3) == 0 {
                let mut bytes = good.clone();
                // The directory is at the end.
                let head = [usize::MAX, 0][random.below(2)];
                if head == 0 {
                    let mut tail = bytes.split_off(bytes.len() * 2 / 3);
                    damage_bytes(&mut tail, usize::MAX, random);
                    bytes.extend(tail);
                } else {
                    damage_bytes(&mut bytes, head, random);
                }
                return bytes;
            }
            let mut pickle = pickle.clone();
            (0..=random.below(2)).for_each(|_| damage_pickle(&mut pickle, random));
            with_pickle(&good, &pickle_name, &pickle)
        },
        read,
    );
    assert_both_happen(refused);
}

#[test]
fn damaged_pytorch_archives() {
    damaged_archives("zip.pt", "zip");
}

#[test]
fn damaged_pytorch_checkpoints() {
    damaged_archives("checkpoint.pt", "checkpoint");
}

#[test]
fn damaged_pytorch_files_of_the_old_form() {
    let good = testdata("legacy.pt");
    let head = good.windows(2).rposition(|window| window == b"e.").unwrap() + 2;
    let refused = drive_within(
        OBJECT_BYTES,
        |random: &mut Random| {
            if random.below(3) == 0 {
                let mut bytes = good.clone();
                damage_bytes(&mut bytes, usize::MAX, random);
                return bytes;
            }
            // The magic number stays, so that it is this form that is read.
            let mut pickles = good[14..head].to_vec();
            (0..=random.below(2)).for_each(|_| damage_pickle(&mut pickles, random));
            [&good[..14], &pickles, &good[head..]].concat()
        },
        read,
    );
    assert_both_happen(refused);
}
