//! `template`: renders files from what agents know, and again when that changes, as consul-template does.

mod feeds;
mod flags;
mod object;
mod programs;
mod progress;
mod runner;
mod settings;
mod world;
mod write;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::client::Client;
use super::usage::Command;
use super::{Outcome, Program};
use crate::config::flags::Parsed;
use crate::runtime::child::Exit;
use crate::runtime::signal::Caught;
use crate::template::Dependency;
use feeds::{Manner, News};
use runner::{End, Runner};
use settings::Settings;

/// Events that wait to be taken in; whoever has more waits.
const EVENTS: usize = 1024;
/// How often a signal is offered that nobody had room for.
const OFFER_EVERY: Duration = Duration::from_millis(50);
/// The stack of the thread that executes templates: it bounds how deep they may nest.
const STACK: usize = 64 << 20;

/// The exit codes of consul-template.
const FAILED: u8 = 14;
const BAD_SETTINGS: u8 = 10;
const INTERRUPTED: u8 = 11;

/// What happens.
enum Event {
    /// Something became known.
    News(Dependency, News),
    /// A signal came.
    Signal(i32),
    /// The program has ended that was started as so many-th.
    Ended(u64, Exit),
    /// Nothing is left of that program, which was to end.
    Stopped(u64),
}

/// `template`.
pub const TEMPLATE: Program = Program {
    command: Command {
        name: "template",
        summary: "Renders templates from services, nodes and keys",
        usage: "template [options]",
        text: "Renders templates in the language of consul-template into files, and again whenever what they show has changed. A file is replaced as a whole, and only if it has changed; then its command runs.\n\nA template may use services, nodes, keys, datacenters, files and the environment; docs/TEMPLATE.md has all functions.\n\n    muster template -template \"haproxy.ctmpl:/etc/haproxy/haproxy.cfg:systemctl reload haproxy\"",
    },
    flags: flags::ALL,
    run,
};

fn run(flags: &Parsed) -> Outcome {
    if !flags.args.is_empty() {
        return Err(format!("extra args: {:?}", flags.args));
    }
    let failed = |code: u8, why: String| {
        eprintln!("{why}");
        Ok(ExitCode::from(code))
    };
    let mut settings = match Settings::load(flags) {
        Ok(settings) => settings,
        Err(why) => return failed(BAD_SETTINGS, why),
    };
    let caught = Caught::block().map_err(|why| format!("cannot take signals: {why}"))?;
    let is_ending = Arc::new(AtomicBool::new(false));
    let receiver = Arc::new(Mutex::new(None));
    hand_on(caught, receiver.clone(), is_ending.clone());
    loop {
        let (to, events) = sync_channel(EVENTS);
        *receiver.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Listener { to: to.clone(), settings: settings.clone() });
        // What came while nobody listened.
        if is_ending.load(Ordering::Relaxed) {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let manner = match manner(&settings) {
            Ok(manner) => manner,
            Err(why) => return failed(BAD_SETTINGS, why),
        };
        let (own, ending) = (settings.clone(), is_ending.clone());
        let thread = thread::Builder::new().name("templates".to_owned()).stack_size(STACK).spawn(move || {
            match Runner::new(own, manner, (to, events), ending) {
                Ok(mut runner) => runner.run(),
                Err(why) => End::Failed(why),
            }
        });
        let thread = thread.map_err(|why| format!("cannot start a thread: {why}"))?;
        let end =
            thread.join().unwrap_or_else(|_| End::Failed("the thread that renders has panicked".to_owned()));
        match end {
            End::Done => return Ok(ExitCode::SUCCESS),
            End::Stopped => return Ok(ExitCode::from(INTERRUPTED)),
            End::Child(code) => return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
            End::Failed(why) => return failed(FAILED, why),
            End::Reload => match Settings::load(flags) {
                Ok(fresh) => settings = fresh,
                Err(why) => eprintln!("the settings stay as they were: {why}"),
            },
        }
    }
}

/// Who takes signals.
struct Listener {
    to: SyncSender<Event>,
    settings: Settings,
}

/// Hands signals to whoever listens at the time. It never waits for them to be taken: the next one may be what ends whoever
/// is too busy to take them.
fn hand_on(caught: Caught, listener: Arc<Mutex<Option<Listener>>>, is_ending: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut waiting = VecDeque::new();
        while let Ok(number) = caught.next((!waiting.is_empty()).then_some(OFFER_EVERY)) {
            let listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(number) = number.filter(|number| !waiting.contains(number)) {
                // A template or a command that runs ends, too.
                let is_end = listener.as_ref().is_some_and(|one| one.settings.ends_with(number));
                is_ending.fetch_or(is_end, Ordering::Relaxed);
                waiting.push_back(number);
            }
            if let Some(listener) = &*listener {
                offer(&mut waiting, &listener.to);
            }
        }
    });
}

/// Hands on what is taken at once.
fn offer(waiting: &mut VecDeque<i32>, to: &SyncSender<Event>) {
    while let Some(number) = waiting.pop_front() {
        if let Err(TrySendError::Full(_)) = to.try_send(Event::Signal(number)) {
            waiting.push_front(number);
            return;
        }
        // Nobody there any more: the next one has not begun, and what is lost is a wish to reload.
    }
}

fn manner(settings: &Settings) -> Result<Manner, String> {
    let parsed = Parsed { flags: settings.client.clone(), args: Vec::new() };
    Ok(Manner {
        client: Arc::new(Client::new(&parsed)?),
        datacenter: settings.datacenter.clone(),
        max_stale: settings.max_stale,
        wait: settings.block_wait,
    })
}
