//! Renders templates until all they depend on is known, and again whenever that changes.
//!
//! One thread executes them all, from what the feeds have told. A template is executed only if something that it used has
//! changed; its file is written only if the output has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::Event;
use super::feeds::{Feeds, Manner, News};
use super::programs::{self, Ward};
use super::progress::Progress;
use super::settings::{Command, Job, Level, Settings};
use super::world::World;
use super::write::{self, Pending};
use crate::runtime::signal;
use crate::template::{Dependency, Limits, Options, Rendered, Template, Value};

/// The longest time in which nothing is looked at.
const REST_MAX: Duration = Duration::from_secs(3600);

/// A signal to end that follows so soon is the same one: `timeout` sends it twice.
const AGAIN_MIN: Duration = Duration::from_secs(1);

/// How many files go to the disk together.
const TOGETHER: usize = 128;

/// Why it ended.
pub enum End {
    /// All is rendered, and that was all.
    Done,
    /// Somebody asked for it.
    Stopped,
    /// The settings are to be read again.
    Reload,
    /// The program that lives as long as this one has ended.
    Child(i32),
    /// It cannot go on.
    Failed(String),
}

/// One template and what has become of it.
struct Task {
    job: Job,
    template: Template,
    used: BTreeSet<Dependency>,
    missing: BTreeSet<Dependency>,
    /// Since when and until when its dependencies changed; `None` when it is up to date.
    changed: Option<(Instant, Instant)>,
    is_rendered: bool,
}

/// Everything that runs.
pub struct Runner {
    settings: Settings,
    tasks: Vec<Task>,
    known: BTreeMap<Dependency, Value>,
    failures: BTreeMap<Dependency, u32>,
    wanted: BTreeSet<Dependency>,
    feeds: Feeds,
    events: Receiver<Event>,
    ward: Option<Ward>,
    is_ending: Arc<AtomicBool>,
    progress: Progress,
}

impl Runner {
    /// Reads the templates. The error names the one that cannot be read.
    pub fn new(
        settings: Settings,
        manner: Manner,
        (to, events): (SyncSender<Event>, Receiver<Event>),
        is_ending: Arc<AtomicBool>,
    ) -> Result<Runner, String> {
        let now = Instant::now();
        let tasks: Vec<Task> =
            settings.jobs.iter().map(|job| task(job, now)).collect::<Result<_, String>>()?;
        let ward = settings.exec.clone().map(|exec| Ward::new(exec, to.clone()));
        let mut progress = Progress::new(settings.level);
        for remark in &settings.remarks {
            progress.log(Level::Warn, remark);
        }
        Ok(Runner {
            tasks,
            known: BTreeMap::new(),
            failures: BTreeMap::new(),
            wanted: BTreeSet::new(),
            feeds: Feeds::new(manner, to),
            events,
            ward,
            is_ending,
            progress,
            settings,
        })
    }

    /// Runs until there is a reason to end.
    pub fn run(&mut self) -> End {
        // They are read already.
        if self.settings.only_parses {
            return End::Done;
        }
        if let Some(path) = &self.settings.pid_file
            && let Err(why) = fs::write(path, format!("{}\n", std::process::id()))
        {
            return End::Failed(format!("{}: {why}", path.display()));
        }
        let end = self.turns();
        if let Some(path) = &self.settings.pid_file
            && let Err(why) = fs::remove_file(path)
        {
            self.progress.log(Level::Warn, format!("could not remove {}: {why}", path.display()));
        }
        self.end_ward(matches!(end, End::Stopped));
        end
    }

