//! Flashing a board over fastboot: a simulated one, which Debian's `fastboot` knows as a board, and which fails in
//! every way that a board can.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flash_support;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    thread,
    time::Duration,
};

use edgectl::flash::{
    bundle::Part,
    fastboot::{
        client::{Client, ClientError, Waits},
        job::JobError,
        sim::SimFault,
        tcp::Tcp,
        transport::{Transport as _, TransportError},
    },
    pieces::{Content, Layout, Piece, PiecesError},
};
use flash_support::{
    MIB, file, noise,
    sim_board::{Script, Sim, run},
};
use proptest::prelude::*;

fn part(folder: &Path, name: &str, bytes: &[u8]) -> Part {
    let mut file = File::open(file(folder, name, bytes)).unwrap();
    Part {
        name: name.into(),
        layout: Layout::read(&mut file).unwrap(),
        file,
    }
}

/// A piece as the board gets it.
fn bytes_of(piece: &Piece, file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = piece.read(file, &mut |part| {
        bytes.extend(part);
        Ok::<_, io::Error>(())
    });
    read.unwrap();
    bytes
}

#[test]
fn debians_client_takes_the_simulated_board_for_a_board() {
    let sim = Sim::start(&[]);
    let target = sim.target();
    let fastboot = |arguments: &[&str]| {
        let output = run("fastboot", &[&["-s", &target][..], arguments].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {words}");
        words
    };
    let all = fastboot(&["getvar", "all"]);
    assert!(
        all.contains("product: sim") && all.contains("partition-size:boot_a: 0x1000000"),
        "{all}"
    );

    // Larger than the board takes at a time: the client cuts it into sparse pieces.
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(5 * MIB, 1);
    let image = file(folder.path(), "image", &bytes);
    fastboot(&["flash", "boot_a", image.to_str().unwrap()]);
    assert!(sim.content("boot_a")[..bytes.len()] == bytes);
    let flashes = sim
        .sim
        .commands()
        .iter()
        .filter(|command| *command == "flash:boot_a")
        .count();
    assert!(flashes > 1, "{flashes}");
    fastboot(&["set_active", "a"]);
    fastboot(&["reboot"]);

    let output = run(
        "fastboot",
        &["-s", &target, "flash", "nothing", image.to_str().unwrap()],
    );
    assert!(!output.status.success());
}

#[test]
fn partitions_arrive_whole_and_the_slot_comes_last() {
    let sim = Sim::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let [boot, root] = [noise(MIB + 17, 1), noise(7 * MIB + 1, 2)];
    let parts = [
        part(folder.path(), "boot_a", &boot),
        part(folder.path(), "root_a", &root),
    ];
    let flashed = sim.flash(&parts).unwrap();
    assert!(sim.content("boot_a")[..boot.len()] == boot);
    assert!(sim.content("root_a")[..root.len()] == root);
    assert_eq!(flashed.board.serial.as_deref(), Some("one"));
    assert_eq!(flashed.repeats, 0);
    assert_eq!(flashed.partitions[0].pieces, 1);
    assert_eq!(flashed.partitions[1].pieces, 4);
    let commands = sim.sim.commands();
    assert_eq!(commands[commands.len() - 2..], ["set_active:a", "reboot"]);
}

#[test]
fn sparse_images_keep_their_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = noise(3 * MIB, 1);
    bytes.extend(vec![0; 4 * MIB]);
    bytes.extend(vec![7; MIB]);
    bytes.extend(noise(2 * MIB, 3));
    let plain = file(folder.path(), "plain", &bytes);
    let sparse = folder.path().join("sparse");
    let made = run(
        "img2simg",
        &[plain.to_str().unwrap(), sparse.to_str().unwrap()],
    );
    assert!(made.status.success());
    let stored = fs::read(&sparse).unwrap();
    for max_download in [2 << 20, 64 << 20] {
        let sim = Sim::with(max_download, true, &[]);
        let flashed = sim
            .flash(&[part(folder.path(), "root_a", &stored)])
            .unwrap();
        assert!(sim.content("root_a")[..bytes.len()] == bytes);
        assert!(
            flashed.partitions[0].sent_bytes < 6 * MIB as u64,
            "zeros are not sent"
        );
    }
}

