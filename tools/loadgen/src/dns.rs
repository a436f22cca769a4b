//! Questions over DNS from threads of their own: how long answers take meanwhile, and when a name is gone.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::figures::Samples;

/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server says to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// So many records.
    Found(u16),
    /// There is no such name.
    NoSuchName,
    /// Something else.
    Refused,
}

/// A socket to a DNS server.
pub struct Asker {
    socket: UdpSocket,
    number: u16,
}

impl Asker {
    /// To `host:port`.
    ///
    /// # Errors
    /// No socket, or no such host.
    pub fn new(server: &str) -> io::Result<Asker> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        Ok(Asker { socket, number: 0 })
    }

    /// Asks for the addresses of a name; how long the answer took to arrive. The kernel stamps it when it comes to the socket: that this
    /// thread then waits for a processor among a thousand agents is no part of it.
    ///
    /// # Errors
    /// No answer in time.
    pub fn ask(&mut self, name: &str) -> io::Result<(Told, Duration)> {
        self.number = self.number.wrapping_add(1);
        let mut question = self.number.to_be_bytes().to_vec();
        question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            question.push(label.len() as u8);
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        let asked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.socket.send(&question)?;
        let mut answer = [0; 4096];
        loop {
            let (length, arrived) = self.receive(&mut answer)?;
            if length < 12 || answer[..2] != self.number.to_be_bytes() {
                continue;
            }
            let found = u16::from_be_bytes([answer[6], answer[7]]);
            let told = match answer[3] & 15 {
                0 => Told::Found(found),
                3 => Told::NoSuchName,
                _ => Told::Refused,
            };
            return Ok((told, arrived.saturating_sub(asked)));
        }
    }

    /// The next answer: its length, and when it came, since 1970.
    fn receive(&self, answer: &mut [u8]) -> io::Result<(usize, Duration)> {
        let mut space = nix::cmsg_space!(TimeSpec);
        let mut parts = [IoSliceMut::new(answer)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
        let stamp = message.cmsgs().find_map(|part| match part {
            ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
            _ => None,
        });
        let arrived = stamp.ok_or_else(|| io::Error::other("the kernel stamps no messages"))?;
        Ok((message.bytes, arrived))
    }
}

/// Asks at a steady pace, all the time.
pub struct Prober {
    taken: Arc<Mutex<(Samples, u64)>>,
    per_second: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Prober {
    /// Begins.
    pub fn start(server: String, name: String, per_second: u32) -> Prober {
        let (taken, stop) = (Arc::new(Mutex::new((Samples::default(), 0))), Arc::new(AtomicBool::new(false)));
        let per_second = Arc::new(AtomicU32::new(per_second));
        let (samples, rate, end) = (taken.clone(), per_second.clone(), stop.clone());
        thread::spawn(move || {
            let Ok(mut asker) = Asker::new(&server) else { return };
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                let told = asker.ask(&name);
                let took = began.elapsed();
                let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                match told {
                    Ok((_, latency)) => samples.0.push(latency.as_secs_f64() * 1000.0),
                    Err(_) => samples.1 += 1,
                }
                drop(samples);
                let pause = Duration::from_secs(1) / rate.load(Ordering::Relaxed).max(1);
                thread::sleep(pause.saturating_sub(took));
            }
        });
        Prober { taken, per_second, stop }
    }

    /// From now on asks so often.
    pub fn pace(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// Latencies since the last time, milliseconds, and how many answers were lost.
    pub fn take(&self) -> (Samples, u64) {
        std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits until names are gone (or there), for so long at most; how long each took, if it did.
pub fn until(
    server: &str,
    names: &[String],
    gone: bool,
    patience: Duration,
    began: Instant,
) -> io::Result<Vec<Option<Duration>>> {
    let mut asker = Asker::new(server)?;
    let mut took = vec![None; names.len()];
    while took.contains(&None) && began.elapsed() < patience {
        for (name, took) in names.iter().zip(&mut took).filter(|(_, took)| took.is_none()) {
            let told = asker.ask(name).map(|(told, _)| told);
            let is_gone = matches!(told, Ok(Told::NoSuchName | Told::Found(0)));
            let is_there = matches!(told, Ok(Told::Found(1..)));
            if gone && is_gone || !gone && is_there {
                *took = Some(began.elapsed());
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(took)
}
