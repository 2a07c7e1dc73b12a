//! Quoting for a shell, in commands that a user copies and in those that ssh passes to one. Pure.

/// One word, quoted if necessary.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", in_quotes(word))
    }
}

/// Part of a word inside single quotes.
pub fn in_quotes(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// The command that aborts an unfinished multipart upload.
pub fn abort_multipart_upload(bucket: &str, key: &str, upload_id: &str) -> String {
    let [bucket, key, upload_id] = [bucket, key, upload_id].map(quoted);
    format!("aws s3api abort-multipart-upload --bucket {bucket} --key {key} --upload-id {upload_id}")
}

/// The command that deletes a version of an object; if it is a delete marker, the object is there again.
/// None for what the AWS CLI would not take literally: it reads the file of a value such as file://x.
pub fn delete_version(bucket: &str, key: &str, version: &str) -> Option<String> {
    let is_literal = |text: &&str| {
        !["file://", "fileb://"].iter().any(|start| text.starts_with(start))
            && !text.contains(char::is_control)
    };
    if ![key, version].iter().all(is_literal) {
        return None;
    }
    let [bucket, key, version] = [bucket, key, version].map(quoted);
    Some(format!("aws s3api delete-object --bucket={bucket} --key={key} --version-id={version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_unchanged() {
        assert_eq!(quoted("tank/a@1"), "tank/a@1");
        assert_eq!(quoted("tank/a b@1"), "'tank/a b@1'");
        assert_eq!(quoted("a'b"), "'a'\\''b'");
        assert_eq!(quoted("$(x)"), "'$(x)'");
        assert_eq!(quoted(""), "''");
        assert_eq!(
            delete_version("b", "tank/a b@1/x.yml", "-v").unwrap(),
            "aws s3api delete-object --bucket=b --key='tank/a b@1/x.yml' --version-id=-v"
        );
        for version in ["file:///etc/passwd", "a\nb"] {
            assert_eq!(delete_version("b", "k", version), None);
        }
        assert_eq!(
            abort_multipart_upload("b", "tank/a@2 <- tank/a@1", "id"),
            "aws s3api abort-multipart-upload --bucket b --key 'tank/a@2 <- tank/a@1' --upload-id id"
        );
    }
}