#[test]
fn what_is_cut_off_is_sent_again_without_a_hand() {
    let cases: [Script<'_>; 7] = [
        &[("download", 2, SimFault::Silent)],
        &[("flash", 1, SimFault::Silent)],
        &[("flash", 2, SimFault::Disconnects)],
        &[("download", 1, SimFault::DisconnectsInData(700_000))],
        &[("flash", 3, SimFault::TearsWrite(123_456))],
        &[("download", 1, SimFault::Babbles(b"what?".to_vec()))],
        // One after the other, at the same piece.
        &[
            ("flash", 1, SimFault::TearsWrite(10)),
            ("download", 2, SimFault::Disconnects),
        ],
    ];
    for script in cases {
        let sim = Sim::start(script);
        let folder = tempfile::tempdir().unwrap();
        let bytes = noise(5 * MIB + 5, 1);
        let flashed = sim.flash(&[part(folder.path(), "boot_a", &bytes)]);
        let flashed = flashed.unwrap_or_else(|error| panic!("{script:?}: {error}"));
        assert_eq!(flashed.repeats as usize, script.len(), "{script:?}");
        assert!(sim.content("boot_a")[..bytes.len()] == bytes, "{script:?}");
    }
}

/// The error's whole story.
fn story(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

#[test]
fn what_cannot_be_is_said_and_the_slot_stays() {
    let refuses = |reason: &str| SimFault::Refuses(reason.into());
    let silent = |nth| ("flash", nth, SimFault::Silent);
    let cases: [(Script<'_>, &str); 7] = [
        (
            &[("flash", 1, refuses("Flashing is not allowed in Lock State"))],
            "piece 1 of 3, 1 attempts); the board stays in fastboot mode, so repeat the command: the board refused \
             `flash:boot_a`: Flashing is not allowed in Lock State; the boot loader is locked",
        ),
        (
            &[("flash", 2, refuses("write error"))],
            "piece 2 of 3, 1 attempts",
        ),
        (
            &[("download", 1, refuses("data too large"))],
            "smaller than the image needs",
        ),
        (
            &[silent(1), silent(2), silent(3)],
            "piece 1 of 3, 3 attempts",
        ),
        (
            &[("flash", 1, SimFault::ChangesSerial("two".into()))],
            "is another one (two instead of one)",
        ),
        (
            &[("set_active", 1, refuses("no slots"))],
            "refused `set_active:a`: no slots",
        ),
        (
            &[(
                "getvar:serialno",
                1,
                SimFault::Babbles(b"DATA00000001".to_vec()),
            )],
            "which is no answer to it",
        ),
    ];
    for (script, expected) in cases {
        let sim = Sim::start(script);
        let folder = tempfile::tempdir().unwrap();
        let error = sim
            .flash(&[part(folder.path(), "boot_a", &noise(5 * MIB, 1))])
            .unwrap_err();
        let words = story(&error);
        assert!(words.contains(expected), "{script:?}: {words}");
        let commands = sim.sim.commands();
        assert!(!commands.contains(&"reboot".to_owned()));
    }
}

#[test]
fn nothing_is_sent_to_a_board_that_will_not_take_it() {
    let folder = tempfile::tempdir().unwrap();
    let locked = Sim::with(2 << 20, false, &[]);
    let boot = [part(folder.path(), "boot_a", &noise(MIB, 1))];
    assert!(matches!(locked.flash(&boot), Err(JobError::Locked)));
    let small = Sim::start(&[]);
    let parts = [
        part(folder.path(), "boot_a", &noise(MIB, 1)),
        part(folder.path(), "data", &noise(2 * MIB, 1)),
    ];
    let error = small.flash(&parts).unwrap_err();
    assert!(
        matches!(&error, JobError::TooLarge { partition, room: 1_048_576, .. } if partition == "data"),
        "{error}"
    );
    let tiny = Sim::with(4096, true, &[]);
    let error = tiny.flash(&boot).unwrap_err();
    assert!(
        matches!(
            error,
            JobError::Pieces {
                source: PiecesError::MemoryTooSmall(4096),
                ..
            }
        ),
        "{error}"
    );
    for sim in [locked, small, tiny] {
        assert!(
            !sim.sim
                .commands()
                .iter()
                .any(|command| command.starts_with("download"))
        );
    }
}

/// A server that sends these bytes to whoever comes, and then says nothing.
fn server(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            client.write_all(bytes).unwrap();
            // Until it goes.
            let _gone = client.read_to_end(&mut Vec::new());
        }
    });
    port
}

#[test]
fn hosts_that_are_no_boards_are_told_apart() {
    let connect = |port| Tcp::connect("127.0.0.1", port, "the board".into());
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert!(matches!(
        connect(free),
        Err(TransportError::Unreachable { .. })
    ));
    let error = connect(server(b"SSH-2.0-OpenSSH")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the board does not speak fastboot: it greeted with \"SSH-\""
    );
    let wait = Duration::from_millis(300);
    let mut board = connect(server(b"FB01\0\0\0\x01\0\0\0\0")).unwrap();
    assert!(matches!(
        board.receive(wait),
        Err(TransportError::TooLong {
            bytes: 0x1_0000_0000,
            ..
        })
    ));
    let mut board = connect(server(b"FB01\0\0\0\0\0\0\0\x08OKAY")).unwrap();
    assert!(matches!(
        board.receive(wait),
        Err(TransportError::Silent { .. })
    ));
    let mut board = connect(server(b"FB02\0\0\0\0\0\0\0\x04OKAY")).unwrap();
    assert_eq!(board.receive(wait).unwrap(), b"OKAY");
}

