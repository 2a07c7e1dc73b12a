//! What the operating system gives: the clock, the environment, the host's name, random numbers, helper processes, mutexes.

pub mod clock;
pub mod env;
pub mod host;
pub mod mutex;
pub mod process;
pub mod random;
