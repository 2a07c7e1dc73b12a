//! The replies of S3 as types. Pure. They are parsed as XML, never searched: servers escape quotes in three
//! ways.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use percent_encoding::percent_decode_str;
use quick_xml::de::from_str;
use rust_s3::serde_types::InitiateMultipartUploadResponse;
use serde::Deserialize;

/// The body of an error, even one with status 200.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ErrorBody {
    pub code: String,
    pub message: String,
    /// The region of the bucket, if it is another one.
    pub region: String,
    pub endpoint: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// As S3 writes it.
    pub modified: String,
    /// Empty if the server does not list it.
    pub etag: String,
}

#[derive(Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The query parameters for the next page; none on the last.
    pub next: Option<Vec<(&'static str, String)>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedPart {
    pub part_number: u16,
    #[serde(rename = "ETag")]
    pub etag: String,
    pub size: u64,
    #[serde(rename = "ChecksumSHA256")]
    pub checksum_sha256: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedUpload {
    pub key: String,
    pub upload_id: String,
    /// As S3 writes it.
    pub initiated: Option<String>,
}

fn text(body: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(body).map_err(|_| "the reply is not UTF-8".to_string())
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    from_str(text(body)?).map_err(|e| format!("the reply is not the one that S3 documents: {e}"))
}

/// Parses an element whose children are all optional, so that an element with another name must be refused.
/// `name`: how its name begins; on some servers it ends in Response.
pub(super) fn parse_named<'a, T: Deserialize<'a>>(body: &'a [u8], name: &str) -> Result<T, String> {
    match root(text(body)?) {
        Some(found) if found.starts_with(name) => parse(body),
        found => Err(format!(
            "the reply is not the one that S3 documents: {} is not {name}",
            found.unwrap_or("it")
        )),
    }
}

/// The name of the outermost element, without its namespace.
fn root(text: &str) -> Option<&str> {
    let mut rest = text.trim_start().trim_start_matches('\u{feff}').trim_start();
    while let Some(after) = rest.strip_prefix("<?") {
        rest = after.split_once("?>")?.1.trim_start();
    }
    let name = rest.strip_prefix('<')?.split(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).next()?;
    Some(name.rsplit(':').next().unwrap_or(name))
}

/// The `<Error>` in a body, if it is one: a reply with status 200 may be an error, too.
pub fn error(body: &[u8]) -> Option<ErrorBody> {
    let text = text(body).ok()?;
    if root(text) != Some("Error") {
        return None;
    }
    Some(from_str(text).unwrap_or_default())
}

/// With status 200 it is no success: an error after all, or a page that something in between has for people.
pub fn is_error_or_page(body: &[u8]) -> bool {
    // in whatever encoding
    let text = String::from_utf8_lossy(body);
    let mut rest = text.trim_start();
    while let Some(after) = rest.strip_prefix("<!--") {
        rest = after.split_once("-->").map_or("", |(_, after)| after.trim_start());
    }
    let name = root(rest).unwrap_or_default().to_lowercase();
    name == "error"
        || ["html", "!doctype", "head", "body", "title", "meta", "script"].contains(&name.as_str())
}

/// Bytes. Those of AWS have about 130.
const MAX_UPLOAD_ID: usize = 4 << 10;

/// The upload ID, and if it cannot be used, the reason: it must fit into a record of the journal.
pub fn upload_id(body: &[u8]) -> Result<(String, Option<String>), String> {
    let id = parse::<InitiateMultipartUploadResponse>(body)?.upload_id;
    let unusable = match id.len() {
        0 => Some("the upload ID is empty".to_string()),
        len if len > MAX_UPLOAD_ID => {
            Some(format!("the upload ID has {len} bytes, more than the maximum of {MAX_UPLOAD_ID}"))
        }
        _ => None,
    };
    Ok((id, unusable))
}

/// `prefix`: the one in the request.
pub fn objects(body: &[u8], prefix: &str) -> Result<Page<Object>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListObjects {
        #[serde(default)]
        is_truncated: bool,
        next_continuation_token: Option<String>,
        encoding_type: Option<String>,
        #[serde(default)]
        contents: Vec<Contents>,
    }
    /// Some servers omit everything else that AWS has here.
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Contents {
        key: String,
        size: u64,
        #[serde(default)]
        last_modified: String,
        #[serde(rename = "ETag", default)]
        etag: String,
    }
    let read: ListObjects = parse_named(body, "ListBucket")?;
    let is_encoded = is_url(read.encoding_type.as_deref());
    let last = read.contents.last().map(|last| decoded(last.key.clone(), is_encoded, prefix));
    let next = match (read.is_truncated, read.next_continuation_token, last) {
        (false, ..) => None,
        (true, Some(token), _) => Some(vec![("continuation-token", token)]),
        // a server that knows only the first version of this call
        (true, None, Some(last)) => Some(vec![("marker", last.clone()), ("start-after", last)]),
        (true, None, None) => {
            return Err("the listing is truncated, but has no marker for the next page".to_string());
        }
    };
    let object = |o: Contents| Object {
        key: decoded(o.key, is_encoded, prefix),
        size: o.size,
        modified: o.last_modified,
        etag: o.etag,
    };
    let items = read.contents.into_iter().map(object).collect();
    Ok(Page { items, next })
}

