//! The S3 server of the tests, on loopback. It keeps objects and uploads in memory, checks every signature
//! and body hash, counts the requests, and fails on script: see [`Fault`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::gate::{Gate, Verdict};
use super::sigv4::{self, hex, sha256};

pub const BUCKET: &str = "test-bucket";
/// PutObject of a whole stream, counted apart from those of manifests, marks and announcements.
pub const PUT_DATA: &str = "PutObject of data";

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends before the request is handled.
    Drop,
    /// The process gets this signal, such as `TERM`; nothing is done, except after `PIPE`.
    Signal(&'static str),
    /// The connection is reset in the middle of the body.
    Reset,
    /// It is done, but the connection ends before the reply.
    LoseReply,
    /// It is done after so long, and nobody is told.
    Late(Duration),
    Delay(Duration),
    /// Nothing is done; the reply is this status and error code.
    Status(u16, &'static str),
    /// Nothing is done; the reply is a page of a proxy.
    Page(u16),
    /// Nothing is done; the reply is a word, as of a proxy that answers everything.
    Word,
    /// It is done; the reply's body comes a byte at a time, and never ends.
    Trickle,
    /// It is done; the reply's Content-Range says that it is another range.
    OtherRange,
    /// Nothing is done; the reply is 200, with an error in its body.
    OkWithError(&'static str),
    /// It is done; half of the body of the reply is missing.
    TruncateReply,
    /// It is done; one bit in the middle of the body of the reply is flipped.
    FlipBit,
    /// It is done; the body of the reply is noise, or it goes on for 40 MiB, as XML.
    Garble,
    Swell,
    /// It is done; the reply has another ETag, or another checksum, wherever it has one.
    OtherEtag,
    OtherSum,
    /// It is done; the listing has other keys.
    OtherKeys,
    /// It is done; the reply is sent twice, as if the second were that to the next request.
    Twice,
    /// Nothing is done, and no reply comes for two seconds.
    Silence,
    /// Nothing is done; the reply is this status, and another address.
    Redirect(u16),
    /// Nothing is done; the reply is 503, and to wait for a second.
    RetryAfter,
    /// Another program replaces the object before anything is done.
    Replace,
    /// The client is killed (SIGKILL) before anything is done.
    KillBefore,
    /// The client is killed after it was done.
    KillAfter,
}

struct PlannedFault {
    /// `UploadPart`, …; empty: any.
    call: &'static str,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl PlannedFault {
    fn meets(&self, call: &str) -> bool {
        self.call.is_empty() || self.call == call
    }
}

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Lower-case names.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
    fn param(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| match pair.split_once('=') {
            Some((n, value)) if n == name => Some(decode(value)),
            _ => None,
        })
    }
    /// None: it is not about this bucket. It may be named by the host, or by the path.
    fn key_in_bucket(&self) -> Option<String> {
        let path = decode(&self.path);
        let by_host = self.header("host").is_some_and(|host| host.starts_with(&format!("{BUCKET}.")));
        let start = if by_host { "/".to_string() } else { format!("/{BUCKET}/") };
        path.strip_prefix(&start).map(str::to_string)
    }
    fn key(&self) -> String {
        self.key_in_bucket().unwrap_or_default()
    }
    /// STS is at the same address.
    pub fn is_for_sts(&self) -> bool {
        self.path == "/" && self.body.starts_with(b"Action=")
    }
    /// The name of the call in the API.
    fn call(&self) -> &'static str {
        let has = |name: &str| self.query.split('&').any(|pair| pair.split('=').next() == Some(name));
        match (self.method.as_str(), self.key().is_empty()) {
            ("POST", true) if self.is_for_sts() => "GetCallerIdentity",
            ("GET", true) if has("versioning") => "GetBucketVersioning",
            ("GET", true) if has("lifecycle") => "GetBucketLifecycleConfiguration",
            ("GET", false) if has("retention") => "GetObjectRetention",
            ("GET", false) if has("legal-hold") => "GetObjectLegalHold",
            ("DELETE", false) if has("versionId") => "DeleteObjectVersion",
            ("GET", true) if has("uploads") => "ListMultipartUploads",
            ("GET", true) if has("versions") => "ListObjectVersions",
            ("GET", true) if has("object-lock") => "GetObjectLockConfiguration",
            ("GET", true) => "ListObjectsV2",
            ("GET", false) if has("uploadId") => "ListParts",
            ("GET", false) => "GetObject",
            ("HEAD", _) => "HeadObject",
            ("POST", _) if has("uploads") => "CreateMultipartUpload",
            ("POST", _) if has("restore") => "RestoreObject",
            ("POST", _) => "CompleteMultipartUpload",
            ("PUT", _) if has("partNumber") => "UploadPart",
            ("PUT", _) => "PutObject",
            ("DELETE", _) if has("uploadId") => "AbortMultipartUpload",
            ("DELETE", _) => "DeleteObject",
            _ => "Unknown",
        }
    }
}

#[derive(Clone)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub etag: String,
    pub checksum: Option<String>,
    pub storage_class: String,
}

impl Object {
    /// A part of an upload, as another program has stored it.
    pub fn part(bytes: &[u8], etag: &str) -> Object {
        let checksum = Some(BASE64.encode(sha256(bytes)));
        Object { bytes: bytes.to_vec(), etag: etag.to_string(), checksum, storage_class: String::new() }
    }
}

pub struct Upload {
    pub key: String,
    pub storage_class: String,
    pub checksums: bool,
    pub parts: BTreeMap<u16, Object>,
}

