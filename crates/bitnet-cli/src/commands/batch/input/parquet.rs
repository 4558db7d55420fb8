//! Rows of Parquet files.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::basic::CompressionCodec;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::{Content, Entry, InputFile, Reader, unreadable};
use crate::error::CliError;

/// Begins to read a file.
pub(super) fn read(file: &InputFile) -> Result<Reader, CliError> {
    let Some(path) = &file.path else {
        return Err(CliError::usage("a Parquet file cannot come from stdin")
            .hint("its index is at its end: name the file"));
    };
    let source = File::open(path).map_err(|error| unreadable(&file.name, &error))?;
    let reader = guarded(&file.name, || SerializedFileReader::new(source))?;
    let mut columns = reader.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
    // Rows are not computed only to find out in the middle of a file that it cannot be read.
    if let Some(codec) = columns.find_map(unsupported) {
        return Err(unreadable(&file.name, &format_args!("it is compressed with {codec:?}"))
            .hint("write it with Snappy, or without compression"));
    }
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let columns = schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
    let rows = guarded(&file.name, || Ok(reader.into_iter()))?;
    let entries = Records { name: file.name.clone(), rows, read: 0, ended: false };
    Ok(Reader { columns: Some(columns), entries: Box::new(entries) })
}

/// What a column is compressed with, if that cannot be undone: the libraries for it are large or in C.
fn unsupported(column: &ColumnChunkMetaData) -> Option<CompressionCodec> {
    let codec = column.compression_codec();
    (!matches!(codec, CompressionCodec::UNCOMPRESSED | CompressionCodec::SNAPPY)).then_some(codec)
}

/// Runs the reader, which panics at some damaged files.
fn guarded<T>(name: &str, work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, CliError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| unreadable(name, &error)),
        Err(_) => Err(unreadable(name, &"it is damaged, or of a kind that is not supported")),
    }
}

struct Records {
    name: String,
    rows: RowIter<'static>,
    read: u64,
    ended: bool,
}

impl Iterator for Records {
    type Item = Result<Entry, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = guarded(&self.name, || self.rows.next().transpose());
        self.ended = !matches!(row, Ok(Some(_)));
        self.read += 1;
        let content = |row: parquet::record::Row| match row.to_json_value() {
            Value::Object(fields) => Ok(Content::Record(fields)),
            _ => Err("it has no columns".to_owned()),
        };
        let entry = |row| Entry { place: Some(self.read), content: content(row) };
        row.map(|row| row.map(entry)).transpose()
    }
}
