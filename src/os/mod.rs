//! Services of the operating system: clock, environment, host name, random numbers, helper processes,
//! mutexes; and the trace that `--verbose` shows.

pub mod clock;
pub mod env;
pub mod host;
pub mod mutex;
pub mod process;
pub mod random;
pub mod trace;
