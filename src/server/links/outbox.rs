//! What waits to be sent to one server.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

use muster_protocol::entry::ServerId;
use muster_protocol::rpc::{self, PeerMessage};

use crate::runtime::bell::Bell;

/// Bytes that wait for a link, beside those being written. A link that takes nothing while 16 MiB wait is as good as
/// broken (1.3 s at 100 Mbit/s); messages past it are dropped, as on a network that loses them.
pub const OUTBOX_LENGTH_MAX: usize = 16 << 20;

/// Memory that a link keeps while nothing waits, bytes.
const KEPT_LENGTH: usize = 256 << 10;

/// Frames for one server, in order. While there is no link they are dropped.
pub struct Outbox {
    /// For whom.
    pub to: ServerId,
    /// Where that server is, `ip:port`.
    address: RefCell<String>,
    frames: RefCell<Vec<u8>>,
    open: Cell<bool>,
    /// Something was dropped that the sender should hear about.
    lost: Cell<bool>,
    writer: RefCell<Option<Waker>>,
    hurry: Bell,
}

impl Outbox {
    /// Of a server at an address, without a link.
    pub fn new(to: ServerId, address: &str) -> Outbox {
        Outbox {
            to,
            address: RefCell::new(address.to_owned()),
            frames: RefCell::default(),
            open: Cell::new(false),
            lost: Cell::new(false),
            writer: RefCell::default(),
            hurry: Bell::default(),
        }
    }

    /// Where that server is.
    pub fn address(&self) -> String {
        self.address.borrow().clone()
    }

    /// It is somewhere else now: whoever waits to dial dials at once.
    pub fn set_address(&self, address: &str) {
        if *self.address.borrow() != address {
            address.clone_into(&mut self.address.borrow_mut());
            self.hurry();
        }
    }

    /// Whether there is a link.
    pub fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Adds a message, to be written together with all others that come before the writer runs. False: nothing of it was.
    pub fn push(&self, message: &PeerMessage) -> bool {
        let mut frames = self.frames.borrow_mut();
        if !self.open.get() || frames.len() >= OUTBOX_LENGTH_MAX {
            self.lost.set(true);
            return false;
        }
        if let Err(why) = rpc::encode(message, &mut frames) {
            tracing::error!(target: "agent.server", "a message to server {} was not sent: {why}", self.to);
            self.lost.set(true);
            return false;
        }
        drop(frames);
        if let Some(writer) = self.writer.borrow_mut().take() {
            writer.wake();
        }
        true
    }

    /// There is a link: messages are taken from now on.
    pub fn open(&self) {
        self.open.set(true);
    }

    /// There is no link any more; what waits is dropped.
    pub fn close(&self) {
        self.open.set(false);
        self.lost.set(true);
        *self.frames.borrow_mut() = Vec::new();
    }

    /// Whether anything was dropped since it was last asked.
    pub fn take_lost(&self) -> bool {
        self.lost.take()
    }

    /// Moves all frames that wait into `out`, which is empty. Pending when there are none.
    pub fn poll_take(&self, out: &mut Vec<u8>, cx: &Context<'_>) -> Poll<()> {
        let mut frames = self.frames.borrow_mut();
        if frames.is_empty() {
            self.writer.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        if out.capacity() > KEPT_LENGTH {
            *out = Vec::new();
        }
        std::mem::swap(&mut *frames, out);
        Poll::Ready(())
    }

    /// The server is there, or somewhere else: whoever waits to dial dials at once.
    pub fn hurry(&self) {
        self.hurry.ring();
    }

    /// Waits for [`Outbox::hurry`].
    pub async fn hurried(&self) {
        self.hurry.heard().await;
    }
}
