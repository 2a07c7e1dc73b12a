//! Resuming an interrupted `zfs receive -s` from stored chunks. `partial` is what it has kept, `locate` finds
//! where the stream continues, and `search` reads as few chunks as possible for that.

pub mod locate;
pub mod partial;
pub mod search;