    /// Ends the program that lives as long as this one, within its time; at once if that is asked for a second time.
    fn end_ward(&mut self, is_asked: bool) {
        let Some(ward) = &mut self.ward else { return };
        let mut asked = is_asked.then(Instant::now);
        let mut is_left = ward.stop();
        while is_left {
            match self.events.recv() {
                Ok(Event::Stopped(number)) => is_left = !ward.is_stopped(number),
                Ok(Event::Signal(number)) if !self.settings.ends_with(number) => {
                    if Some(number) != self.settings.reload_signal {
                        ward.signal(number);
                    }
                }
                Ok(Event::Signal(_)) if asked.is_some_and(|asked| asked.elapsed() >= AGAIN_MIN) => {
                    ward.signal(signal::KILL);
                }
                Ok(Event::Signal(_)) => asked = asked.or_else(|| Some(Instant::now())),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn turns(&mut self) -> End {
        loop {
            if let Err(why) = self.pass() {
                return End::Failed(why);
            }
            let rendered = self.tasks.iter().filter(|task| task.is_rendered).count();
            if rendered == self.tasks.len() {
                if let Some(ward) = &mut self.ward
                    && !self.settings.dry
                {
                    if let Err(why) = ward.start() {
                        return End::Failed(why);
                    }
                } else if self.settings.once {
                    return End::Done;
                }
            }
            if let Some(ward) = &mut self.ward {
                ward.act();
            }
            self.show(rendered);
            let rest = self.next_due().map_or(REST_MAX, |due| due.saturating_duration_since(Instant::now()));
            let mut event = match self.events.recv_timeout(rest) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            };
            // All that is there is taken in before anything is rendered.
            while let Some(one) = event {
                if let Some(end) = self.take(one) {
                    return end;
                }
                event = self.events.try_recv().ok();
            }
        }
    }

    fn show(&mut self, rendered: usize) {
        let missing: BTreeSet<&Dependency> = self.tasks.iter().flat_map(|task| &task.missing).collect();
        let missing: Vec<&Dependency> = missing.into_iter().collect();
        self.progress.state(rendered, self.tasks.len(), &missing, self.feeds.len());
    }

    /// When the next template is due that waits for quiet, or the program to hear of a change.
    fn next_due(&self) -> Option<Instant> {
        let ward = self.ward.as_ref().and_then(Ward::due);
        self.tasks.iter().filter_map(|task| self.due(task)).chain(ward).min()
    }

    /// When a template is due whose dependencies have changed.
    fn due(&self, task: &Task) -> Option<Instant> {
        let (first, last) = task.changed?;
        // What waits for something missing is not due: only an event helps it.
        match task.job.wait {
            // What was never written is wanted at once.
            Some(wait) if task.is_rendered => Some((last + wait.min).min(first + wait.max)),
            _ => Some(first),
        }
    }

    /// Takes an event in.
    fn take(&mut self, event: Event) -> Option<End> {
        match event {
            Event::News(dependency, news) => self.learn(dependency, news),
            Event::Signal(number) => self.obey(number),
            Event::Stopped(number) => {
                // The next turn starts it anew.
                self.ward.as_mut()?.is_stopped(number);
                None
            }
            Event::Ended(number, exit) => {
                self.ward.as_ref().filter(|ward| ward.is_end(number))?;
                // As a shell tells it.
                let code = exit.code.unwrap_or_else(|| 128 + exit.signal.unwrap_or(signal::KILL));
                self.progress.log(Level::Info, format!("the program has ended: {exit}"));
                Some(End::Child(code))
            }
        }
    }

    fn obey(&mut self, number: i32) -> Option<End> {
        if Some(number) == self.settings.reload_signal {
            return Some(End::Reload);
        }
        if self.settings.ends_with(number) {
            return Some(End::Stopped);
        }
        if let Some(ward) = &self.ward {
            ward.signal(number);
        }
        None
    }

    fn learn(&mut self, dependency: Dependency, news: News) -> Option<End> {
        if !self.wanted.contains(&dependency) {
            return None;
        }
        let value = match (news, &dependency) {
            (News::Here(content), Dependency::File(_)) => Ok(Value::text(&content[..])),
            (News::Here(body), _) => dependency.answer(Some(&body)),
            (News::Nothing, _) => dependency.answer(None),
            (News::Failed(why), _) => Err(why),
        };
        match value {
            Ok(value) => {
                if self.failures.remove(&dependency).is_some() {
                    self.progress.log(Level::Info, format!("{dependency}: known again"));
                }
                self.progress.log(Level::Debug, format!("{dependency}: changed"));
                let now = Instant::now();
                for task in self.tasks.iter_mut().filter(|task| task.used.contains(&dependency)) {
                    task.changed = Some((task.changed.map_or(now, |(first, _)| first), now));
                }
                self.known.insert(dependency, value);
                None
            }
            Err(why) => {
                let failures = self.failures.entry(dependency.clone()).or_default();
                *failures += 1;
                let is_last = self.settings.attempts.is_some_and(|attempts| *failures >= attempts);
                // Each failure again would fill a log for nothing.
                let level = if failures.is_power_of_two() { Level::Warn } else { Level::Debug };
                let text = format!("{dependency}: {why} (attempt {failures})");
                if is_last {
                    return Some(End::Failed(text));
                }
                self.progress.log(level, text);
                None
            }
        }
    }

    /// Renders what is due, writes what has changed, and runs the commands. What is written has its command run, even if
    /// something else fails: afterwards nobody would know that it has changed.
    fn pass(&mut self) -> Result<(), String> {
        let mut written = Vec::new();
        let mut needs_change = false;
        let mut result = self.write_due(&mut written, &mut needs_change);
        if needs_change {
            self.watch();
        }
        let mut commands: Vec<Command> = Vec::new();
        for command in written.iter().filter_map(|at| self.tasks[*at].job.command.as_ref()) {
            if !commands.contains(command) {
                commands.push(command.clone());
            }
        }
        for command in &commands {
            if !self.is_ending.load(Ordering::Relaxed) {
                let ran = self.run_command(command);
                result = result.and(ran);
            }
        }
        result?;
        if let Some(ward) = &mut self.ward
            && !written.is_empty()
        {
            ward.reload();
        }
        Ok(())
    }

    /// Renders what is due and writes what has changed: whose files those are, and whether other things are used now.
    fn write_due(&mut self, written: &mut Vec<usize>, needs_change: &mut bool) -> Result<(), String> {
        let mut pending: Vec<Pending> = Vec::new();
        let mut result = Ok(());
        let now = Instant::now();
        for at in 0..self.tasks.len() {
            if self.due(&self.tasks[at]).is_none_or(|due| due > now) {
                continue;
            }
            if self.settings.once && self.tasks[at].is_rendered {
                self.tasks[at].changed = None;
                continue;
            }
            let used = std::mem::take(&mut self.tasks[at].used);
            let changed = self.render(at, &used);
            *needs_change |= self.tasks[at].used != used;
            match changed {
                Ok(None) => {}
                Ok(Some(mut changed)) => {
                    changed.of = at;
                    pending.push(changed);
                }
                Err(why) => {
                    result = Err(why);
                    break;
                }
            }
            if pending.len() >= TOGETHER {
                result = write::commit(std::mem::take(&mut pending), written);
                if result.is_err() {
                    break;
                }
            }
        }
        let last = write::commit(pending, written);
        result.and(last)
    }

    /// Watches what the templates use now, and forgets the rest.
    fn watch(&mut self) {
        let wanted: BTreeSet<Dependency> =
            self.tasks.iter().flat_map(|task| task.used.iter().cloned()).collect();
        self.known.retain(|dependency, _| wanted.contains(dependency));
        self.failures.retain(|dependency, _| wanted.contains(dependency));
        self.feeds.watch(&wanted);
        self.wanted = wanted;
    }

    fn run_command(&mut self, command: &Command) -> Result<(), String> {
        self.progress.log(Level::Info, format!("running {}", programs::shown(command)));
        let Err(why) = programs::run(command, &self.is_ending) else { return Ok(()) };
        let of_command = |task: &&Task| task.job.command.as_ref() == Some(command);
        let is_fatal = self.tasks.iter().filter(of_command).any(|task| task.job.error_is_fatal);
        let why = format!("failed to execute command {why}");
        if is_fatal && !self.is_ending.load(Ordering::Relaxed) {
            return Err(why);
        }
        self.progress.log(Level::Error, why);
        Ok(())
    }

    /// Executes one template: the new file, if it differs from the one that is there.
    fn render(&mut self, at: usize, used_before: &BTreeSet<Dependency>) -> Result<Option<Pending>, String> {
        let task = &mut self.tasks[at];
        task.changed = None;
        let mut world = World {
            known: &self.known,
            job: &task.job,
            variables: &self.settings.about_agent,
            allows_plugins: self.settings.allows_plugins,
            dry: self.settings.dry,
            is_ending: &self.is_ending,
        };
        let Rendered { output, used, missing } = task.template.execute(&mut world, Limits::default());
        task.used = used;
        task.missing = missing;
        let output = match output {
            // What a template makes of nothing is no mistake of its own.
            _ if !task.missing.is_empty() => return Ok(None),
            Ok(output) => output,
            // That is its error, too: the signal that says so is among the events.
            Err(_) if self.is_ending.load(Ordering::Relaxed) => return Ok(None),
            Err(error) if task.job.error_is_fatal => return Err(error.to_string()),
            Err(error) => {
                // It is tried again when something changes that it used, now or before.
                task.used.extend(used_before.iter().cloned());
                self.progress.log(Level::Error, error);
                return Ok(None);
            }
        };
        task.is_rendered = true;
        if self.settings.dry {
            let name =
                task.job.destination.as_ref().map_or_else(String::new, |path| path.display().to_string());
            let shown = [format!("> {name}\n").as_bytes(), &output, b"\n"].concat();
            stdout().write_all(&shown).map_err(|why| format!("standard output: {why}"))?;
            return Ok(None);
        }
        let Some(destination) = &task.job.destination else { return Ok(None) };
        let pending = write::prepare(&task.job, destination, &output)?;
        if pending.is_some() {
            let (source, length) = (task.template.source(), output.len());
            self.progress.done(format!("rendered {source} to {} ({length} bytes)", destination.display()));
        }
        Ok(pending)
    }
}

fn task(job: &Job, now: Instant) -> Result<Task, String> {
    let (name, text) = match (&job.source, &job.contents) {
        (Some(path), _) => (path.display().to_string(), read(path)?),
        (None, contents) => ("(contents)".to_owned(), contents.clone().unwrap_or_default()),
    };
    let options = Options {
        left: job.delimiters.0.clone(),
        right: job.delimiters.1.clone(),
        missing_key_is_error: job.missing_key_is_error,
        denied: job.denied.clone(),
    };
    let template = Template::parse(&name, &text, options).map_err(|error| error.to_string())?;
    Ok(Task {
        job: job.clone(),
        template,
        used: BTreeSet::new(),
        missing: BTreeSet::new(),
        changed: Some((now, now)),
        is_rendered: false,
    })
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|why| format!("failed to read template {}: {why}", path.display()))?;
    String::from_utf8(bytes)
        .map_err(|_| format!("failed to read template {}: it is not UTF-8", path.display()))
}