/// What this server supports and allows.
pub struct Capabilities {
    /// Supports x-amz-checksum-*; otherwise it rejects them.
    pub checksums: bool,
    /// Calls at which it rejects these headers, with 501.
    pub no_checksums_at: &'static [&'static str],
    /// Does not support checksums in the body of CompleteMultipartUpload.
    pub strict_complete: bool,
    /// A proxy in front of it consumes Expect, or does not support it.
    pub takes_expect: bool,
    pub knows_expect: bool,
    /// Requires Content-MD5 with each body.
    pub wants_md5: bool,
    /// Requires this header with each request, or with each that creates an object.
    pub wants_always: Option<(&'static str, &'static str)>,
    pub wants_for_objects: Option<(&'static str, &'static str)>,
    /// Parts an upload may have.
    pub max_parts: u16,
    /// All parts but the last must have the same size, as with R2.
    pub equal_parts: bool,
    /// Answers 200 to a ranged GET, with or without Content-Range.
    pub says_200: Option<bool>,
    /// The answers to these calls, which are not done.
    pub lacks: Vec<(&'static str, u16, &'static str)>,
    /// Supports only the first version of ListObjects, which continues after a marker.
    pub lists_as_before: bool,
    /// Answers ListMultipartUploads as if it were ListObjects.
    pub lists_objects_for_uploads: bool,
    pub parts_without_etag: bool,
    /// Answers 404 to HEAD with the type of a page, and calls the list of parts ListPartsResponse.
    pub moto: bool,
    /// Lets objects in GLACIER be read, like servers on which that is an ordinary class.
    pub reads_glacier: bool,
    /// How long it thaws an archived object.
    pub thaw_time: Duration,
    pub may_read: bool,
    /// Answers "forbidden" for a missing object.
    pub hides_absent: bool,
    /// Of `encoding-type=url`: none: it is ignored, or it is refused.
    pub encoding: Encoding,
    /// The bucket is in this other region, which the header or the body names.
    pub region: Option<(&'static str, bool)>,
    pub may_list: bool,
    /// The policy allows to list with exactly this prefix, and with no other.
    pub lists_only: Option<&'static str>,
    /// What it keeps of a stream is not what it was sent.
    pub mangles: bool,
    /// The bucket has an Object Lock. Then it has versions, and DeleteObject only hides an object.
    pub locks: bool,
    /// Accepts requests for Object Locks, and does nothing.
    pub ignores_locks: bool,
    /// Allows only conditional deletes, by the policy of the bucket.
    pub deletes_by_condition: bool,
    /// Refuses each DeleteObject.
    pub may_delete: bool,
    /// Of If-Match at DeleteObject.
    pub if_match: IfMatch,
    /// Honors If-None-Match at PutObject.
    pub if_none_match: bool,
    /// Seconds that its clock is ahead.
    pub clock: i64,
    /// Checks no hash of a body.
    pub takes_wrong_sums: bool,
    /// `Enabled` or `Suspended`: then DeleteObject only hides an object, as with `locks`.
    pub versioning: Option<&'static str>,
    /// The retention of each new object, as XML; only with `locks`.
    pub default_retention: Option<&'static str>,
    /// The lifecycle rules, as XML; they are not carried out.
    pub lifecycle: &'static str,
    /// Lists with the present time, and not with one in January 2026.
    pub lists_real_times: bool,
    /// What STS says.
    pub arn: &'static str,
    /// Each page of a listing is empty, and names another one.
    pub lists_for_ever: bool,
    /// Additional length of its upload IDs.
    pub long_ids: usize,
    pub page: usize,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Encoding {
    Known,
    Ignored,
    Refused,
    /// Encodes even if not asked to.
    Always,
}

#[derive(Clone, Copy, PartialEq)]
pub enum IfMatch {
    Known,
    Ignored,
    /// With 501.
    Refused,
    /// Matches no ETag.
    Fails,
}

pub struct ArchiveCopy {
    pub ready: Instant,
    pub days: u64,
    tier: usize,
}

pub struct State {
    pub objects: BTreeMap<String, Object>,
    pub uploads: BTreeMap<String, Upload>,
    /// Each call that arrived, in order: name and key.
    pub log: Vec<(&'static str, String)>,
    pub capabilities: Capabilities,
    /// When copies of archived objects can be read, and what was asked for, by key.
    pub copies: BTreeMap<String, ArchiveCopy>,
    /// Further classes that must be thawed.
    pub archives: Vec<&'static str>,
    /// The archive tiers of objects in INTELLIGENT_TIERING, by key.
    pub archive_tiers: BTreeMap<String, &'static str>,
    /// What delete markers hide, and the IDs of these, the latest first.
    pub hidden: BTreeMap<String, Object>,
    pub markers: BTreeMap<String, Vec<String>>,
    /// The Object Locks, by key: mode and end.
    pub locked: BTreeMap<String, (String, String)>,
    /// The accepted bodies of RestoreObject, with their keys.
    pub thawed: Vec<(String, String)>,
    /// How many requests are being delayed, and of each that was, how many were at that time.
    pub delayed: usize,
    /// The objects and uploads that late requests have made, and when.
    pub made_late: Vec<(Instant, String)>,
    pub delayed_at_once: Vec<usize>,
    faults: Vec<PlannedFault>,
    /// The fault of the first request for each range, and the ranges that have had it.
    each_range: Option<(Fault, HashSet<String>)>,
    next_id: u32,
}

impl State {
    pub fn count(&self, call: &str) -> usize {
        self.log.iter().filter(|(name, _)| *name == call).count()
    }
    /// All except that of the README.
    pub fn keys(&self) -> Vec<&str> {
        self.objects.keys().map(String::as_str).filter(|key| !key.ends_with("README.zfs2s3.txt")).collect()
    }
    pub fn bytes(&self, key: &str) -> &[u8] {
        &self.object(key).bytes
    }
    pub fn object(&self, key: &str) -> &Object {
        self.find(key).unwrap_or_else(|| panic!("no object {key} in {:?}", self.keys()))
    }
    /// The object with this key, or with this key and the ID of an upload, which a test does not know.
    pub fn find(&self, key: &str) -> Option<&Object> {
        self.objects.get(&self.real_key(key))
    }
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }
    pub fn object_mut(&mut self, key: &str) -> &mut Object {
        self.objects.get_mut(&self.real_key(key)).expect("the object is there")
    }
    /// DeleteObject in a bucket with versions: it adds a delete marker, even if there is nothing to hide.
    pub fn hide(&mut self, key: &str) {
        if let Some(object) = self.objects.remove(key) {
            self.hidden.insert(key.to_string(), object);
        }
        self.next_id += 1;
        let id = format!("-m {}", self.next_id);
        self.markers.entry(key.to_string()).or_default().insert(0, id);
    }
    fn keeps_versions(&self) -> bool {
        self.capabilities.locks || self.capabilities.versioning.is_some()
    }
    /// DeleteObject with a version ID. Returns whether there was such a delete marker.
    pub fn delete_marker(&mut self, key: &str, id: &str) -> bool {
        let Some(markers) = self.markers.get_mut(key) else { return false };
        let count = markers.len();
        markers.retain(|marker| marker != id);
        let found = markers.len() < count;
        if markers.is_empty() {
            self.markers.remove(key);
            self.objects.extend(self.hidden.remove_entry(key));
        }
        found
    }
    /// Removes an object; it can be put back with the returned key.
    pub fn take(&mut self, key: &str) -> Option<(String, Object)> {
        self.objects.remove_entry(&self.real_key(key))
    }
    /// `…/G-full-1234abcd.zfs` for `…/G-full.zfs`, if it exists.
    pub fn real_key(&self, key: &str) -> String {
        let name_at = key.rfind('/').map_or(0, |at| at + 1);
        let Some(dot) = key[name_at..].find('.').map(|at| name_at + at) else { return key.to_string() };
        let (stem, end) = key.split_at(dot);
        let has_id = |found: &&String| {
            found.strip_prefix(stem).and_then(|rest| rest.strip_suffix(end)).is_some_and(|id| {
                id.len() == 9 && id.starts_with('-') && id[1..].bytes().all(|b| b.is_ascii_hexdigit())
            })
        };
        self.objects.keys().find(has_id).cloned().unwrap_or_else(|| key.to_string())
    }
    /// Is it in an archive, whether or not there is a copy?
    fn is_in_archive(&self, key: &str) -> bool {
        self.archive_tiers.contains_key(key)
            || self.objects.get(key).is_some_and(|object| {
                object.storage_class == "DEEP_ARCHIVE"
                    || self.archives.contains(&object.storage_class.as_str())
                    || (object.storage_class == "GLACIER" && !self.capabilities.reads_glacier)
            })
    }
    fn has_copy(&self, key: &str) -> bool {
        self.copies.get(key).is_some_and(|copy| copy.ready <= Instant::now())
    }
    /// Ends the waiting.
    pub fn finish_thawing(&mut self) {
        self.copies.values_mut().for_each(|copy| copy.ready = Instant::now());
    }
    pub fn faults_left(&self) -> usize {
        self.faults.iter().map(|fault| fault.times).sum()
    }
    fn first_of_its_range(&mut self, request: &Request) -> Option<Fault> {
        let range = request.header("range")?;
        let (fault, had) = self.each_range.as_mut()?;
        had.insert(format!("{} {range}", request.path)).then(|| fault.clone())
    }
    /// Replaces the object with this key, whatever its ID.
    pub fn put(&mut self, key: &str, bytes: &[u8]) {
        self.put_exactly(&self.real_key(key), bytes);
    }
    pub fn put_exactly(&mut self, key: &str, bytes: &[u8]) {
        let etag = format!("\"{}\"", &hex(&sha256(bytes))[..32]);
        let storage_class = "STANDARD".to_string();
        self.objects
            .insert(key.to_string(), Object { bytes: bytes.to_vec(), etag, checksum: None, storage_class });
    }
}

pub struct S3 {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// The process that KillBefore and KillAfter end.
    pub victim: Arc<AtomicU32>,
    /// Holds the requests of two hosts.
    pub gate: Arc<Gate>,
    ended: Arc<AtomicBool>,
}

impl S3 {
    pub fn start() -> S3 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let capabilities = Capabilities {
            checksums: true,
            no_checksums_at: &[],
            strict_complete: false,
            takes_expect: false,
            knows_expect: true,
            wants_md5: false,
            wants_always: None,
            wants_for_objects: None,
            max_parts: 10_000,
            equal_parts: false,
            says_200: None,
            lacks: vec![],
            moto: false,
            lists_objects_for_uploads: false,
            parts_without_etag: false,
            lists_as_before: false,
            reads_glacier: false,
            thaw_time: Duration::from_secs(3600),
            may_read: true,
            hides_absent: false,
            encoding: Encoding::Known,
            region: None,
            may_list: true,
            lists_only: None,
            locks: false,
            mangles: false,
            ignores_locks: false,
            deletes_by_condition: false,
            may_delete: true,
            if_match: IfMatch::Known,
            if_none_match: true,
            clock: 0,
            takes_wrong_sums: false,
            versioning: None,
            default_retention: None,
            lifecycle: "",
            lists_real_times: false,
            arn: "arn:aws:iam::123456789012:user/nas",
            lists_for_ever: false,
            long_ids: 0,
            page: 1000,
        };
        let state = Arc::new(Mutex::new(State {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            log: vec![],
            capabilities,
            copies: BTreeMap::new(),
            archives: vec![],
            hidden: BTreeMap::new(),
            markers: BTreeMap::new(),
            locked: BTreeMap::new(),
            archive_tiers: BTreeMap::new(),
            thawed: vec![],
            delayed: 0,
            delayed_at_once: vec![],
            made_late: vec![],
            faults: vec![],
            each_range: None,
            next_id: 0,
        }));
        let s3 = S3 {
            address: listener.local_addr().unwrap(),
            state,
            victim: Arc::default(),
            gate: Arc::default(),
            ended: Arc::default(),
        };
        let (state, victim, ended) = (Arc::clone(&s3.state), Arc::clone(&s3.victim), Arc::clone(&s3.ended));
        let gate = Arc::clone(&s3.gate);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let (state, victim, gate) = (Arc::clone(&state), Arc::clone(&victim), Arc::clone(&gate));
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, &state, &victim, &gate));
            }
        });
        s3
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
    /// Calls of this name have `fault`: after `skip` of them, the next `times`.
    pub fn fault(&self, call: &'static str, skip: usize, times: usize, fault: Fault) {
        self.state().faults.push(PlannedFault { call, skip, times, fault });
    }
    /// The first request for each range of each object has `fault`.
    pub fn fault_each_range(&self, fault: Fault) {
        self.state().each_range = Some((fault, HashSet::new()));
    }
    pub fn no_more_faults(&self) {
        self.state().faults.clear();
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, victim: &AtomicU32, gate: &Gate) {
    let _ = stream.set_nodelay(true);
    // so small that half of a body is not all of it
    let mut reader = BufReader::with_capacity(512, stream.try_clone().unwrap());
    while let Some(mut request) = read_request(&mut reader, &mut stream, state) {
        if gate.pass(&request) == Verdict::Discard {
            break;
        }
        let call = request.call();
        let name = if call == "PutObject" && request.key().ends_with(".zfs") { PUT_DATA } else { call };
        let fault = {
            let mut state = state.lock().unwrap();
            if state.capabilities.takes_expect {
                request.headers.remove("expect");
            }
            state.log.push((name, request.key()));
            next_fault(&mut state.faults, name).or_else(|| state.first_of_its_range(&request))
        };
        if let Some(said) = fault.as_ref().and_then(reply_instead) {
            if reply(&mut stream, &request, said, false).is_err() {
                break;
            }
            continue;
        }
        match fault {
            Some(Fault::Drop | Fault::Reset) => break,
            Some(Fault::Silence) => {
                std::thread::sleep(Duration::from_secs(2));
                break;
            }
            Some(Fault::KillBefore) => return kill(victim),
            Some(Fault::Signal("PIPE")) => send_signal(victim, "PIPE"),
            Some(Fault::Signal(name)) => return end(victim, name),
            Some(Fault::Replace) => {
                state.lock().unwrap().object_mut(&request.key()).etag = "\"another\"".to_string();
            }
            Some(Fault::Delay(time) | Fault::Late(time)) => {
                {
                    let mut state = state.lock().unwrap();
                    state.delayed += 1;
                    let now = state.delayed;
                    state.delayed_at_once.push(now);
                }
                std::thread::sleep(time);
                if matches!(fault, Some(Fault::Delay(_))) {
                    state.lock().unwrap().delayed -= 1;
                }
            }
            _ => {}
        }
        let (clock, takes_wrong_sums) = {
            let capabilities = &state.lock().unwrap().capabilities;
            (capabilities.clock, capabilities.takes_wrong_sums)
        };
        let mut done = match sigv4::check(&request, !takes_wrong_sums) {
            // as AWS does from 15 minutes on
            Ok(()) if clock.abs() > 900 => {
                error(403, "RequestTimeTooSkewed", "The difference between the times is too large.")
            }
            Ok(()) => {
                let mut state = state.lock().unwrap();
                let names = |state: &State| -> Vec<String> {
                    state.objects.keys().chain(state.uploads.keys()).cloned().collect()
                };
                let before = if matches!(fault, Some(Fault::Late(_))) { Some(names(&state)) } else { None };
                let done = answer(&mut state, &request, call);
                if let Some(before) = before {
                    let new = names(&state).into_iter().filter(|name| !before.contains(name));
                    let now = Instant::now();
                    state.made_late.extend(new.map(|name| (now, name)));
                }
                done
            }
            Err((status, code, why)) => error(status, code, &why),
        };
        match fault {
            Some(Fault::LoseReply) => break,
            Some(Fault::Late(_)) => {
                state.lock().unwrap().delayed -= 1;
                break;
            }
            Some(Fault::FlipBit) => {
                let middle = done.body.len() / 2;
                if let Some(byte) = done.body.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            Some(Fault::Garble) => {
                done.body.iter_mut().zip(0u32..).for_each(|(byte, n)| *byte ^= (n * 37) as u8)
            }
            Some(Fault::Swell) if request.method == "GET" => {
                done.headers.retain(|(name, _)| *name != "Content-Length");
                let end = done.body.len() - done.body.len().min(12);
                done.body.truncate(end);
                done.body.extend(b"<Contents><Key>tank/b@1/x</Key></Contents>".repeat(1_000_000));
            }
            Some(Fault::OtherEtag) => {
                done.headers.iter_mut().filter(|(name, _)| *name == "ETag").for_each(|(_, value)| {
                    *value = "\"00000000000000000000000000000000\"".to_string();
                });
                done.body = with_other(done.body, "ETag", "&quot;0&quot;");
            }
            Some(Fault::OtherKeys) => done.body = with_other(done.body, "Key", "other"),
            Some(Fault::OtherSum) => {
                let sum = BASE64.encode([7; 32]);
                done.headers
                    .iter_mut()
                    .filter(|(name, _)| *name == "x-amz-checksum-sha256")
                    .for_each(|(_, value)| *value = sum.clone());
                done.body = with_other(done.body, "ChecksumSHA256", &sum);
            }
            Some(Fault::OtherRange) => {
                let range = done.headers.iter_mut().find(|(name, _)| *name == "Content-Range");
                range.expect("it is a range").1 = "bytes 0-0/1".to_string();
            }
            Some(Fault::KillAfter) => return kill(victim),
            _ => {}
        }
        if matches!(fault, Some(Fault::Trickle)) {
            let mut sent = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 20000\r\n\r\n");
            while sent.is_ok() {
                std::thread::sleep(Duration::from_millis(20));
                sent = stream.write_all(b" ");
            }
            break;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs((now + clock) as u64);
        done.headers.push(("Date", http_date(date)));
        let cut = matches!(fault, Some(Fault::TruncateReply));
        if matches!(fault, Some(Fault::Twice)) && reply(&mut stream, &request, done.clone(), false).is_err() {
            break;
        }
        if reply(&mut stream, &request, done, cut).is_err() || cut {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Of a fault with which nothing is done.
fn reply_instead(fault: &Fault) -> Option<Answer> {
    let said = |status, code| error(status, code, "as the test wants it");
    Some(match fault {
        Fault::Status(status, code) => said(*status, code),
        Fault::Redirect(status) => said(*status, "").with("Location", "http://127.0.0.1:1/x"),
        Fault::RetryAfter => said(503, "").with("Retry-After", "1"),
        Fault::Page(status) => Answer {
            status: *status,
            headers: vec![("Content-Type", "text/html".to_string())],
            body: b"<html><body>404 page not found</body></html>".to_vec(),
        },
        Fault::Word => Answer {
            status: 200,
            headers: vec![("Content-Type", "text/plain".to_string())],
            body: b"OK".to_vec(),
        },
        Fault::OkWithError(code) => Answer { status: 200, ..said(500, code) },
        _ => return None,
    })
}

fn next_fault(faults: &mut [PlannedFault], call: &str) -> Option<Fault> {
    let mut hit = None;
    for fault in faults.iter_mut().filter(|f| f.times > 0 && f.meets(call)) {
        if fault.skip > 0 {
            fault.skip -= 1;
        } else if hit.is_none() {
            fault.times -= 1;
            hit = Some(fault.fault.clone());
        }
    }
    hit
}

fn kill(victim: &AtomicU32) {
    send_signal(victim, "KILL");
    // no reply, so that it cannot continue before it is dead
    std::thread::sleep(Duration::from_millis(50));
}

/// Comes back when it has ended.
fn end(victim: &AtomicU32, signal: &str) {
    send_signal(victim, signal);
    let process = format!("/proc/{}", victim.load(Ordering::SeqCst));
    for _ in 0..1000 {
        if !std::path::Path::new(&process).exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send_signal(victim: &AtomicU32, signal: &str) {
    let pid = loop {
        match victim.load(Ordering::SeqCst) {
            0 => std::thread::sleep(Duration::from_millis(1)),
            pid => break pid,
        }
    };
    let words = [format!("-{signal}"), pid.to_string()];
    assert!(std::process::Command::new("kill").args(words).status().unwrap().success());
}

fn read_request(
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
    state: &Mutex<State>,
) -> Option<Request> {
    // a handshake of TLS
    if reader.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&0x16)) {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        return None;
    }
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_string()),
            None => break,
        };
    }
    if headers.get("expect").is_some_and(|value| value == "100-continue") {
        if !state.lock().unwrap().capabilities.knows_expect {
            let refusal = b"HTTP/1.1 417 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(refusal).ok()?;
            return None;
        }
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request =
        Request { method, path: path.to_string(), query: query.to_string(), headers, body: vec![] };
    let call = request.call();
    let is_reset = |fault: &PlannedFault| {
        matches!(fault.fault, Fault::Reset) && fault.times > 0 && fault.skip == 0 && fault.meets(call)
    };
    // what a connection that ends has not read resets it
    let length = if state.lock().unwrap().faults.iter().any(is_reset) { length / 2 } else { length };
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// A body of XML with something else in each element of this name.
fn with_other(body: Vec<u8>, tag: &str, value: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(&body).to_string();
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut pieces = text.split(&begin);
    let first = pieces.next().unwrap_or_default().to_string();
    let rest: String = pieces
        .map(|piece| {
            let after = piece.split_once(&end).map_or("", |(_, after)| after);
            format!("{begin}{value}{end}{after}")
        })
        .collect();
    if rest.is_empty() { body } else { (first + &rest).into_bytes() }
}

#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn with(mut self, header: &'static str, value: &str) -> Answer {
        self.headers.push((header, value.to_string()));
        self
    }
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer { status: 200, headers: vec![], body: body.into() }
}

/// The refusal of a DeleteObject by its If-Match.
fn unmet_condition(state: &State, request: &Request, key: &str) -> Option<Answer> {
    let wanted = request.header("if-match")?;
    let found = state.objects.get(key).map(|object| object.etag.as_str());
    match (state.capabilities.if_match, found) {
        (IfMatch::Ignored, _) => None,
        (IfMatch::Refused, _) => Some(error(501, "NotImplemented", "no conditional deletes")),
        // as SeaweedFS says it of what a delete marker hides
        (_, None) if state.markers.contains_key(key) => Some(error(412, "PreconditionFailed", "deleted")),
        (_, None) => Some(error(404, "NoSuchKey", "there is no such object")),
        (IfMatch::Known, Some(etag)) if etag == wanted => None,
        (_, Some(_)) => Some(error(412, "PreconditionFailed", "the ETag differs")),
    }
}

fn error(status: u16, code: &str, why: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{}</Message></Error>",
        escape(why)
    );
    Answer { status, headers: vec![], body: body.into_bytes() }
}

fn reply(stream: &mut TcpStream, request: &Request, answer: Answer, cut: bool) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    let sized = answer.headers.iter().any(|(name, _)| *name == "Content-Length");
    if !sized {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        let length = if cut { answer.body.len() / 2 } else { answer.body.len() };
        stream.write_all(&answer.body[..length])?;
    }
    stream.flush()
}

