//! The least that moving the bytes can cost, for `make bench`: one connection, one pass of SHA-256, no checks.
//!
//!     floor put CHUNK_BYTES PORT [CERTIFICATE]       standard input, a PUT for each chunk
//!     floor get KEY CHUNK_BYTES PORT [CERTIFICATE]   an object, a GET for each chunk, to standard output

// nobody's data depend on it
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use ring::digest::{Context, SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Bytes a write.
const PIECE: usize = 128 << 10;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let sums = match args.as_slice() {
        ["put", chunk, port, rest @ ..] => put(connect(port, rest), chunk.parse().unwrap()),
        ["get", key, chunk, port, rest @ ..] => get(connect(port, rest), key, chunk.parse().unwrap()),
        _ => panic!("see the top of this file"),
    };
    eprintln!("{:?}", sums.finish());
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

fn connect(port: &str, certificate: &[&str]) -> BufReader<Box<dyn Connection>> {
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let stream: Box<dyn Connection> = match certificate {
        [] => Box::new(stream),
        [path, ..] => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
            let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            let name = "localhost".try_into().unwrap();
            Box::new(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream))
        }
    };
    BufReader::new(stream)
}

fn put(mut to: BufReader<Box<dyn Connection>>, chunk: usize) -> Context {
    let mut from = std::io::stdin().lock();
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
            return sums;
        }
        sums.update(digest(&SHA256, &buffer[..filled]).as_ref());
        let stream = to.get_mut();
        write!(stream, "PUT /b/floor HTTP/1.1\r\nContent-Length: {filled}\r\n\r\n").unwrap();
        buffer[..filled].chunks(PIECE).for_each(|piece| stream.write_all(piece).unwrap());
        stream.flush().unwrap();
        assert_eq!(head(&mut to), 0);
    }
}

fn get(mut from: BufReader<Box<dyn Connection>>, key: &str, chunk: usize) -> Context {
    let mut to = std::io::stdout().lock();
    let mut buffer = vec![0; chunk];
    let mut sums = Context::new(&SHA256);
    for n in 0.. {
        let (first, last) = (n * chunk, (n + 1) * chunk - 1);
        write!(from.get_mut(), "GET /b/{key} HTTP/1.1\r\nRange: bytes={first}-{last}\r\n\r\n").unwrap();
        from.get_mut().flush().unwrap();
        let length = head(&mut from);
        from.read_exact(&mut buffer[..length]).unwrap();
        sums.update(digest(&SHA256, &buffer[..length]).as_ref());
        buffer[..length].chunks(PIECE).for_each(|piece| to.write_all(piece).unwrap());
        if length < chunk {
            break;
        }
    }
    sums
}

/// Reads the head of a reply, and returns the length of its body.
fn head(from: &mut impl BufRead) -> usize {
    let mut length = 0;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", text)) => length = text.parse().unwrap(),
            None if line.trim_end().is_empty() => return length,
            _ => {}
        }
    }
}
