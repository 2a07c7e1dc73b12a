//! An S3 server that costs as little as it can, for `make bench`: it keeps objects in memory, and checks
//! nothing.
//!
//!     sink [LATENCY_MS MIB_A_SECOND] [CERTIFICATE KEY] [KEYS] [null]
//!
//! It prints its port. Each reply comes LATENCY_MS late, and each connection carries no more than
//! MIB_A_SECOND. With the PEM files it speaks TLS. KEYS is a file of keys, one a line (`.txt`), of objects
//! with 16 bytes each, which are there at the beginning; those of manifests describe a backup of 16 zeros. With `null` it keeps only the sizes of parts. `GET
//! /-/requests` returns how many requests there were since the last time, by name.

// nobody's data depend on it
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The parts of an object, by number.
type Parts = BTreeMap<u32, Part>;

#[derive(Clone)]
struct Part {
    size: usize,
    /// Empty if only the size is kept.
    bytes: Arc<Vec<u8>>,
}

impl Part {
    fn whole(bytes: Vec<u8>) -> Part {
        Part { size: bytes.len(), bytes: Arc::new(bytes) }
    }
}

/// Its parts, and the SHA-256 that came with each.
#[derive(Default)]
struct Upload {
    parts: Parts,
    sums: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Parts>,
    uploads: BTreeMap<String, Upload>,
    requests: BTreeMap<&'static str, u64>,
    /// Only the sizes of parts are kept.
    is_null: bool,
}

#[derive(Clone, Copy)]
struct Line {
    latency: Duration,
    /// Bytes a second.
    rate: Option<f64>,
}

/// Keys of a listing.
const PAGE: usize = 1000;
/// Bytes of an object that is there at the beginning.
const GIVEN: usize = 16;
/// Bytes that are sent or read at once.
const PIECE: usize = 128 << 10;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| args.get(n).and_then(|text| text.parse::<f64>().ok());
    let latency = Duration::from_secs_f64(number(0).unwrap_or(0.0) / 1000.0);
    let line = Line { latency, rate: number(1).map(|mib| mib * f64::from(1 << 20)) };
    let tls = args.iter().position(|arg| arg.ends_with(".pem")).map(|n| config(&args[n], &args[n + 1]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bucket = Bucket { is_null: args.iter().any(|arg| arg == "null"), ..Bucket::default() };
    if let Some(path) = args.iter().find(|arg| arg.ends_with(".txt")) {
        let part = Part::whole(vec![0; GIVEN]);
        let keys = std::fs::read_to_string(path).unwrap();
        bucket.objects =
            keys.lines().map(|key| (key.to_string(), Parts::from([(1, part.clone())]))).collect();
    }
    let bucket = Arc::new(Mutex::new(bucket));
    println!("{}", listener.local_addr().unwrap().port());
    for stream in listener.incoming().flatten() {
        let (bucket, tls) = (Arc::clone(&bucket), tls.clone());
        std::thread::spawn(move || {
            // the handshake of TCP
            std::thread::sleep(line.latency);
            let _ = stream.set_nodelay(true);
            let _ = match tls {
                None => serve(stream, &bucket, line),
                Some(config) => {
                    std::thread::sleep(line.latency);
                    serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &bucket, line)
                }
            };
        });
    }
}

fn config(certificate: &str, key: &str) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap())
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
}

fn serve(stream: impl Read + Write, bucket: &Mutex<Bucket>, line: Line) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(PIECE, stream);
    loop {
        let Some(request) = head(&mut stream)? else { return Ok(()) };
        if request.headers.get("expect").is_some_and(|text| text.contains("100")) {
            std::thread::sleep(line.latency);
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = body(&mut stream, &request, line)?;
        std::thread::sleep(line.latency);
        answer(stream.get_mut(), &request, body, bucket, line)?;
    }
}

