//! HTTP/1.1 over a plain socket, as little as the soak needs: it must also be able to do it wrong.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// After this long without a byte a server counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// The longest body that is read.
const LONGEST_BODY: u64 = 64 << 20;

/// A connection on which a request was sent.
pub(super) fn connect(address: &str) -> Result<TcpStream> {
    let address: SocketAddr = address
        .parse()
        .map_err(|_| Error::new(ErrorKind::InvalidInput, format!("{address} is no address")))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The bytes of a request whose connection ends with the answer.
pub(super) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: bitnet\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Sends a request and reads the head of the answer.
pub(super) fn send(address: &str, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    let mut stream = connect(address)?;
    // A server may answer a request it does not like before it has read all of it.
    let sent = stream.write_all(&request(method, path, body));
    Answer::read(stream).map_err(|error| sent.err().unwrap_or(error))
}

/// A request whose answer is wanted whole.
pub(super) fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut answer = send(address, "GET", path, b"")?;
    Ok((answer.status, answer.text()?))
}

/// How the end of a body is known.
enum Length {
    Chunked { left: u64, ended: bool },
    Fixed(u64),
    UntilClosed,
}

/// An answer whose head was read.
pub(super) struct Answer {
    pub(super) status: u16,
    body: BufReader<TcpStream>,
    length: Length,
}

impl Answer {
    /// Reads the head of an answer.
    pub(super) fn read(stream: TcpStream) -> Result<Self> {
        let mut body = BufReader::new(stream);
        let status = line(&mut body)?;
        let code = status
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok());
        let status = code.ok_or_else(|| broken(&format!("the answer begins with {status:?}")))?;
        let mut length = Length::UntilClosed;
        loop {
            let header = line(&mut body)?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if header == "transfer-encoding: chunked" {
                length = Length::Chunked { left: 0, ended: false };
            } else if let Some(bytes) = header.strip_prefix("content-length:") {
                length = Length::Fixed(bytes.trim().parse().map_err(|_| broken(&header))?);
            }
        }
        Ok(Self { status, body, length })
    }

    /// The next line of the body without its end, or `None` behind the last.
    pub(super) fn line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        loop {
            if self.some(&mut byte)? == 0 {
                return if bytes.is_empty() { Ok(None) } else { text(bytes).map(Some) };
            }
            match byte[0] {
                b'\n' => return text(bytes).map(Some),
                byte => bytes.push(byte),
            }
        }
    }

    /// The data of the next event of a stream, or `None` behind the last.
    pub(super) fn event(&mut self) -> Result<Option<String>> {
        while let Some(line) = self.line()? {
            if let Some(data) = line.strip_prefix("data: ") {
                return Ok(Some(data.trim_end().to_owned()));
            }
        }
        Ok(None)
    }

    /// The rest of the body.
    pub(super) fn text(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.some(&mut buffer)? {
                0 => return text(bytes),
                length => bytes.extend_from_slice(&buffer[..length]),
            }
            if bytes.len() as u64 > LONGEST_BODY {
                return Err(broken("the body does not end"));
            }
        }
    }

    /// Some bytes of the body, none at its end. A body that ends early is an error.
    fn some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = match &mut self.length {
            Length::UntilClosed => return self.body.read(buffer),
            Length::Fixed(left) => left,
            Length::Chunked { ended: true, .. } => return Ok(0),
            Length::Chunked { left, ended } => {
                if *left == 0 {
                    *left = chunk_size(&mut self.body)?;
                    *ended = *left == 0;
                }
                left
            }
        };
        if *left == 0 {
            return Ok(0);
        }
        let limit = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.body.read(&mut buffer[..limit])?;
        if length == 0 {
            return Err(broken("the body ends early"));
        }
        *left -= length as u64;
        let chunk_ended = *left == 0 && matches!(self.length, Length::Chunked { .. });
        if chunk_ended && !line(&mut self.body)?.is_empty() {
            return Err(broken("a chunk has no end"));
        }
        Ok(length)
    }
}

/// The size of the next chunk; behind the last the trailers are read as well.
fn chunk_size(body: &mut BufReader<TcpStream>) -> Result<u64> {
    let header = line(body)?;
    let digits = header.split(';').next().unwrap_or_default().trim();
    let size =
        u64::from_str_radix(digits, 16).map_err(|_| broken(&format!("{header:?} is no chunk size")))?;
    if size == 0 {
        while !line(body)?.is_empty() {}
    }
    Ok(size)
}

fn line(body: &mut BufReader<TcpStream>) -> Result<String> {
    let mut bytes = Vec::new();
    if body.take(1 << 16).read_until(b'\n', &mut bytes)? == 0 {
        return Err(Error::new(ErrorKind::UnexpectedEof, "the connection was closed"));
    }
    text(bytes).map(|line| line.trim_end().to_owned())
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| broken("the answer is not UTF-8"))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Reads what a server that writes `answer` says.
    fn answer(answer: &'static str) -> Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let answer = send(&address, "GET", "/", b"");
        server.join().unwrap();
        answer
    }

    #[test]
    fn bodies_end_as_their_heads_say() {
        let fixed = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd";
        assert_eq!(answer(fixed).unwrap().text().unwrap(), "abc");
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nrest";
        assert_eq!(answer(chunked).unwrap().text().unwrap(), "abcde");
        let closed = "HTTP/1.1 404 Not Found\r\n\r\nabc";
        let mut read = answer(closed).unwrap();
        assert_eq!((read.status, read.text().unwrap().as_str()), (404, "abc"));
    }

    #[test]
    fn early_ends_are_errors() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
        ] {
            assert!(answer(text).unwrap().text().is_err(), "{text}");
        }
        for text in ["", "HTTP/1.1 2", "nonsense\r\n\r\n"] {
            assert!(answer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn events_are_read_across_chunks() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndata: ab\r\n8\r\nc\n\ndata:\r\n5\r\n d\n\n\n\r\n0\r\n\r\n";
        let mut answer = answer(text).unwrap();
        assert_eq!(answer.event().unwrap().as_deref(), Some("abc"));
        assert_eq!(answer.event().unwrap().as_deref(), Some("d"));
        assert_eq!(answer.event().unwrap(), None);
    }
}
