//! The agent's door: how any core asks the control core to change what the agent knows of itself.

use std::fmt;
use std::time::Duration;

use super::error::AgentError;
use super::registry::explain::Known;
use crate::config::definition::{CheckDefinition, ServiceDefinition};
use crate::runtime::mesh;
use crate::store::model::Status;

/// Most requests that wait for the control core. Further ones are refused with 503 at once.
pub const REQUESTS_WAITING_MAX: usize = 4096;

/// What a request asks for.
#[derive(Debug)]
pub enum Request {
    /// Registers a service from the API.
    RegisterService {
        /// The service with its checks.
        definition: Box<ServiceDefinition>,
        /// Whether checks it does not name are removed.
        replace_checks: bool,
    },
    /// Removes a service with its checks.
    DeregisterService {
        /// Its ID.
        id: String,
    },
    /// Registers a check from the API.
    RegisterCheck {
        /// The check.
        definition: Box<CheckDefinition>,
    },
    /// Removes a check.
    DeregisterCheck {
        /// Its ID.
        id: String,
    },
    /// Tells the status of a TTL check.
    UpdateTtl {
        /// Its ID.
        check_id: String,
        /// The status.
        status: Status,
        /// The output.
        output: String,
    },
    /// Turns a service's maintenance mode on or off.
    ServiceMaintenance {
        /// The service's ID.
        id: String,
        /// On or off.
        enable: bool,
        /// Why; empty for the default text.
        reason: String,
    },
    /// Turns the node's maintenance mode on or off.
    NodeMaintenance {
        /// On or off.
        enable: bool,
        /// Why; empty for the default text.
        reason: String,
    },
    /// Waits until a service's content hash is another one.
    AwaitService {
        /// The service's ID.
        id: String,
        /// The hash known.
        hash: String,
        /// The longest wait.
        wait: Duration,
    },
    /// Tells what is known of the services of one name.
    Explain {
        /// The name.
        name: String,
        /// Who wants to know.
        told: Told,
    },
    /// Reads the configuration again.
    Reload,
    /// Leaves the cluster and ends.
    Leave,
}

/// What the agent knows of its services of one name.
#[derive(Clone, Debug)]
pub struct Explained {
    /// They.
    pub services: Vec<Known>,
    /// How long ago the catalog was last known to hold all that is here.
    pub synced_ago: Option<Duration>,
}

/// The way back of an explanation.
pub struct Told(pub(super) mesh::OneSender<Explained>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

/// A request with the way back.
pub struct Envelope {
    pub(super) request: Request,
    pub(super) reply: mesh::OneSender<Result<(), AgentError>>,
}

/// The asking end; clone it for every core.
#[derive(Clone)]
pub struct Door {
    requests: mesh::Sender<Envelope>,
}

/// The answering end, for the control core.
pub struct Doorway {
    pub(super) requests: mesh::Receiver<Envelope>,
}

/// Makes a door and its other side.
pub fn door() -> (Door, Doorway) {
    let (sender, receiver) = mesh::channel(REQUESTS_WAITING_MAX);
    (Door { requests: sender }, Doorway { requests: receiver })
}

impl Door {
    /// Asks, and waits for the answer. Registrations answer once they are on disk and in the catalog (or the catalog
    /// could not be reached: anti-entropy goes on trying then).
    pub async fn ask(&self, request: Request) -> Result<(), AgentError> {
        let (reply, answer) = mesh::oneshot();
        self.requests.try_send(Envelope { request, reply }).map_err(|full| match full {
            mesh::Full::Full(_) => AgentError::unavailable(
                "the agent is busy: too many registrations and updates wait; retry after a pause",
            ),
            mesh::Full::Closed(_) => AgentError::unavailable("the agent is stopping"),
        })?;
        answer.await.unwrap_or_else(|| Err(AgentError::unavailable("the agent is stopping")))
    }

    /// Registers a service from the API.
    pub async fn register_service(
        &self,
        definition: ServiceDefinition,
        replace_checks: bool,
    ) -> Result<(), AgentError> {
        self.ask(Request::RegisterService { definition: Box::new(definition), replace_checks }).await
    }

    /// Removes a service with its checks.
    pub async fn deregister_service(&self, id: impl Into<String>) -> Result<(), AgentError> {
        self.ask(Request::DeregisterService { id: id.into() }).await
    }

    /// Registers a check from the API.
    pub async fn register_check(&self, definition: CheckDefinition) -> Result<(), AgentError> {
        self.ask(Request::RegisterCheck { definition: Box::new(definition) }).await
    }

    /// Removes a check.
    pub async fn deregister_check(&self, id: impl Into<String>) -> Result<(), AgentError> {
        self.ask(Request::DeregisterCheck { id: id.into() }).await
    }

    /// Tells the status of a TTL check.
    pub async fn update_ttl(
        &self,
        check_id: impl Into<String>,
        status: Status,
        output: impl Into<String>,
    ) -> Result<(), AgentError> {
        self.ask(Request::UpdateTtl { check_id: check_id.into(), status, output: output.into() }).await
    }

    /// What is known of the services of one name.
    ///
    /// # Errors
    /// The agent is busy or stops.
    pub async fn explain(&self, name: impl Into<String>) -> Result<Explained, AgentError> {
        let (told, explained) = mesh::oneshot();
        self.ask(Request::Explain { name: name.into(), told: Told(told) }).await?;
        explained.await.ok_or_else(|| AgentError::unavailable("the agent is stopping"))
    }

    /// Reads the configuration again, as SIGHUP does.
    pub async fn reload(&self) -> Result<(), AgentError> {
        self.ask(Request::Reload).await
    }

    /// Leaves the cluster and ends the process, as SIGINT does.
    pub async fn leave(&self) -> Result<(), AgentError> {
        self.ask(Request::Leave).await
    }
}
