//! What is wrong with a board file: where, what, and the nearest thing that would be right.

use std::fmt;

/// Suggestions further from what is written than this are no help (Jaro-Winkler, 0 to 1).
const MIN_LIKENESS: f64 = 0.75;

/// Something wrong in a board file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardProblem {
    /// The file that wrote it, which may be one that the board inherits.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong there, in one line.
    pub problem: String,
}

impl fmt::Display for BoardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// One problem a line.
pub(super) fn lines(problems: &[BoardProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The known word that `written` was probably meant to be.
pub(super) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|word| (strsim::jaro_winkler(written, word), *word))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

/// `"a", "b" or "c"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// What follows a word that is not known: the one that was meant, or all there are.
pub(super) fn hint(written: &str, known: &[&str]) -> String {
    nearest(written, known).map_or_else(
        || format!("; known here: {}", one_of(known)),
        |word| format!("; did you mean {word:?}?"),
    )
}