fn body(stream: &mut impl BufRead, request: &Request, line: Line) -> io::Result<Vec<u8>> {
    let begun = Instant::now();
    let mut body = Vec::new();
    let mut read = |stream: &mut dyn Read, length: usize| -> io::Result<()> {
        let mut done = body.len();
        let length = done + length;
        body.resize(length, 0);
        while done < length {
            let end = length.min(done + PIECE);
            stream.read_exact(&mut body[done..end])?;
            done = end;
            pace(begun, done, line);
        }
        Ok(())
    };
    if let Some(length) = request.headers.get("content-length") {
        read(stream, length.parse().unwrap())?;
    } else if request.headers.contains_key("transfer-encoding") {
        // the AWS CLI, over https; what is in the chunks is kept as it is
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            read(stream, size)?;
            stream.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(body)
}

/// Waits until so many bytes have had time to pass.
fn pace(begun: Instant, bytes: usize, line: Line) {
    if let Some(rate) = line.rate {
        let until = begun + Duration::from_secs_f64(bytes as f64 / rate);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

fn head(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut first = String::new();
    if stream.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap().to_string(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (decoded(path), query.to_string());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    Ok(Some(Request { method, path, query, headers }))
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Request {
    fn has(&self, name: &str) -> bool {
        self.query.split('&').any(|pair| pair.split('=').next() == Some(name))
    }
    fn value(&self, name: &str) -> Option<String> {
        let pair = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pair.filter(|(n, _)| *n == name).map(|(_, value)| decoded(&value.replace('+', " "))).next()
    }
    fn name(&self) -> &'static str {
        match self.method.as_str() {
            "HEAD" => "HEAD",
            "DELETE" => "DELETE",
            "POST" => "POST",
            "PUT" => "PUT",
            _ if self.path.trim_matches('/').contains('/') => "GET",
            _ => "LIST",
        }
    }
}

fn answer(
    stream: &mut impl Write,
    request: &Request,
    body: Vec<u8>,
    bucket: &Mutex<Bucket>,
    line: Line,
) -> io::Result<()> {
    let mut bucket = bucket.lock().unwrap();
    if request.path == "/-/requests" {
        let counts = std::mem::take(&mut bucket.requests);
        let text: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        return reply(stream, 200, "", text.join(", ").as_bytes());
    }
    *bucket.requests.entry(request.name()).or_default() += 1;
    let key = request.path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key).to_string();
    match (request.method.as_str(), request.value("uploadId")) {
        ("POST", None) => {
            let id = format!("u{}", bucket.uploads.len() + 1);
            bucket.uploads.insert(id.clone(), Upload::default());
            let xml = format!(
                "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            reply(stream, 200, "x-amz-checksum-algorithm: SHA256\r\n", xml.as_bytes())
        }
        ("PUT", Some(id)) => {
            let number = request.value("partNumber").unwrap().parse().unwrap();
            let size = body.len();
            let bytes = if bucket.is_null { Vec::new() } else { body };
            let upload = bucket.uploads.get_mut(&id).unwrap();
            upload.parts.insert(number, Part { size, bytes: Arc::new(bytes) });
            let sum = request.headers.get("x-amz-checksum-sha256");
            upload.sums.extend(sum.map(|sum| (number, BASE64.decode(sum).unwrap())));
            reply(stream, 200, &format!("ETag: \"{number:032x}\"\r\n"), b"")
        }
        ("POST", Some(id)) => {
            let Upload { parts, sums } = std::mem::take(bucket.uploads.get_mut(&id).unwrap());
            let count = parts.len();
            bucket.objects.insert(key.clone(), parts);
            let sums: Vec<u8> = sums.into_values().flatten().collect();
            let sum = BASE64.encode(digest(&SHA256, &sums).as_ref());
            let sum = format!("<ChecksumSHA256>{sum}-{count}</ChecksumSHA256>");
            let xml = format!(
                "<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>{key}</Key><ETag>\"{:032x}-{count}\"</ETag>{}</CompleteMultipartUploadResult>",
                0,
                if sums.is_empty() { "" } else { &sum }
            );
            reply(stream, 200, "", xml.as_bytes())
        }
        ("GET", Some(id)) => {
            let after = request.value("part-number-marker").and_then(|text| text.parse().ok()).unwrap_or(0);
            let upload = &bucket.uploads[&id];
            let page: Vec<(&u32, &Part)> = upload.parts.range(after + 1..).take(PAGE).collect();
            let next = page.last().filter(|(last, _)| upload.parts.range(**last + 1..).next().is_some());
            let next = next.map(|(last, _)| format!("<NextPartNumberMarker>{last}</NextPartNumberMarker>"));
            let entry = |(number, part): (&u32, &Part)| {
                format!(
                    "<Part><PartNumber>{number}</PartNumber><ETag>\"{number:032x}\"</ETag><Size>{}</Size></Part>",
                    part.size
                )
            };
            let entries: String = page.into_iter().map(entry).collect();
            let xml = format!(
                "<ListPartsResult><UploadId>{id}</UploadId><IsTruncated>{}</IsTruncated>{}{entries}</ListPartsResult>",
                next.is_some(),
                next.unwrap_or_default()
            );
            reply(stream, 200, "", xml.as_bytes())
        }
        ("PUT", None) => {
            let etag = format!("\"{:x}\"", md5::compute(&body));
            bucket.objects.insert(key, Parts::from([(1, Part::whole(body))]));
            reply(stream, 200, &format!("ETag: {etag}\r\n"), b"")
        }
        ("DELETE", _) => {
            bucket.objects.remove(&key);
            reply(stream, 204, "", b"")
        }
        ("GET", _) if key.is_empty() && request.has("location") => {
            reply(stream, 200, "", b"<LocationConstraint>us-east-1</LocationConstraint>")
        }
        ("GET", _) if key.is_empty() && request.has("uploads") => {
            reply(stream, 501, "", b"<Error><Code>NotImplemented</Code></Error>")
        }
        ("GET", _) if key.is_empty() => {
            let prefix = request.value("prefix").unwrap_or_default();
            let after = request.value("continuation-token").unwrap_or_default();
            let begin = if after.is_empty() { Bound::Included(&prefix) } else { Bound::Excluded(&after) };
            let mut listed = bucket
                .objects
                .range::<String, _>((begin, Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(&prefix))
                .peekable();
            let page: Vec<_> = listed.by_ref().take(PAGE).collect();
            let next = page
                .last()
                .filter(|_| listed.peek().is_some())
                .map(|(key, _)| format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(key)));
            let entry = |(key, parts): (&String, &Parts)| {
                format!(
                    "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>{}</Size></Contents>",
                    escaped(key),
                    size(parts)
                )
            };
            let entries: String = page.into_iter().map(entry).collect();
            let xml = format!(
                "<ListBucketResult><Name>b</Name><Prefix></Prefix><IsTruncated>{}</IsTruncated>{}{entries}</ListBucketResult>",
                next.is_some(),
                next.unwrap_or_default()
            );
            reply(stream, 200, "", xml.as_bytes())
        }
        _ => {
            let found = bucket.objects.get(&key).cloned();
            let is_given = found.as_ref().is_some_and(|parts| size(parts) == GIVEN);
            drop(bucket);
            let found = match manifest(&key).filter(|_| is_given) {
                Some(text) => Some(Parts::from([(1, Part::whole(text.into_bytes()))])),
                None => found,
            };
            match found {
                None => reply(stream, 404, "", b"<Error><Code>NoSuchKey</Code></Error>"),
                Some(parts) => send(stream, request, &parts, line),
            }
        }
    }
}

/// For the key of a manifest, `NAME-0000007/GUID-from-GUID-ID.yml`, whose base is `NAME-0000006`.
fn manifest(key: &str) -> Option<String> {
    let stem = key.strip_suffix(".yml")?;
    let (name, rest) = stem.rsplit_once('/')?;
    let decimal = |hex: &str| u64::from_str_radix(hex, 16).ok();
    let guid = decimal(rest.get(..16)?)?;
    let base = match rest[16..].strip_prefix("-from-") {
        Some(base) => {
            let (dataset, number) = name.rsplit_once('-')?;
            let before = number.parse::<u32>().ok()? - 1;
            let guid = decimal(base.get(..16)?)?;
            format!("base:\n  name: {dataset}-{before:07}\n  guid: '{guid}'\n")
        }
        None => String::new(),
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let chunk = digest(&SHA256, &[0; GIVEN]);
    let (composite, chunk) = (hex(digest(&SHA256, chunk.as_ref()).as_ref()), hex(chunk.as_ref()));
    Some(format!(
        "version: 2\ntool: zfs2s3 0.3.0\nhost: nas\nsnapshot:\n  name: {name}\n  guid: '{guid}'\n{base}stream:\n  \
         size: {GIVEN}\n  composite_sha256: {composite}\n  send_args:\n  - --raw\n  stages: []\n  chunk_size: 16777216\n  \
         storage_class: STANDARD\n  stored: 2026-01-02T03:04:05Z\n  segments:\n  - key: {stem}.zfs\n    size: {GIVEN}\n    \
         etag: '\"e\"'\n    chunks: |\n      {chunk}\n"
    ))
}

fn escaped(key: &str) -> String {
    key.replace('&', "&amp;").replace('<', "&lt;")
}

fn size(parts: &Parts) -> usize {
    parts.values().map(|part| part.size).sum()
}

/// HEAD, and GET of an object or a range of it.
fn send(stream: &mut impl Write, request: &Request, parts: &Parts, line: Line) -> io::Result<()> {
    let size = size(parts);
    let range = request.headers.get("range").and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let first: usize = range.map_or(0, |(first, _)| first.parse().unwrap());
    let last =
        range.and_then(|(_, last)| last.parse().ok()).map_or(size - 1, |last: usize| last.min(size - 1));
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let content_range = range.map(|_| format!("Content-Range: bytes {first}-{last}/{size}\r\n"));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"e\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n{}\r\n",
        last + 1 - first,
        content_range.unwrap_or_default()
    )?;
    if request.method == "HEAD" {
        return stream.flush();
    }
    let begun = Instant::now();
    let (mut at, mut sent) = (0, 0);
    for part in parts.values() {
        let from = first.saturating_sub(at).min(part.size);
        let to = (last + 1).saturating_sub(at).min(part.size);
        for piece in part.bytes[from..to.max(from)].chunks(PIECE) {
            stream.write_all(piece)?;
            sent += piece.len();
            pace(begun, sent, line);
        }
        at += part.size;
    }
    stream.flush()
}

fn reply(stream: &mut impl Write, status: u16, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} X\r\n{headers}{length}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat())?;
    stream.flush()
}
