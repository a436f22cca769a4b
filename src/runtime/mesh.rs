//! Messages between cores: bounded channels from any thread to one core, and answers for one message.

use super::mailbox::RemoteWaker;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// A channel that holds at most `capacity` messages (at least one).
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        capacity: capacity.max(1),
        state: Mutex::new(State {
            queue: VecDeque::new(),
            senders: 1,
            receiver_gone: false,
            receiver: None,
            blocked: BTreeMap::new(),
            tickets: 0,
            parting: None,
        }),
    });
    (Sender(shared.clone()), Receiver(shared))
}

/// A place for one value, to be filled on any thread and awaited on any core.
pub fn oneshot<T: Send>() -> (OneSender<T>, OneReceiver<T>) {
    let slot = Arc::new(Mutex::new(Slot { value: None, closed: false, receiver: None }));
    (OneSender(slot.clone()), OneReceiver(slot))
}

/// The message that a channel did not take.
#[derive(PartialEq, Eq)]
pub enum Full<T> {
    /// It holds as many as it may.
    Full(T),
    /// Its receiver is gone.
    Closed(T),
}

impl<T> Full<T> {
    /// The message, to be used otherwise.
    pub fn into_inner(self) -> T {
        match self {
            Full::Full(message) | Full::Closed(message) => message,
        }
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Full(_) => "the channel is full",
            Full::Closed(_) => "the channel's receiver is gone",
        })
    }
}

struct Shared<T> {
    capacity: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receiver_gone: bool,
    receiver: Option<RemoteWaker>,
    /// Tasks in `send` that wait for room, in the order they came; one entry each.
    blocked: BTreeMap<u64, RemoteWaker>,
    tickets: u64,
    /// The task that waits for the receiver's end.
    parting: Option<RemoteWaker>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, message: T) -> Result<(), Full<T>> {
        let mut state = self.lock();
        if state.receiver_gone {
            return Err(Full::Closed(message));
        }
        if state.queue.len() >= self.capacity {
            return Err(Full::Full(message));
        }
        state.queue.push_back(message);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Ok(())
    }
}

/// The sending end; clone it for every sender.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T: Send> Sender<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    /// The message comes back when the channel is full or its receiver is gone.
    pub fn try_send(&self, message: T) -> Result<(), Full<T>> {
        self.0.push(message)
    }

    /// Sends, waiting for room. Messages of one task keep their order.
    ///
    /// # Errors
    /// The message comes back when the receiver is gone.
    pub async fn send(&self, message: T) -> Result<(), T> {
        let mut waiting = Waiting { shared: &self.0, ticket: None };
        let mut message = Some(message);
        std::future::poll_fn(move |cx| {
            let Some(unsent) = message.take() else { return Poll::Ready(Ok(())) };
            match waiting.shared.push(unsent) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(Full::Closed(unsent)) => Poll::Ready(Err(unsent)),
                Err(Full::Full(unsent)) => {
                    message = Some(unsent);
                    waiting.enlist(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.lock().receiver_gone
    }

    /// Waits until the receiver is gone. For one task at a time.
    pub async fn closed(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.receiver_gone {
                return Poll::Ready(());
            }
            RemoteWaker::set(&mut state.parting, cx.waker());
            Poll::Pending
        })
        .await;
    }
}

/// The place of a task in the list of blocked senders.
struct Waiting<'a, T> {
    shared: &'a Shared<T>,
    ticket: Option<u64>,
}

