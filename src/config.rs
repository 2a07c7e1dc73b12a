//! The configuration: the variables of zfs2s3 and of the AWS tools, checked once, before anything is done.

use std::path::PathBuf;
use std::time::Duration;

use crate::aws::credentials::{CredentialSource, HELPER_LIMIT};
use crate::aws::endpoint::{Endpoint, host_of};
use crate::aws::profile::Profile;
use crate::aws::proxy::Proxy;
use crate::aws::requests::{self, Checksums};
use crate::error::{Error, Result};
use crate::filter::{Filter, PATIENCE, UNFILTER};
use crate::model::chunks::{Chunking, MAX_PARTS};
use crate::model::manifest::check_filter;
use crate::model::memory::Memory;
use crate::model::object_lock::{Mode, Retention};
use crate::model::properties::Which;
use crate::model::storage_class::StorageClass;
use crate::model::units::parse_size;
use crate::model::utc::Utc;
use crate::os::env::Env;

const DEFAULT_BUCKET: &str = "zfs2s3";
/// The maximum of S3: 100 years.
const MAX_LOCK_DAYS: u32 = 36_500;
const MAX_JOBS: usize = 256;
/// So that a reply that trickles in ends, too.
const MAX_REPLY_TIME: Duration = Duration::from_secs(15 * 60);

/// The settings of every command: the data folder and the bucket. Needs no AWS settings.
pub struct LocalSettings {
    pub bucket: String,
    pub prefix: String,
    pub data_folder: PathBuf,
}

/// Additional settings of an upload.
pub struct UploadSettings {
    pub storage_class: StorageClass,
    /// An Object Lock for so many days.
    pub lock_days: Option<u32>,
    pub lock_mode: Mode,
    /// Smaller streams are stored in STANDARD, whatever the class. Bytes.
    pub standard_below: u64,
    pub chunking: ChunkingSettings,
    /// The command that filters each chunk.
    pub filter: Option<String>,
    pub warnings: Vec<String>,
}

/// How a stream is divided.
pub struct ChunkingSettings {
    pub memory: Memory,
    /// Parts a segment, if the user sets that.
    parts: Option<u16>,
}

/// Providers that allow fewer parts an upload than AWS, by the ends of their host names. Scaleway:
/// <https://www.scaleway.com/en/docs/object-storage/reference-content/limits/>
const FEWER_PARTS: &[(&str, u16)] = &[(".scw.cloud", 1_000)];

impl ChunkingSettings {
    fn new(env: &Env) -> Result<Self> {
        let in_tests = test_only(env, "ZFS2S3_TEST_PARTS").map(|parts| parts as u16);
        Ok(ChunkingSettings { memory: memory(env)?, parts: parts(env)?.or(in_tests) })
    }

    /// For the upload of a stream of about so many bytes to this server.
    pub fn for_stream(&self, endpoint: &str, estimate: Option<u64>, is_filtered: bool) -> Chunking {
        let fewer = FEWER_PARTS.iter().find(|(end, _)| host_of(endpoint).ends_with(end));
        let parts = self.parts.or(fewer.map(|(_, parts)| *parts));
        Chunking::of(
            self.memory.chunk_size_for(estimate, parts.map_or(MAX_PARTS, u64::from), is_filtered),
            parts,
        )
    }
}

/// How much memory transfers may take.
fn memory(env: &Env) -> Result<Memory> {
    let size = |name| match env.get(name).map(parse_size) {
        Some(size) => size.map(Some).map_err(|why| Error::setting(name, why)),
        None => Ok(None),
    };
    let chunk_size = size("ZFS2S3_CHUNK_SIZE")?;
    if let Some(chunk_size) = chunk_size.filter(|_| test_only(env, "ZFS2S3_TEST_PARTS").is_none()) {
        Chunking::check_size(chunk_size).map_err(|why| Error::setting("ZFS2S3_CHUNK_SIZE", why))?;
    }
    let jobs = env.get("ZFS2S3_JOBS").map(|text| match text.parse() {
        Ok(jobs @ 1..=MAX_JOBS) => Ok(jobs),
        _ => Err(Error::setting("ZFS2S3_JOBS", format!("'{text}' is not a number from 1 to {MAX_JOBS}"))),
    });
    let limit = size("ZFS2S3_MEMORY")?;
    Memory::new(limit, jobs.transpose()?, chunk_size).map_err(|why| Error::setting("ZFS2S3_MEMORY", why))
}

/// Parts a segment, where the user sets that.
pub fn parts(env: &Env) -> Result<Option<u16>> {
    let Some(text) = env.get("ZFS2S3_PARTS") else { return Ok(None) };
    match text.parse() {
        Ok(parts) if (1..=MAX_PARTS).contains(&parts) => Ok(Some(parts as u16)),
        _ => Err(Error::setting("ZFS2S3_PARTS", format!("'{text}' is not a number from 1 to {MAX_PARTS}"))),
    }
}

