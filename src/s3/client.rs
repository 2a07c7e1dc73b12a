//! Sends requests: signs each attempt anew, reuses connections, retries if that may help.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ureq::http::{self, HeaderMap, StatusCode};

use super::agent;
use super::dialect::{Dialect, Extras};
use super::failure::{Failure, FailureKind, SIGNING};
use super::no_answer::Destination;
use super::request::{Request, Signing};
use super::request_body::{Limiter, RequestBody};
use super::retry::Patience;
use crate::aws::credentials::Credentials;
use crate::aws::endpoint::Endpoint;
use crate::aws::proxy::Proxy;
use crate::aws::renewal::RenewingCredentials;
use crate::config::RemoteSettings;
use crate::error::{Result, Status, one_line};
use crate::model::memory::Memory;
use crate::model::traffic::Traffic;
use crate::model::utc::Utc;
use crate::os::clock;
use crate::os::step;
use crate::os::thread::GO_ON;
use crate::os::trace;
use crate::ui::Ui;

/// Bytes a second: the minimum rate of a reply.
const SLOWEST: u64 = 16 << 10;
/// How often (in bytes) the reading of a body checks whether it is still needed.
const READ_AT_ONCE: usize = 256 << 10;

/// How long a person waits for the first answer of a server.
const BEFORE_THE_FIRST_ANSWER: Duration = Duration::from_secs(10);