fn is_url(encoding: Option<&str>) -> bool {
    encoding.is_some_and(|encoding| encoding.trim() == "url")
}

/// A key in a listing with `encoding-type=url`: a space is `+`, as in a form. Some servers do not encode a
/// `+`, and some claim to encode and do not: the right reading is the one that begins with the requested
/// prefix.
fn decoded(key: String, is_encoded: bool, prefix: &str) -> String {
    if !is_encoded || !key.contains(['%', '+']) {
        return key;
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|key| key.into_owned());
    let readings = [decode(&key.replace('+', " ")), decode(&key), Some(key)];
    let mut readings = readings.into_iter().flatten().peekable();
    let first = readings.peek().cloned().unwrap_or_default();
    readings.find(|key| key.starts_with(prefix)).unwrap_or(first)
}

/// Is it a list of parts, even an incomplete one?
pub fn is_list_of_parts(body: &[u8]) -> bool {
    text(body).ok().and_then(root).is_some_and(|root| root.starts_with("ListParts"))
}

/// Is it a listing of the bucket, whatever was asked?
pub fn is_listing(body: &[u8]) -> bool {
    text(body).ok().and_then(root) == Some("ListBucketResult")
}

pub fn parts(body: &[u8]) -> Result<Page<ListedPart>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListParts {
        #[serde(default)]
        is_truncated: bool,
        next_part_number_marker: Option<String>,
        #[serde(rename = "Part", default)]
        parts: Vec<ListedPart>,
    }
    let read: ListParts = parse_named(body, "ListParts")?;
    let next = match (read.is_truncated, read.next_part_number_marker) {
        (false, _) => None,
        (true, Some(marker)) => Some(vec![("part-number-marker", marker)]),
        (true, None) => {
            return Err("the list of parts is truncated, but has no marker for the next page".to_string());
        }
    };
    Ok(Page { items: read.parts, next })
}

/// `prefix`: what was asked for.
pub fn uploads(body: &[u8], prefix: &str) -> Result<Page<ListedUpload>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListUploads {
        #[serde(default)]
        is_truncated: bool,
        next_key_marker: Option<String>,
        next_upload_id_marker: Option<String>,
        encoding_type: Option<String>,
        #[serde(rename = "Upload", default)]
        uploads: Vec<ListedUpload>,
    }
    // a server without this call answers with a listing of the bucket
    if root(text(body)?) == Some("ListBucketResult") {
        return Ok(Page { items: vec![], next: None });
    }
    let mut read: ListUploads = parse_named(body, "ListMultipartUploads")?;
    let is_encoded = is_url(read.encoding_type.as_deref());
    for upload in &mut read.uploads {
        upload.key = decoded(std::mem::take(&mut upload.key), is_encoded, prefix);
    }
    let key = read.next_key_marker.map(|key| decoded(key, is_encoded, prefix));
    let id = read.next_upload_id_marker.map(|id| ("upload-id-marker", id));
    let next = if read.is_truncated { Some(after_key("uploads", key, id)?) } else { None };
    Ok(Page { items: read.uploads, next })
}

