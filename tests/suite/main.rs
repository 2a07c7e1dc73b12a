//! The built binary, run as a user runs it, with an S3 server and a zfs of the tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod archive;
mod auto;
mod check;
mod config;
mod crash;
mod doctor;
mod faults;
mod filter;
mod format;
mod hosts;
mod list;
mod man_page;
mod object_lock;
mod older;
mod recover;
mod remove;
mod restore;
mod resume;
mod retention;
mod scripts;
mod servers;
mod support;
mod tidy;
mod together;
mod tree;
mod upload;
mod verify;
