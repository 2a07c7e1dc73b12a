//! Stored backups on their way back: `stored` reads one of them, checked chunk by chunk; `plan` says which ones bring a
//! snapshot back onto a target; `partial` and `locate` go on where a receive was interrupted.

pub mod locate;
pub mod partial;
pub mod plan;
pub mod stored;
