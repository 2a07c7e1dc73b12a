//! The object README.zfs2s3.txt, for someone who has nothing but the bucket. Pure.

use crate::model::shell::in_quotes;

/// Its key, which no backup can have.
pub fn key(prefix: &str) -> String {
    format!("{prefix}README.zfs2s3.txt")
}

/// Its text. The end-to-end check runs these very command lines.
pub fn text(endpoint: &str, region: &str, bucket: &str, prefix: &str) -> String {
    let (bucket, prefix) = (in_quotes(bucket), in_quotes(prefix));
    let is_aws = endpoint.contains(".amazonaws.com");
    let server = format!("    export AWS_ENDPOINT_URL='{}'\n", in_quotes(endpoint));
    let server = if is_aws { String::new() } else { server };
    format!(
        "\
The objects beside this one are ZFS snapshots, stored by zfs2s3.

    DATASET@SNAPSHOT/GUID-full-ID.zfs          the whole snapshot: what 'zfs send' gave
    DATASET@SNAPSHOT/GUID-from-BASE-ID.zfs     the changes since the snapshot with the guid BASE
    ...zfs.2, ...zfs.3 and so on               further segments of the same stream
    ...yml                                     what zfs2s3 knows of it: sizes and checksums

ID is different for each upload. Of two copies that differ only in it, either will do. An object without .yml beside it is not complete.

With zfs2s3, on any host with ZFS:

{server}    export AWS_REGION='{region}'
    export ZFS2S3_BUCKET='{bucket}' ZFS2S3_PREFIX='{prefix}'
    zfs2s3 recover
    zfs2s3 restore DATASET@SNAPSHOT NEWDATASET

With nothing but the AWS tools and ZFS: first the full one, then the one that is from its guid, and so on to the one you want.

{server}    export AWS_REGION='{region}'
    aws s3 cp 's3://{bucket}/{prefix}DATASET@SNAPSHOT/GUID-full-ID.zfs' - | zfs receive -u NEWDATASET
    aws s3 cp 's3://{bucket}/{prefix}DATASET@SNAPSHOT/GUID-from-BASE-ID.zfs' - | zfs receive -u NEWDATASET

Where there are further segments, all of them in a row make the stream: .zfs.2 after .zfs, .zfs.10 after .zfs.9.

    {{ aws s3 cp 's3://{bucket}/{prefix}DATASET@SNAPSHOT/GUID-full-ID.zfs' - && aws s3 cp 's3://{bucket}/{prefix}DATASET@SNAPSHOT/GUID-full-ID.zfs.2' -; }} | zfs receive -u NEWDATASET

If the .yml has a line 'filter: COMMAND', the stream went through that command, chunk by chunk. With zfs2s3, set ZFS2S3_UNFILTER to its inverse, such as 'age -d -i KEY | zstd -dc'. Without it: the .yml has the size of each filtered chunk, after its SHA-256; 'head' is that of GNU; and where there are further segments, all of them are read in a row.

    aws s3 cp 's3://{bucket}/{prefix}DATASET@SNAPSHOT/GUID-full-ID.yml' - | awk '/^ +[0-9a-f]+ [0-9]+$/ {{ print $2 }}' >sizes
    aws s3 cp 's3://{bucket}/{prefix}DATASET@SNAPSHOT/GUID-full-ID.zfs' - | while read -r size <&3; do head -c \"$size\" | age -d -i KEY | zstd -dc || exit 1; done 3<sizes | zfs receive -u NEWDATASET

If the command only compresses, with zstd or gzip, the whole can be decompressed at once:

    aws s3 cp 's3://{bucket}/{prefix}DATASET@SNAPSHOT/GUID-full-ID.zfs' - | zstd -dc | zfs receive -u NEWDATASET

What lies in the storage classes GLACIER or DEEP_ARCHIVE must be restored first: 'aws s3api restore-object'.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_key_is_not_that_of_a_backup_and_its_text_names_the_bucket() {
        assert_eq!(crate::model::keys::parse("nas/", &key("nas/")), None);
        let text = text("https://s3.example.org", "eu-x", "b", "nas/");
        assert!(text.contains(
            "aws s3 cp 's3://b/nas/DATASET@SNAPSHOT/GUID-full-ID.zfs' - | zfs receive -u NEWDATASET\n"
        ));
        assert_eq!(text.matches("    export AWS_ENDPOINT_URL='https://s3.example.org'\n").count(), 2);
        assert_eq!(text.matches("    export AWS_REGION='eu-x'\n").count(), 2);
        assert!(
            !self::text("https://s3.eu-west-1.amazonaws.com", "eu-west-1", "b", "")
                .contains("AWS_ENDPOINT_URL")
        );
        assert!(self::text("", "r", "b", "it's/").contains("'s3://b/it'\\''s/DATASET"));
        assert!(text.contains("    { aws s3 cp") && text.contains("-; } | zfs"));
    }
}
