//! The least that moving the bytes can cost, for `make bench`.
//!
//!     floor CHUNK_BYTES ADDRESS        standard input in chunks, one SHA-256 pass, a write to a socket
//!     floor read CHUNK_BYTES ADDRESS   a socket in chunks, one SHA-256 pass, a write to standard output
//!     floor sink, floor source FILE    the other ends: they print their address, and count for nothing

// nobody's data depend on it
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use ring::digest::{Context, SHA256, digest};

/// Bytes a write.
const PIECE: usize = 128 << 10;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["sink"] => {
            let mut from = accept();
            let mut buffer = vec![0; 1 << 20];
            while from.read(&mut buffer).unwrap() > 0 {}
        }
        ["source", path] => {
            let mut file = std::fs::File::open(path).unwrap();
            std::io::copy(&mut file, &mut accept()).unwrap();
        }
        ["read", chunk, address] => {
            pass(TcpStream::connect(address).unwrap(), std::io::stdout().lock(), chunk.parse().unwrap());
        }
        [chunk, address] => {
            pass(std::io::stdin().lock(), TcpStream::connect(address).unwrap(), chunk.parse().unwrap());
        }
        _ => panic!("see the top of this file"),
    }
}

fn accept() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    listener.accept().unwrap().0
}

fn pass(mut from: impl Read, mut to: impl Write, chunk: usize) {
    let mut buffer = vec![0; chunk];
    let mut sums = Context::new(&SHA256);
    loop {
        let mut filled = 0;
        while filled < chunk {
            match from.read(&mut buffer[filled..]).unwrap() {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            break;
        }
        sums.update(digest(&SHA256, &buffer[..filled]).as_ref());
        buffer[..filled].chunks(PIECE).for_each(|piece| to.write_all(piece).unwrap());
    }
    eprintln!("{:?}", sums.finish());
}
