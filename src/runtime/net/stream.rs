//! Stream sockets for tasks that await: the futures-lite I/O traits over [`Socket`].

use super::{Endpoint, Pollable as _, Socket};
use crate::runtime::time;
use futures_lite::io::{AsyncRead, AsyncWrite};
use std::io;
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A connected stream with `AsyncRead` and `AsyncWrite`; one reading and one writing task at most.
pub struct Stream {
    socket: Socket,
}

impl Stream {
    /// Connects within `limit`.
    ///
    /// # Errors
    /// Refused, unreachable, or `TimedOut`; the caller knows the endpoint and names it.
    pub async fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<Stream> {
        Stream::connect_from(None, endpoint, limit).await
    }

    /// The same from one of this host's addresses.
    ///
    /// # Errors
    /// As there, or the address is none of this host's.
    pub async fn connect_from(
        from: Option<IpAddr>,
        endpoint: &Endpoint,
        limit: Duration,
    ) -> io::Result<Stream> {
        let socket = Socket::start_connect(from, endpoint)?;
        match time::timeout(limit, std::future::poll_fn(|cx| socket.poll_writable(cx))).await {
            Some(ready) => ready?,
            None => return Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out")),
        }
        socket.take_error()?;
        Ok(Stream { socket })
    }

    /// The socket, to be used without awaiting.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, to be used otherwise: it may be sent to another core.
    pub fn into_socket(self) -> Socket {
        self.socket.io().deregister();
        self.socket
    }
}

impl From<Socket> for Stream {
    /// An accepted socket, not registered with any [`super::Readiness`].
    fn from(socket: Socket) -> Stream {
        Stream { socket }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_writev(cx, buffers)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.socket.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}
