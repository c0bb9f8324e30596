//! Board files found, read and laid over what they inherit. Every file is bounded, and so is the chain.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    BoardError, builtin,
    problem::BoardProblem,
    tree::{Node, Place, Value},
};

/// Largest board file, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Most files of a chain of `inherit`, the first included.
pub const MAX_CHAIN: usize = 8;

/// A file, its chain merged into one tree.
pub(super) struct Merged {
    pub(super) tree: Node,
    /// Files by their number in places.
    pub(super) files: Vec<String>,
    /// Whether the first file is only there to be inherited.
    pub(super) is_abstract: bool,
}

impl Merged {
    /// The problem that is at `place`.
    pub(super) fn problem(&self, place: Place, problem: String) -> BoardProblem {
        problem_at(&self.files, place, problem)
    }
}

fn problem_at(files: &[String], place: Place, problem: String) -> BoardProblem {
    BoardProblem {
        file: files.get(place.file).cloned().unwrap_or_default(),
        line: place.line,
        problem,
    }
}

/// Where a file came from: decides what its `inherit` may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Part of the program, or text without a folder: inherits from the program alone.
    Program(String),
    /// A file: inherits from the program, or from a path relative to its folder.
    File(PathBuf),
}

/// Reads a file of at most [`MAX_FILE_BYTES`].
pub(super) fn read(path: &Path) -> Result<String, BoardError> {
    let failed = |source| BoardError::Read {
        path: path.to_owned(),
        source,
    };
    // A pipe or a device could keep the caller waiting for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is no plain file")));
    }
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(failed)?;
    Ok(text)
}

/// Whether a name is one of a file.
pub(super) fn is_path(name: &str) -> bool {
    name.contains('/') || name.ends_with(".toml")
}

/// Merges `text` over all that it inherits.
pub(super) fn merge(text: &str, file: &str, origin: Origin) -> Result<Merged, BoardError> {
    let mut files = Vec::new();
    let mut chain: Vec<Node> = Vec::new();
    let mut seen: Vec<Origin> = Vec::new();
    let mut is_abstract = None;
    let mut next = Some((text.to_owned(), file.to_owned(), origin));
    while let Some((text, file, origin)) = next.take() {
        let number = files.len();
        files.push(file);
        let invalid = |place, problem| BoardError::Invalid {
            problems: vec![problem_at(&files, place, problem)],
        };
        if text.len() as u64 > MAX_FILE_BYTES {
            let start = Place {
                file: number,
                line: 1,
            };
            let problem = format!("the file is larger than {MAX_FILE_BYTES} bytes");
            return Err(invalid(start, problem));
        }
        let mut tree =
            Node::parse(&text, number).map_err(|error| invalid(error.place, error.text))?;
        let is_this_abstract = take_abstract(&mut tree).map_err(|(at, text)| invalid(at, text))?;
        is_abstract.get_or_insert(is_this_abstract);
        let parent = take_inherit(&mut tree).map_err(|(at, text)| invalid(at, text))?;
        chain.push(tree);
        seen.push(canonical(&origin));
        if let Some((name, place)) = parent {
            if chain.len() >= MAX_CHAIN {
                let problem = format!("more than {MAX_CHAIN} files inherit one another");
                return Err(invalid(place, problem));
            }
            let (text, file, origin) =
                find(&name, &origin).map_err(|problem| invalid(place, problem))?;
            if seen.contains(&canonical(&origin)) {
                return Err(invalid(
                    place,
                    format!("{name:?} inherits this file in turn"),
                ));
            }
            next = Some((text, file, origin));
        }
    }
    let mut layers = chain.into_iter().rev();
    let Some(mut tree) = layers.next() else {
        return Err(BoardError::Unknown {
            name: file.to_owned(),
        });
    };
    for layer in layers {
        tree.merge(layer);
    }
    Ok(Merged {
        tree,
        files,
        is_abstract: is_abstract.unwrap_or(false),
    })
}

/// The same file by whatever path.
fn canonical(origin: &Origin) -> Origin {
    match origin {
        Origin::File(path) => Origin::File(path.canonicalize().unwrap_or_else(|_| path.clone())),
        Origin::Program(_) => origin.clone(),
    }
}

/// Text, name and origin of what `inherit = NAME` means in a file of `origin`.
fn find(name: &str, origin: &Origin) -> Result<(String, String, Origin), String> {
    if !is_path(name) {
        let known = builtin::all_names().collect::<Vec<_>>();
        return builtin::text(name).map_or_else(
            || {
                let hint = super::problem::hint(name, &known);
                Err(format!(
                    "inherit is {name:?}, which is no board of the program{hint}"
                ))
            },
            |text| {
                let origin = Origin::Program(name.to_owned());
                Ok((text.to_owned(), builtin::file(name), origin))
            },
        );
    }
    let Origin::File(path) = origin else {
        return Err(format!(
            "inherit is {name:?}, but only a file may inherit a path; a board of the program is named without .toml"
        ));
    };
    if Path::new(name).is_absolute() {
        return Err(format!(
            "inherit is {name:?}, which is not relative to this file"
        ));
    }
    let path = path.parent().unwrap_or(Path::new("")).join(name);
    let text = read(&path).map_err(|error| {
        let cause =
            std::error::Error::source(&error).map_or_else(String::new, |e| format!(": {e}"));
        format!(
            "inherit is {name:?}, and {} cannot be read{cause}",
            path.display()
        )
    })?;
    Ok((text, path.display().to_string(), Origin::File(path)))
}

fn take_inherit(tree: &mut Node) -> Result<Option<(String, Place)>, (Place, String)> {
    let Some(entry) = tree.take("inherit") else {
        return Ok(None);
    };
    match entry.node.value {
        Value::String(name) => Ok(Some((name, entry.place))),
        _ => Err((
            entry.place,
            "inherit is no name or path of a board file".to_owned(),
        )),
    }
}

fn take_abstract(tree: &mut Node) -> Result<bool, (Place, String)> {
    let Some(entry) = tree.take("abstract") else {
        return Ok(false);
    };
    match entry.node.value {
        Value::Boolean(is) => Ok(is),
        _ => Err((entry.place, "abstract is neither true nor false".to_owned())),
    }
}
