//! A program that runs to its end, and what it prints.

use super::{Child, Exit, Setup};
use crate::runtime::{signal, sys};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often it is looked at whether a program has ended, or is to.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long to wait for the end of the output when the program has ended: what it has left behind may hold it open for ever.
const OUTPUT_REST: Duration = Duration::from_secs(1);
/// Bytes that are read at once.
const READ: usize = 64 << 10;

/// What a program has printed.
#[derive(Debug, Default)]
pub struct Output {
    /// On standard output.
    pub stdout: Vec<u8>,
    /// On standard error.
    pub stderr: Vec<u8>,
}

/// How a program ended that was to run to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// By itself.
    Ended(Exit),
    /// Its time was over; its group was killed.
    Late,
    /// It printed too much; its group was killed.
    Flooded,
    /// Nobody wants its output any more; its group was killed.
    Unwanted,
}

/// Bounds of such a program.
pub struct Bounds<'b> {
    /// How long it may run.
    pub time: Duration,
    /// How many bytes it may print, on each of the two.
    pub bytes: usize,
    /// Whether nobody wants its output any more.
    pub is_unwanted: &'b dyn Fn() -> bool,
}

/// Runs a program and takes what it prints. A daemon that it leaves behind lives on, also when that holds the output open; it
/// finds it closed then.
///
/// # Errors
/// As [`Child::start`].
pub fn collect(setup: &Setup, bounds: &Bounds<'_>) -> io::Result<(Finish, Output)> {
    let (child, pipes) = Child::start_piped(setup)?;
    let mut streams = pipes.map(|pipe| Stream { pipe: Some(pipe), bytes: Vec::new() });
    for pipe in streams.iter().filter_map(|stream| stream.pipe.as_ref()) {
        sys::set_nonblocking(pipe.as_fd())?;
    }
    let deadline = Instant::now() + bounds.time;
    let mut end: Option<(Exit, Instant)> = None;
    let finish = loop {
        for stream in &mut streams {
            stream.read(bounds.bytes)?;
        }
        let now = Instant::now();
        if end.is_none() {
            end = child.wait(Some(Duration::ZERO)).map(|exit| (exit, now + OUTPUT_REST));
        }
        let open: Vec<BorrowedFd<'_>> =
            streams.iter().filter_map(|stream| stream.pipe.as_ref()).map(AsFd::as_fd).collect();
        if streams.iter().any(|stream| stream.bytes.len() > bounds.bytes) {
            break Finish::Flooded;
        }
        match end {
            Some((exit, rest)) if open.is_empty() || now >= rest => break Finish::Ended(exit),
            _ if (bounds.is_unwanted)() => break Finish::Unwanted,
            None if now >= deadline => break Finish::Late,
            _ => {}
        }
        if open.is_empty() {
            child.wait(Some(LOOK_EVERY));
        } else {
            sys::wait_any_readable(&open, LOOK_EVERY);
        }
    };
    if !matches!(finish, Finish::Ended(_)) {
        child.stop(signal::KILL, Duration::ZERO);
    }
    let [stdout, stderr] = streams.map(|stream| stream.bytes);
    Ok((finish, Output { stdout, stderr }))
}

/// One end of a pipe, until it has ended, and what came.
struct Stream {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Stream {
    /// Takes what is there, up to a little more than `max`.
    fn read(&mut self, max: usize) -> io::Result<()> {
        let mut buffer = vec![0; READ];
        while let Some(pipe) = self.pipe.as_ref().filter(|_| self.bytes.len() <= max) {
            match sys::read(pipe.as_fd(), &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