/// Which properties of a dataset are kept with its backups.
pub fn kept_properties(env: &Env) -> Result<Which> {
    let which = env.get("ZFS2S3_PROPERTIES").map_or(Ok(Which::All), str::parse);
    which.map_err(|why| Error::setting("ZFS2S3_PROPERTIES", why))
}

/// A shell command.
fn filter_command(env: &Env, name: &'static str) -> Result<Option<String>> {
    let Some(command) = env.get(name).map(str::trim) else { return Ok(None) };
    check_filter(command).map_err(|why| Error::setting(name, why))?;
    Ok((!command.is_empty()).then(|| command.to_string()))
}

/// The command that filters each chunk.
pub fn filter(env: &Env) -> Result<Option<String>> {
    filter_command(env, "ZFS2S3_FILTER")
}

/// How long a filter may do nothing.
pub fn filter_patience(env: &Env) -> Duration {
    test_only(env, "ZFS2S3_TEST_FILTER_MS").map_or(PATIENCE, Duration::from_millis)
}

/// The command that undoes what the filter did.
pub fn unfilter(env: &Env) -> Result<Option<Filter>> {
    let command = filter_command(env, "ZFS2S3_UNFILTER")?;
    Ok(command.map(|command| Filter::new(UNFILTER, &command, filter_patience(env))))
}

