//! The command line. The man page has the same commands and options; a test compares them.

use argh::{FromArgs, SubCommands};

use crate::error::Error;

/// Back up ZFS snapshots incrementally to S3. See zfs2s3(1).
#[derive(FromArgs, Debug, PartialEq)]
pub struct Cli {
    #[argh(subcommand)]
    pub command: Command,
}

#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand)]
pub enum Command {
    Upload(UploadArgs),
    Resume(ResumeUploadArgs),
    Abort(AbortUploadArgs),
    Remove(RemoveArgs),
    Keep(KeepArgs),
    Unkeep(UnkeepArgs),
    List(ListArgs),
    Restore(RestoreArgs),
    Download(DownloadArgs),
    Thaw(ThawArgs),
    Verify(VerifyArgs),
    Doctor(DoctorArgs),
    Check(CheckArgs),
    Recover(RecoverArgs),
}

/// A field that the arguments of every command have.
macro_rules! field {
    ($command:expr, $field:ident) => {
        match $command {
            Command::Upload(args) => args.$field,
            Command::Resume(args) => args.$field,
            Command::Abort(args) => args.$field,
            Command::Remove(args) => args.$field,
            Command::Keep(args) => args.$field,
            Command::Unkeep(args) => args.$field,
            Command::List(args) => args.$field,
            Command::Restore(args) => args.$field,
            Command::Download(args) => args.$field,
            Command::Thaw(args) => args.$field,
            Command::Verify(args) => args.$field,
            Command::Doctor(args) => args.$field,
            Command::Check(args) => args.$field,
            Command::Recover(args) => args.$field,
        }
    };
}

impl Command {
    /// Shall only warnings and errors be printed?
    pub fn is_quiet(&self) -> bool {
        field!(self, quiet)
    }

    /// Shall each command and request be printed, too? In a list, it means more columns.
    pub fn is_verbose(&self) -> bool {
        field!(self, verbose) && !matches!(self, Command::List(_))
    }
}

/// store a snapshot, in full or as the changes since a base
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "upload")]
pub struct UploadArgs {
    /// show what would be done, without doing it
    #[argh(switch, short = 'n')]
    pub dry_run: bool,
    /// for cron: resume a pending upload first, choose the base, and succeed if the snapshot is stored already
    #[argh(switch, short = 'a')]
    pub auto: bool,
    /// with -a, also store the snapshots of this name of all datasets below, each as its own backup
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// then make a bookmark of the snapshot, so that it can be a base after it is destroyed
    #[argh(switch, short = 'b')]
    pub bookmark: bool,
    /// store the changes since this snapshot or bookmark: dataset@snap, @snap, dataset#mark or #mark
    #[argh(option, short = 'i', arg_name = "base")]
    pub base: Option<String>,
    /// with -a, how many backups a chain may have; the next is a full one, or has an older base
    #[argh(option, short = 'm', arg_name = "count")]
    pub max_chain: Option<usize>,
    /// protect the objects from deletion until then, by an Object Lock: 2026-12-31, or a time as in 2026-12-31T12:00:00Z
    #[argh(option, short = 'l', arg_name = "date")]
    pub lock_until: Option<String>,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// wait so long for another zfs2s3 to end, such as 90m or 6h
    #[argh(option, short = 'w', arg_name = "age")]
    pub wait_lock: Option<String>,
    /// the snapshot: dataset@snap
    #[argh(positional)]
    pub snapshot: String,
}

/// resume the pending upload
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "resume_upload")]
pub struct ResumeUploadArgs {
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// wait so long for another zfs2s3 to end, such as 90m or 6h
    #[argh(option, short = 'w', arg_name = "age")]
    pub wait_lock: Option<String>,
}

/// abort the pending upload
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "abort_upload")]
pub struct AbortUploadArgs {
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
}

