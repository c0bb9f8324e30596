//! How far the work is, for a person who watches: a bar on standard error with rate and time left, and nothing where
//! that is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str =
    "{msg:10} {bar:32} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";

/// How far the work is.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar on standard error, if that is a terminal.
    #[must_use]
    pub fn on_terminal() -> Self {
        let style = ProgressStyle::with_template(TEMPLATE);
        Self(
            ProgressBar::no_length()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
        )
    }

    /// Nothing is shown.
    #[must_use]
    pub fn hidden() -> Self {
        Self(ProgressBar::with_draw_target(
            None,
            ProgressDrawTarget::hidden(),
        ))
    }

    /// Begins a part of the work; `total` in bytes.
    pub fn begin(&self, what: &'static str, total: u64) {
        self.0.reset();
        self.0.set_length(total);
        self.0.set_message(what);
    }

    /// So many bytes of the part are done.
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// A line above the bar; also without a terminal.
    pub fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
