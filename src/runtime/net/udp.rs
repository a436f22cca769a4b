//! Datagrams, in batches: many for one system call each way.

use super::Pollable;
use crate::runtime::reactor::{Interest, Io, READABLE, WRITABLE};
use crate::runtime::sys;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, SockRef, Socket, Type};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The longest datagram that a batch holds; longer ones are cut and marked.
pub const DATAGRAM_MAX: usize = 4096;
/// Datagrams in a batch.
const BATCH_MAX: usize = 64;

/// A non-blocking UDP socket.
pub struct Udp {
    io: Io,
}

impl Udp {
    /// Binds, by itself or (`reuseport`) beside other sockets of this process. See [`super::guard_bind_udp`] for
    /// the sockets of a server.
    ///
    /// # Errors
    /// The address is taken or may not be had.
    pub fn bind(address: SocketAddr, reuseport: bool) -> io::Result<Udp> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), None)?;
        if reuseport {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        Ok(Udp::from_socket(socket))
    }

    /// A client's socket: from any port, to one address only, and told of its ICMP errors.
    ///
    /// # Errors
    /// No route.
    pub fn connect(to: SocketAddr) -> io::Result<Udp> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM.nonblocking().cloexec(), None)?;
        socket.connect(&to.into())?;
        Ok(Udp::from_socket(socket))
    }

    pub(super) fn from_socket(socket: Socket) -> Udp {
        Udp { io: Io::new(OwnedFd::from(socket), Interest::Read) }
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The kernel does not know.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(&self.io.as_fd()).local_addr()?;
        address.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))
    }

    /// Asks for bigger buffers in the kernel, in bytes; it gives what it may.
    pub fn set_buffers(&self, receive: usize, send: usize) {
        let fd = self.io.as_fd();
        let socket = SockRef::from(&fd);
        // Best effort: smaller buffers only mean more loss under bursts.
        let _ = socket.set_recv_buffer_size(receive);
        let _ = socket.set_send_buffer_size(send);
    }

    /// From now on the kernel drops so large a share (0 to 1) of what comes, each datagram by chance: a bad network, for trials.
    ///
    /// # Errors
    /// The kernel takes no filters.
    pub fn lose(&self, share: f64) -> io::Result<()> {
        // Classic BPF (linux/filter.h): A = random; if A >= k drop, else take all.
        const LOAD_WORD: u16 = 0x20;
        const RANDOM: u32 = 0xffff_f000 + 56;
        const JUMP_IF_AT_LEAST: u16 = 0x35;
        const RETURN: u16 = 0x06;
        let taken = ((1.0 - share.clamp(0.0, 1.0)) * f64::from(u32::MAX)) as u32;
        let program = [
            SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
            SockFilter::new(JUMP_IF_AT_LEAST, 1, 0, taken),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ];
        SockRef::from(&self.io.as_fd()).attach_filter(&program)
    }

    /// Waits for input. Read with [`Udp::recv_batch`] until that gives 0.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub async fn ready(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.io.poll_ready(READABLE, cx)).await
    }

    /// Fills `batch` with what waits, at most its size; 0 when nothing does. Errors that belong to a datagram
    /// that was sent earlier are passed over.
    ///
    /// # Errors
    /// The socket is unusable.
    pub fn recv_batch(&self, batch: &mut UdpBatch) -> io::Result<usize> {
        batch.prepare_receive();
        for _ in 0..BATCH_MAX {
            // SAFETY: the headers point to buffers, names and vectors that `batch` owns and that do not move; the
            // kernel writes within the lengths given there.
            let n = unsafe {
                libc::recvmmsg(
                    self.io.as_fd().as_raw_fd(),
                    batch.headers.as_mut_ptr(),
                    BATCH_MAX as u32,
                    0,
                    std::ptr::null_mut(),
                )
            };
            match sys::check(n) {
                Ok(n) => {
                    batch.len = n.unsigned_abs() as usize;
                    return Ok(batch.len);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.io.clear_ready(READABLE);
                        return Ok(0);
                    }
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(0)
    }

    /// Sends all of `batch` and clears it. Returns how many went out: one that is refused (no route, too long) is
    /// passed over, and what finds the kernel's buffer full is dropped, as the network would.
    pub fn send_batch(&self, batch: &mut UdpBatch) -> usize {
        let mut next = 0;
        let mut sent = 0;
        while next < batch.len {
            let rest = &mut batch.headers[next..batch.len];
            // SAFETY: as in `recv_batch`; the kernel reads within the lengths that `push` set.
            let n = unsafe {
                libc::sendmmsg(
                    self.io.as_fd().as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as u32,
                    libc::MSG_NOSIGNAL,
                )
            };
            match sys::check(n) {
                Ok(n) => {
                    next += n.unsigned_abs() as usize;
                    sent += n.unsigned_abs() as usize;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => next += 1,
            }
        }
        batch.clear();
        sent
    }

    /// Waits for one datagram and its sender; for clients. Longer ones are cut to the buffer.
    ///
    /// # Errors
    /// On a connected socket: the other side refused.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        std::future::poll_fn(|cx| {
            self.io.poll_with(READABLE, cx, |fd| {
                // SAFETY: socket2 only ever writes initialised bytes into the slice, as its documentation promises.
                let room = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
                let (n, from) = SockRef::from(&fd).recv_from(room)?;
                Ok((n, from.as_socket().ok_or_else(|| io::Error::other("not an internet address"))?))
            })
        })
        .await
    }

    /// Takes one datagram that waits; `None` when none does. Errors that belong to a datagram that was sent earlier are passed over.
    ///
    /// # Errors
    /// The socket is unusable.
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        loop {
            // SAFETY: socket2 only ever writes initialised bytes into the slice, as its documentation promises.
            let room = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
            match SockRef::from(&self.io.as_fd()).recv_from(room) {
                Ok((n, from)) => match from.as_socket() {
                    Some(from) => return Ok(Some((n, from))),
                    None => continue,
                },
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.io.clear_ready(READABLE);
                        return Ok(None);
                    }
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Sends one datagram if there is room for it; otherwise it is lost, as the network would lose it. Whether it went out.
    pub fn try_send_to(&self, datagram: &[u8], to: SocketAddr) -> bool {
        SockRef::from(&self.io.as_fd()).send_to(datagram, &to.into()).is_ok()
    }

    /// Sends one datagram, waiting for room.
    ///
    /// # Errors
    /// No route, too long, or an earlier one was refused.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        let to = SockAddr::from(to);
        std::future::poll_fn(|cx| {
            self.io.poll_with(WRITABLE, cx, |fd| SockRef::from(&fd).send_to(datagram, &to))
        })
        .await
    }

    /// The same on a connected socket.
    ///
    /// # Errors
    /// As [`Udp::send_to`].
    pub async fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.io.poll_with(WRITABLE, cx, |fd| SockRef::from(&fd).send(datagram)))
            .await
    }
}