pub struct Client {
    agent: ureq::Agent,
    endpoint: Endpoint,
    proxy: Option<Proxy>,
    dialect: Dialect,
    /// Headers of every request.
    headers: Vec<(&'static str, String)>,
    /// Headers of requests that create an object: how S3 encrypts it.
    pub(super) encryption: Vec<(&'static str, String)>,
    /// Has the server answered before?
    has_answered: AtomicBool,
    /// How many seconds the clock of this host is ahead of the server's, by the first reply that has a date.
    clock_ahead: OnceLock<i64>,
    credentials: RenewingCredentials,
    limiter: Option<Limiter>,
    patience: Duration,
    lacks: Option<String>,
    reply_limit: Duration,
    /// How many requests may run at once.
    pub memory: Memory,
    ui: Arc<Ui>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    pub fn new(remote: RemoteSettings, ui: Arc<Ui>) -> Result<Client> {
        Ok(Client {
            agent: agent::new(&remote)?,
            endpoint: remote.endpoint,
            proxy: remote.proxy,
            dialect: Dialect::new(remote.checksums.upload, remote.checksums.download),
            headers: remote.headers,
            encryption: remote.encryption,
            has_answered: AtomicBool::new(false),
            clock_ahead: OnceLock::new(),
            credentials: RenewingCredentials::new(remote.credentials, remote.helper_limit),
            limiter: remote.bandwidth.map(Limiter::new),
            patience: remote.patience,
            lacks: remote.lacks,
            reply_limit: remote.reply_limit,
            memory: remote.memory,
            ui,
        })
    }

    /// Sends a request that may be repeated, until S3 answers it or the patience is exhausted.
    pub fn send(&self, request: &Request) -> Result<Reply, Failure> {
        self.patiently(request, self.patience(), || self.send_once(request))
    }

    /// The same, for a body that must fill `buffer` exactly. It ends early once `stop` is set.
    pub fn send_into(&self, request: &Request, buffer: &mut [u8], stop: &AtomicBool) -> Result<(), Failure> {
        let patience = Patience::new(&self.ui, self.patience_limit(), stop);
        self.patiently(request, patience, || {
            self.with_valid_credentials(|credentials| self.exchange_into(request, credentials, buffer, stop))
        })
    }

    /// One attempt (two if the credentials had expired).
    pub fn send_once(&self, request: &Request) -> Result<Reply, Failure> {
        self.with_valid_credentials(|credentials| self.exchange(request, credentials))
    }

    pub fn credentials(&self) -> &RenewingCredentials {
        &self.credentials
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How long a failing request is retried. A person who waits for the first answer has probably named the
    /// wrong server.
    pub fn patience_limit(&self) -> Duration {
        if self.ui.is_terminal() && !self.has_answered.load(Ordering::SeqCst) {
            self.patience.min(BEFORE_THE_FIRST_ANSWER)
        } else {
            self.patience
        }
    }

    pub fn patience(&self) -> Patience<'_> {
        Patience::new(&self.ui, self.patience_limit(), &GO_ON)
    }

    fn patiently<T>(
        &self,
        request: &Request,
        mut patience: Patience,
        mut one_try: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            match one_try() {
                Err(failure) => {
                    if failure.asks_for_less() {
                        request.note(Traffic::SlowDown);
                    }
                    patience.pause_after(failure)?;
                }
                done => return done,
            }
        }
    }

    fn with_valid_credentials<T>(
        &self,
        mut one_try: impl FnMut(&Credentials) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let credentials = self.valid_credentials()?;
        match one_try(&credentials) {
            Err(failure) if failure.kind == FailureKind::Expired && self.credentials.can_renew() => {
                self.credentials.forget(&credentials);
                one_try(&self.valid_credentials()?)
            }
            result => result,
        }
    }

    fn valid_credentials(&self) -> Result<Credentials, Failure> {
        self.credentials.get().map_err(|e| {
            let is_transient = e.status == Status::TryAgain;
            let kind = if is_transient { FailureKind::Transient } else { FailureKind::Final };
            Failure { hints: e.hints, ..Failure::transport(SIGNING.to_string(), e.message, kind) }
        })
    }

    /// Does this build lack a part of the protocol? Only in a test build, to show that the tests notice.
    pub fn lacks(&self, part: &str) -> bool {
        cfg!(debug_assertions) && self.lacks.as_deref() == Some(part)
    }

    /// Can new credentials be fetched?
    pub fn can_renew(&self) -> bool {
        self.credentials.can_renew()
    }

    /// How often credentials were fetched.
    pub fn renewals(&self) -> u32 {
        self.credentials.fetched()
    }

    /// If the server refuses a feature that only AWS has, the request is sent again without it.
    fn exchange(&self, request: &Request, credentials: &Credentials) -> Result<Reply, Failure> {
        let at_first = self.dialect.extras();
        let mut extras = at_first;
        loop {
            let failure = match self.exchange_with(request, credentials, extras) {
                Ok(reply) => {
                    self.dialect.learn(at_first, extras);
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            match extras.after(request.carried(extras), request.takes_md5(), &failure) {
                Some(other) => extras = other,
                None => return Err(failure),
            }
        }
    }

    fn exchange_with(
        &self,
        request: &Request,
        credentials: &Credentials,
        extras: Extras,
    ) -> Result<Reply, Failure> {
        let (status, reply) = self.read_reply(request, self.open(request, credentials, extras)?)?;
        // what a list has instead of a page is seen when it is parsed
        let is_wrong = match request.method {
            "GET" | "HEAD" => super::reply::error(&reply.body).is_some(),
            _ => super::reply::is_error_or_page(&reply.body),
        };
        if status.is_success() && (request.is_object() || !is_wrong) {
            return Ok(reply);
        }
        Err(self.refusal(request, status, &reply))
    }

    fn exchange_into(
        &self,
        request: &Request,
        credentials: &Credentials,
        buffer: &mut [u8],
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        let response = self.open(request, credentials, self.dialect.extras())?;
        if !response.status().is_success() {
            let (status, reply) = self.read_reply(request, response)?;
            return Err(self.refusal(request, status, &reply));
        }
        let whole = response.status() != StatusCode::PARTIAL_CONTENT;
        if let Some(why) = another_range(request, response.headers(), buffer.len(), whole) {
            // the body may be the whole object, and is not read
            let kind = if whole { FailureKind::Final } else { FailureKind::Transient };
            return Err(Failure::transport(request.describe(), why, kind));
        }
        let failed = |why: String, kind| Failure::transport(request.describe(), why, kind);
        let deadline = self.deadline_for(buffer.len() as u64);
        let mut reader =
            Timed { reader: response.into_body().into_with_config().limit(u64::MAX).reader(), deadline };
        let mut received = 0;
        let read = buffer.chunks_mut(READ_AT_ONCE).try_for_each(|piece| {
            reader
                .read_exact(piece)
                .map_err(|e| failed(format!("the reply was interrupted: {e}"), FailureKind::Transient))?;
            received += piece.len() as i64;
            request.note(Traffic::Moved(piece.len() as i64));
            if stop.load(Ordering::SeqCst) {
                return Err(failed("it is no longer needed".to_string(), FailureKind::Final));
            }
            Ok(())
        });
        let read = read.and_then(|()| match reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(failed("the reply is too long".to_string(), FailureKind::Transient)),
            Err(e) => Err(failed(format!("the reply was interrupted: {e}"), FailureKind::Transient)),
        });
        if read.is_err() {
            request.note(Traffic::Moved(-received));
        }
        read
    }

    /// Signs and sends. The body of the reply is not read yet.
    fn open(
        &self,
        request: &Request,
        credentials: &Credentials,
        extras: Extras,
    ) -> Result<http::Response<ureq::Body>, Failure> {
        let failed = |message: String, kind| Failure::transport(request.describe(), message, kind);
        let url = match request.service {
            "sts" => self.endpoint.sts_url.as_deref().unwrap_or_default(),
            _ => &self.endpoint.bucket_url,
        };
        let signing = Signing {
            url,
            region: &self.endpoint.region,
            extras,
            headers: &self.headers,
            credentials,
            now: clock::now(),
        };
        let signed = request.sign(&signing).map_err(|why| failed(why, FailureKind::Final))?;
        let mut http = http::Request::builder().method(request.method).uri(&signed.url);
        if let Some(headers) = http.headers_mut() {
            *headers = signed.headers;
        }
        step::elsewhere(request.method);
        let begun = Instant::now();
        let unsent = |e: http::Error| failed(e.to_string(), FailureKind::Final);
        let outcome = match request.method {
            "PUT" | "POST" => {
                let http = http.header("content-length", request.body.len());
                let mut body = RequestBody::new(request.body, self.limiter.as_ref(), request.meter);
                let outcome =
                    self.agent.run(http.body(ureq::SendBody::from_reader(&mut body)).map_err(unsent)?);
                if !outcome.as_ref().is_ok_and(|response| response.status().is_success()) {
                    body.undo();
                }
                outcome
            }
            _ => self.agent.run(http.body(()).map_err(unsent)?),
        };
        trace::event(|| {
            let answer = match &outcome {
                Ok(response) => response.status().as_str().to_string(),
                Err(_) => "no answer".to_string(),
            };
            format!("{}: {answer} after {:.2} s", request.describe(), begun.elapsed().as_secs_f64())
        });
        match outcome {
            Ok(response) => {
                self.has_answered.store(true, Ordering::SeqCst);
                if self.clock_ahead.get().is_none() {
                    self.note_clock(response.headers());
                }
                Ok(response)
            }
            Err(e) => {
                let destination = Destination {
                    url: if request.service == "sts" { url } else { &self.endpoint.url },
                    proxy: self.proxy.as_ref(),
                    has_answered: self.has_answered.load(Ordering::SeqCst),
                };
                Err(destination.failure(request.describe(), &e))
            }
        }
    }

    fn note_clock(&self, headers: &HeaderMap) {
        let date = headers.get("date").and_then(|text| text.to_str().ok());
        if let Some(date) = date.and_then(|text| Utc::from_http(text).ok()) {
            self.clock_ahead.get_or_init(|| clock::now().unix_seconds() - date.unix_seconds());
        }
    }

    /// How many seconds the clock of this host is ahead of the server's. None: no reply had a date.
    pub fn clock_ahead(&self) -> Option<i64> {
        self.clock_ahead.get().copied()
    }

    fn refusal(&self, request: &Request, status: StatusCode, reply: &Reply) -> Failure {
        let header = |name: &str| reply.header(name).map(str::to_string);
        let is_head = request.method == "HEAD";
        let mut failure = Failure::reply(request.describe(), is_head, status.as_u16(), header, &reply.body);
        if failure.message.is_empty() {
            failure.message = status.canonical_reason().unwrap_or_default().to_string();
        }
        if failure.code == "NoSuchBucket" {
            failure.message = format!("the bucket '{}' does not exist", self.endpoint.bucket);
        }
        let not_there = request.key.is_empty() && failure.status == Some(404);
        if let Some(without) = self.endpoint.without_bucket().filter(|_| not_there) {
            failure.hints.push(format!(
                "AWS_ENDPOINT_URL seems to contain the bucket, which must be only in ZFS2S3_BUCKET: try {without}"
            ));
        }
        failure
    }

    fn read_reply(
        &self,
        request: &Request,
        response: http::Response<ureq::Body>,
    ) -> Result<(StatusCode, Reply), Failure> {
        let mut bytes = Vec::new();
        let (status, headers) = self.read_body(request, response, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok((status, Reply { status: status.as_u16(), headers, body: bytes }))
    }

    /// Delivers the body as it arrives, up to the limit of the request.
    fn read_body(
        &self,
        request: &Request,
        response: http::Response<ureq::Body>,
        deliver: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(StatusCode, HeaderMap), Failure> {
        let failed = |why: String, kind| Failure::transport(request.describe(), why, kind);
        let (parts, body) = response.into_parts();
        let announced = parts.headers.get("content-length").and_then(|text| text.to_str().ok()?.parse().ok());
        let deadline = self.deadline_for(announced.unwrap_or(request.max_len).min(request.max_len));
        let mut reader = Timed { reader: body.into_with_config().limit(u64::MAX).reader(), deadline };
        let mut buffer = vec![0; PIECE];
        let mut total = 0;
        loop {
            let length = reader
                .read(&mut buffer)
                .map_err(|e| failed(format!("the reply was interrupted: {e}"), FailureKind::Transient))?;
            if length == 0 {
                return Ok((parts.status, parts.headers));
            }
            total += length as u64;
            if total > request.max_len {
                return Err(failed(
                    format!("the reply has more than {} bytes", request.max_len),
                    FailureKind::Final,
                ));
            }
            deliver(&buffer[..length]).map_err(|why| failed(why, FailureKind::Final))?;
        }
    }

    /// GetObject, delivered as it arrives. `begin` makes a new receiver for each attempt; the last one, which
    /// got everything, is returned.
    pub fn send_through<T>(
        &self,
        request: &Request,
        begin: impl Fn() -> T,
        push: impl Fn(&mut T, &[u8]) -> Result<(), String>,
    ) -> Result<Result<T, String>, Failure> {
        let one_try = |credentials: &Credentials| {
            let response = self.open(request, credentials, self.dialect.extras())?;
            if !response.status().is_success() {
                let (status, reply) = self.read_reply(request, response)?;
                return Err(self.refusal(request, status, &reply));
            }
            let mut receiver = begin();
            // an invalid object is not a failure of the request
            let mut wrong = None;
            let read = self.read_body(request, response, &mut |piece| {
                push(&mut receiver, piece).inspect_err(|why| wrong = Some(why.clone()))
            });
            match wrong {
                Some(why) => Ok(Err(why)),
                None => read.map(|_| Ok(receiver)),
            }
        };
        self.patiently(request, self.patience(), || self.with_valid_credentials(one_try))
    }

    /// When a body of at most so many bytes must have arrived.
    fn deadline_for(&self, bytes: u64) -> Instant {
        Instant::now() + self.reply_limit + Duration::from_secs(bytes / SLOWEST)
    }
}

/// Bytes of a reply that are read at once.
const PIECE: usize = 32 << 10;

/// A body that must have arrived by a certain time.
struct Timed<R> {
    reader: R,
    deadline: Instant,
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if Instant::now() > self.deadline {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "it took too long"));
        }
        self.reader.read(buffer)
    }
}

/// Why the reply is not the requested range, as far as it says which one it is. `whole`: the status is that
/// of a whole object, which some servers also send with a range.
fn another_range(request: &Request, headers: &HeaderMap, length: usize, whole: bool) -> Option<String> {
    let (_, asked) = request.headers.iter().find(|(name, _)| *name == "range")?;
    let asked = asked.strip_prefix("bytes=")?;
    let size = headers.get("content-length").and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
    let Some(given) = headers.get("content-range") else {
        let is_all = asked.starts_with("0-") && size == Some(length);
        let other = || format!("the server sent the whole object, not bytes {asked}");
        return (whole && !is_all).then(other);
    };
    let given = given.to_str().unwrap_or_default();
    let range = given.strip_prefix("bytes ").and_then(|range| range.split('/').next());
    let matches = range == Some(asked) && size.is_none_or(|size| size == length);
    (!matches).then(|| format!("the server sent '{}' of the object, not bytes {asked}", one_line(given)))
}
