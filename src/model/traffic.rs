//! What happens on the connections of a transfer: the requests tell it, and how many connections are used
//! depends on it, as does the progress line.

#[derive(Clone, Copy)]
pub enum Traffic {
    /// So many more bytes were sent or received; a negative number after an attempt that failed.
    Moved(i64),
    /// The server asks for fewer requests.
    SlowDown,
}

pub type Meter<'a> = &'a (dyn Fn(Traffic) + Sync);
