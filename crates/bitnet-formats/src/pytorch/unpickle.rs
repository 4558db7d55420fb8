//! The unpickler: a machine with a stack that builds values on a [`Heap`] and runs nothing.
//!
//! It knows what `torch.save` writes with pickle protocols 2 to 5. Each step consumes at least one byte of the file,
//! and whatever grows is charged to the file's budget, so time and memory are bounded by the size of the file.

use super::globals::{Looked, look_up};
use super::heap::{Heap, Value};
use super::rebuild;
use crate::error::quoted;
use crate::{FormatError, Result};

/// Longest name of a module or class that is looked up.
const LONGEST_NAME: usize = 256;

/// Bytes that a slot of the stack may take while the stack grows.
const SLOT: usize = 3 * size_of::<Value<'static>>();

/// Most places of the memo that may be left out: places are numbered in order, by some writers from 1 on.
const MEMO_GAP: u64 = 64;

/// Runs one pickle and returns its value and the bytes after it. `part` names the pickle in messages.
///
/// # Errors
/// If it is malformed, mentions a name outside the list, or would take too much memory.
pub(super) fn unpickle<'a>(
    bytes: &'a [u8],
    part: &'static str,
    heap: &mut Heap<'a, '_>,
) -> Result<(Value<'a>, &'a [u8])> {
    let mut machine = Machine {
        bytes,
        at: 0,
        start: 0,
        part,
        stack: Vec::new(),
        highest: 0,
        marks: Vec::new(),
        memo: Vec::new(),
        heap,
    };
    loop {
        if let Some(value) = machine.step()? {
            return Ok((value, &bytes[machine.at..]));
        }
    }
}

struct Machine<'a, 'h, 'o> {
    bytes: &'a [u8],
    /// The next byte.
    at: usize,
    /// Where the current instruction began.
    start: usize,
    part: &'static str,
    stack: Vec<Value<'a>>,
    /// Slots of the stack that are paid for.
    highest: usize,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: Vec<Option<Value<'a>>>,
    heap: &'h mut Heap<'a, 'o>,
}

impl<'a> Machine<'a, '_, '_> {
    fn wrong(&self, problem: impl Into<String>) -> FormatError {
        let field = format!("{}, byte {}", self.part, self.start);
        FormatError::malformed(self.heap.origin(), field, problem)
    }

