//! What a node and a guard say to each other: one byte there, five bytes back.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as BlockingStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::net::UnixStream;

/// To a guard: the server's pipes come with it.
const START: u8 = b'S';
/// To a guard: SIGTERM for the server's process group.
pub const TERMINATE: u8 = b'T';
/// To a guard: kill everything.
pub const KILL: u8 = b'K';
/// From a guard: the server's process id.
pub const STARTED: u8 = b's';
/// From a guard: the error of the system for which there is no server.
pub const FAILED: u8 = b'f';
/// From a guard: the status with which the server has ended.
pub const ENDED: u8 = b'e';

/// A byte that says what it is, and a number.
pub const FRAME_BYTES: usize = 5;

/// The node's ends of a server's pipes.
pub struct Pipes {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Makes the pipes of a server and passes its ends to the guard.
pub fn send_pipes(to: &BlockingStream) -> io::Result<Pipes> {
    let ((stdin_read, stdin), (stdout, stdout_write), (stderr, stderr_write)) =
        (io::pipe()?, io::pipe()?, io::pipe()?);
    let ends = [stdin_read.as_fd(), stdout_write.as_fd(), stderr_write.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&ends)) {
        return Err(nonsense());
    }
    sendmsg(to, &[IoSlice::new(&[START])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(Pipes { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() })
}

/// The server's ends of its pipes, as the guard gets them.
pub fn receive_pipes(from: &BlockingStream) -> io::Result<[OwnedFd; 3]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut ends = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            ends.extend(received);
        }
    }
    match (byte, <[OwnedFd; 3]>::try_from(ends)) {
        ([START], Ok(ends)) => Ok(ends),
        _ => Err(nonsense()),
    }
}

/// What a guard says.
pub fn frame(what: u8, number: i32) -> [u8; FRAME_BYTES] {
    let [a, b, c, d] = number.to_le_bytes();
    [what, a, b, c, d]
}

/// A frame that is being read.
#[derive(Default)]
pub struct Frame {
    bytes: [u8; FRAME_BYTES],
    filled: usize,
}

impl Frame {
    /// The next one. Cancel safe.
    pub async fn read(&mut self, from: &UnixStream) -> io::Result<(u8, i32)> {
        while self.filled < FRAME_BYTES {
            from.readable().await?;
            match from.try_read(&mut self.bytes[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.filled = 0;
        let [what, a, b, c, d] = self.bytes;
        Ok((what, i32::from_le_bytes([a, b, c, d])))
    }
}

pub fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the guard and the node do not understand each other")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn pipes_arrive_as_what_they_were() {
        let (node, guard) = BlockingStream::pair().unwrap();
        let pipes = send_pipes(&node).unwrap();
        let [stdin, stdout, _] = receive_pipes(&guard).unwrap();
        std::fs::File::from(stdout).write_all(b"said").unwrap();
        let mut said = [0; 4];
        std::fs::File::from(pipes.stdout).read_exact(&mut said).unwrap();
        assert_eq!(&said, b"said");
        drop(pipes.stdin);
        assert_eq!(std::fs::File::from(stdin).read(&mut said).unwrap(), 0, "nobody else holds it open");
    }

    #[tokio::test]
    async fn a_frame_comes_in_any_number_of_pieces() {
        let (node, mut guard) = BlockingStream::pair().unwrap();
        node.set_nonblocking(true).unwrap();
        let node = UnixStream::from_std(node).unwrap();
        let mut frame = Frame::default();
        let bytes = super::frame(ENDED, -2);
        guard.write_all(&bytes[..2]).unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), frame.read(&node)).await;
        assert!(early.is_err());
        guard.write_all(&bytes[2..]).unwrap();
        assert_eq!(frame.read(&node).await.unwrap(), (ENDED, -2));
        drop(guard);
        assert!(frame.read(&node).await.is_err());
    }
}