/// The query parameters for the next page of a list that continues after a key and an ID.
fn after_key(
    list: &str,
    key: Option<String>,
    id: Option<(&'static str, String)>,
) -> Result<Vec<(&'static str, String)>, String> {
    let key =
        key.ok_or_else(|| format!("the list of {list} is truncated, but has no marker for the next page"))?;
    Ok(std::iter::once(("key-marker", key)).chain(id).collect())
}

/// Of GetCallerIdentity.
pub fn caller_arn(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Reply {
        get_caller_identity_result: Identity,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Identity {
        arn: String,
    }
    Ok(parse::<Reply>(body)?.get_caller_identity_result.arn)
}

/// A version of an object, or a delete marker.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub key: String,
    pub version_id: String,
    pub is_latest: bool,
    pub is_marker: bool,
    /// Bytes.
    pub size: u64,
    /// As S3 writes it.
    pub modified: String,
}

/// `prefix`: the one in the request.
pub fn versions(body: &[u8], prefix: &str) -> Result<Page<Version>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListVersions {
        #[serde(default)]
        is_truncated: bool,
        next_key_marker: Option<String>,
        next_version_id_marker: Option<String>,
        encoding_type: Option<String>,
        #[serde(rename = "Version", default)]
        versions: Vec<Listed>,
        #[serde(rename = "DeleteMarker", default)]
        markers: Vec<Listed>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        key: String,
        version_id: Option<String>,
        #[serde(default)]
        is_latest: String,
        #[serde(default)]
        size: String,
        #[serde(default)]
        last_modified: String,
    }
    let read: ListVersions = parse_named(body, "ListVersions")?;
    let is_encoded = is_url(read.encoding_type.as_deref());
    let version = |is_marker| {
        move |listed: Listed| Version {
            key: decoded(listed.key, is_encoded, prefix),
            // an object from before versioning was enabled
            version_id: listed.version_id.unwrap_or_else(|| "null".to_string()),
            is_latest: listed.is_latest.trim().eq_ignore_ascii_case("true"),
            is_marker,
            size: listed.size.trim().parse().unwrap_or(0),
            modified: listed.last_modified,
        }
    };
    let key = read.next_key_marker.map(|key| decoded(key, is_encoded, prefix));
    let id = read.next_version_id_marker.map(|id| ("version-id-marker", id));
    let next = if read.is_truncated { Some(after_key("versions", key, id)?) } else { None };
    let versions = read.versions.into_iter().map(version(false));
    Ok(Page { items: versions.chain(read.markers.into_iter().map(version(true))).collect(), next })
}

/// The object, according to the reply of a successful CompleteMultipartUpload.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Completion {
    #[serde(rename = "Key")]
    _key: String,
    /// Empty on some servers.
    #[serde(rename = "ETag", default)]
    pub etag: String,
    #[serde(rename = "ChecksumSHA256")]
    pub checksum: Option<String>,
}

pub fn completed(body: &[u8]) -> Result<Completion, String> {
    parse(body)
}

