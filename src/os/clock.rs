//! The clock of this host.

use time::OffsetDateTime;

use crate::model::utc::Utc;

pub fn now() -> Utc {
    Utc::of(OffsetDateTime::now_utc())
}