/// remove one backup, unless another depends on it
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "remove")]
pub struct RemoveArgs {
    /// show what would be done, without doing it
    #[argh(switch, short = 'n')]
    pub dry_run: bool,
    /// the base of the incremental backup to remove (default: the full backup is removed); given as for upload, or by its guid
    #[argh(option, short = 'i', arg_name = "base")]
    pub base: Option<String>,
    /// remove only the copy with this ID, as shown by 'recover'
    #[argh(option, short = 'c', arg_name = "id")]
    pub copy: Option<String>,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// wait so long for another zfs2s3 to end, such as 90m or 6h
    #[argh(option, short = 'w', arg_name = "age")]
    pub wait_lock: Option<String>,
    /// the snapshot: dataset@snap, or its guid
    #[argh(positional)]
    pub snapshot: String,
}

/// mark a backup, so that no host removes it
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "keep")]
pub struct KeepArgs {
    /// the base of the incremental backup to keep (default: the full backup is kept); given as for upload, or by its guid
    #[argh(option, short = 'i', arg_name = "base")]
    pub base: Option<String>,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// wait so long for another zfs2s3 to end, such as 90m or 6h
    #[argh(option, short = 'w', arg_name = "age")]
    pub wait_lock: Option<String>,
    /// the snapshot: dataset@snap, or its guid
    #[argh(positional)]
    pub snapshot: String,
}

/// withdraw the mark of keep
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "unkeep")]
pub struct UnkeepArgs {
    /// the base of the incremental backup (default: the full backup is meant); given as for upload, or by its guid
    #[argh(option, short = 'i', arg_name = "base")]
    pub base: Option<String>,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// wait so long for another zfs2s3 to end, such as 90m or 6h
    #[argh(option, short = 'w', arg_name = "age")]
    pub wait_lock: Option<String>,
    /// the snapshot: dataset@snap, or its guid
    #[argh(positional)]
    pub snapshot: String,
}

/// list the stored backups
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "list")]
pub struct ListArgs {
    /// for scripts: no header, fields separated by a tab
    #[argh(switch, short = 'H')]
    pub script: bool,
    /// exact numbers: sizes in bytes, times in Unix seconds
    #[argh(switch, short = 'p')]
    pub parsable: bool,
    /// as JSON
    #[argh(switch, short = 'j')]
    pub json: bool,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also show when each was last verified, and how
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// only those that could be removed now, in the order in which to remove them
    #[argh(switch, short = 'R')]
    pub removable: bool,
    /// for each dataset, the bypass that would let the most bytes go, as commands
    #[argh(switch, short = 'A')]
    pub advise: bool,
    /// only these columns, separated by commas, such as snapshot,size,age
    #[argh(option, short = 'o', long = "columns", arg_name = "columns")]
    pub columns: Option<String>,
    /// sort by this column, in ascending order; may be given several times
    #[argh(option, short = 's', long = "sort", arg_name = "column")]
    pub ascending: Vec<String>,
    /// sort by this column, in descending order; may be given several times
    #[argh(option, short = 'S', long = "sort-descending", arg_name = "column")]
    pub descending: Vec<String>,
    /// a picture of the chains, for 'dot' of Graphviz
    #[argh(switch)]
    pub dot: bool,
    /// also those of the datasets below
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// only this dataset's backups
    #[argh(positional)]
    pub dataset: Option<String>,
}

