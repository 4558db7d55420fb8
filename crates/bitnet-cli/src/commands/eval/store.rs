//! [`Store`]: the growing file of what became of each row, and how a run that was interrupted goes on.
//!
//! A row is handed to the system as soon as it is computed, so that a run that is killed loses none; and it is brought to the
//! disk soon after, so that a power cut costs little. What a run finds is what lies there in whole lines that fit the rows of
//! the task; what follows is cut off.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bitnet_inference::evaluate::task::{Answer, Item, ItemResult, Outcome};
use serde_json::{Value, json};

use super::print;
use crate::commands::resume::{Journal, Note, Places, failed};
use crate::error::CliError;
use crate::output;

/// Rows are brought to the disk so often.
const COMMIT: Duration = Duration::from_millis(250);

/// What lies there before a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing that matters, or what is to be gone on with.
    Begin,
    /// A whole file, and no interrupted run.
    Whole,
}

/// What the journal notes at the end: that the file is whole, of so many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Whole {
    bytes: Option<u64>,
}

impl Note for Whole {
    fn to_json(&self) -> Value {
        json!({"whole": self.bytes})
    }

    fn from_json(line: &Value) -> Option<Self> {
        Some(Self { bytes: Some(line["whole"].as_u64()?) })
    }
}

/// Looks what lies there, before anything is loaded or computed.
///
/// # Errors
/// If a run was interrupted there and would be lost.
pub(super) fn look(places: &Places, resume: bool, force: bool) -> Result<Before, CliError> {
    match places.found::<Whole>() {
        None if resume && places.output.exists() => Ok(Before::Whole),
        // What has its name already is lost by no new run.
        Some(_) if !resume && !force && places.part.exists() => {
            let part = std::fs::read(&places.part).unwrap_or_default();
            match part.iter().filter(|&&byte| byte == b'\n').count() {
                0 => Ok(Before::Begin),
                rows => Err(places.interrupted(rows as u64)),
            }
        }
        _ => Ok(Before::Begin),
    }
}

/// Rows on their way to a file.
#[derive(Debug)]
pub(super) struct Store {
    places: Places,
    journal: Journal,
    /// None: the file has its name already.
    part: Option<File>,
    committed: Instant,
}

impl Store {
    /// Opens the places of a run. With `resume` what an interrupted run did of these items is kept and given.
    ///
    /// # Errors
    /// If it was another run, or if nothing can be written there.
    pub(super) fn open(
        places: Places,
        header: &Value,
        items: &[Item],
        resume: bool,
    ) -> Result<(Self, Vec<ItemResult>), CliError> {
        let (mut journal, found) = Journal::open::<Whole>(&places.journal)?;
        let committed = Instant::now();
        if let Some(found) = found.filter(|_| resume) {
            journal.check(&found, header)?;
            let whole = found.marks.last().and_then(|mark| mark.bytes);
            if whole.is_some() && !places.part.exists() {
                // The run ended between giving the file its name and telling what came out.
                let bytes = std::fs::read(&places.output).unwrap_or_default();
                let (results, length) = done(&bytes, items);
                if whole == Some(length) && results.len() == items.len() {
                    return Ok((Self { places, journal, part: None, committed }, results));
                }
            }
            journal.go_on(&found, 0)?;
            let mut part = places.open_part()?;
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes).map_err(|error| unreadable(&places.part, &error))?;
            let (results, length) = done(&bytes, items);
            let cut = part.set_len(length).and_then(|()| part.seek(SeekFrom::End(0)));
            cut.map_err(|error| failed(&places.part, &error))?;
            return Ok((Self { places, journal, part: Some(part), committed }, results));
        }
        let part = places.open_part()?;
        part.set_len(0).map_err(|error| failed(&places.part, &error))?;
        journal.begin(header)?;
        Ok((Self { places, journal, part: Some(part), committed }, Vec::new()))
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&mut self, result: &ItemResult) -> Result<(), CliError> {
        let Some(part) = &mut self.part else { return Ok(()) };
        let line = print::item(result).to_string() + "\n";
        part.write_all(line.as_bytes()).map_err(|error| failed(&self.places.part, &error))?;
        if self.committed.elapsed() >= COMMIT { self.commit() } else { Ok(()) }
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// If it cannot be.
    pub(super) fn commit(&mut self) -> Result<(), CliError> {
        if let Some(part) = &self.part {
            part.sync_data().map_err(|error| failed(&self.places.part, &error))?;
        }
        self.committed = Instant::now();
        Ok(())
    }

    /// Gives the whole file its name. The journal stays until [`forget`](Self::forget): whoever is killed before it could tell
    /// what came out can still be resumed.
    ///
    /// # Errors
    /// If the file cannot have its name.
    pub(super) fn finish(&mut self) -> Result<(), CliError> {
        self.commit()?;
        let Some(part) = self.part.take() else { return Ok(()) };
        let bytes = part.metadata().map_err(|error| failed(&self.places.part, &error))?.len();
        drop(part);
        self.journal.mark(&Whole { bytes: Some(bytes) })?;
        rename(&self.places.part, &self.places.output)
    }

    /// Removes the journal: the run is over.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn forget(self) -> Result<(), CliError> {
        self.places.remove_journal()
    }
}

