//! Real processes, supervised: started, waited for, ended in order. Knows brokers and programs by
//! their command line only.
//!
//! Nothing outlives its owner: a process is ended when its value is dropped, and the kernel kills
//! it if the thread that started it ends first, however that comes. Each has a process group of
//! its own, so that Ctrl-C reaches only this program, which then ends the others in order.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shell;

/// How often a condition is looked at while waiting for it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a process may take from SIGTERM to its end before it is killed.
const GRACE: Duration = Duration::from_secs(12);
/// How much of a process's log goes into an error.
const LOG_LINES: usize = 25;

/// A process that did not behave.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("could not start {name} ({})", program.display())]
    Start {
        /// What we call it.
        name: String,
        /// What was run.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended while it was needed.
    #[error("{name} ended by itself ({status}) while waiting until {what}{log}")]
    Ended {
        /// What we call it.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What we waited for.
        what: String,
        /// The end of its log, on lines of its own.
        log: String,
    },
    /// What was awaited did not happen.
    #[error("{name}: {what} did not happen within {} s{log}", limit.as_secs())]
    TooLate {
        /// What we call it.
        name: String,
        /// What we waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The end of its log, on lines of its own.
        log: String,
    },
    /// It did not end as it should.
    #[error("{name} was asked to end and ended with {status}{log}")]
    BadEnd {
        /// What we call it.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log, on lines of its own.
        log: String,
    },
    /// The system refused.
    #[error("could not {operation} for {name}")]
    System {
        /// What was attempted.
        operation: &'static str,
        /// For which process.
        name: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A running program. Its standard output and error go to files.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    folder: PathBuf,
}

impl Process {
    /// Starts `program`; its output goes to `{name}.out` and `{name}.log` in `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<A: AsRef<std::ffi::OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError::Start {
            name: name.to_owned(),
            program: program.to_path_buf(),
            source,
        };
        // `setpriv` asks the kernel to kill the program with us, then becomes it: same process.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments);
        let file = |end| fs::File::create(folder.join(format!("{name}.{end}")));
        let (out, log) = file("out")
            .and_then(|out| Ok((out, file("log")?)))
            .map_err(failed)?;
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            folder: folder.to_path_buf(),
        })
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What we call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its standard error goes.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// What it wrote to standard output so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn printed(&self) -> Result<String, ProcessError> {
        fs::read_to_string(self.folder.join(format!("{}.out", self.name)))
            .map_err(|source| self.system("read the output", source))
    }

    /// Waits until `ready` says so. `what` reads well after "until": "the port is open".
    ///
    /// # Errors
    /// When the process ends first, or `limit` passes.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), ProcessError> {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.ended()? {
                let (name, what, log) = (self.name.clone(), what.to_owned(), self.log());
                return Err(ProcessError::Ended {
                    name,
                    status,
                    what,
                    log,
                });
            }
            if started.elapsed() > limit {
                let (name, what, log) = (self.name.clone(), what.to_owned(), self.log());
                return Err(ProcessError::TooLate {
                    name,
                    what,
                    limit,
                    log,
                });
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Complains if it ended while we wait until `what`.
    ///
    /// # Errors
    /// When it did.
    pub fn must_run(&mut self, what: &str) -> Result<(), ProcessError> {
        let Some(status) = self.ended()? else {
            return Ok(());
        };
        let (name, what, log) = (self.name.clone(), what.to_owned(), self.log());
        Err(ProcessError::Ended {
            name,
            status,
            what,
            log,
        })
    }

    /// Has it ended, and how?
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        let ended = self.child.try_wait();
        ended.map_err(|source| self.system("ask the state", source))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if started.elapsed() > limit {
                let (name, log) = (self.name.clone(), self.log());
                return Err(ProcessError::TooLate {
                    name,
                    what: "its end".into(),
                    limit,
                    log,
                });
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends a signal; one that has ended already takes none.
    pub fn signal(&mut self, signal: Signal) {
        if let (Ok(None), Ok(id)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            // It can end in between, and then there is nobody to signal.
            let _sent = kill(Pid::from_raw(id), signal);
        }
    }

    /// Kills it as a power cut would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        let killed = self
            .child
            .kill()
            .and_then(|()| self.child.wait())
            .map(|_| ());
        killed.map_err(|source| self.system("kill", source))
    }

    /// Asks it to end, and waits. Ending with 0, or by that signal where it is not handled, is
    /// right.
    ///
    /// # Errors
    /// When it does not end in time (then it is killed) or ends with another status.
    pub fn stop(mut self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGTERM);
        let status = match self.wait(GRACE) {
            Ok(status) => status,
            Err(error) => {
                self.kill()?;
                return Err(error);
            }
        };
        if status.success() || status.signal() == Some(Signal::SIGTERM as i32) {
            return Ok(());
        }
        Err(ProcessError::BadEnd {
            name: self.name.clone(),
            status,
            log: self.log(),
        })
    }

    /// The end of what it wrote, on indented lines, for an error message.
    #[must_use]
    pub fn log(&self) -> String {
        let mut lines = Vec::new();
        for end in ["out", "log"] {
            let text = fs::read(self.folder.join(format!("{}.{end}", self.name)));
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
            lines.extend(text.lines().map(|line| format!("\n    {line}")));
        }
        lines
            .split_off(lines.len().saturating_sub(LOG_LINES))
            .concat()
    }

    fn system(&self, operation: &'static str, source: io::Error) -> ProcessError {
        ProcessError::System {
            operation,
            name: self.name.clone(),
            source,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if self.wait(GRACE).is_err() {
            // Nothing is left to try, and nobody to tell.
            let _killed = self.kill();
        }
    }
}

/// Debian's Mosquitto on a port of this machine, as a region would configure it.
///
/// # Errors
/// When it cannot be started or does not listen within 10 s.
pub fn mosquitto(port: u16, folder: &Path) -> Result<Process, ProcessError> {
    let settings = folder.join("mosquitto.conf");
    let program = shell::which("mosquitto").unwrap_or_else(|| PathBuf::from("mosquitto"));
    // Nagle's algorithm would hold each QoS 1 exchange for 40 ms. The last line keeps the user:
    // changing it would make the kernel forget to kill the broker with us.
    let text = format!(
        "listener {port} 127.0.0.1\n\
         allow_anonymous true\n\
         set_tcp_nodelay true\n\
         persistence false\n\
         message_size_limit 16777216\n\
         max_inflight_messages 1000\n\
         max_queued_messages 10000\n\
         user root\n"
    );
    fs::write(&settings, text).map_err(|source| ProcessError::System {
        operation: "write the settings",
        name: "mosquitto".into(),
        source,
    })?;
    let arguments = ["-c".as_ref(), settings.as_os_str()];
    let mut broker = Process::start("mosquitto", &program, arguments, folder)?;
    broker.wait_until("its port is open", Duration::from_secs(10), || {
        is_open(port)
    })?;
    Ok(broker)
}

/// Does anybody listen on that port of this machine?
#[must_use]
pub fn is_open(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// As many free ports of this machine as asked for, all different.
///
/// # Errors
/// When the system has none.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