/// restore a snapshot from its chain of backups
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "restore")]
pub struct RestoreArgs {
    /// show what would be done, without doing it
    #[argh(switch, short = 'n')]
    pub dry_run: bool,
    /// before restoring, discard what an interrupted receive has left in the target
    #[argh(switch, short = 'A')]
    pub discard: bool,
    /// also restore the datasets below, each at its newest snapshot, or at the one with this name
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// set the properties that were kept with the backup, where that is harmless, and print the commands for the others
    #[argh(switch, short = 'P')]
    pub preserve: bool,
    /// a property of the new dataset, as for 'zfs receive'; may be given several times
    #[argh(option, short = 'o', long = "property", arg_name = "property=value")]
    pub properties: Vec<String>,
    /// thaw what is archived, wait until it can be read, and restore it
    #[argh(switch, short = 'w')]
    pub wait: bool,
    /// with -w, how long copies stay readable; default: 7
    #[argh(option, short = 'd', arg_name = "days")]
    pub days: Option<u32>,
    /// with -w, how fast: bulk (the default, and the cheapest), standard or expedited
    #[argh(option, short = 't', arg_name = "tier")]
    pub tier: Option<String>,
    /// the snapshot: dataset@snap, or its guid; or a dataset, which means its newest snapshot
    #[argh(positional)]
    pub snapshot: String,
    /// the dataset to restore into: a new one, or one that an earlier restore made
    #[argh(positional)]
    pub target: String,
}

/// write the stream of one backup to standard output
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "download")]
pub struct DownloadArgs {
    /// the base of the incremental backup to write (default: the full backup is written); given as for upload, or by its guid
    #[argh(option, short = 'i', arg_name = "base")]
    pub base: Option<String>,
    /// write what is stored, even if it was filtered
    #[argh(switch)]
    pub raw_object: bool,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// the snapshot: dataset@snap, or its guid
    #[argh(positional)]
    pub snapshot: String,
}

/// have S3 make archived backups readable, which takes hours, and show how far it is
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "thaw")]
pub struct ThawArgs {
    /// show what would be thawed, how long it takes, and what is billed, without doing it
    #[argh(switch, short = 'n')]
    pub dry_run: bool,
    /// how long copies stay readable; default: 7
    #[argh(option, short = 'd', arg_name = "days")]
    pub days: Option<u32>,
    /// how fast: bulk (the default, and the cheapest), standard or expedited
    #[argh(option, short = 't', arg_name = "tier")]
    pub tier: Option<String>,
    /// as for 'restore -A': what an interrupted receive has left in the target does not count
    #[argh(switch, short = 'A')]
    pub discard: bool,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// only the full backup of the snapshot, for 'download'
    #[argh(switch, short = 'f')]
    pub full: bool,
    /// only the incremental backup from this base, for 'download'; given as for upload, or by its guid
    #[argh(option, short = 'i', arg_name = "base")]
    pub base: Option<String>,
    /// the snapshot: dataset@snap, or its guid
    #[argh(positional)]
    pub snapshot: String,
    /// the dataset to restore into; what it has already is not thawed
    #[argh(positional)]
    pub target: Option<String>,
}

/// verify that the stored backups can be restored, without reading them unless -s or -D is given
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "verify")]
pub struct VerifyArgs {
    /// as JSON
    #[argh(switch, short = 'j')]
    pub json: bool,
    /// also read so many percent of the chunks of each object, at least one
    #[argh(option, short = 's', arg_name = "percent")]
    pub sample: Option<String>,
    /// also read everything; if it is stopped, the same command continues
    #[argh(switch, short = 'D')]
    pub deep: bool,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// only the backups that these snapshots need: dataset@snap, or a guid
    #[argh(positional)]
    pub snapshots: Vec<String>,
}

/// check what could make a backup, removal or restore fail later
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "doctor")]
pub struct DoctorArgs {
    /// as JSON
    #[argh(switch, short = 'j')]
    pub json: bool,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
}

/// for monitoring: fail unless each dataset has a recent backup
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "check")]
pub struct CheckArgs {
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// how old the newest backup may be: 90m, 26h (the default) or 2d
    #[argh(option, short = 'm', arg_name = "age")]
    pub max_age: Option<String>,
    /// also the datasets below, except those that are excluded from 'upload -r'
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// the datasets that must have one (default: those that have any)
    #[argh(positional)]
    pub datasets: Vec<String>,
}

