//! The region in the names of AWS's own endpoints. Pure.
//! <https://docs.aws.amazon.com/general/latest/gr/s3.html>

/// `eu-west-3` of `bucket.s3.eu-west-3.amazonaws.com`, of `s3.dualstack.eu-west-3.amazonaws.com`, of
/// `s3-eu-west-3.amazonaws.com`.
pub fn of_host(host: &str) -> Option<String> {
    let names = host.strip_suffix(".amazonaws.com").or(host.strip_suffix(".amazonaws.com.cn"))?;
    let last = names.rsplit('.').next()?;
    let region = last.strip_prefix("s3-").unwrap_or(last);
    (region.contains('-') && !region.starts_with("s3")).then(|| region.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_awss_names() {
        for (host, region) in [
            ("b.s3.eu-west-3.amazonaws.com", Some("eu-west-3")),
            ("s3.dualstack.us-east-2.amazonaws.com", Some("us-east-2")),
            ("s3-ap-south-1.amazonaws.com", Some("ap-south-1")),
            ("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("s3.amazonaws.com", None),
            ("b.s3.amazonaws.com", None),
            ("s3.example.org", None),
        ] {
            assert_eq!(of_host(host).as_deref(), region, "{host}");
        }
    }
}