/// What this server does not support or allow.
fn refusal(capabilities: &Capabilities, request: &Request, call: &str) -> Option<Answer> {
    let makes_object = matches!(call, "CreateMultipartUpload" | "PutObject");
    let has_body = matches!(call, "UploadPart" | "PutObject");
    let checksums = request.headers.keys().find(|name| name.contains("-checksum"));
    let lacks = capabilities.lacks.iter().find(|(name, ..)| *name == call);
    let lacking = |wanted: Option<(&'static str, &'static str)>| {
        wanted.is_some_and(|(name, value)| request.header(name) != Some(value))
    };
    if let Some((region, in_header)) = capabilities.region {
        let mut said = error(307, "TemporaryRedirect", "Please re-send this request");
        if in_header {
            said.headers.push(("x-amz-bucket-region", region.to_string()));
        } else {
            let body = String::from_utf8(said.body).unwrap();
            said.body = body.replace("</Error>", &format!("<Region>{region}</Region></Error>")).into_bytes();
        }
        return Some(said);
    }
    if let Some((_, status, code)) = lacks {
        return Some(error(*status, code, "this server cannot do that"));
    }
    match checksums {
        Some(name) if !capabilities.checksums => {
            let why = format!("Unsupported header '{name}' received for this API call.");
            return Some(error(400, "InvalidArgument", &why));
        }
        Some(_) if capabilities.no_checksums_at.contains(&call) => {
            return Some(error(
                501,
                "NotImplemented",
                "A header you provided implies functionality that is not implemented",
            ));
        }
        _ => {}
    }
    if capabilities.wants_md5 && has_body {
        let sum = BASE64.encode(md5::compute(&request.body).0);
        if request.header("content-md5") != Some(&sum) {
            return Some(error(
                400,
                "InvalidRequest",
                "Content-MD5 HTTP header is required for Put Object requests with Object Lock parameters",
            ));
        }
    }
    if lacking(capabilities.wants_always) || (makes_object && lacking(capabilities.wants_for_objects)) {
        return Some(error(403, "AccessDenied", "Access Denied"));
    }
    if !capabilities.may_read && matches!(call, "GetObject" | "HeadObject") {
        return Some(error(403, "AccessDenied", "Access Denied"));
    }
    if request.param("encoding-type").is_some() && capabilities.encoding == Encoding::Refused {
        return Some(error(501, "NotImplemented", "encoding-type"));
    }
    let part = request.param("partNumber").and_then(|text| text.parse::<u16>().ok());
    if part.is_some_and(|part| part > capabilities.max_parts) {
        let why =
            format!("Part number must be an integer between 1 and {}, inclusive", capabilities.max_parts);
        return Some(error(400, "InvalidArgument", &why));
    }
    None
}