/// rebuild the store from the bucket
#[derive(FromArgs, Debug, PartialEq)]
#[argh(subcommand, name = "recover")]
pub struct RecoverArgs {
    /// show what would be added, without adding it
    #[argh(switch, short = 'n')]
    pub dry_run: bool,
    /// also change a store that is not empty: add and update entries, and cancel this host's own interrupted removals
    #[argh(switch, short = 'm')]
    pub merge: bool,
    /// for cron: only warnings and errors
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// also each command that is run, and each request to S3
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// cancel the unfinished removals of the host with this name; use only if it, or its store, is gone for good
    #[argh(option, short = 'r', arg_name = "host")]
    pub revive: Option<String>,
}

const SEE: &str = "see 'zfs2s3 --help' or 'man zfs2s3'";

fn commands() -> impl Iterator<Item = &'static str> {
    Command::COMMANDS.iter().map(|command| command.name)
}

/// What the arguments request.
pub enum Invocation {
    Run(Command),
    /// Help, or the version.
    Print(String),
}

pub fn parse(args: &[String]) -> Result<Invocation, Error> {
    let args = split_switches(args);
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(first) = args.first().copied() else {
        return Err(Error::usage("no command given").hint(SEE));
    };
    if matches!(first, "--version" | "-V") {
        return Ok(Invocation::Print(version() + "\n"));
    }
    for arg in &mut args {
        if *arg == "-h" {
            *arg = "--help";
        }
    }
    match Cli::from_args(&["zfs2s3"], &args) {
        Ok(cli) => Ok(Invocation::Run(cli.command)),
        Err(exit) if exit.status.is_ok() => Ok(Invocation::Print(with_version(&exit.output) + "\n")),
        Err(_) if !first.starts_with('-') && commands().all(|command| command != first) => {
            Err(unknown_command(first))
        }
        Err(exit) => Err(Error::usage(one_line(&exit.output)).hint(SEE)),
    }
}

