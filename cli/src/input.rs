//! Text that is piped in or read from a file: whole, up to a bound, because a device or a program may never end.

use std::io::{self, BufRead, Read};

/// The longest text that is taken, in bytes: far more than any context holds.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// All that `source` has. Fails if that is no UTF-8, or longer than [`MAX_BYTES`].
pub(crate) fn text(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    checked(text)
}

/// The next line of `source` with its line break; `None` at the end. Fails as [`text`] does.
pub(crate) fn line(source: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let n = source.take(MAX_BYTES + 1).read_line(&mut line)?;
    if n == 0 { Ok(None) } else { checked(line).map(Some) }
}

fn checked(text: String) -> io::Result<String> {
    if text.len() as u64 <= MAX_BYTES {
        return Ok(text);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {MAX_BYTES} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_time_is_taken_whole() {
        assert_eq!(text(&b"a\nb"[..]).unwrap(), "a\nb");
        let mut lines = &b"a\r\n\nb"[..];
        let mut next = || line(&mut lines).unwrap();
        assert_eq!(
            [next(), next(), next(), next()],
            ["a\r\n", "\n", "b", ""].map(|l| Some(l.to_owned()).filter(|l| !l.is_empty()))
        );
    }

    #[test]
    fn what_does_not_end_is_an_error() {
        assert_eq!(text(io::repeat(0)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(line(&mut io::BufReader::new(io::repeat(b'a'))).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(text(&b"\xff"[..]).is_err());
    }
}