fn answer(state: &mut State, request: &Request, call: &str) -> Answer {
    let key = request.key();
    if call == "GetCallerIdentity" {
        return ok(format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>{}</Arn><UserId>AIDATEST</UserId><Account>123456789012</Account></GetCallerIdentityResult>\
             </GetCallerIdentityResponse>",
            state.capabilities.arn
        ));
    }
    if request.key_in_bucket().is_none() {
        return error(404, "NoSuchBucket", "The specified bucket does not exist");
    }
    if let Some(refusal) = refusal(&state.capabilities, request, call) {
        return refusal;
    }
    let lock = ["mode", "retain-until-date"].map(|name| request.header(&format!("x-amz-object-lock-{name}")));
    match lock {
        [None, None] => {}
        _ if state.capabilities.ignores_locks => {}
        [Some(mode), Some(until)] if state.capabilities.locks => {
            state.locked.insert(key.clone(), (mode.to_string(), until.to_string()));
        }
        _ => return error(400, "InvalidRequest", "Bucket is missing Object Lock Configuration"),
    }
    match call {
        "ListObjectsV2" | "ListMultipartUploads" | "ListObjectVersions" if !state.capabilities.may_list => {
            error(403, "AccessDenied", "no listing")
        }
        "ListObjectsV2"
            if state
                .capabilities
                .lists_only
                .is_some_and(|p| request.param("prefix").as_deref() != Some(p)) =>
        {
            error(403, "AccessDenied", "no listing with this prefix")
        }
        "ListObjectsV2" => list_objects(state, request),
        "GetObjectLockConfiguration" if state.capabilities.locks => {
            let default = state.capabilities.default_retention;
            let rule = default.map(|xml| format!("<Rule><DefaultRetention>{xml}</DefaultRetention></Rule>"));
            ok(format!(
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{}</ObjectLockConfiguration>",
                rule.unwrap_or_default()
            ))
        }
        "GetBucketVersioning" => {
            let status =
                if state.capabilities.locks { Some("Enabled") } else { state.capabilities.versioning };
            let status = status.map(|status| format!("<Status>{status}</Status>")).unwrap_or_default();
            ok(format!("<VersioningConfiguration>{status}</VersioningConfiguration>"))
        }
        "GetBucketLifecycleConfiguration" if state.capabilities.lifecycle.is_empty() => {
            error(404, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
        }
        "GetBucketLifecycleConfiguration" => {
            ok(format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", state.capabilities.lifecycle))
        }
        "GetObjectRetention" | "GetObjectLegalHold" => {
            error(404, "NoSuchObjectLockConfiguration", "The specified object does not have one")
        }
        "DeleteObjectVersion" => {
            let id = request.param("versionId").unwrap_or_default();
            if !state.delete_marker(&key, &id) && state.hidden.remove(&key).is_none() && id == "v1" {
                state.objects.remove(&key);
            }
            Answer { status: 204, headers: vec![], body: vec![] }
        }
        "GetObjectLockConfiguration" => error(
            404,
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
        ),
        "ListObjectVersions" => list_versions(state, request),
        "ListMultipartUploads" if state.capabilities.lists_objects_for_uploads => {
            list_objects(state, request)
        }
        "ListMultipartUploads" => list_uploads(state, request),
        // so AWS hides missing objects from those who may not list
        "HeadObject" | "GetObject"
            if (!state.capabilities.may_list || state.capabilities.hides_absent)
                && !state.objects.contains_key(&key) =>
        {
            error(403, "AccessDenied", "no listing")
        }
        "GetObject" if state.is_in_archive(&key) && !state.has_copy(&key) => {
            error(403, "InvalidObjectState", "The operation is not valid for the object's storage class")
        }
        "HeadObject" if state.capabilities.moto && !state.objects.contains_key(&key) => {
            let headers = vec![
                ("Content-Type", "text/html; charset=utf-8".to_string()),
                ("Content-Length", "0".to_string()),
            ];
            Answer { status: 404, headers, body: vec![] }
        }
        "HeadObject" | "GetObject" => get(state, &key, request.header("range")),
        "PutObject"
            if state.capabilities.if_none_match
                && request.header("if-none-match").is_some()
                && state.objects.contains_key(&key) =>
        {
            error(412, "PreconditionFailed", "At least one of the pre-conditions did not hold")
        }
        "PutObject" => {
            state.put_exactly(&key, &request.body);
            let mut said = ok("");
            let object = state.objects.get_mut(&key).expect("it was just put there");
            object.checksum = request.header("x-amz-checksum-sha256").map(str::to_string);
            if state.capabilities.mangles && key.ends_with(".zfs") {
                object.bytes[0] ^= 1;
                object.checksum = Some("AAAA".to_string());
            }
            if let Some(class) = request.header("x-amz-storage-class") {
                object.storage_class = class.to_string();
            }
            said.headers.push(("ETag", object.etag.clone()));
            said.headers.extend(object.checksum.clone().map(|sum| ("x-amz-checksum-sha256", sum)));
            if state.keeps_versions() {
                said.headers.push(("x-amz-version-id", "v1".to_string()));
            }
            said
        }
        "RestoreObject" => restore_object(state, &key, &request.body),
        "DeleteObject" if !state.capabilities.may_delete => {
            error(403, "AccessDenied", "nothing may be deleted")
        }
        "DeleteObject" if state.capabilities.deletes_by_condition && request.header("if-match").is_none() => {
            error(403, "AccessDenied", "the policy of this bucket requires If-Match")
        }
        "DeleteObject" => {
            if let Some(refusal) = unmet_condition(state, request, &key) {
                return refusal;
            }
            let mut headers = vec![];
            if state.keeps_versions() {
                state.hide(&key);
                headers.push(("x-amz-delete-marker", "true".to_string()));
                headers.push(("x-amz-version-id", state.markers[&key][0].clone()));
            }
            state.objects.remove(&key);
            Answer { status: 204, headers, body: vec![] }
        }
        "CreateMultipartUpload" => {
            state.next_id += 1;
            // with everything that must be escaped
            let id = format!("id+{}/=& x{}", state.next_id, "u".repeat(state.capabilities.long_ids));
            let storage_class = request.header("x-amz-storage-class").unwrap_or("STANDARD").to_string();
            let checksums = request.header("x-amz-checksum-algorithm") == Some("SHA256");
            let upload = Upload { key: key.clone(), storage_class, checksums, parts: BTreeMap::new() };
            state.uploads.insert(id.clone(), upload);
            let mut said = ok(format!(
                "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{}</Key><UploadId>{}</UploadId></InitiateMultipartUploadResult>",
                escape(&key),
                escape(&id)
            ));
            if checksums {
                said.headers.push(("x-amz-checksum-algorithm", "SHA256".to_string()));
            }
            said
        }
        _ => of_upload(state, request, call, &key),
    }
}

/// The calls that name an upload.
fn of_upload(state: &mut State, request: &Request, call: &str, key: &str) -> Answer {
    let id = request.param("uploadId").unwrap_or_default();
    let (mangles, strict_complete) = (state.capabilities.mangles, state.capabilities.strict_complete);
    let equal_parts = state.capabilities.equal_parts;
    let (page_size, takes_wrong_sums) = (state.capabilities.page, state.capabilities.takes_wrong_sums);
    let root = if state.capabilities.moto { "ListPartsResponse" } else { "ListPartsResult" };
    let strict = state.capabilities.no_checksums_at.is_empty() && !state.capabilities.takes_wrong_sums;
    let without_etag = state.capabilities.parts_without_etag;
    let Some(upload) = state.uploads.get_mut(&id).filter(|upload| upload.key == key) else {
        return error(404, "NoSuchUpload", "The specified upload does not exist.");
    };
    match call {
        "UploadPart" => {
            let sum = BASE64.encode(sha256(&request.body));
            let given = request.header("x-amz-checksum-sha256");
            let is_checked = strict || (given.is_some() && !takes_wrong_sums);
            if upload.checksums && is_checked && given != Some(&sum) {
                return error(400, "InvalidRequest", "the part's checksum is missing or wrong");
            }
            let Some(number @ 1..=10_000) = request.param("partNumber").and_then(|text| text.parse().ok())
            else {
                return error(
                    400,
                    "InvalidArgument",
                    "Part number must be an integer between 1 and 10000, inclusive",
                );
            };
            let etag = format!("\"{}\"", &hex(&sha256(&request.body))[..32]);
            let checksum = upload.checksums.then_some(sum);
            let storage_class = String::new();
            upload.parts.insert(
                number,
                Object { bytes: request.body.clone(), etag: etag.clone(), checksum, storage_class },
            );
            Answer { status: 200, headers: vec![("ETag", etag)], body: vec![] }
        }
        "ListParts" => {
            let after: u16 =
                request.param("part-number-marker").and_then(|text| text.parse().ok()).unwrap_or(0);
            let page: Vec<(&u16, &Object)> = upload.parts.range(after + 1..).take(page_size).collect();
            let more = page.last().is_some_and(|(last, _)| upload.parts.range(**last + 1..).next().is_some());
            let next = page
                .last()
                .map(|(n, _)| format!("<NextPartNumberMarker>{n}</NextPartNumberMarker>"))
                .unwrap_or_default();
            let parts: String = page
                .iter()
                .map(|(number, part)| {
                    let etag = format!("<ETag>{}</ETag>", escape(&part.etag));
                    let etag = if without_etag { String::new() } else { etag };
                    let sum = part.checksum.as_ref().map(|sum| format!("<ChecksumSHA256>{sum}</ChecksumSHA256>"));
                    format!(
                        "<Part><PartNumber>{number}</PartNumber><LastModified>2026-01-01T00:00:00.000Z</LastModified>{}<Size>{}</Size>{}</Part>",
                        etag,
                        part.bytes.len(),
                        sum.unwrap_or_default()
                    )
                })
                .collect();
            ok(format!(
                "<{root}><Bucket>{BUCKET}</Bucket><IsTruncated>{more}</IsTruncated>{next}{parts}</{root}>"
            ))
        }
        "AbortMultipartUpload" => {
            state.uploads.remove(&id);
            Answer { status: 204, headers: vec![], body: vec![] }
        }
        "CompleteMultipartUpload" => {
            let body = String::from_utf8_lossy(&request.body).replace("&quot;", "\"");
            if strict_complete && body.contains("Checksum") {
                return error(400, "MalformedXML", "The XML you provided was not well-formed");
            }
            if equal_parts && has_different_parts(upload) {
                return error(400, "InvalidPart", "All non-trailing parts must have the same length.");
            }
            match put_together(upload, &body, strict_complete) {
                Ok(mut object) => {
                    if mangles {
                        object.bytes[0] ^= 1;
                        object.checksum = Some("AAAA-18".to_string());
                    }
                    state.uploads.remove(&id);
                    let sum =
                        object.checksum.clone().map(|sum| format!("<ChecksumSHA256>{sum}</ChecksumSHA256>"));
                    let said = format!(
                        "<?xml version=\"1.0\"?>\n  \n<CompleteMultipartUploadResult><Key>{}</Key><ETag>{}</ETag>{}</CompleteMultipartUploadResult>",
                        escape(key),
                        escape(&object.etag),
                        sum.unwrap_or_default()
                    );
                    state.objects.insert(key.to_string(), object);
                    ok(said)
                }
                Err(why) => error(400, "InvalidPart", &why),
            }
        }
        _ => error(405, "MethodNotAllowed", call),
    }
}

fn has_different_parts(upload: &Upload) -> bool {
    let sizes: Vec<usize> = upload.parts.values().map(|part| part.bytes.len()).collect();
    sizes.split_last().is_some_and(|(_, others)| others.iter().any(|size| *size != others[0]))
}

fn put_together(upload: &Upload, body: &str, without_sums: bool) -> Result<Object, String> {
    let inner = |text: &str, tag: &str| {
        let from = text.split_once(&format!("<{tag}>")).map(|(_, rest)| rest.to_string())?;
        Some(from.split_once(&format!("</{tag}>"))?.0.to_string())
    };
    let (mut bytes, mut sums, mut numbers) = (vec![], vec![], vec![]);
    for part in body.split("<Part>").skip(1) {
        let number: u16 =
            inner(part, "PartNumber").and_then(|text| text.parse().ok()).ok_or("no part number")?;
        let stored = upload.parts.get(&number).ok_or(format!("part {number} is not there"))?;
        if inner(part, "ETag").as_ref() != Some(&stored.etag) {
            return Err(format!("part {number}: another ETag"));
        }
        if !without_sums && inner(part, "ChecksumSHA256") != stored.checksum {
            return Err(format!("part {number}: another checksum, or none"));
        }
        bytes.extend_from_slice(&stored.bytes);
        sums.extend_from_slice(&sha256(&stored.bytes));
        numbers.push(number);
    }
    if numbers.is_empty() || !numbers.is_sorted_by(|a, b| a < b) {
        return Err("the parts are not in order".to_string());
    }
    let count = numbers.len();
    let checksum = upload.checksums.then(|| format!("{}-{count}", BASE64.encode(sha256(&sums))));
    let etag = format!("\"{}-{count}\"", &hex(&sha256(&bytes))[..32]);
    Ok(Object { bytes, etag, checksum, storage_class: upload.storage_class.clone() })
}

fn get(state: &State, key: &str, range: Option<&str>) -> Answer {
    let Some(object) = state.objects.get(key) else {
        return error(404, "NoSuchKey", "The specified key does not exist.");
    };
    let (status, body) = match range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
        None => (200, object.bytes.clone()),
        Some((first, last)) => match object.bytes.get(first.parse().unwrap()..=last.parse().unwrap()) {
            Some(bytes) => (206, bytes.to_vec()),
            None => return error(416, "InvalidRange", "The requested range is not satisfiable"),
        },
    };
    let mut headers = vec![
        ("ETag", object.etag.clone()),
        ("Content-Length", body.len().to_string()),
        ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT".to_string()),
    ];
    let is_range = status == 206;
    let status = if is_range && state.capabilities.says_200.is_some() { 200 } else { status };
    if let Some(asked) = range.filter(|_| is_range && state.capabilities.says_200 != Some(false)) {
        let asked = asked.trim_start_matches("bytes=");
        headers.push(("Content-Range", format!("bytes {asked}/{}", object.bytes.len())));
    }
    headers.extend(object.checksum.clone().map(|sum| ("x-amz-checksum-sha256", sum)));
    if object.storage_class != "STANDARD" {
        headers.push(("x-amz-storage-class", object.storage_class.clone()));
    }
    if let Some((mode, until)) = state.locked.get(key) {
        headers.push(("x-amz-object-lock-mode", mode.clone()));
        headers.push(("x-amz-object-lock-retain-until-date", until.clone()));
    }
    headers.extend(state.archive_tiers.get(key).map(|tier| ("x-amz-archive-status", tier.to_string())));
    if let Some(copy) = state.copies.get(key).filter(|copy| copy.ready <= Instant::now()) {
        let until = http_date(SystemTime::now() + Duration::from_secs(86_400 * copy.days));
        headers.push(("x-amz-restore", format!("ongoing-request=\"false\", expiry-date=\"{until}\"")));
    } else if state.copies.contains_key(key) {
        headers.push(("x-amz-restore", "ongoing-request=\"true\"".to_string()));
    }
    Answer { status, headers, body }
}

