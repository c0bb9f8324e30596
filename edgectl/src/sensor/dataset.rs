//! A sensor's data: a CSV file with one reading a row. The column `label` is the expected class; every other column
//! is one value of the model's input.

use std::path::{Path, PathBuf};

/// Name of the column with the expected class.
const LABEL: &str = "label";

/// Readings of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// At least one row.
    pub rows: Vec<Row>,
    /// Values of each row.
    pub width: usize,
}

/// One reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Expected class, where the file has the column.
    pub label: Option<i64>,
    /// Finite values, as many as the file has value columns.
    pub values: Vec<f32>,
}

/// Why a file is no data set.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file cannot be opened.
    #[error("cannot open the data file {}; --data takes a CSV file with a header such as label,p0,p1", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system or the parser says.
        #[source]
        source: csv::Error,
    },
    /// The file is not CSV, or a row is shorter or longer than the header.
    #[error("{} is not valid CSV; each row needs as many fields as the header", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        #[source]
        source: csv::Error,
    },
    /// A header without value columns.
    #[error("{} has no column of values: its first line must name them, such as label,p0,p1", path.display())]
    NoValues {
        /// The file.
        path: PathBuf,
    },
    /// A header and nothing else.
    #[error("{} has no rows; add at least one below the header", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// A field that is not a number.
    #[error("{}:{line}: column {column:?} is {text:?}, which is not {wanted}", path.display())]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        text: String,
        /// What should.
        wanted: &'static str,
    },
}

impl Dataset {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`DatasetError`] names file, line and column.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let path = path.to_owned();
        let csv_error = |source: csv::Error| {
            let path = path.clone();
            if source.is_io_error() {
                DatasetError::Open { path, source }
            } else {
                DatasetError::Csv { path, source }
            }
        };
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_path(&path)
            .map_err(csv_error)?;
        let header = reader.headers().map_err(csv_error)?.clone();
        let width = header.iter().filter(|column| *column != LABEL).count();
        if width == 0 || header.iter().all(str::is_empty) {
            return Err(DatasetError::NoValues { path });
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(csv_error)?;
            let line = record.position().map_or(0, csv::Position::line);
            let row = read_row(&header, &record).map_err(|bad| DatasetError::NotANumber {
                path: path.clone(),
                line,
                column: bad.column.to_owned(),
                text: bad.text.chars().take(40).collect(),
                wanted: bad.wanted,
            })?;
            rows.push(row);
        }
        if rows.is_empty() {
            return Err(DatasetError::NoRows { path });
        }
        Ok(Self { rows, width })
    }

    /// Whether the expected classes are known.
    #[must_use]
    pub fn is_labelled(&self) -> bool {
        self.rows.iter().any(|row| row.label.is_some())
    }
}

struct BadField<'a> {
    column: &'a str,
    text: &'a str,
    wanted: &'static str,
}

fn read_row<'a>(
    header: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
) -> Result<Row, BadField<'a>> {
    let mut row = Row {
        label: None,
        values: Vec::with_capacity(header.len()),
    };
    for (column, text) in header.iter().zip(record) {
        if column == LABEL {
            row.label = Some(text.parse().map_err(|_| BadField {
                column,
                text,
                wanted: "a whole number",
            })?);
        } else {
            let value: Option<f32> = text.parse().ok().filter(|value: &f32| value.is_finite());
            row.values.push(value.ok_or(BadField {
                column,
                text,
                wanted: "a finite number",
            })?);
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.csv");
        std::fs::write(&path, text).unwrap();
        Dataset::read(&path).map_err(|error| {
            let source = std::error::Error::source(&error).map(|s| format!(": {s}"));
            format!("{error}{}", source.unwrap_or_default())
                .replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn the_label_may_stand_anywhere_or_nowhere() {
        let data = read("p0,label,p1\n1,7,2.5\n-3e1, 8 ,0\n").unwrap();
        assert_eq!(data.width, 2);
        assert!(data.is_labelled());
        assert_eq!(data.rows[0].values, [1.0, 2.5]);
        assert_eq!(data.rows[1].label, Some(8));
        let data = read("a\n1\n").unwrap();
        assert!(!data.is_labelled());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, expected) in [
            ("", "d.csv has no column of values"),
            ("label\n1\n", "d.csv has no column of values"),
            ("label,p0\n", "d.csv has no rows"),
            (
                "label,p0\n1,2\n3,x\n",
                "d.csv:3: column \"p0\" is \"x\", which is not a finite number",
            ),
            ("label,p0\n1,NaN\n", "d.csv:2: column \"p0\" is \"NaN\""),
            (
                "label,p0\n1.5,2\n",
                "d.csv:2: column \"label\" is \"1.5\", which is not a whole number",
            ),
            ("label,p0\n1,2,3\n", "d.csv is not valid CSV"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.starts_with(expected), "{text:?}: {message}");
        }
        let missing = Dataset::read(Path::new("no-such.csv")).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("cannot open the data file no-such.csv")
        );
    }
}
