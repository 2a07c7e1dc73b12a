//! A host of the tests: a home folder, a `zfs`, an S3 server, and the built binary.

pub mod disk;
pub mod gate;
pub mod s3;
pub mod sigv4;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub use s3::{BUCKET, Fault, PUT_DATA, S3};

/// The real streams in tests/streams: README.md there.
pub const S1: (&str, u64) = ("tank/src@s1", 13707626622376489106);
pub const S2: (&str, u64) = ("tank/src@s2", 15839073234525558964);

pub const PYTHON_STORE: &str = include_str!("../../legacy/stored_snapshots.yml");

pub struct Host {
    pub s3: S3,
    home: PathBuf,
    env: Vec<(String, String)>,
}

pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    told: String,
}

impl Host {
    /// Chunks of 64 KiB, and segments of 1,000 parts.
    pub fn new() -> Host {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("zfs2s3-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let home = std::env::temp_dir().join(name);
        // a test that was killed has left it, and its process number is in use again
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(home.join("zfs")).unwrap();
        std::fs::write(home.join("zfs/snapshots"), "").unwrap();
        let s3 = S3::start();
        let env = [
            ("HOME", home.to_str().unwrap()),
            ("PATH", &std::env::var("PATH").unwrap()),
            ("TEST_ZFS", &format!("{}/zfs", home.display())),
            ("ZFS2S3_ZFS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/zfs")),
            ("ZFS2S3_BUCKET", BUCKET),
            ("ZFS2S3_CHUNK_SIZE", "64K"),
            ("ZFS2S3_JOBS", "2"),
            ("ZFS2S3_TEST_PARTS", "1000"),
            ("ZFS2S3_TEST_PATIENCE_MS", "30000"),
            ("AWS_ENDPOINT_URL", &s3.url()),
            ("AWS_ACCESS_KEY_ID", sigv4::ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", sigv4::SECRET_KEY),
            ("AWS_REGION", sigv4::REGION),
        ];
        let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Host { s3, home, env }
    }

    /// One with the real snapshots s1 and s2, and the streams between them.
    pub fn with_real_streams() -> Host {
        let host = Host::new();
        host.snapshot(S1, 10);
        host.snapshot(S2, 20);
        host.add_stream(S1, None, &real("full.zfs"));
        host.add_stream(S2, Some(S1), &real("incr.zfs"));
        host
    }

    /// The same, whose store and objects are as the Python tool left them.
    pub fn of_python_tool() -> Host {
        let host = Host::with_real_streams();
        host.write_data("stored_snapshots.yml", PYTHON_STORE);
        host.s3.state().put("tank/src@s1", &real("full.zfs"));
        host.s3.state().put("tank/src@s2 <- tank/src@s1", &real("incr.zfs"));
        host
    }

    /// One with `tank/a@1` to `@n` (guids 1 to n), and streams for every full and incremental backup of them.
    pub fn with_snapshots(n: u64) -> Host {
        let host = Host::new();
        for to in 1..=n {
            host.snapshot((&format!("tank/a@{to}"), to), to * 10);
            host.add_stream(("", to), None, &made_stream(to, 0, 700));
            for from in 1..to {
                host.add_stream(("", to), Some(("", from)), &made_stream(to, from, 700));
            }
        }
        host
    }

    /// One with tank, tank/a, tank/a/b and tank/c (guids 11, 21, 31 and 41), each with the snapshots @1 and @2
    /// (12 …), and the streams between them.
    pub fn with_tree() -> Host {
        let host = Host::new();
        for (n, dataset) in ["tank", "tank/a", "tank/a/b", "tank/c"].iter().enumerate() {
            let guid = 10 * (n as u64 + 1);
            for day in 1..=2 {
                host.snapshot((&format!("{dataset}@{day}"), guid + day), day * 10);
                host.add_stream(("", guid + day), None, &made_stream(guid + day, 0, 700));
            }
            host.add_stream(("", guid + 2), Some(("", guid + 1)), &made_stream(guid + 2, guid + 1, 700));
        }
        host
    }

    /// The pending upload began then.
    pub fn pending_since(&self, time: &str) {
        let journal = std::fs::read_to_string(self.data("upload_progress.yml")).unwrap();
        let begun = journal.split("\"begun\":\"").nth(1).unwrap().split('"').next().unwrap();
        self.write_data("upload_progress.yml", &journal.replacen(begun, time, 1));
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.env.push((name.to_string(), value.to_string()));
    }
    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }
    /// Uses the bucket of another host.
    pub fn share(&mut self, host: &Host) {
        self.set("AWS_ENDPOINT_URL", &host.s3.url());
    }
    pub fn home(&self) -> &Path {
        &self.home
    }
    /// A file in the data folder.
    pub fn data(&self, name: &str) -> PathBuf {
        self.home.join(".local/share/zfs2s3").join(name)
    }
    pub fn write_data(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.data("")).unwrap();
        std::fs::write(self.data(name), text).unwrap();
    }
    /// The key in the bucket, with its ID.
    pub fn real_key(&self, key: &str) -> String {
        self.s3.state().real_key(key)
    }
    /// Turns the store and the bucket into those of version 1: keys without IDs.
    pub fn make_older(&self) {
        let mut store = self.store_text().replacen("version: 2\n", "version: 1\n", 1);
        let mut ids = vec![];
        while let Some(at) = store.find("\"id\":\"") {
            ids.push(store[at + 6..at + 14].to_string());
            store.replace_range(at..at + 16, "");
        }
        let without =
            |text: &str| ids.iter().fold(text.to_string(), |t, id| t.replace(&format!("-{id}."), "."));
        self.write_data("stored_snapshots.yml", &without(&store));
        let mut state = self.s3.state();
        for (key, mut object) in std::mem::take(&mut state.objects) {
            if key.ends_with(".yml") {
                let text =
                    String::from_utf8(object.bytes).unwrap().replacen("version: 3\n", "version: 1\n", 1);
                let is_newer = |line: &&str| line.starts_with("host: ") || line.starts_with("created: ");
                let lines = text.lines().filter(|line| !is_newer(line)).map(|line| format!("{line}\n"));
                object.bytes = without(&lines.collect::<String>()).into_bytes();
            }
            state.objects.insert(without(&key), object);
        }
    }
    pub fn store_text(&self) -> String {
        std::fs::read_to_string(self.data("stored_snapshots.yml")).unwrap_or_default()
    }

    /// Creates a snapshot or bookmark, or recreates it.
    pub fn snapshot(&self, (name, guid): (&str, u64), createtxg: u64) {
        self.destroy(name);
        let path = self.home.join("zfs/snapshots");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{name}\t{guid}\t{createtxg}\n")).unwrap();
    }
    pub fn destroy(&self, name: &str) {
        let path = self.home.join("zfs/snapshots");
        let text = std::fs::read_to_string(&path).unwrap();
        let kept: String = text
            .lines()
            .filter(|line| line.split('\t').next() != Some(name))
            .flat_map(|line| [line, "\n"])
            .collect();
        std::fs::write(&path, kept).unwrap();
    }
    pub fn add_stream(&self, snapshot: (&str, u64), base: Option<(&str, u64)>, bytes: &[u8]) {
        let name = match base {
            None => format!("{}-full", snapshot.1),
            Some(base) => format!("{}-from-{}", snapshot.1, base.1),
        };
        std::fs::write(self.home.join("zfs").join(name), bytes).unwrap();
    }
    /// A file that the zfs of the tests reads, such as `die_after`.
    pub fn zfs_file(&self, name: &str, text: &str) {
        std::fs::write(self.home.join("zfs").join(name), text).unwrap();
    }
    pub fn remove_zfs_file(&self, name: &str) {
        std::fs::remove_file(self.home.join("zfs").join(name)).unwrap();
    }
    pub fn zfs_log(&self) -> String {
        std::fs::read_to_string(self.home.join("zfs/log")).unwrap_or_default()
    }
    pub fn holds(&self) -> String {
        std::fs::read_to_string(self.home.join("zfs/holds")).unwrap_or_default()
    }

    /// For a command that the binary is run in.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.env.clone()
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zfs2s3"));
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(line.split(' ').filter(|word| !word.is_empty()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn spawn(&self, line: &str) -> Child {
        let child = self.command(line).spawn().unwrap();
        self.s3.victim.store(child.id(), Ordering::SeqCst);
        child
    }

    /// Runs an upload, and leaves it as if the program had been killed between the store and its record of
    /// the upload.
    pub fn stored_but_for_the_end(&self, line: &str) {
        self.s3.fault("PutObject", 0, 1, Fault::Delay(std::time::Duration::from_millis(400)));
        let child = self.spawn(line);
        let before = self.s3.state().count("PutObject");
        while self.s3.state().count("PutObject") == before {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let record = std::fs::read(self.data("upload_progress.yml")).unwrap();
        let holds = self.holds();
        self.ran(line, child.wait_with_output().unwrap()).expect(0);
        std::fs::write(self.data("upload_progress.yml"), record).unwrap();
        self.zfs_file("holds", &holds);
    }

    /// Runs it until `call` was made `skip` times, and kills it at the next one, before or after that is
    /// done.
    #[track_caller]
    pub fn killed(&self, line: &str, call: &'static str, skip: usize, fault: Fault) {
        self.s3.fault(call, skip, 1, fault);
        self.run(line).expect(-9);
        self.s3.no_more_faults();
    }

    /// Runs the binary; the words are separated by one space.
    pub fn run(&self, line: &str) -> Ran {
        self.s3.victim.store(0, Ordering::SeqCst);
        let output = self.spawn(line).wait_with_output().unwrap();
        self.ran(line, output)
    }

    fn ran(&self, line: &str, output: Output) -> Ran {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        // or the signal that has ended it
        let status = output.status.code().or(output.status.signal().map(|n| -n)).unwrap();
        let files = std::fs::read_dir(self.data("")).into_iter().flatten();
        let files: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
        let bucket: Vec<String> = self.s3.state().objects.keys().cloned().collect();
        let told = format!(
            "$ zfs2s3 {line}\nstatus {status}\n-- stdout\n{stdout}-- stderr\n{stderr}-- files {files:?}\n-- bucket {bucket:#?}\n"
        );
        for secret in [sigv4::SECRET_KEY, "Signature=", "Credential="] {
            assert!(!stdout.contains(secret) && !stderr.contains(secret), "a secret is shown: {told}");
        }
        Ran { status, stdout, stderr, told }
    }

    pub fn ok(&self, line: &str) -> Ran {
        let ran = self.run(line);
        ran.expect(0);
        ran
    }

    /// Runs it, expects this exit status, and returns its stderr.
    pub fn fails(&self, status: i32, line: &str) -> String {
        let ran = self.run(line);
        ran.expect(status);
        assert!(ran.stderr.starts_with("zfs2s3: "), "{}", ran.told);
        ran.stderr
    }

    /// `list -H` without guid and time: snapshot, base, bytes, class, state.
    pub fn listed(&self) -> Vec<String> {
        let ran = self.ok("list -H");
        let row = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields.len(), 8, "{}", ran.told);
            [fields[0], fields[2], fields[3], fields[4], fields[6]].join(" ")
        };
        ran.stdout.lines().map(row).collect()
    }

    /// The invariants between commands when nothing is pending: each listed backup is whole in the bucket,
    /// with its manifest; nothing else is there; no upload is open; no hold is left.
    pub fn assert_clean(&self) {
        let state = self.s3.state();
        assert!(
            state.uploads.is_empty(),
            "open uploads of {:?}",
            state.uploads.values().map(|u| &u.key).collect::<Vec<_>>()
        );
        assert_eq!(self.holds(), "", "holds");
        assert!(!self.data("upload_progress.yml").exists(), "an upload is pending");
        for key in state.keys() {
            let manifest = format!(
                "{}.yml",
                key.rsplit_once(".zfs").map_or(key.trim_end_matches(".yml"), |(stem, _)| stem)
            );
            assert!(state.objects.contains_key(&manifest), "{key} without manifest");
            let mentioned = self.store_text().contains(key.trim_end_matches(".yml"));
            assert!(mentioned, "{key} is not in the store");
        }
        drop(state);
        let files = std::fs::read_dir(self.data("")).into_iter().flatten();
        for file in files {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(
                ["stored_snapshots.yml", "stored_snapshots.yml.orig", "archive_states.yml", "lock"]
                    .contains(&name.as_str()),
                "{name} is left"
            );
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

impl Ran {
    #[track_caller]
    pub fn expect(&self, status: i32) {
        assert_eq!(self.status, status, "\n{}", self.told);
    }
}

pub fn real(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/streams")).join(name)).unwrap()
}

/// Numbers that are the same in each run.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0
    }
    pub fn below(&mut self, count: usize) -> usize {
        ((self.next() >> 33) as usize) % count
    }
}

/// A valid stream of `size` bytes: BEGIN, whose payload is what is left over, WRITE records of noise, END.
pub fn made_stream(guid: u64, from: u64, size: usize) -> Vec<u8> {
    const BLOCK: usize = 32 << 10;
    let mut noise = Noise(guid.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ from.rotate_left(32) ^ 0x5851_f42d);
    let mut noise = |length: usize| -> Vec<u8> { (0..length).map(|_| (noise.next() >> 56) as u8).collect() };
    let left = size.max(624) - 624;
    let (blocks, rest) = (left / (312 + BLOCK), left % (312 + BLOCK));
    let mut stream = MadeStream::default();
    stream.record(
        &[(4, rest as u64), (8, 0x2_F5BA_CBAC), (16, 1), (32, 2), (40, guid), (48, from)],
        &noise(rest),
    );
    for n in 0..blocks {
        stream.record(
            &[(0, 3), (8, 5), (24, (n * BLOCK) as u64), (32, BLOCK as u64), (40, guid)],
            &noise(BLOCK),
        );
    }
    stream.end(guid);
    stream.bytes
}

/// The records of a stream, with the right checksums.
#[derive(Default)]
pub struct MadeStream {
    pub bytes: Vec<u8>,
    /// fletcher-4, word by word.
    sums: [u64; 4],
}

impl MadeStream {
    /// `fields`: numbers of 8 bytes, and where they are in the record.
    pub fn record(&mut self, fields: &[(usize, u64)], payload: &[u8]) {
        let mut record = [0; 312];
        for (at, value) in fields {
            let length = if *at == 4 { 4 } else { 8 };
            record[*at..*at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        }
        self.whole_record(&record, payload);
    }
    fn whole_record(&mut self, record: &[u8], payload: &[u8]) {
        let is_begin = self.bytes.is_empty();
        let mut record = record.to_vec();
        self.add(&record[..280]);
        if !is_begin {
            let sums = self.sums.iter().flat_map(|sum| sum.to_le_bytes());
            record[280..].iter_mut().zip(sums).for_each(|(byte, sum)| *byte = sum);
        }
        let last = record[280..].to_vec();
        self.add(&last);
        self.add(payload);
        self.bytes.extend_from_slice(&record);
        self.bytes.extend_from_slice(payload);
    }
    pub fn end(&mut self, guid: u64) {
        let [a, b, c, d] = self.sums;
        self.record(&[(0, 5), (8, a), (16, b), (24, c), (32, d), (40, guid)], &[]);
    }
    fn add(&mut self, bytes: &[u8]) {
        let [mut a, mut b, mut c, mut d] = self.sums;
        for word in bytes.chunks_exact(4) {
            a = a.wrapping_add(u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            b = b.wrapping_add(a);
            c = c.wrapping_add(b);
            d = d.wrapping_add(c);
        }
        self.sums = [a, b, c, d];
    }
}

/// The stream with the right checksums. Only of BEGIN, OBJECT, FREEOBJECTS, WRITE, FREE and END records.
pub fn summed(stream: &[u8]) -> Vec<u8> {
    let mut made = MadeStream::default();
    let mut at = 0;
    while at < stream.len() {
        let u32 =
            |from: usize| u32::from_le_bytes(stream[at + from..at + from + 4].try_into().unwrap()) as usize;
        let payload = match u32(0) {
            0 => u32(4),
            1 if u32(36) > 0 => u32(36),
            1 => u32(28).next_multiple_of(8),
            3 => u32(32),
            2 | 4 | 5 => 0,
            kind => panic!("a record of the type {kind}"),
        };
        let record = &stream[at..at + 312];
        let payload = &stream[at + 312..at + 312 + payload];
        if u32(0) == 5 {
            made.end(u64::from_le_bytes(record[40..48].try_into().unwrap()));
        } else {
            made.whole_record(record, payload);
        }
        at += 312 + payload.len();
    }
    made.bytes
}

/// The key of the first segment.
pub fn key(name: &str, guid: u64, from: Option<u64>) -> String {
    match from {
        None => format!("{name}/{guid:016x}-full.zfs"),
        Some(from) => format!("{name}/{guid:016x}-from-{from:016x}.zfs"),
    }
}