/// `Fri, 21 Dec 2012 00:00:00 GMT`.
fn http_date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let date = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let text = date.format(&time::format_description::well_known::Rfc2822).unwrap();
    text.replace("+0000", "GMT")
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html>
fn restore_object(state: &mut State, key: &str, body: &[u8]) -> Answer {
    let Some(object) = state.objects.get(key) else {
        return error(404, "NoSuchKey", "The specified key does not exist.");
    };
    if !state.is_in_archive(key) {
        return error(403, "ObjectAlreadyInActiveTierError", "Restore is not allowed in an active tier");
    }
    let body = String::from_utf8_lossy(body).to_string();
    let is_deep = object.storage_class == "DEEP_ARCHIVE"
        || state.archive_tiers.get(key).is_some_and(|tier| tier.starts_with("DEEP"));
    if is_deep && body.contains("<Tier>Expedited</Tier>") {
        return error(400, "InvalidArgument", "Retrieval option is not supported by this storage class");
    }
    if body.contains("<Days>") == state.archive_tiers.contains_key(key) {
        return error(400, "MalformedXML", "The XML you provided was not well-formed");
    }
    let inner = |tag: &str| body.split(&format!("<{tag}>")).nth(1)?.split('<').next();
    let days: u64 = inner("Days").map_or(0, |days| days.parse().unwrap());
    let tier = ["Bulk", "Standard", "Expedited"].iter().position(|tier| inner("Tier") == Some(tier)).unwrap();
    let ready = Instant::now() + state.capabilities.thaw_time;
    let is_ready = state.has_copy(key);
    let status = match state.copies.get_mut(key) {
        Some(copy) if is_ready => {
            copy.days = days;
            200
        }
        // faster, and otherwise as before
        Some(copy) if tier > copy.tier && days == copy.days => {
            copy.tier = tier;
            202
        }
        Some(_) => return error(409, "RestoreAlreadyInProgress", "Object restore is already in progress"),
        None => {
            state.copies.insert(key.to_string(), ArchiveCopy { ready, days, tier });
            202
        }
    };
    state.thawed.push((key.to_string(), body));
    Answer { status, headers: vec![], body: vec![] }
}

