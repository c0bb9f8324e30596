//! A Mosquitto of the test's own.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const START_MAX: Duration = Duration::from_secs(10);

/// A running Mosquitto; it ends with the value.
pub struct Broker {
    folder: TempDir,
    child: Child,
    pub port: u16,
}

impl Broker {
    pub fn start() -> Self {
        // Somebody else may take a free port before Mosquitto does; then another one is tried.
        (0..5)
            .find_map(|_| Self::try_start())
            .expect("mosquitto does not start on any of 5 free ports")
    }

    fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        fs::write(
            folder.path().join("mosquitto.conf"),
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence false\n"
            ),
        )
        .unwrap();
        let child = spawn(&folder);
        let mut broker = Self {
            folder,
            child,
            port,
        };
        broker.wait_until_ready().then_some(broker)
    }

    /// Kills it and starts it again on the same port.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.folder);
        assert!(self.wait_until_ready(), "mosquitto does not start again");
    }

    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return self.child.try_wait().unwrap().is_none();
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A broker that has ended by itself is what is wanted here.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(folder: &TempDir) -> Child {
    // Debian puts it where only root's PATH looks.
    let program = if Path::new("/usr/sbin/mosquitto").exists() {
        "/usr/sbin/mosquitto"
    } else {
        "mosquitto"
    };
    Command::new(program)
        .arg("-c")
        .arg(folder.path().join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot start mosquitto ({error}); `cargo xtask setup` installs it")
        })
}

/// A port on which nobody listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