/// The body of CompleteMultipartUpload: number, ETag and, if the server keeps one, SHA-256 (base64) of each
/// part.
pub fn complete_body<'a>(parts: impl Iterator<Item = (u16, &'a str, Option<String>)>) -> String {
    let mut xml = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (number, etag, checksum) in parts {
        let etag = quick_xml::escape::partial_escape(etag);
        xml.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>"));
        if let Some(checksum) = checksum {
            xml.push_str(&format!("<ChecksumSHA256>{checksum}</ChecksumSHA256>"));
        }
        xml.push_str("</Part>");
    }
    xml + "</CompleteMultipartUpload>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_not_replies() {
        for page in ["<!DOCTYPE html>", " <HTML lang=de>", "<!-- x --><head>", "<script>", "<Error></Error>"]
        {
            assert!(is_error_or_page(page.as_bytes()), "{page}");
        }
        assert!(is_error_or_page(b"<html><title>Zugang f\xfcr G\xe4ste</title>"));
        for reply in ["", "<?xml version=\"1.0\"?><CopyObjectResult/>", "<InitiateMultipartUploadResult>"] {
            assert!(!is_error_or_page(reply.as_bytes()), "{reply}");
        }
    }

    #[test]
    fn etags_in_all_the_ways_that_servers_write_them() {
        for etag in ["\"e\"", "&quot;e&quot;", "&#34;e&#34;", "&#x22;e&#x22;"] {
            let body = format!(
                "<?xml version=\"1.0\"?>\n<ListPartsResult xmlns=\"x\"><Bucket>b</Bucket><IsTruncated>true</IsTruncated>\
                 <NextPartNumberMarker>2</NextPartNumberMarker><Part><PartNumber>2</PartNumber><ETag>{etag}</ETag>\
                 <Size>5</Size><LastModified>now</LastModified></Part></ListPartsResult>"
            );
            let page = parts(body.as_bytes()).unwrap();
            let part =
                ListedPart { part_number: 2, etag: "\"e\"".to_string(), size: 5, checksum_sha256: None };
            assert_eq!(page.items, [part]);
            assert_eq!(page.next, Some(vec![("part-number-marker", "2".to_string())]));
        }
    }

    #[test]
    fn errors_also_behind_a_200() {
        let body = b"\n<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\n<Error><Code>InternalError</Code><Message>We &amp; you</Message></Error>";
        let expected = ErrorBody {
            code: "InternalError".to_string(),
            message: "We & you".to_string(),
            ..ErrorBody::default()
        };
        assert_eq!(error(body), Some(expected));
        assert_eq!(error(b"<Error"), Some(ErrorBody::default()));
        assert_eq!(
            error(b"<CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>"),
            None
        );
        assert_eq!(error(b""), None);
        assert_eq!(error(b"<html>502</html>"), None);
    }

    #[test]
    fn keys_are_decoded_where_the_server_has_encoded_them() {
        let listing = |encoding: &str, key: &str| {
            let body = format!(
                "<ListBucketResult>{encoding}<IsTruncated>false</IsTruncated><Contents><Key>{key}</Key><Size>3</Size></Contents></ListBucketResult>"
            );
            objects(body.as_bytes(), "nas").map(|page| page.items[0].key.clone())
        };
        let url = "<EncodingType>url</EncodingType>";
        assert_eq!(listing(url, "nas%2Fa+b%2Bc%0A%01%C3%A4").unwrap(), "nas/a b+c\n\u{1}ä");
        assert_eq!(listing(url, "nas/a%20b").unwrap(), "nas/a b");
        assert_eq!(listing("", "nas/a+b%2B").unwrap(), "nas/a+b%2B", "not encoded");
        assert_eq!(listing(url, "nas%FF").unwrap(), "nas%FF", "not UTF-8, so not a key of ours");
        // a prefix with a plus, on a server that only claims to encode, or encodes everything else
        let listing = |key: &str| {
            let body = format!(
                "<ListBucketResult>{url}<Contents><Key>{key}</Key><Size>3</Size></Contents></ListBucketResult>"
            );
            objects(body.as_bytes(), "a+b%/").unwrap().items[0].key.clone()
        };
        assert_eq!(listing("a%2Bb%25/c+d"), "a+b%/c d");
        assert_eq!(listing("a+b%25/c%20d"), "a+b%/c d");
        assert_eq!(listing("a+b%/c d"), "a+b%/c d");
        let body = b"<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <NextKeyMarker>a+b</NextKeyMarker><Upload><Key>a+b</Key><UploadId>a+b%</UploadId></Upload></ListMultipartUploadsResult>";
        let page = uploads(body, "").unwrap();
        assert_eq!((page.items[0].key.as_str(), page.items[0].upload_id.as_str()), ("a b", "a+b%"));
        assert_eq!(page.next, Some(vec![("key-marker", "a b".to_string())]));
    }

    #[test]
    fn a_listing_of_the_first_version_continues_after_its_last_key() {
        let body = b"<ListBucketResult><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>\
            <Contents><Key>k</Key><Size>1</Size></Contents><Contents><Key>l+m</Key><Size>1</Size></Contents></ListBucketResult>";
        let last = "l m".to_string();
        assert_eq!(
            objects(body, "").unwrap().next,
            Some(vec![("marker", last.clone()), ("start-after", last)])
        );
    }

    #[test]
    fn what_a_listing_may_lack() {
        let body = b"<ListBucketResult><Contents><Owner></Owner><Key>k</Key><Size>3</Size></Contents>\
            <Contents><Owner><DisplayName>x</DisplayName></Owner><Key>l</Key><Size>4</Size></Contents></ListBucketResult>";
        assert_eq!(objects(body, "").unwrap().items.len(), 2);
    }

    #[test]
    fn a_truncated_listing_without_a_marker_is_an_error() {
        let body = b"<ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert!(objects(body, "").unwrap_err().contains("truncated"));
        assert!(objects(b"", "").is_err());
        assert!(objects(b"<html></html>", "").is_err());
        assert!(completed(b"").is_err());
        for name in ["html", "Error", "ListAllMyBucketsResult"] {
            let body = format!("<?xml version='1.0'?><{name}></{name}>");
            assert!(objects(body.as_bytes(), "").is_err() && uploads(body.as_bytes(), "").is_err(), "{name}");
            assert!(parts(body.as_bytes()).is_err(), "{name}");
        }
        assert!(objects(b"<s3:ListBucketResult xmlns:s3='x'/>", "").is_ok());
        let of_bucket =
            uploads(b"<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>", "");
        assert_eq!(of_bucket, Ok(Page { items: vec![], next: None }), "it does not have that call");
    }

    #[test]
    fn an_upload_id_that_is_too_long_is_not_used() {
        let body = |id: &str| {
            format!(
                "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            )
        };
        assert_eq!(upload_id(body("a&amp;b").as_bytes()), Ok(("a&b".to_string(), None)));
        let unusable = |id: &str| upload_id(body(id).as_bytes()).unwrap().1.unwrap_or_default();
        assert!(unusable(&"u".repeat(4097)).contains("4097 bytes") && unusable(&"u".repeat(4096)).is_empty());
        assert!(unusable("").contains("empty"));
    }

    #[test]
    fn the_reply_of_complete() {
        let body = b"<CompleteMultipartUploadResult><Key>k</Key><ETag>&quot;e-1&quot;</ETag><ChecksumSHA256>s-1</ChecksumSHA256></CompleteMultipartUploadResult>";
        let said = completed(body).unwrap();
        assert_eq!((said.etag.as_str(), said.checksum.as_deref()), ("\"e-1\"", Some("s-1")));
        let bare = completed(b"<CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>");
        assert_eq!(bare.map(|said| (said.etag, said.checksum)), Ok((String::new(), None)));
    }

    #[test]
    fn versions_and_delete_markers_come_in_any_order() {
        let body = br#"<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
            <Prefix>p/</Prefix><KeyMarker/><VersionIdMarker/><MaxKeys>4</MaxKeys><EncodingType>url</EncodingType>
            <IsTruncated>true</IsTruncated><NextKeyMarker>p/c+d</NextKeyMarker><NextVersionIdMarker>7</NextVersionIdMarker>
            <Version><Key>p/a</Key><VersionId>null</VersionId><IsLatest>true</IsLatest><LastModified>2026-01-01T00:00:00.000Z</LastModified>
            <ETag>&quot;e&quot;</ETag><Size>3</Size><StorageClass>STANDARD</StorageClass><Owner><ID>1</ID></Owner></Version>
            <DeleteMarker><Key>p/b</Key><VersionId>m</VersionId><IsLatest>true</IsLatest><LastModified>2026-01-02T00:00:00.000Z</LastModified>
            </DeleteMarker><Version><Key>p/b</Key><VersionId>v</VersionId><IsLatest>false</IsLatest><Size>5</Size></Version>
            <DeleteMarker><Key>p/c+d</Key><VersionId>7</VersionId><IsLatest>false</IsLatest></DeleteMarker></ListVersionsResult>"#;
        let page = versions(body, "p/").unwrap();
        let shown: Vec<_> =
            page.items.iter().map(|v| (v.key.as_str(), v.is_marker, v.is_latest, v.size)).collect();
        let expected = [
            ("p/a", false, true, 3),
            ("p/b", false, false, 5),
            ("p/b", true, true, 0),
            ("p/c d", true, false, 0),
        ];
        assert_eq!(shown, expected);
        let next = vec![("key-marker", "p/c d".to_string()), ("version-id-marker", "7".to_string())];
        assert_eq!(page.next, Some(next));
        assert!(
            versions(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>", "").is_err()
        );
    }

    #[test]
    fn the_body_of_complete_is_escaped() {
        let xml = complete_body([(1, "\"a<&\"", Some("c=".to_string())), (2, "b", None)].into_iter());
        assert!(xml.contains("<ETag>\"a&lt;&amp;\"</ETag><ChecksumSHA256>c=</ChecksumSHA256>"), "{xml}");
        assert!(
            xml.ends_with("<Part><PartNumber>2</PartNumber><ETag>b</ETag></Part></CompleteMultipartUpload>"),
            "{xml}"
        );
    }
}
