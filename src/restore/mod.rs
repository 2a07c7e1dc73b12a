//! Stored backups on their way back. `plan` says which ones bring a snapshot back onto a target, `stored` reads one of them,
//! checked chunk by chunk, and `receive` pipes it into `zfs receive`. Where that was interrupted, `partial` is what it has
//! kept, `locate` finds where it goes on, and `search` is how that is found.

pub mod locate;
pub mod partial;
pub mod plan;
pub mod receive;
pub mod route;
pub mod search;
pub mod stored;
