//! Services of the operating system: clock, environment, host name, random numbers, helper processes,
//! pipes through them, threads, mutexes, signals; the trace that `--verbose` shows; and the steps at which
//! tests end the program.

pub mod clock;
pub mod env;
pub mod host;
pub mod mutex;
pub mod pipe;
pub mod process;
pub mod random;
pub mod signals;
pub mod step;
pub mod thread;
pub mod trace;