    /// Takes bytes that lie in the file.
    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.wrong(format!("{len} bytes should follow, but {} are there", rest.len()))),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64> {
        let mut wide = [0u8; 8];
        wide[..N].copy_from_slice(self.take(N as u64)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn text(&mut self, len: u64) -> Result<&'a str> {
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("a string is not UTF-8"))
    }

    /// A line of text, as old instructions have for names.
    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(LONGEST_NAME + 1).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| self.wrong("a name does not end"))?;
        let line = self.text(end as u64)?;
        self.at += 1;
        Ok(line)
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        if self.stack.len() == self.highest {
            self.heap.budget.objects(SLOT)?;
            self.highest += 1;
        }
        self.stack.push(value);
        Ok(())
    }

    /// Takes the top of the stack, not below the last mark.
    fn pop(&mut self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(value) if self.stack.len() >= floor => Ok(value),
            _ => Err(self.wrong("the stack is empty")),
        }
    }

    fn top(&self) -> Result<Value<'a>> {
        self.stack.last().copied().ok_or_else(|| self.wrong("the stack is empty"))
    }

    /// Height of the stack at the last mark, which is closed.
    fn close_mark(&mut self) -> Result<usize> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(mark),
            _ => Err(self.wrong("a mark is missing")),
        }
    }

    /// Makes one sequence of what lies above `height`.
    fn gather(&mut self, height: usize) -> Result<()> {
        let sequence = self.heap.sequence(&self.stack[height..])?;
        self.stack.truncate(height);
        self.push(sequence)
    }

    /// A tuple of the uppermost `count` values.
    fn tuple(&mut self, count: usize) -> Result<()> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count).filter(|&height| height >= floor) {
            Some(height) => self.gather(height),
            None => Err(self.wrong("the stack is empty")),
        }
    }

    fn append(&mut self, height: usize) -> Result<()> {
        let list = height.checked_sub(1).map(|place| self.stack[place]);
        let list = list.ok_or_else(|| self.wrong("there is no list"))?;
        if !self.heap.append(list, &self.stack[height..])? {
            return Err(self.wrong("something is appended to what is no list"));
        }
        self.stack.truncate(height);
        Ok(())
    }

    fn set_items(&mut self, height: usize) -> Result<()> {
        let dict = height.checked_sub(1).map(|place| self.stack[place]);
        let dict = dict.ok_or_else(|| self.wrong("there is no dictionary"))?;
        if !self.heap.set_items(dict, &self.stack[height..])? {
            return Err(self.wrong("something is put into what is no dictionary"));
        }
        self.stack.truncate(height);
        Ok(())
    }

    /// Height of the stack below its uppermost `count` values, which must leave one below them.
    fn below(&self, count: usize) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let height = self.stack.len().checked_sub(count).filter(|&height| height > floor);
        height.ok_or_else(|| self.wrong("the stack is empty"))
    }

    fn remember(&mut self, place: u64) -> Result<()> {
        let value = self.top()?;
        let len = self.memo.len() as u64;
        if place > len + MEMO_GAP {
            return Err(self.wrong(format!("{place} is remembered after {len} values")));
        }
        let place = place as usize;
        while self.memo.len() <= place {
            self.heap.budget.objects(SLOT)?;
            self.memo.push(None);
        }
        self.memo[place] = Some(value);
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<()> {
        let value = self.memo.get(place as usize).copied().flatten();
        let value = value.ok_or_else(|| self.wrong(format!("nothing was remembered under {place}")))?;
        self.push(value)
    }

    fn mention(&mut self, module: &str, name: &str) -> Result<()> {
        let origin = || self.heap.origin().to_owned();
        match look_up(module, name) {
            Looked::Up(global) => self.push(Value::Global(global)),
            Looked::Unsupported => Err(FormatError::Unsupported {
                origin: origin(),
                what: format!("{module}.{name}"),
                remedy: "save the weights as f32, f16, bf16 or packed bytes",
            }),
            Looked::Forbidden => Err(FormatError::ForbiddenGlobal {
                origin: origin(),
                name: quoted(&format!("{module}.{name}")),
            }),
        }
    }

    /// Calls nothing: understands what a call of a known name would make.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let made = match callee {
            Value::Global(global) => rebuild::call(self.heap, global, arguments),
            _ => Err("something is called that is no name of the list".to_owned().into()),
        };
        match made {
            Ok(value) => self.push(value),
            Err(rebuild::Refused::Error(error)) => Err(error),
            Err(rebuild::Refused::Problem(problem)) => Err(self.wrong(problem)),
        }
    }

    /// A number of any width; what is wider than 64 bits is of no use here.
    fn long(&mut self, len: u64) -> Result<()> {
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let value = match wide.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(wide))
            }
            None => Value::Other,
        };
        self.push(value)
    }

    /// Runs one instruction; returns the value of the pickle at its end.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        self.start = self.at;
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                version => Err(self.unsupported(&format!("pickle protocol {version}"))),
            },
            0x95 => self.number::<8>().map(drop),
            b'(' => {
                self.heap.budget.objects(3 * size_of::<usize>())?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.close_mark().map(|mark| self.stack.truncate(mark)),
            b'2' => self.top().and_then(|value| self.push(value)),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.mention(module, name)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.mention(module, name),
                _ => Err(self.wrong("a name is no string")),
            },
            b'R' | 0x81 => self.reduce(),
            // Keyword arguments only ever go to inert objects.
            0x92 => self.pop().and_then(|_| self.reduce()),
            // Attributes of an object: none of those that are understood has any.
            b'b' => self.below(1).map(|height| self.stack.truncate(height)),
            b'Q' => {
                let id = self.pop()?;
                match rebuild::storage(self.heap, id) {
                    Ok(storage) => self.push(storage),
                    Err(rebuild::Refused::Error(error)) => Err(error),
                    Err(rebuild::Refused::Problem(problem)) => Err(self.wrong(problem)),
                }
            }
            opcode => self.data(opcode),
        }?;
        Ok(None)
    }

    /// Instructions that only move data.
    fn data(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool),
            b'J' => {
                let number = self.number::<4>()? as u32 as i32;
                self.push(Value::Int(i64::from(number)))
            }
            b'K' => self.number::<1>().and_then(|n| self.push(Value::Int(n as i64))),
            b'M' => self.number::<2>().and_then(|n| self.push(Value::Int(n as i64))),
            0x8a => self.number::<1>().and_then(|len| self.long(len)),
            0x8b => self.number::<4>().and_then(|len| self.long(len)),
            b'G' => self.take(8).and_then(|_| self.push(Value::Other)),
            b'X' => self.number::<4>().and_then(|len| self.string(len)),
            0x8c => self.number::<1>().and_then(|len| self.string(len)),
            0x8d => self.number::<8>().and_then(|len| self.string(len)),
            b'U' | b'C' => self.number::<1>().and_then(|len| self.byte_string(opcode, len)),
            b'T' | b'B' => self.number::<4>().and_then(|len| self.byte_string(opcode, len)),
            0x8e | 0x96 => self.number::<8>().and_then(|len| self.byte_string(opcode, len)),
            b')' | b']' | 0x8f => self.heap.sequence(&[]).and_then(|value| self.push(value)),
            b'}' => self.heap.empty_dict().and_then(|value| self.push(value)),
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84)),
            b't' | b'l' | 0x91 => self.close_mark().and_then(|mark| self.gather(mark)),
            b'd' => {
                let mark = self.close_mark()?;
                let dict = self.heap.empty_dict()?;
                // Below what it is to hold.
                self.push(Value::None)?;
                self.stack[mark..].rotate_right(1);
                self.stack[mark] = dict;
                self.set_items(mark + 1)
            }
            b'a' => self.below(1).and_then(|height| self.append(height)),
            b'e' | 0x90 => self.close_mark().and_then(|mark| self.append(mark)),
            b's' => self.below(2).and_then(|height| self.set_items(height)),
            b'u' => self.close_mark().and_then(|mark| self.set_items(mark)),
            b'q' => self.number::<1>().and_then(|place| self.remember(place)),
            b'r' => self.number::<4>().and_then(|place| self.remember(place)),
            0x94 => self.remember(self.memo.len() as u64),
            b'h' => self.number::<1>().and_then(|place| self.recall(place)),
            b'j' => self.number::<4>().and_then(|place| self.recall(place)),
            other => Err(self.unsupported(&format!("the pickle instruction {:?}", char::from(other)))),
        }
    }

    fn string(&mut self, len: u64) -> Result<()> {
        let text = self.text(len)?;
        self.push(Value::Text(text))
    }

    /// Strings of Python 2 may be text or not; bytes are no text.
    fn byte_string(&mut self, opcode: u8, len: u64) -> Result<()> {
        let bytes = self.take(len)?;
        let text = matches!(opcode, b'U' | b'T').then(|| std::str::from_utf8(bytes).ok()).flatten();
        self.push(text.map_or(Value::Other, Value::Text))
    }

    fn unsupported(&self, what: &str) -> FormatError {
        FormatError::Unsupported {
            origin: self.heap.origin().to_owned(),
            what: format!("{what} ({}, byte {})", self.part, self.start),
            remedy: "save the state dict again with a current torch.save",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn run(bytes: &[u8]) -> std::result::Result<String, String> {
        let mut heap = Heap::new(Budget::new(bytes.len() as u64, "m.pt"));
        let (value, rest) = unpickle(bytes, "pickle", &mut heap).map_err(|error| error.to_string())?;
        Ok(format!("{}{}", show(&heap, value, 0), if rest.is_empty() { "" } else { " and more" }))
    }

    fn show(heap: &Heap<'_, '_>, value: Value<'_>, depth: usize) -> String {
        if depth > 3 {
            return "...".to_owned();
        }
        if let Some(list) = heap.elements(value) {
            return format!("{:?}", list.iter().map(|&v| show(heap, v, depth + 1)).collect::<Vec<_>>());
        }
        if let Some(entries) = heap.entries(value) {
            let pairs = entries.iter().map(|&(k, v)| (show(heap, k, depth + 1), show(heap, v, depth + 1)));
            return format!("{:?}", pairs.collect::<Vec<_>>());
        }
        format!("{value:?}")
    }

    #[test]
    fn containers_numbers_and_text() {
        assert_eq!(run(b"\x80\x02K\x07.").unwrap(), "Int(7)");
        assert_eq!(run(b"J\xff\xff\xff\xff.").unwrap(), "Int(-1)");
        assert_eq!(run(b"\x8a\x02\x00\xff.").unwrap(), "Int(-256)");
        assert_eq!(run(b"\x8a\x00.").unwrap(), "Int(0)");
        assert_eq!(run(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19..").unwrap(), "Other and more");
        assert_eq!(
            run(b"}(X\x01\0\0\0aK\x01X\x01\0\0\0bNu.").unwrap(),
            r#"[("Text(\"a\")", "Int(1)"), ("Text(\"b\")", "None")]"#
        );
        assert_eq!(run(b"(K\x01K\x02d.").unwrap(), r#"[("Int(1)", "Int(2)")]"#);
        assert!(run(b"]q\x00(K\x01h\x00e.").unwrap().contains("..."), "a list in itself");
        assert_eq!(run(b"\x80\x04\x8c\x01x\x94\x8c\x01y\x86.").unwrap(), r#"["Text(\"x\")", "Text(\"y\")"]"#);
        assert_eq!(run(b"ccollections\nOrderedDict\n)R}b.").unwrap(), "[]");
    }

    #[test]
    fn what_would_act_is_refused_by_name() {
        for (bytes, name) in [
            (&b"cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "os.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
            (b"ctorch.storage\n_load_from_bytes\nC\x01x\x85R.", "torch.storage._load_from_bytes"),
            (b"c__main__\nNet\n)\x81.", "__main__.Net"),
        ] {
            let message = run(bytes).unwrap_err();
            assert!(
                message.starts_with("m.pt: ")
                    && message.contains(name)
                    && message.contains("nothing was run"),
                "{message}"
            );
        }
        for bytes in [&b"(i__main__\nA\n."[..], b"I01\n.", b"P1\n.", b"\x82\x01.", b"\x97."] {
            assert!(run(bytes).unwrap_err().contains("instruction"), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn damaged_pickles_are_errors() {
        for bytes in [
            &b""[..],
            b".",
            b"0.",
            b"(.",
            b"(0.",
            b"K",
            b"e.",
            b"Na.",
            b"t.",
            b"h\x05.",
            b"q\x00.",
            b"X\xff\xff\xff\xffa.",
            b"X\x01\0\0\0\xff.",
            b"R.",
            b"NNR.",
            b"NQ.",
            b"]K\x01K\x02s.",
            b"}(K\x01u.",
            b"\x80\x09.",
            b"cnever ending",
            b"\x85.",
            b"K\x01(\x85.",
        ] {
            assert!(run(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn memory_is_bounded_by_the_file() {
        for unit in [&b"N"[..], b"]", b"(", b"2", b"\x94"] {
            let mut bytes = b"N".to_vec();
            bytes.extend(unit.repeat((24 << 20) / unit.len()));
            let message = run(&bytes).unwrap_err();
            assert!(message.contains("more memory"), "{message}");
        }
    }
}