fn list_objects(state: &State, request: &Request) -> Answer {
    let prefix = request.param("prefix").unwrap_or_default();
    let as_before = state.capabilities.lists_as_before;
    let after = request.param(if as_before { "marker" } else { "continuation-token" }).unwrap_or_default();
    if state.capabilities.lists_for_ever {
        let next = after.parse::<u64>().unwrap_or(0) + 1;
        return ok(format!(
            "<ListBucketResult><Name>{BUCKET}</Name><Prefix/><IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken></ListBucketResult>"
        ));
    }
    let mut found = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let page: Vec<_> = found.by_ref().take(state.capabilities.page).collect();
    let more = found.next().is_some();
    let next = page.last().filter(|_| more && !as_before).map(|(key, _)| key.as_str());
    let next = next.map(|key| format!("<NextContinuationToken>{}</NextContinuationToken>", escape(key)));
    let is_encoded = encodes(state, request);
    let time = listed_time(state);
    let contents: String = page
        .iter()
        .map(|(key, object)| {
            let key = if is_encoded { form_encode(key) } else { key.to_string() };
            format!(
                "<Contents><Key>{}</Key><LastModified>{time}</LastModified><ETag>{}</ETag><Size>{}</Size><StorageClass>{}</StorageClass></Contents>",
                escape(&key),
                escape(&object.etag),
                object.bytes.len(),
                object.storage_class
            )
        })
        .collect();
    ok(format!(
        "<ListBucketResult><Name>{BUCKET}</Name><Prefix>{}</Prefix>{}<IsTruncated>{more}</IsTruncated>{}{contents}</ListBucketResult>",
        escape(&prefix),
        if is_encoded { "<EncodingType>url</EncodingType>" } else { "" },
        next.unwrap_or_default()
    ))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>
fn list_versions(state: &State, request: &Request) -> Answer {
    let prefix = request.param("prefix").unwrap_or_default();
    let after = request.param("key-marker").unwrap_or_default();
    let is_encoded = encodes(state, request);
    let markers = state.markers.iter().flat_map(|(key, ids)| ids.iter().map(move |id| (key, Some(id))));
    let versions = state.objects.keys().chain(state.hidden.keys()).map(|key| (key, None));
    let mut all: Vec<(&String, Option<&String>)> = markers.chain(versions).collect();
    // those of a key from the latest to the oldest
    all.sort_by_key(|(key, id)| (*key, id.is_none()));
    let id_of = |id: Option<&String>| id.map_or("v1".to_string(), String::clone);
    let last = request.param("version-id-marker");
    let is_last = |(key, id): &(&String, Option<&String>)| **key == after && last == Some(id_of(*id));
    let begin = all.iter().position(is_last).map_or(0, |n| n + 1);
    let mut found = all[begin..].iter().filter(|(key, _)| key.starts_with(&prefix));
    let page: Vec<_> = found.by_ref().take(state.capabilities.page).collect();
    let more = found.next().is_some();
    let item = |kind: &str, key: &str, id: &str, is_latest: bool, size: usize| {
        let key = escape(&if is_encoded { form_encode(key) } else { key.to_string() });
        format!(
            "<{kind}><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>{is_latest}</IsLatest><Size>{size}</Size>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified></{kind}>"
        )
    };
    let mut items = String::new();
    for (key, id) in &page {
        let is_latest = match id {
            Some(id) => state.markers[*key].first() == Some(id),
            None => !state.markers.contains_key(*key),
        };
        let object = state.objects.get(*key).or(state.hidden.get(*key));
        let kind = if id.is_some() { "DeleteMarker" } else { "Version" };
        let size = object.filter(|_| id.is_none()).map_or(0, |object| object.bytes.len());
        items += &item(kind, key, &id_of(*id), is_latest, size);
    }
    let next = page.last().filter(|_| more).map(|(key, id)| {
        let key = escape(&if is_encoded { form_encode(key) } else { key.to_string() });
        let id = id_of(*id);
        format!("<NextKeyMarker>{key}</NextKeyMarker><NextVersionIdMarker>{id}</NextVersionIdMarker>")
    });
    ok(format!(
        "<ListVersionsResult><Name>{BUCKET}</Name><Prefix>{}</Prefix><KeyMarker/>{}<IsTruncated>{more}</IsTruncated>{}{items}</ListVersionsResult>",
        escape(&prefix),
        if is_encoded { "<EncodingType>url</EncodingType>" } else { "" },
        next.unwrap_or_default()
    ))
}

/// When everything was made, as far as a list says.
fn listed_time(state: &State) -> String {
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339);
    if state.capabilities.lists_real_times { now.unwrap() } else { "2026-01-01T00:00:00.000Z".to_string() }
}