impl Pollable for Udp {
    #[allow(private_interfaces)]
    fn io(&self) -> &Io {
        &self.io
    }
}

/// Up to 64 datagrams with their addresses, received or to be sent. Reuse it: its memory (256 KiB, of which only
/// what is used becomes resident) is laid out for the kernel once.
pub struct UdpBatch {
    /// Points into the three boxes below, which live as long and are never replaced.
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_storage]>,
    buffers: Box<[u8]>,
    len: usize,
    /// Entries whose lengths were set for sending.
    pushed: usize,
}

impl Default for UdpBatch {
    fn default() -> Self {
        UdpBatch::new()
    }
}

impl UdpBatch {
    /// Empty.
    pub fn new() -> UdpBatch {
        let mut buffers = vec![0u8; BATCH_MAX * DATAGRAM_MAX].into_boxed_slice();
        // SAFETY: all-zero is a valid value of these plain C structures (null pointers, lengths of zero).
        let (name, header): (libc::sockaddr_storage, libc::mmsghdr) =
            unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
        let mut names = vec![name; BATCH_MAX].into_boxed_slice();
        let base = buffers.as_mut_ptr();
        let vector = |i: usize| libc::iovec {
            iov_base: base.wrapping_add(i * DATAGRAM_MAX).cast(),
            iov_len: DATAGRAM_MAX,
        };
        let mut vectors: Box<[libc::iovec]> = (0..BATCH_MAX).map(vector).collect();
        let mut headers = vec![header; BATCH_MAX].into_boxed_slice();
        for ((header, vector), name) in headers.iter_mut().zip(&mut vectors).zip(&mut names) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        UdpBatch { headers, vectors, names, buffers, len: 0, pushed: 0 }
    }

    /// How many datagrams it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether nothing more can be pushed.
    pub fn is_full(&self) -> bool {
        self.len == BATCH_MAX
    }

    /// A received datagram and its sender; `None` past the end and for one that was cut or has no sender.
    pub fn get(&self, index: usize) -> Option<(&[u8], SocketAddr)> {
        let header = self.headers[..self.len].get(index)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: SockAddrStorage is made to be viewed as the C structure of the same size.
        *unsafe { storage.view_as::<libc::sockaddr_storage>() } = self.names[index];
        // SAFETY: the kernel filled the name in and told its length.
        let from = unsafe { SockAddr::new(storage, header.msg_hdr.msg_namelen) }.as_socket()?;
        let length = (header.msg_len as usize).min(DATAGRAM_MAX);
        Some((&self.buffers[index * DATAGRAM_MAX..][..length], from))
    }

    /// All received datagrams that are whole.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        (0..self.len).filter_map(|index| self.get(index))
    }

    /// Adds a datagram to be sent. False (and nothing added) when the batch is full or the datagram too long.
    pub fn push(&mut self, datagram: &[u8], to: SocketAddr) -> bool {
        self.push_with(to, |buffer| match buffer.get_mut(..datagram.len()) {
            Some(room) => {
                room.copy_from_slice(datagram);
                Some(datagram.len())
            }
            None => None,
        })
    }

    /// Adds a datagram that `write` puts into the batch itself; it returns the length, or `None` for none.
    pub fn push_with(&mut self, to: SocketAddr, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        if self.is_full() {
            return false;
        }
        let index = self.len;
        let buffer = &mut self.buffers[index * DATAGRAM_MAX..][..DATAGRAM_MAX];
        let Some(length) = write(buffer).filter(|length| *length <= DATAGRAM_MAX) else { return false };
        let to = SockAddr::from(to);
        let to_length = to.len();
        let mut storage = to.as_storage();
        // SAFETY: as in `get`.
        self.names[index] = *unsafe { storage.view_as::<libc::sockaddr_storage>() };
        self.headers[index].msg_hdr.msg_namelen = to_length;
        self.vectors[index].iov_len = length;
        self.len += 1;
        self.pushed = self.pushed.max(self.len);
        true
    }

    /// Forgets its datagrams.
    pub fn clear(&mut self) {
        self.prepare_receive();
    }

    /// Gives the entries that were used their full room again.
    fn prepare_receive(&mut self) {
        let used = self.len.max(std::mem::take(&mut self.pushed));
        for (header, vector) in self.headers.iter_mut().zip(&mut self.vectors).take(used) {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            vector.iov_len = DATAGRAM_MAX;
        }
        self.len = 0;
    }
}
