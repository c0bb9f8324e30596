//! `edge-agent doctor`: looks at everything that the box needs and says what is wrong and what to do.
//!
//! - [`finding`]: what a check found, and the names of the checks;
//! - [`verdict`] (pure): from facts to findings;
//! - [`gather`]: the facts;
//! - [`probe`]: the facts that may crash, from a process of their own ([`crate::child`]);
//! - [`report`] (pure): the findings as text and as JSON.
//!
//! Every check has a thread of its own, and nobody waits for one that hangs. It works beside a running agent and
//! without one, and leaves the box as it was.

mod finding;
mod gather;
mod probe;
mod report;
mod verdict;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

pub use self::{
    finding::{Check, Finding, Subject, Verdict},
    probe::{Probe, run as run_probe},
    report::Report,
};
use self::{
    gather::{Context, broker, http, inference, machine},
    verdict::{
        is_simulated,
        machine::{self as judge, SettingsFacts},
        region, resources, upstream, work,
    },
};
use crate::{
    health,
    settings::{Options, SettingsError},
};

/// What a check may take on top of the time for what it waits for, which it bounds itself.
const GRACE: Duration = Duration::from_secs(1);

/// What to examine.
#[derive(Debug)]
pub struct Asked {
    /// The settings, as far as there are any.
    pub options: Options,
    /// The settings file.
    pub file: Option<PathBuf>,
    /// Why the file is not used.
    pub file_error: Option<SettingsError>,
    /// Checks to make; none for all.
    pub only: Vec<Check>,
    /// Checks to leave out.
    pub skip: Vec<Check>,
    /// How long one thing that may hang is waited for.
    pub limit: Duration,
}

impl Asked {
    fn wants(&self, check: Check) -> bool {
        (self.only.is_empty() || self.only.contains(&check)) && !self.skip.contains(&check)
    }

    /// Says of what a job has not got to that it failed; of its last check, when it has begun with all.
    fn give_up(&self, job: &Job, findings: &mut Vec<Finding>, say: impl Fn(Check) -> Finding) {
        let mut wanted: Vec<Check> = job.checks.to_vec();
        wanted.retain(|check| self.wants(*check));
        let last = wanted.last().copied();
        wanted.retain(|check| findings.iter().all(|f| f.subject.check != *check));
        if wanted.is_empty() {
            wanted.extend(last);
        }
        findings.extend(wanted.into_iter().map(say));
    }
}

