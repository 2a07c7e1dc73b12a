//! Stored backups on their way back: `stored` reads one of them, checked chunk by chunk; `plan` says which ones bring a
//! snapshot back onto a target.

pub mod plan;
pub mod stored;
