//! From facts to findings. Pure: nothing here touches the machine, so tables of facts test all of it.

pub(super) mod machine;
pub(super) mod region;
pub(super) mod resources;
pub(super) mod upstream;
pub(super) mod work;

use edge_hal::Board;

/// Bytes for people.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = bytes as f64;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    if unit == UNITS[0] {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A length of time for people, in its largest whole unit.
fn span_s(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Whether the board is one that only pretends: no device tree names it.
pub(super) fn is_simulated(board: &Board) -> bool {
    board.compatible.is_empty()
}

/// What findings say, each of which must advise where it is not good.
#[cfg(test)]
fn verdicts(
    findings: impl IntoIterator<Item = super::finding::Finding>,
) -> Vec<super::finding::Verdict> {
    findings
        .into_iter()
        .inspect(|f| {
            let is_good = f.verdict == super::finding::Verdict::Good;
            assert_eq!(f.advice.is_some(), !is_good, "{f:?}");
        })
        .map(|f| f.verdict)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(span_s(119), "119 s");
        assert_eq!(span_s(300), "5 min");
        assert_eq!(span_s(10_000), "2 h");
        assert_eq!(span_s(1_000_000), "11 days");
    }
}