/// Gives a file its name. One that is there keeps its permissions, and a link to it stays a link.
fn rename(part: &Path, output: &Path) -> Result<(), CliError> {
    let target = std::fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
    match output::replace(part, &target) {
        // The link leads to another disk.
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            let content = std::fs::read(part).map_err(|error| unreadable(part, &error))?;
            output::write_file(output, &content)?;
            std::fs::remove_file(part).map_err(|error| failed(part, &error))
        }
        renamed => renamed.map_err(|error| failed(output, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot read {}: {error}", path.display()))
}

/// The rows that stand in a file, whole lines that fit the items from the first on; and where the last one ends.
fn done(bytes: &[u8], items: &[Item]) -> (Vec<ItemResult>, u64) {
    let mut end = 0;
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').zip(items);
    let rows = lines.map_while(|(line, item)| {
        let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let result = print::parsed(&serde_json::from_str(text).ok()?).filter(|result| fits(result, item))?;
        end += line.len() as u64;
        Some(result)
    });
    (rows.collect(), end)
}

/// Whether a result can be that of an item.
fn fits(result: &ItemResult, item: &Item) -> bool {
    let kind = match (&result.outcome, &item.answer) {
        (Outcome::Chosen(choosing), Answer::Choice { choices, right }) => {
            choosing.scores.len() == choices.len() && choosing.right == *right
        }
        (Outcome::Written(_), Answer::Text(_) | Answer::Pattern(_)) => true,
        _ => false,
    };
    kind && result.id == item.id && result.category == item.category
}

#[cfg(test)]
mod tests {
    use bitnet_inference::evaluate::LogLikelihood;
    use bitnet_inference::evaluate::task::{ChoiceScore, Choosing, Summary, Writing};

    use super::*;

    const TASK: &str = r#"{"question": "a", "choices": ["x", "y"], "answer": 1, "category": "c"}
{"question": "b", "answer": "z"}
{"question": "c", "choices": ["x", "y"], "answer": 0, "category": "c"}
"#;

    fn results() -> Vec<ItemResult> {
        let score = |text: &str, sum| ChoiceScore {
            text: text.to_owned(),
            likelihood: LogLikelihood { sum, tokens: 1, greedy: false },
        };
        let chosen = |right| {
            let scores = vec![score("x", -0.5), score("y", -1.25)];
            Outcome::Chosen(Choosing { scores, right, by_sum: 0, by_byte: 0, by_token: 0 })
        };
        let written = Outcome::Written(Writing { text: "z \"é\"\n".to_owned(), correct: true });
        let result = |id: &str, category: Option<&str>, outcome| ItemResult {
            id: id.to_owned(),
            category: category.map(str::to_owned),
            outcome,
            tokens: 12,
            computed: 0,
            reused: 0,
        };
        vec![result("1", Some("c"), chosen(1)), result("2", None, written), result("3", Some("c"), chosen(0))]
    }

    fn places(folder: &tempfile::TempDir) -> Places {
        Places::new(&folder.path().join("out.jsonl"))
    }

    fn open(places: &Places, seed: u64, resume: bool) -> Result<(Store, Vec<ItemResult>), CliError> {
        let items = Item::parse_lines(TASK).unwrap();
        Store::open(places.clone(), &json!({"seed": seed}), &items, resume)
    }

    /// Writes all rows as one run does, and gives the bytes.
    fn whole() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        let (mut store, _) = open(&places, 1, false).unwrap();
        results().iter().for_each(|result| store.write(result).unwrap());
        store.finish().unwrap();
        store.forget().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::read(&places.output).unwrap()
    }

    #[test]
    fn a_run_that_is_cut_off_anywhere_goes_on_to_the_same_bytes() {
        let whole = whole();
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        drop(open(&places, 1, false).unwrap());
        for length in (0..=whole.len()).step_by(7).chain([whole.len()]) {
            std::fs::write(&places.part, &whole[..length]).unwrap();
            let rows = whole[..length].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(look(&places, false, false).is_err(), rows > 0);
            assert_eq!(look(&places, true, false).unwrap(), Before::Begin);
            let (mut store, before) = open(&places, 1, true).unwrap();
            assert_eq!(before, results()[..rows]);
            results()[rows..].iter().for_each(|result| store.write(result).unwrap());
            drop(store);
            assert!(std::fs::read(&places.part).unwrap() == whole, "cut at {length}");
        }
        assert_eq!(Summary::of(&results()), Summary::of(&open(&places, 1, true).unwrap().1));
    }

    #[test]
    fn what_fits_no_row_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        drop(open(&places, 1, false).unwrap());
        let lines: Vec<String> = results().iter().map(|result| print::item(result).to_string()).collect();
        let part = |lines: &[&str]| std::fs::write(&places.part, lines.join("\n") + "\n").unwrap();
        for second in ["\0\0\0", "{}", "nonsense", lines[0].as_str(), &lines[1].replace("\"2\"", "\"7\"")] {
            part(&[&lines[0], second, &lines[2]]);
            assert_eq!(open(&places, 1, true).unwrap().1.len(), 1, "{second}");
            assert_eq!(std::fs::read_to_string(&places.part).unwrap(), format!("{}\n", lines[0]));
        }
        // More rows than there are: the last ones are not of this task.
        part(&[&lines[0], &lines[1], &lines[2], &lines[2]]);
        assert_eq!(open(&places, 1, true).unwrap().1.len(), 3);
        let CliError::Failed { message, usage, .. } = open(&places, 2, true).unwrap_err() else { panic!() };
        assert!(usage && message.contains("out.jsonl.journal") && message.contains("seed was 1 and is 2"));
    }

    #[test]
    fn killed_behind_the_renaming_the_rows_are_told_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder);
        let (mut store, _) = open(&places, 1, false).unwrap();
        results().iter().for_each(|result| store.write(result).unwrap());
        store.finish().unwrap();
        drop(store);
        assert!(places.journal.exists() && places.output.exists() && !places.part.exists());
        assert_eq!(look(&places, false, false).unwrap(), Before::Begin);
        let (mut store, before) = open(&places, 1, true).unwrap();
        assert_eq!(before, results());
        store.finish().unwrap();
        store.forget().unwrap();
        assert_eq!(look(&places, true, false).unwrap(), Before::Whole);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
