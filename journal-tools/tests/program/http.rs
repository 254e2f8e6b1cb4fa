//! A server for one request: it answers with given bytes, whatever is asked.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

/// The address of a server that answers one request with `answer`, and hangs up.
pub(crate) fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let head = BufReader::new(stream.try_clone().expect("a second handle"));
        let asked: Vec<String> = head.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        assert_eq!(asked.first().map(String::as_str), Some("GET /journal HTTP/1.1"));
        // A program that has read enough hangs up first.
        let _ = stream.write_all(&answer);
    });
    format!("http://{address}")
}

/// An answer whose body comes in chunks, as a stream does.
pub(crate) fn chunked(status: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(1_000) {
        answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
        answer.extend(chunk);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\n\r\n");
    answer
}