#[test]
fn a_board_that_never_stops_talking_is_cut_off() {
    // 20,000 lines of information.
    let line = b"\0\0\0\0\0\0\0\x05INFO!";
    let flood: Vec<u8> = [&b"FB01"[..], &line.repeat(20_000)].concat();
    let port = server(flood.leak());
    let mut tcp = Tcp::connect("127.0.0.1", port, "the board".into()).unwrap();
    let mut client = Client::new(&mut tcp, &|_| {}, Waits::default());
    assert!(matches!(
        client.variable("product"),
        Err(ClientError::Unexpected { .. })
    ));
}

#[test]
fn pieces_are_taken_by_simg2img() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(5 * MIB, 1);
    let part = part(folder.path(), "plain", &bytes);
    let mut arguments = Vec::new();
    for (index, piece) in part.layout.cut(2 << 20).unwrap().iter().enumerate() {
        let made = bytes_of(piece, &part.file);
        assert_eq!(made.len(), piece.bytes() as usize);
        arguments.push(file(folder.path(), &format!("piece{index}"), &made));
    }
    assert!(arguments.len() > 2);
    let raw = folder.path().join("raw");
    arguments.push(raw.clone());
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|path| path.to_str().unwrap())
        .collect();
    let output = run("simg2img", &arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(fs::read(raw).unwrap() == bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sparse file, cut for any board, makes the same partition.
    #[test]
    fn cutting_changes_nothing(
        runs in prop::collection::vec((0u8..3, 1u32..9), 1..12),
        most in 4200u32..40_000,
    ) {
        use android_sparse_image::{ChunkHeader, FileHeader};
        let mut image = Vec::new();
        let mut stored = Vec::new();
        for (index, (kind, blocks)) in runs.iter().enumerate() {
            let length = *blocks as usize * 4096;
            match kind {
                0 => {
                    let data = noise(length, index as u64 + 1);
                    stored.extend(ChunkHeader::new_raw(*blocks, 4096).to_bytes());
                    stored.extend(&data);
                    image.extend(data);
                }
                1 => {
                    stored.extend(ChunkHeader::new_fill(*blocks).to_bytes());
                    stored.extend(b"wxyz");
                    image.extend(b"wxyz".repeat(length / 4));
                }
                _ => {
                    stored.extend(ChunkHeader::new_dontcare(*blocks).to_bytes());
                    image.extend(vec![0; length]);
                }
            }
        }
        let header = FileHeader {
            block_size: 4096,
            blocks: runs.iter().map(|(_, blocks)| blocks).sum(),
            chunks: u32::try_from(runs.len()).unwrap(),
            checksum: 0,
        };
        let folder = tempfile::tempdir().unwrap();
        let whole = [&header.to_bytes()[..], &stored].concat();
        let part = part(folder.path(), "sparse", &whole);
        let mut partition = vec![0; image.len()];
        for piece in part.layout.cut(most).unwrap() {
            prop_assert!(piece.bytes() <= most);
            let made = bytes_of(&piece, &part.file);
            prop_assert_eq!(made.len(), piece.bytes() as usize);
            let mut file = File::open(file(folder.path(), "made", &made)).unwrap();
            let layout = Layout::read(&mut file).unwrap();
            prop_assert_eq!(layout.image_bytes, image.len() as u64);
            let mut offset = 0;
            for extent in &layout.extents {
                let length = extent.blocks as usize * 4096;
                match extent.content {
                    Content::File(at) => {
                        let at = usize::try_from(at).unwrap();
                        partition[offset..offset + length].copy_from_slice(&made[at..at + length]);
                    }
                    Content::Fill(fill) => {
                        partition[offset..offset + length].copy_from_slice(&fill.repeat(length / 4));
                    }
                    Content::Skip => {}
                }
                offset += length;
            }
        }
        prop_assert!(partition == image);
    }
}

#[test]
fn a_raw_image_of_many_gigabytes_is_cut_without_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let mut file = File::create_new(&path).unwrap();
    // A hole.
    file.set_len(9 << 30).unwrap();
    let mut file_read = File::open(&path).unwrap();
    file.flush().unwrap();
    let layout = Layout::read(&mut file_read).unwrap();
    let pieces = layout.cut(512 << 20).unwrap();
    assert_eq!(pieces.len(), 19);
    let sent: u64 = pieces.iter().map(|piece| u64::from(piece.bytes())).sum();
    assert!(sent > 9 << 30 && sent < (9 << 30) + 4096);
}
