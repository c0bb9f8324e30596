//! Verdicts on what the box reaches: the broker and the update server.

use super::super::finding::{Check, Finding};

/// How far the way to the broker goes. Addresses are `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum BrokerFacts {
    /// No broker is set.
    NotSet,
    /// The broker wants a certificate, and this box has none that doctor can use.
    NoCertificate(String),
    /// The name has no address.
    Unresolved(String),
    /// Nobody takes the connection.
    NoConnection(String),
    /// Somebody does, and does not speak MQTT or does not answer.
    NoAnswer(String),
    /// The broker says no, in its words.
    Refused(String),
    /// It accepts the box.
    Accepted {
        /// From the request to the acceptance, connection included.
        connect_us: u64,
        /// A ping and its answer.
        round_trip_us: u64,
    },
}

pub(in super::super) fn broker(url: &str, facts: &BrokerFacts) -> Finding {
    let finding = match facts {
        BrokerFacts::NotSet => {
            return Finding::bad(
                Check::Broker,
                "not set",
                "the box works for nobody without: give --broker mqtts://HOST:PORT",
            );
        }
        BrokerFacts::NoCertificate(why) => Finding::bad(
            Check::Broker,
            format!("{url} wants a certificate: {why}"),
            "see what the agent's log says of its enrolment, or run doctor as the agent's user",
        ),
        BrokerFacts::Unresolved(why) => Finding::bad(
            Check::Broker,
            format!("{url}: its name has no address: {why}"),
            "correct the name in --broker, or check the network's DNS",
        ),
        BrokerFacts::NoConnection(why) => Finding::bad(
            Check::Broker,
            format!("{url} takes no connection: {why}"),
            "check that the broker runs, that --broker has the right port, and that no firewall is between",
        ),
        BrokerFacts::NoAnswer(why) => Finding::bad(
            Check::Broker,
            format!("{url} takes the connection but does not answer: {why}"),
            "something else may listen on that port, or the broker hangs, wants TLS (mqtts://) or does not take the certificate",
        ),
        BrokerFacts::Refused(why) => Finding::bad(
            Check::Broker,
            format!("{url} refuses this box: {why}"),
            "tell the region's operator this reason and the box's name",
        ),
        BrokerFacts::Accepted {
            connect_us,
            round_trip_us,
        } => Finding::good(
            Check::Broker,
            format!(
                "{url} accepts this box, round trip {}",
                milliseconds(*round_trip_us)
            ),
        )
        .detail("connect_us", *connect_us)
        .detail("round_trip_us", *round_trip_us),
    };
    finding.detail("url", url)
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1_000.0)
}

/// What the update server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum UpdateFacts {
    /// None is set.
    NotSet,
    /// It is not reached.
    Unreachable(String),
    /// It answered with this status instead of the file.
    Status(u16),
    /// It answered with something that is no TUF timestamp (TUF specification, section 4.6).
    NoTimestamp(String),
    /// A timestamp.
    Timestamp {
        /// Its number.
        version: u64,
        /// When it ends, in UTC as `YYYY-MM-DDTHH:MM:SSZ`.
        expires: String,
    },
}

/// `now` is UTC as `YYYY-MM-DDTHH:MM:SSZ`.
pub(in super::super) fn updates(url: &str, facts: &UpdateFacts, now: &str) -> Finding {
    let finding = match facts {
        UpdateFacts::NotSet => {
            return Finding::warning(
                Check::UpdateServer,
                "not set: this box gets no updates",
                "give --update-server http://HOST/PATH, or write update_server = \"...\" into the settings file",
            );
        }
        UpdateFacts::Unreachable(why) => Finding::bad(
            Check::UpdateServer,
            format!("{url} is not reached: {why}"),
            "this box gets no updates: correct --update-server, or check network and firewall",
        ),
        UpdateFacts::Status(404) => Finding::warning(
            Check::UpdateServer,
            format!("{url} answers, but holds no update repository"),
            "correct the path in --update-server: timestamp.json must lie below it",
        ),
        UpdateFacts::Status(status) => Finding::bad(
            Check::UpdateServer,
            format!("{url} answers with status {status}"),
            "ask who runs the update server",
        ),
        UpdateFacts::NoTimestamp(why) => Finding::warning(
            Check::UpdateServer,
            format!("{url} answers with something else than an update repository: {why}"),
            "correct --update-server; a captive portal or proxy may also answer in its place",
        ),
        // Both have one form, so their order as texts is that in time.
        UpdateFacts::Timestamp { version, expires } if expires.as_str() <= now => Finding::warning(
            Check::UpdateServer,
            format!("{url}: timestamp {version} expired at {expires}"),
            "if this box's clock is right, the server no longer renews its timestamp: ask who runs it",
        )
        .detail("version", *version)
        .detail("expires", expires.clone()),
        UpdateFacts::Timestamp { version, expires } => Finding::good(
            Check::UpdateServer,
            format!("{url}: timestamp {version}, until {expires}"),
        )
        .detail("version", *version)
        .detail("expires", expires.clone()),
    };
    finding.detail("url", url)
}

/// Seconds since 1970 as UTC in the form of TUF's `expires` (days to date: Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`).
pub(in super::super) fn utc(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the leap day is their last.
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Verdict, *};

    #[test]
    fn brokers() {
        for (facts, verdict, value) in [
            (BrokerFacts::NotSet, Verdict::Bad, "not set"),
            (
                BrokerFacts::Unresolved("no such name".into()),
                Verdict::Bad,
                "mqtt://b:1883: its name has no address: no such name",
            ),
            (
                BrokerFacts::NoConnection("refused".into()),
                Verdict::Bad,
                "mqtt://b:1883 takes no connection: refused",
            ),
            (
                BrokerFacts::NoAnswer("silence".into()),
                Verdict::Bad,
                "mqtt://b:1883 takes the connection but does not answer: silence",
            ),
            (
                BrokerFacts::Refused("not authorised".into()),
                Verdict::Bad,
                "mqtt://b:1883 refuses this box: not authorised",
            ),
            (
                BrokerFacts::Accepted {
                    connect_us: 5_000,
                    round_trip_us: 1_234,
                },
                Verdict::Good,
                "mqtt://b:1883 accepts this box, round trip 1.2 ms",
            ),
        ] {
            let finding = broker("mqtt://b:1883", &facts);
            assert_eq!((finding.verdict, finding.value.as_str()), (verdict, value));
            assert_eq!(finding.advice.is_some(), verdict != Verdict::Good);
        }
    }

    #[test]
    fn update_servers() {
        let timestamp = |expires: &str| UpdateFacts::Timestamp {
            version: 7,
            expires: expires.to_owned(),
        };
        for (facts, verdict) in [
            (UpdateFacts::NotSet, Verdict::Warning),
            (UpdateFacts::Unreachable("refused".into()), Verdict::Bad),
            (UpdateFacts::Status(404), Verdict::Warning),
            (UpdateFacts::Status(500), Verdict::Bad),
            (UpdateFacts::NoTimestamp("a page".into()), Verdict::Warning),
            (timestamp("2026-11-24T00:00:00Z"), Verdict::Warning),
            (timestamp("2026-11-24T00:00:01Z"), Verdict::Good),
        ] {
            let finding = updates("http://u/", &facts, "2026-11-24T00:00:00Z");
            assert_eq!(finding.verdict, verdict, "{facts:?}");
            assert_eq!(finding.advice.is_some(), verdict != Verdict::Good);
        }
    }

    #[test]
    fn times_in_utc() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_478_400, "2026-11-24T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(unix_s), text);
        }
    }
}