/// With the commit, if it is known: the Makefile sets it.
fn version() -> String {
    let commit = option_env!("ZFS2S3_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    format!("zfs2s3 {}{commit}", env!("CARGO_PKG_VERSION"))
}

/// The usage of all commands does not know that option.
fn with_version(usage: &str) -> String {
    match usage.split_once("\nCommands:\n") {
        Some((before, after)) => {
            format!("{before}  --version, -V     display the version\n\nCommands:\n{after}")
        }
        None => usage.to_string(),
    }
}

fn unknown_command(word: &str) -> Error {
    let error = Error::usage(format!("there is no command '{word}'"));
    let nearest = commands().min_by_key(|command| edits(word, command));
    match nearest.filter(|command| edits(word, command) <= 2) {
        Some(command) => error.hint(format!("did you mean '{command}'?")),
        None => error.hint(format!("the commands are {}", commands().collect::<Vec<_>>().join(", "))),
    }
}

/// How many letters must be inserted, deleted, replaced or swapped with their neighbour to turn one word into
/// the other (the optimal string alignment distance).
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().take(64).collect(), other.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (n, letter) in one.iter().enumerate() {
        let mut row = vec![n + 1];
        for (m, wanted) in other.iter().enumerate() {
            let mut least = (last[m] + usize::from(letter != wanted)).min(last[m + 1] + 1).min(row[m] + 1);
            if n > 0 && m > 0 && *letter == other[m - 1] && one[n - 1] == *wanted {
                least = least.min(before_last[m - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

/// As in all ZFS commands, `-Hp` is `-H -p`, and `-i@a` is `-i @a`; also, `--base=@a` is `--base @a`.
fn split_switches(args: &[String]) -> Vec<String> {
    let mut split = Vec::new();
    let mut options = true;
    for arg in args {
        options &= arg != "--";
        let letters = arg.strip_prefix('-').filter(|letters| options && letters.len() > 1);
        match (letters, arg.split_once('=')) {
            // the ID of a copy may consist of letters only
            (Some(letters), _) if letters.starts_with('c') && letters.len() == 9 => {
                split.extend(["-c".to_string(), letters[1..].to_string()]);
            }
            (Some(letters), _) if letters.bytes().all(|b| b.is_ascii_alphabetic()) => {
                split.extend(letters.chars().map(|letter| format!("-{letter}")));
            }
            (Some(letters), _) if letters.starts_with(['i', 'o']) => {
                split.extend([format!("-{}", &letters[..1]), letters[1..].to_string()]);
            }
            (Some(letters), Some((name, value))) if letters.starts_with('-') => {
                split.extend([name.to_string(), value.to_string()]);
            }
            _ => split.push(arg.clone()),
        }
    }
    split
}

fn one_line(output: &str) -> String {
    let text = output
        .split("\n\nRun ")
        .next()
        .unwrap_or_default()
        .replace("Required positional arguments not provided:", "missing:");
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "the arguments are invalid".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Command {
        let args: Vec<String> = line.split(' ').map(str::to_string).collect();
        match parse(&args) {
            Ok(Invocation::Run(command)) => command,
            Ok(Invocation::Print(text)) => panic!("{text}"),
            Err(e) => panic!("{e}"),
        }
    }
    fn wrong(line: &str) -> String {
        let args: Vec<String> = line.split(' ').map(str::to_string).collect();
        match parse(&args) {
            Err(e) => e.message,
            _ => panic!("{line} is accepted"),
        }
    }

    #[test]
    fn commands_as_zfs_users_type_them() {
        let upload = |dry_run, base: Option<&str>| {
            Command::Upload(UploadArgs {
                dry_run,
                auto: false,
                recursive: false,
                bookmark: false,
                base: base.map(str::to_string),
                max_chain: None,
                lock_until: None,
                quiet: false,
                verbose: false,
                wait_lock: None,
                snapshot: "t@2".to_string(),
            })
        };
        assert_eq!(run("upload t@2"), upload(false, None));
        assert_eq!(run("upload -i @1 t@2"), upload(false, Some("@1")));
        assert_eq!(run("upload t@2 -i @1"), upload(false, Some("@1")));
        assert_eq!(run("upload -ni @1 t@2"), upload(true, Some("@1")));
        assert_eq!(run("upload -i@1 t@2"), upload(false, Some("@1")));
        assert_eq!(run("upload --base=@1 t@2"), upload(false, Some("@1")));
        assert_eq!(run("upload --dry-run --base #b t@2"), upload(true, Some("#b")));
        let list = ListArgs {
            script: true,
            parsable: true,
            json: false,
            quiet: false,
            verbose: false,
            removable: false,
            advise: false,
            columns: None,
            ascending: Vec::new(),
            descending: Vec::new(),
            dot: false,
            recursive: false,
            dataset: Some("t".to_string()),
        };
        assert_eq!(run("list -Hp t"), Command::List(list));
        assert_eq!(
            run("resume_upload"),
            Command::Resume(ResumeUploadArgs { quiet: false, verbose: false, wait_lock: None })
        );
    }

    #[test]
    fn mistakes_are_reported_in_one_line() {
        assert_eq!(wrong("upload"), "missing: snapshot");
        assert_eq!(wrong("upload -x t@1"), "unrecognized argument: -x");
        assert_eq!(wrong("upload a b"), "unrecognized argument: b");
        assert_eq!(wrong("frobnicate"), "there is no command 'frobnicate'");
        assert!(wrong("upload -i").contains("-i"));
        let hint = |line: &str| match parse(&[line.to_string()]) {
            Err(e) => e.hints.join(" "),
            _ => panic!("{line} is accepted"),
        };
        assert_eq!(hint("uplaod"), "did you mean 'upload'?");
        assert_eq!(
            hint("resume"),
            "the commands are upload, resume_upload, abort_upload, remove, keep, unkeep, list, restore, download, thaw, verify, doctor, check, recover"
        );
        assert_eq!(hint("ls"), "did you mean 'list'?");
        assert_eq!(hint("frobnicate"), hint("resume"));
    }
}