/// The settings of commands that use S3.
pub struct RemoteSettings {
    pub endpoint: Endpoint,
    pub credentials: CredentialSource,
    pub proxy: Option<Proxy>,
    /// Headers of every request, and of those that create an object.
    pub headers: Vec<(&'static str, String)>,
    pub encryption: Vec<(&'static str, String)>,
    pub checksums: Checksums,
    /// PEM file of the authorities to trust, instead of the built-in ones.
    pub ca_bundle: Option<PathBuf>,
    pub memory: Memory,
    /// Bytes a second.
    pub bandwidth: Option<u64>,
    /// How long a failing request is retried.
    pub patience: Duration,
    /// In a test build: the part of the protocol that is omitted, to show that the tests notice.
    pub lacks: Option<String>,
    /// How long a credential helper may take.
    pub helper_limit: Duration,
    /// How long a reply may take to begin; and to end, in addition to the time that its size allows.
    pub reply_limit: Duration,
}

impl LocalSettings {
    pub fn new(env: &Env) -> Result<Self> {
        let bucket = env.get("ZFS2S3_BUCKET").unwrap_or(DEFAULT_BUCKET);
        check_bucket(bucket).map_err(|why| Error::setting("ZFS2S3_BUCKET", why))?;
        let prefix = env.get("ZFS2S3_PREFIX").unwrap_or_default();
        check_prefix(prefix).map_err(|why| Error::setting("ZFS2S3_PREFIX", why))?;
        let data_home = match (env.get("XDG_DATA_HOME"), env.get("HOME")) {
            (Some(folder), _) if folder.starts_with('/') => PathBuf::from(folder),
            (Some(folder), _) => {
                return Err(Error::setting("XDG_DATA_HOME", format!("'{folder}' is not an absolute path")));
            }
            (None, Some(home)) => PathBuf::from(home).join(".local/share"),
            (None, None) => {
                return Err(Error::usage("neither XDG_DATA_HOME nor HOME is set")
                    .hint("in a systemd unit, Environment=HOME=/root sets it"));
            }
        };
        Ok(LocalSettings {
            bucket: bucket.to_string(),
            prefix: prefix.to_string(),
            data_folder: data_home.join("zfs2s3"),
        })
    }
}

/// `zfs`, or the command that is used instead.
pub fn zfs_words(env: &Env) -> Vec<String> {
    env.get("ZFS2S3_ZFS").unwrap_or("zfs").split_whitespace().map(str::to_string).collect()
}

impl UploadSettings {
    pub fn new(env: &Env) -> Result<Self> {
        let storage_class = env.get("ZFS2S3_STORAGE_CLASS").unwrap_or("STANDARD");
        let storage_class = StorageClass::from_setting(storage_class)
            .map_err(|why| Error::setting("ZFS2S3_STORAGE_CLASS", why))?;
        let mut warnings = Vec::new();
        if !storage_class.is_documented() {
            warnings.push(format!(
                "S3 does not document the storage class '{storage_class}'; it is used as it is"
            ));
        }
        let standard_below = env.get("ZFS2S3_STANDARD_BELOW").map(parse_size).transpose();
        let standard_below = standard_below.map_err(|why| Error::setting("ZFS2S3_STANDARD_BELOW", why))?;
        let lock_days = env.get("ZFS2S3_LOCK_DAYS").map(|text| match text.parse() {
            Ok(days @ 1..=MAX_LOCK_DAYS) => Ok(days),
            _ => Err(Error::setting(
                "ZFS2S3_LOCK_DAYS",
                format!("'{text}' is not a number of days from 1 to {MAX_LOCK_DAYS}"),
            )),
        });
        let lock_mode = env.get("ZFS2S3_LOCK_MODE").unwrap_or("GOVERNANCE").parse();
        Ok(UploadSettings {
            storage_class,
            lock_days: lock_days.transpose()?,
            lock_mode: lock_mode.map_err(|why| Error::setting("ZFS2S3_LOCK_MODE", why))?,
            standard_below: standard_below.unwrap_or(0),
            chunking: ChunkingSettings::new(env)?,
            filter: filter(env)?,
            warnings,
        })
    }
}

/// The Object Lock of a new upload.
#[derive(Clone, Copy)]
pub struct LockRequest {
    pub retention: Retention,
    /// Its length is the same for each upload, so that of a base ends earlier.
    pub by_days: bool,
}

impl UploadSettings {
    /// The Object Lock that the user asks for. `until`: that of the command line, which comes first.
    pub fn lock(&self, until: Option<&str>, now: Utc) -> Result<Option<LockRequest>> {
        let by_days = until.is_none();
        let until = match until {
            Some(text) => Some(Utc::from_date(text).map_err(|why| Error::usage(format!("-l: {why}")))?),
            None => {
                let end = |days| {
                    let end = now.plus_days(days);
                    end.ok_or_else(|| {
                        Error::setting("ZFS2S3_LOCK_DAYS", format!("{days} days from now is out of range"))
                    })
                };
                self.lock_days.map(end).transpose()?
            }
        };
        if until.is_some_and(|until| until <= now) {
            return Err(Error::usage("-l: the date is past"));
        }
        let request = |until| LockRequest { retention: Retention { mode: self.lock_mode, until }, by_days };
        Ok(until.map(request))
    }
}

impl RemoteSettings {
    pub fn new(env: &Env, local: &LocalSettings) -> Result<Self> {
        let profile = Profile::load(env)?;
        let endpoint = Endpoint::new(env, &profile, &local.bucket)?;
        let bandwidth = match env.get("ZFS2S3_BWLIMIT").map(parse_size) {
            None => None,
            Some(Ok(0)) => {
                return Err(Error::setting("ZFS2S3_BWLIMIT", "with 0 bytes a second no transfer would end"));
            }
            Some(Ok(rate)) => Some(rate),
            Some(Err(why)) => return Err(Error::setting("ZFS2S3_BWLIMIT", why)),
        };
        let ca_bundle =
            env.get("AWS_CA_BUNDLE").or(profile.get("ca_bundle")).map(|path| env.expand_home(path));
        let patience = test_only(env, "ZFS2S3_TEST_PATIENCE_MS")
            .map_or(Duration::from_secs(15 * 60), Duration::from_millis);
        let credentials = CredentialSource::new(env, &profile);
        let helper_limit =
            test_only(env, "ZFS2S3_TEST_HELPER_MS").map_or(HELPER_LIMIT, Duration::from_millis);
        let reply_limit =
            test_only(env, "ZFS2S3_TEST_REPLY_MS").map_or(MAX_REPLY_TIME, Duration::from_millis);
        let lacks = env.get("ZFS2S3_TEST_LACKS").filter(|_| cfg!(debug_assertions)).map(str::to_string);
        Ok(RemoteSettings {
            proxy: Proxy::of(env, &endpoint.url)?,
            headers: requests::headers(env)?,
            encryption: requests::encryption(env)?,
            checksums: Checksums::new(env, &profile)?,
            endpoint,
            credentials,
            ca_bundle,
            memory: memory(env)?,
            bandwidth,
            patience,
            lacks,
            helper_limit,
            reply_limit,
        })
    }
}

/// How often the position of a deep verification is saved.
pub fn save_every(env: &Env) -> Duration {
    Duration::from_secs(test_only(env, "ZFS2S3_TEST_SAVE_EVERY").unwrap_or(10))
}

/// Smaller limits, so that tests need neither gigabytes nor a quarter of an hour. Not in release builds.
fn test_only(env: &Env, name: &str) -> Option<u64> {
    if !cfg!(debug_assertions) {
        return None;
    }
    env.get(name)?.parse().ok()
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>, less strictly: other
/// servers allow more.
fn check_bucket(bucket: &str) -> Result<(), String> {
    if bucket.starts_with("arn:") {
        return Err("an ARN is not supported: name the access point's alias instead".to_string());
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if bucket.len() > 255 || bucket.starts_with('.') || bucket.contains("..") || !bucket.bytes().all(fine) {
        return Err(format!("'{bucket}' cannot be the name of a bucket"));
    }
    Ok(())
}

/// A prefix is put before each key unchanged. Keys with a `.` or `..` segment do not survive in URLs.
fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.len() > 512 {
        return Err("longer than 512 bytes".to_string());
    }
    if prefix.chars().any(char::is_control) {
        return Err("it has a control character".to_string());
    }
    if prefix.starts_with('/') || prefix.contains("//") || prefix.split('/').any(|s| s == "." || s == "..") {
        return Err(format!("'{prefix}' has an empty, '.' or '..' segment, which some servers drop"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let env = Env::of(&[("HOME", "/home/me"), ("ZFS2S3_BUCKET", "")]);
        let local = LocalSettings::new(&env).unwrap();
        assert_eq!((local.bucket.as_str(), local.prefix.as_str()), ("zfs2s3", ""));
        assert_eq!(local.data_folder, PathBuf::from("/home/me/.local/share/zfs2s3"));
        let upload = UploadSettings::new(&env).unwrap();
        assert!(upload.storage_class.is_standard());
        let chunking = |endpoint: &str| upload.chunking.for_stream(endpoint, None, false);
        assert_eq!(
            chunking("https://s3.example.org"),
            Chunking { chunk_size: 8 << 20, parts_per_segment: 10_000 }
        );
        assert_eq!(chunking("https://s3.fr-par.scw.cloud").parts_per_segment, 1_000);
        let fewer = UploadSettings::new(&Env::of(&[("ZFS2S3_PARTS", "7")])).unwrap();
        assert_eq!(
            fewer.chunking.for_stream("https://s3.fr-par.scw.cloud", None, false).parts_per_segment,
            7
        );
        assert_eq!(zfs_words(&env), ["zfs"]);
        assert_eq!(zfs_words(&Env::of(&[("ZFS2S3_ZFS", "ssh  nas zfs")])), ["ssh", "nas", "zfs"]);
    }

    #[test]
    fn an_undocumented_storage_class_is_used_with_a_warning() {
        let class = |name| UploadSettings::new(&Env::of(&[("ZFS2S3_STORAGE_CLASS", name)]));
        assert!(class("GLACIER_IR").unwrap().warnings.is_empty());
        let unknown = class("COLD9").unwrap();
        assert_eq!((unknown.storage_class.as_str(), unknown.warnings.len()), ("COLD9", 1));
        assert!(class("A\r\nx-evil: 1").is_err());
        let lock = |days, mode| {
            UploadSettings::new(&Env::of(&[("ZFS2S3_LOCK_DAYS", days), ("ZFS2S3_LOCK_MODE", mode)]))
        };
        let locked = lock("30", "compliance").unwrap();
        assert_eq!((locked.lock_days, locked.lock_mode), (Some(30), Mode::Compliance));
        assert!(lock("0", "").is_err() && lock("-1", "").is_err() && lock("1", "soft").is_err());
        let small = UploadSettings::new(&Env::of(&[("ZFS2S3_STANDARD_BELOW", "128K")])).unwrap();
        assert_eq!(small.standard_below, 128 << 10);
        assert!(UploadSettings::new(&Env::of(&[("ZFS2S3_STANDARD_BELOW", "small")])).is_err());
    }

    #[test]
    fn invalid_variables_are_named() {
        let home = ("HOME", "/h");
        for (name, value) in [
            ("ZFS2S3_BUCKET", "a/b"),
            ("ZFS2S3_BUCKET", ".."),
            ("ZFS2S3_PREFIX", "/nas"),
            ("ZFS2S3_PREFIX", "a/../b"),
            ("ZFS2S3_PREFIX", "a\nb"),
            ("XDG_DATA_HOME", "relative"),
        ] {
            let error = LocalSettings::new(&Env::of(&[home, (name, value)])).err().expect(value);
            assert!(error.message.starts_with(name), "{error}");
        }
        for value in ["0", "10001", "many"] {
            assert!(UploadSettings::new(&Env::of(&[("ZFS2S3_PARTS", value)])).is_err(), "{value}");
        }
        for value in ["4M", "6G", "x", "16MB"] {
            assert!(UploadSettings::new(&Env::of(&[("ZFS2S3_CHUNK_SIZE", value)])).is_err(), "{value}");
        }
        let local = LocalSettings::new(&Env::of(&[home])).unwrap();
        for (name, value) in [
            ("ZFS2S3_JOBS", "0"),
            ("ZFS2S3_JOBS", "999"),
            ("ZFS2S3_BWLIMIT", "0"),
            ("ZFS2S3_MEMORY", "20M"),
            ("ZFS2S3_MEMORY", "x"),
        ] {
            let error = RemoteSettings::new(&Env::of(&[home, (name, value)]), &local).err().expect(value);
            assert!(error.message.starts_with(name), "{error}");
        }
    }
}