/// Makes the checks, all at once. `waiting` is told which are not done whenever that changes.
#[must_use]
pub fn examine(asked: &Asked, mut waiting: impl FnMut(&[Check])) -> Report {
    let settings = SettingsFacts {
        file: asked.file.clone(),
        file_error: asked.file_error.as_ref().map(|error| gather::chain(error)),
        ..SettingsFacts::default()
    };
    let context = Arc::new(Context::new(asked.options.clone(), settings, asked.limit));
    let (sender, news) = mpsc::channel();
    let mut running = BTreeMap::new();
    let mut findings = Vec::new();
    for job in JOBS {
        if job.checks.iter().any(|check| asked.wants(*check)) {
            let reporter = Reporter {
                job,
                sender: sender.clone(),
            };
            let context = context.clone();
            let started = thread::Builder::new()
                .name(job.check().name().to_owned())
                .spawn(move || (job.run)(&context, &reporter));
            match started {
                Ok(_) => {
                    running.insert(job.check(), (job, deadline(asked.limit)));
                }
                Err(error) => {
                    let why = error.to_string();
                    asked.give_up(job, &mut findings, |check| judge::failed(check, &why));
                }
            }
        }
    }
    drop(sender);
    while let Some(earliest) = running.values().map(|(_, deadline)| *deadline).min() {
        waiting(&running.keys().copied().collect::<Vec<_>>());
        match news.recv_timeout(earliest.saturating_duration_since(Instant::now())) {
            Ok((check, news)) => {
                // News of a check that was given up come too late.
                let Some((job, until)) = running.get_mut(&check) else {
                    continue;
                };
                *until = deadline(asked.limit);
                match news {
                    News::Found(finding) => findings.push(finding),
                    News::Lives => {}
                    News::Ended => {
                        running.remove(&check);
                    }
                    News::Failed => {
                        asked.give_up(job, &mut findings, |c| judge::failed(c, "it panics"));
                        running.remove(&check);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                running.retain(|_, (job, deadline)| {
                    let hangs = *deadline <= now;
                    if hangs {
                        asked.give_up(job, &mut findings, |check| {
                            judge::hanging(check, asked.limit.as_secs())
                        });
                    }
                    !hangs
                });
            }
            // Every reporter tells its end, so nobody is left running then.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    findings.retain(|finding| asked.wants(finding.subject.check));
    Report::new(findings)
}

fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit + GRACE
}

/// Checks that one thread makes.
struct Job {
    /// The first names the thread and what hangs.
    checks: &'static [Check],
    run: fn(&Context, &Reporter),
}

impl Job {
    fn check(&self) -> Check {
        // Never empty: the list below is all there is.
        self.checks.first().copied().unwrap_or(Check::Settings)
    }
}

enum News {
    Found(Finding),
    Lives,
    Ended,
    Failed,
}

/// A check's voice.
struct Reporter {
    job: &'static Job,
    sender: Sender<(Check, News)>,
}

impl Reporter {
    fn found(&self, finding: Finding) {
        self.tell(News::Found(finding));
    }

    /// Something that may hang has not hung.
    fn lives(&self) {
        self.tell(News::Lives);
    }

    fn tell(&self, news: News) {
        // Nobody listens any more when the check was given up.
        let _told = self.sender.send((self.job.check(), news));
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.tell(if thread::panicking() {
            News::Failed
        } else {
            News::Ended
        });
    }
}

const JOBS: &[Job] = &[
    Job {
        checks: &[Check::Settings],
        run: |context, reporter| reporter.found(judge::settings(&context.settings)),
    },
    Job {
        checks: &[Check::Board],
        run: |context, reporter| {
            let board = context.board.as_ref().map_err(String::as_str);
            reporter.found(judge::board(board, &context.chosen_by));
        },
    },
    Job {
        checks: &[Check::Parts],
        run: |context, reporter| {
            if let Ok(board) = &context.board {
                let missing = machine::missing_parts(board, &context.data);
                for finding in judge::parts(&missing) {
                    reporter.found(finding);
                }
            }
        },
    },
    Job {
        checks: &[Check::Clock],
        run: |_, reporter| {
            reporter.found(judge::clock(machine::now_s(), &machine::clock_trust()));
        },
    },
    Job {
        checks: &[Check::Identity],
        run: |context, reporter| {
            let place = context.options.key_place();
            let file = place.file();
            let key = machine::identity(context, &place);
            let wants_one = context.options.broker.as_ref().is_some_and(|url| url.tls);
            let days_left = wants_one.then(|| crate::identity::days_left(&context.options));
            reporter.found(judge::identity(&file, &key, days_left.as_ref()));
        },
    },
    Job {
        checks: &[Check::Agent],
        run: |context, reporter| reporter.found(judge::agent(&machine::agent(&context.data))),
    },
    Job {
        checks: &[Check::Watchdog],
        run: |context, reporter| {
            let board = context.board.as_ref();
            let has_one = board.is_ok_and(|board| board.watchdog.is_some());
            let past = health::past(&context.data, Path::new("/"), None);
            reporter.found(judge::watchdog(has_one, past.history));
        },
    },
    Job {
        checks: &[Check::Storage],
        run: |context, reporter| {
            let wear = context.board.as_ref().ok().and_then(machine::wear);
            reporter.found(resources::storage(&machine::room(context), wear.as_ref()));
        },
    },
    Job {
        checks: &[Check::Data],
        run: |context, reporter| {
            reporter.found(resources::data(
                &context.data,
                &machine::data(&context.data),
            ));
        },
    },
    Job {
        checks: &[Check::Temperature],
        run: |context, reporter| {
            if let Ok(board) = &context.board {
                let readings = machine::temperatures(board, &context.data);
                for (zone, reading) in board.thermal_zones.iter().zip(readings) {
                    let reading = reading.as_ref().copied().map_err(String::as_str);
                    reporter.found(resources::temperature(zone, reading));
                }
            }
        },
    },
    Job {
        checks: &[Check::Memory],
        run: |context, reporter| reporter.found(resources::memory(&machine::memory(&context.data))),
    },
    Job {
        checks: &[Check::Onnxruntime, Check::Provider, Check::Model],
        run: examine_inference,
    },
    Job {
        checks: &[Check::Vulkan],
        run: |context, reporter| {
            let board = context.board.as_ref().ok();
            let devices = inference::vulkan(context.limit);
            reporter.found(work::vulkan(
                &devices,
                board.and_then(|board| board.rendering.as_ref()),
                board.is_some_and(is_simulated),
            ));
        },
    },
    Job {
        checks: &[Check::Broker],
        run: |context, reporter| {
            let Some(url) = &context.options.broker else {
                return reporter.found(region::broker("", &region::BrokerFacts::NotSet));
            };
            let box_id = context.options.box_id.as_ref();
            let tls = url.tls.then(|| crate::identity::shown(&context.options));
            let facts = match tls.transpose() {
                Ok(tls) => broker::ask(url, box_id, tls, context.limit),
                Err(why) => region::BrokerFacts::NoCertificate(why),
            };
            reporter.found(region::broker(&url.to_string(), &facts));
        },
    },
    Job {
        checks: &[Check::Indexer],
        run: |context, reporter| {
            let url = context.options.indexer.as_ref().map(ToString::to_string);
            let answer = http::indexer(context);
            reporter.lives();
            let local = http::local(context);
            for finding in upstream::indexer(&url.unwrap_or_default(), &answer, &local) {
                reporter.found(finding);
            }
        },
    },
    Job {
        checks: &[Check::UpdateServer],
        run: |context, reporter| {
            let server = context.options.update_server.as_ref();
            let url = server.map(ToString::to_string).unwrap_or_default();
            let facts = http::updates(server, context.limit);
            let now = region::utc(machine::now_s());
            reporter.found(region::updates(&url, &facts, &now));
        },
    },
];

/// The runtime, then each provider, then each model: one after the other, so that none slows another's test.
fn examine_inference(context: &Context, reporter: &Reporter) {
    let library = &context.onnxruntime;
    let runtime = inference::runtime(library, context.limit);
    let works = runtime.is_ok();
    reporter.found(work::runtime(&runtime));
    let providers = context.board.as_ref().map_or(&[][..], |board| {
        board.accelerators.execution_providers.as_slice()
    });
    let mut tests = Vec::new();
    for provider in providers {
        if works {
            let test = inference::provider(provider.name(), library, context.limit);
            tests.push((provider.name().to_owned(), test));
            reporter.lives();
        } else {
            reporter.found(work::not_tried(Check::Provider, provider.name()));
        }
    }
    for finding in work::providers(&tests) {
        reporter.found(finding);
    }
    let folder = context.models.display().to_string();
    let models = match crate::inference::scan(&context.models) {
        Ok(models) => models,
        Err(error) => {
            let why = gather::chain(&error);
            if let Some(finding) = work::repository(&folder, Err(&why)) {
                reporter.found(finding);
            }
            return;
        }
    };
    if let Some(finding) = work::repository(&folder, Ok(models.len())) {
        reporter.found(finding);
    }
    for (name, folder) in models {
        let name = name.as_str();
        reporter.found(match folder.map(|folder| folder.newest()) {
            Err(error) => work::model(name, &Err(gather::chain(&error))),
            Ok(None) => work::model(name, &Err(crate::inference::NONE_GIVEN.to_owned())),
            Ok(Some(_)) if !works => work::not_tried(Check::Model, name),
            Ok(Some(entry)) => {
                let loaded = inference::model(name, &context.models, library, context.limit);
                work::model(name, &loaded.map(|load_us| (entry.version, load_us)))
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_check_is_made_by_one_job() {
        for check in Check::value_variants() {
            let makers = JOBS.iter().filter(|job| job.checks.contains(check));
            assert_eq!(makers.count(), 1, "{check:?}");
            let value = check.to_possible_value().unwrap();
            assert_eq!(value.get_name(), check.name(), "flag and report agree");
        }
    }

    fn asked(only: &[Check], skip: &[Check]) -> Asked {
        Asked {
            options: Options::default(),
            file: None,
            file_error: None,
            only: only.to_vec(),
            skip: skip.to_vec(),
            limit: Duration::from_secs(5),
        }
    }

    #[test]
    fn only_what_is_asked_for_is_checked() {
        let mut seen = Vec::new();
        let asked = asked(
            &[Check::Board, Check::Broker, Check::Memory],
            &[Check::Memory],
        );
        let report = examine(&asked, |waiting| seen.extend_from_slice(waiting));
        let checks: Vec<Check> = report.checks.iter().map(|f| f.subject.check).collect();
        assert_eq!(checks, [Check::Board, Check::Broker]);
        assert!(seen.iter().all(|check| checks.contains(check)));
    }
}
