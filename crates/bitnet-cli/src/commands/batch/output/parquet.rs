//! Parquet, made at the end of lines of JSON: a Parquet file has its index at its end, so it cannot be continued.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;

use super::table::{Column, Source, written};
use crate::commands::resume::failed;
use crate::error::CliError;

/// Rows of a group: what is held in memory at a time.
const GROUP: usize = 10_000;

/// Makes `output` of the lines in `lines`, which goes then.
pub(super) fn write(lines: &Path, output: &Path, columns: &[Column]) -> Result<(), CliError> {
    let mut temporary = lines.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let made = make(lines, &temporary, columns)
        .and_then(|()| Ok(std::fs::rename(&temporary, output).and_then(|()| std::fs::remove_file(lines))?));
    made.map_err(|error| failed(output, &error))
}

fn make(lines: &Path, to: &Path, columns: &[Column]) -> Result<(), ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(File::create(to)?, schema(columns)?, Arc::new(properties))?;
    let mut rows = Vec::new();
    for line in BufReader::new(File::open(lines)?).lines() {
        let row: Value =
            serde_json::from_str(&line?).map_err(|error| ParquetError::External(error.into()))?;
        rows.push(row);
        if rows.len() == GROUP {
            write_group(writer.next_row_group()?, columns, &rows)?;
            rows.clear();
        }
    }
    if !rows.is_empty() {
        write_group(writer.next_row_group()?, columns, &rows)?;
    }
    Ok(writer.into_inner()?.sync_all()?)
}

/// Kinds of columns.
fn physical(column: &Column) -> Physical {
    match column.source {
        Source::Result("row" | "prompt_tokens" | "generated_tokens" | "seed") => Physical::INT64,
        Source::Result(name) if name.ends_with("_ms") => Physical::DOUBLE,
        _ => Physical::BYTE_ARRAY,
    }
}

fn schema(columns: &[Column]) -> Result<TypePtr, ParquetError> {
    let field = |column: &Column| {
        let kind = physical(column);
        let text = (kind == Physical::BYTE_ARRAY).then_some(LogicalType::String);
        let field = Type::primitive_type_builder(&column.name, kind).with_repetition(Repetition::OPTIONAL);
        field.with_logical_type(text).build().map(Arc::new)
    };
    let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?))
}

fn write_group(
    mut group: SerializedRowGroupWriter<'_, File>,
    columns: &[Column],
    rows: &[Value],
) -> Result<(), ParquetError> {
    for column in columns {
        let values: Vec<&Value> = rows.iter().map(|row| value(column, row)).collect();
        if let Some(writer) = group.next_column()? {
            write_column(writer, physical(column), &values)?;
        }
    }
    group.close().map(|_| ())
}

fn write_column(
    mut writer: SerializedColumnWriter<'_>,
    kind: Physical,
    values: &[&Value],
) -> Result<(), ParquetError> {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(!value.is_null())).collect();
    let there = values.iter().filter(|value| !value.is_null());
    match kind {
        Physical::INT64 => {
            let numbers: Vec<i64> = there.map(|value| value.as_i64().unwrap_or(0)).collect();
            writer.typed::<Int64Type>().write_batch(&numbers, Some(&levels), None)?;
        }
        Physical::DOUBLE => {
            let numbers: Vec<f64> = there.map(|value| value.as_f64().unwrap_or(0.0)).collect();
            writer.typed::<DoubleType>().write_batch(&numbers, Some(&levels), None)?;
        }
        _ => {
            let texts: Vec<ByteArray> =
                there.map(|value| ByteArray::from(written(value).into_bytes())).collect();
            writer.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None)?;
        }
    }
    writer.close()
}

/// The value of a column in a line.
fn value<'a>(column: &Column, row: &'a Value) -> &'a Value {
    match &column.source {
        Source::Field(name) => &row["input"][name.as_str()],
        Source::Id => &row["id"],
        Source::Input => &row["input"],
        Source::Result(name) => &row[*name],
    }
}
