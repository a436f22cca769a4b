//! SIGHUP, SIGINT, SIGTERM: what they mean for an agent.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::Plan;
use crate::agent::AgentError;
use crate::config::Config;
use crate::runtime::signal::{self, Signal};
use crate::runtime::{process, task, time};

/// How long a graceful leave may take, as Consul's agent allows.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

/// SIGHUP reloads. SIGINT and SIGTERM leave or just stop, as `skip_leave_on_interrupt` and `leave_on_terminate` say; a
/// second one stops without leaving, and one after that at once.
pub(super) async fn obey(plan: Plan) {
    let mut signals = match signal::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!("agent: cannot listen for signals: {error}; stop it with `muster leave`");
            return;
        }
    };
    let leaving = Rc::new(Cell::new(false));
    loop {
        let signal = match signals.next().await {
            Ok(signal) => signal,
            Err(error) => {
                tracing::error!("agent: signals are not heard any more: {error}");
                return;
            }
        };
        tracing::info!("agent: Caught signal: {signal}");
        match signal {
            // It is ending already; whoever asks again means at once, whatever holds it up.
            Signal::Interrupt | Signal::Terminate if plan.shutdown.is_raised() => {
                process::kill_all();
                std::process::exit(1);
            }
            Signal::Hangup => reload_on_signal(&plan),
            _ if leaving.replace(true) || !is_graceful(&plan.config.load(), signal) => {
                tracing::info!("agent: Graceful shutdown disabled. Exiting");
                plan.shutdown.raise();
            }
            _ => leave_on_signal(&plan),
        }
    }
}

fn is_graceful(config: &Config, signal: Signal) -> bool {
    match signal {
        Signal::Interrupt => !config.skip_leave_on_interrupt,
        Signal::Terminate => config.leave_on_terminate,
        Signal::Hangup => false,
    }
}

fn reload_on_signal(plan: &Plan) {
    let door = plan.door.clone();
    task::spawn(async move {
        if let Err(AgentError { text, .. }) = door.reload().await {
            tracing::error!("agent: the configuration was not reloaded, the old one stays: {text}");
        }
    })
    .detach();
}

fn leave_on_signal(plan: &Plan) {
    tracing::info!("agent: Gracefully shutting down agent...");
    let plan = plan.clone();
    task::spawn(async move {
        match time::timeout(LEAVE_LIMIT, plan.door.leave()).await {
            Some(Ok(())) => tracing::info!("agent: Graceful exit completed"),
            Some(Err(AgentError { text, .. })) => tracing::error!("agent: Error on leave: {text}"),
            None => tracing::warn!("agent: Timeout on graceful leave. Exiting"),
        }
        plan.shutdown.raise();
    })
    .detach();
}