impl<T> Waiting<'_, T> {
    fn enlist(&mut self, cx: &Context<'_>) {
        let mut state = self.shared.lock();
        // Room (or the end) may have come since the attempt: then nobody else would wake us.
        if state.queue.len() < self.shared.capacity || state.receiver_gone {
            cx.waker().wake_by_ref();
        }
        let ticket = self.ticket.unwrap_or_else(|| {
            state.tickets += 1;
            state.tickets
        });
        self.ticket = Some(ticket);
        state.blocked.insert(ticket, RemoteWaker::here(cx.waker()));
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.shared.lock();
        // If our wake-up was spent on us but not used, the next in line must have it.
        let spent = state.blocked.remove(&ticket).is_none();
        let room = state.queue.len() < self.shared.capacity;
        let next = if spent && room { state.blocked.pop_first() } else { None };
        drop(state);
        if let Some((_, next)) = next {
            next.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let receiver = if state.senders == 0 { state.receiver.take() } else { None };
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }
}

/// The receiving end, for one task.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T: Send> Receiver<T> {
    /// The next message; `None` when all senders are gone and all messages taken. May be dropped at any time
    /// without losing a message.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next message as a poll, for those who wait for several things at once.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(message) = state.queue.pop_front() {
            let freed = state.blocked.pop_first();
            drop(state);
            if let Some((_, sender)) = freed {
                sender.wake();
            }
            return Poll::Ready(Some(message));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        RemoteWaker::set(&mut state.receiver, cx.waker());
        Poll::Pending
    }

    /// The next message if there is one already.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        let message = state.queue.pop_front()?;
        let freed = state.blocked.pop_first();
        drop(state);
        if let Some((_, sender)) = freed {
            sender.wake();
        }
        Some(message)
    }

    /// Waits for at least one message, then moves all that wait (at most `max`) to the end of `out`. False when
    /// all senders are gone and all messages taken.
    pub async fn recv_batch(&mut self, out: &mut Vec<T>, max: usize) -> bool {
        let Some(first) = self.recv().await else { return false };
        out.push(first);
        self.drain(out, max.saturating_sub(1));
        true
    }

    /// Moves what waits (at most `max`) to the end of `out`; returns how many.
    pub fn drain(&mut self, out: &mut Vec<T>, max: usize) -> usize {
        let mut state = self.0.lock();
        let n = state.queue.len().min(max);
        out.extend(state.queue.drain(..n));
        let freed: Vec<_> = (0..n).map_while(|_| state.blocked.pop_first()).collect();
        drop(state);
        freed.into_iter().for_each(|(_, sender)| sender.wake());
        n
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_gone = true;
        let receiver = state.receiver.take();
        let unread = std::mem::take(&mut state.queue);
        let blocked = std::mem::take(&mut state.blocked);
        let parting = state.parting.take();
        drop(state);
        // Wakers and messages may run code of their own: never under the lock.
        drop((receiver, unread));
        blocked.into_values().chain(parting).for_each(RemoteWaker::wake);
    }
}

struct Slot<T> {
    value: Option<T>,
    closed: bool,
    receiver: Option<RemoteWaker>,
}

/// Fills the place. Dropping it unused tells the receiver.
pub struct OneSender<T>(Arc<Mutex<Slot<T>>>);

impl<T> OneSender<T> {
    /// Hands over the value.
    ///
    /// # Errors
    /// It comes back when nobody waits for it any more.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.closed {
            return Err(value);
        }
        // The receiver is woken when `self` drops, after this.
        slot.value = Some(value);
        Ok(())
    }

    /// Whether nobody waits for it any more.
    pub fn is_closed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

impl<T> Drop for OneSender<T> {
    fn drop(&mut self) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.closed = true;
        let receiver = slot.receiver.take();
        drop(slot);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }
}

/// Waits for the value: `None` when the sender was dropped without one.
pub struct OneReceiver<T>(Arc<Mutex<Slot<T>>>);

impl<T> Future for OneReceiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = slot.value.take() {
            return Poll::Ready(Some(value));
        }
        if slot.closed {
            return Poll::Ready(None);
        }
        RemoteWaker::set(&mut slot.receiver, cx.waker());
        Poll::Pending
    }
}

impl<T> Drop for OneReceiver<T> {
    fn drop(&mut self) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.closed = true;
        let left = (slot.receiver.take(), slot.value.take());
        drop(slot);
        drop(left);
    }
}