fn encodes(state: &State, request: &Request) -> bool {
    let asked = request.param("encoding-type").as_deref() == Some("url");
    state.capabilities.encoding == Encoding::Always
        || (asked && state.capabilities.encoding == Encoding::Known)
}

/// As AWS encodes keys in listings.
fn form_encode(text: &str) -> String {
    let encode = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => (b as char).to_string(),
        b' ' => "+".to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn list_uploads(state: &State, request: &Request) -> Answer {
    let prefix = request.param("prefix").unwrap_or_default();
    let is_encoded = encodes(state, request);
    let shown = |key: &str| if is_encoded { form_encode(key) } else { key.to_string() };
    let time = listed_time(state);
    let uploads: String = state
        .uploads
        .iter()
        .filter(|(_, upload)| upload.key.starts_with(&prefix))
        .map(|(id, upload)| {
            format!(
                "<Upload><Key>{}</Key><UploadId>{}</UploadId><Initiated>{time}</Initiated></Upload>",
                escape(&shown(&upload.key)),
                escape(id)
            )
        })
        .collect();
    ok(format!(
        "<ListMultipartUploadsResult><Bucket>{BUCKET}</Bucket>{}<IsTruncated>false</IsTruncated>{uploads}</ListMultipartUploadsResult>",
        if is_encoded { "<EncodingType>url</EncodingType>" } else { "" }
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn decode(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair: Vec<u8> = rest.by_ref().take(2).collect();
            bytes.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}
