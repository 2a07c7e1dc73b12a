//! What an interrupted `zfs receive -s` has kept: the contents of its resume token. Pure.
//!
//! `zfs send -nvP -t TOKEN` prints them (OpenZFS lib/libzfs/libzfs_sendrecv.c, zfs_send_resume_impl), also on
//! a host that does not have the snapshot. A line is a tab, a name, ` = `, and a value; numbers are
//! hexadecimal.

use crate::model::backup::Link;
use crate::model::names::Guid;
use crate::stream::record::Record;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialReceive {
    /// The stream.
    pub link: Link,
    /// The name of the snapshot on the host that sent it.
    pub name: String,
    /// Where to resume: the last object and offset that were certainly received.
    pub object: u64,
    pub offset: u64,
    /// How many bytes were read after the BEGIN record: those up to that place, and some more.
    pub bytes: u64,
    /// The kind of stream.
    pub features: Features,
}

/// What may differ between streams of one snapshot: each changes how the data are divided into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    pub large_blocks: bool,
    pub embedded: bool,
    pub compressed: bool,
    pub raw: bool,
}

/// All that this version understands. A part of a redacted stream, for example, has more.
const FIELDS: [&str; 10] = [
    "object",
    "offset",
    "bytes",
    "toguid",
    "fromguid",
    "toname",
    "largeblockok",
    "embedok",
    "compressok",
    "rawok",
];

impl PartialReceive {
    /// None: the text does not describe a token.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let fields: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.strip_prefix('\t')?.split_once(" = ")).collect();
        if fields.is_empty() {
            return Ok(None);
        }
        if let Some((name, _)) = fields.iter().find(|(name, _)| !FIELDS.contains(name)) {
            return Err(format!("its resume token has the field '{name}', which this version does not know"));
        }
        let partial = Self::of_fields(&fields);
        partial.map(Some).ok_or_else(|| "its resume token is invalid".to_string())
    }

    fn of_fields(fields: &[(&str, &str)]) -> Option<Self> {
        let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
        let number = |name: &str| u64::from_str_radix(value(name)?.strip_prefix("0x")?, 16).ok();
        let has = |name: &str| value(name).is_some();
        let base = match value("fromguid") {
            None => None,
            Some(_) => Guid::new(number("fromguid")?),
        };
        Some(PartialReceive {
            link: Link { snapshot: Guid::new(number("toguid")?)?, base },
            name: value("toname")?.to_string(),
            object: number("object")?,
            offset: number("offset")?,
            bytes: number("bytes")?,
            features: Features {
                large_blocks: has("largeblockok"),
                embedded: has("embedok"),
                compressed: has("compressok"),
                raw: has("rawok"),
            },
        })
    }
}

impl Features {
    /// Of a stream that begins with this BEGIN record: `DMU_BACKUP_FEATURE_*`, as `drr_versioninfo` has them,
    /// 2 bits up.
    pub fn of(begin: &Record) -> Self {
        let has = |feature: u32| begin.u64(16) & (1 << (feature + 2)) != 0;
        Features { large_blocks: has(19), embedded: has(16), compressed: has(22), raw: has(24) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_as_zfs_prints_it() {
        let text = "resume token contents:\nnvlist version: 0\n\tobject = 0x16\n\toffset = 0x20000\n\tbytes = 0x48b50\n\t\
                    toguid = 0xbe3b45c974703092\n\ttoname = tank/a b@x = y\n\tcompressok = 1\n\trawok = 1\n\
                    cannot resume send: 'tank/a b@x = y' used in the initial send no longer exists\n";
        let partial = PartialReceive::parse(text).unwrap().unwrap();
        assert_eq!((partial.object, partial.offset, partial.bytes), (22, 131_072, 297_808));
        assert_eq!(
            (partial.link.snapshot.number(), partial.link.base, partial.name.as_str()),
            (13_707_626_622_376_489_106, None, "tank/a b@x = y")
        );
        let Features { large_blocks, embedded, compressed, raw } = partial.features;
        assert_eq!([large_blocks, embedded, compressed, raw], [false, false, true, true]);
        let incremental = text.replace("\ttoname", "\tfromguid = 0x10\n\ttoname");
        assert_eq!(PartialReceive::parse(&incremental).unwrap().unwrap().link.base, Guid::new(16));
        let redacted = text.replace("\tcompressok", "\tbook_redact_snaps = 0x1 0x2\n\tcompressok");
        assert!(PartialReceive::parse(&redacted).unwrap_err().contains("'book_redact_snaps'"));
        for nothing in ["", "cannot resume send: resume token is corrupt\n", "something new\n"] {
            assert_eq!(PartialReceive::parse(nothing), Ok(None));
        }
        for bad in [
            "\tobject = 0x16\n",
            &text.replace("0x16", "22"),
            &text.replace("\ttoname", "\tfromguid = x\n\ttoname"),
        ] {
            assert!(PartialReceive::parse(bad).is_err(), "{bad}");
        }
    }
}
